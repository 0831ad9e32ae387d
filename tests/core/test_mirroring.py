"""Arguments in `Mcp-Param-*` headers, held to what the SDK says of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound

from broker.core.headers import encoded
from broker.core.mirroring import ANNOTATION, PREFIX, disagreement, fault_of, headers_for, mirrored


def annotated(name: Any, kind: Any = "string") -> dict[str, Any]:
    return {"type": kind, ANNOTATION: name}


def holding(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


SOUND: dict[str, Any] = {
    "nothing": {},
    "no schema": None,
    "not even an object": ["x"],
    "one": holding(a=annotated("A")),
    "two, of other types": holding(a=annotated("A", "integer"), b=annotated("b-2", "boolean"), c={"type": "number"}),
    "inside another": holding(a=holding(b=annotated("A"))),
    "in data": {"default": annotated("A"), "enum": [annotated("A")], "const": {ANNOTATION: 1}},
    "keywords of other shapes": {"properties": [1], "allOf": annotated("A"), "$defs": [annotated("A")], "not": 1},
    "a property of that name": holding(**{ANNOTATION: {"type": "string"}}),
}
FAULTY: dict[str, Any] = {
    "at the root": annotated("A"),
    "empty": holding(a=annotated("")),
    "no token": holding(a=annotated("a b")),
    "a new line": holding(a=annotated("a\n")),
    "no text": holding(a=annotated(5)),
    "a number": holding(a=annotated("A", "number")),
    "no type": holding(a={ANNOTATION: "A"}),
    "several types": holding(a=annotated("A", ["string"])),
    "twice": holding(a=annotated("a"), b=annotated("A")),
    "in items": holding(a={"type": "array", "items": annotated("A")}),
    "in a choice": {"anyOf": [holding(a=annotated("A"))]},
    "in a definition": {"$defs": {"x": annotated("A")}},
    "in a pattern": {"patternProperties": {"^a": annotated("A")}},
    "where a pattern leads": {"patternProperties": {"^a": holding(b=annotated("A"))}},
}


@pytest.mark.parametrize("schema", SOUND.values(), ids=SOUND)
def test_a_sound_schema_has_no_fault(schema: Any) -> None:
    assert fault_of(schema) is None
    assert inbound.find_invalid_x_mcp_header(schema) is None
    assert mirrored(schema) == inbound.x_mcp_header_map(schema)


@pytest.mark.parametrize("schema", FAULTY.values(), ids=FAULTY)
def test_a_faulty_schema_has_a_reason(schema: Any) -> None:
    assert (fault_of(schema) or "").startswith(ANNOTATION)
    assert inbound.find_invalid_x_mcp_header(schema) is not None
    assert disagreement(schema, {"a": "x"}, {"mcp-param-a": "other"}) is None


KEYWORDS = st.sampled_from(
    ["properties", "type", ANNOTATION, "items", "allOf", "$defs", "not", "a", "b", "if", "default", "prefixItems"]
)
VALUES = st.sampled_from(["string", "integer", "boolean", "number", "A", "a", "a b", "", 5, None, True])
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=20,
)
ANNOTATED = st.builds(annotated, st.sampled_from(["A", "a", "B", ""]), st.sampled_from(["string", "integer", "number"]))
LIKELY = st.recursive(
    ANNOTATED | SCHEMAS,
    lambda inner: st.builds(
        lambda properties: {"properties": properties}, st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(SCHEMAS | LIKELY)
def test_any_schema_is_judged_as_the_sdk_does(schema: Any) -> None:
    assert (fault_of(schema) is None) == (inbound.find_invalid_x_mcp_header(schema) is None)
    assert mirrored(schema) == inbound.x_mcp_header_map(schema)


def test_no_schema_is_too_deep() -> None:
    schema: Any = annotated("A")
    for _ in range(10_000):
        schema = {"not": schema}
    assert fault_of(schema) is not None


SCHEMA = holding(
    text=annotated("Text"),
    number=annotated("Number", "integer"),
    flag=annotated("Flag", "boolean"),
    deep=holding(er=annotated("Deep")),
    other={"type": "string"},
)
SCALARS: list[Any] = [
    *("a", "", " a", "grüße", "42", "true", "=?base64?YQ==?=", None, True, False, 0, 42, -42, 42.0, 4.5, 1e300),
    *(2**53 + 1, 10**40, [1], {"a": 1}),
]
HEADERS = [
    *("a", "A", "42", "42.0", "42.00", "42.5", "42.", "+42", "042", "-42", "-42.0", "4.5", "true", "True", "", "0"),
    *("9007199254740993", "9007199254740992", "1" + "0" * 40, "1e300", "1e+300", "9" * 5000, "=?base64?x?=", "None"),
    *("=?base64?YQ==?=", "=?base64?NDI=?=", encoded("=?base64?YQ==?="), encoded("grüße"), encoded(" a"), "[1]"),
]


def check(arguments: dict[str, Any], headers: dict[str, str]) -> None:
    ours = disagreement(SCHEMA, arguments, headers)
    theirs = inbound.validate_mcp_param_headers(SCHEMA, arguments, headers)
    assert (ours is None) == (theirs is None)


@pytest.mark.parametrize("value", SCALARS)
def test_arguments_are_repeated_as_the_sdk_does_and_agree_with_that(value: Any) -> None:
    names = mirrored(SCHEMA)
    for arguments in ({"text": value, "number": value, "flag": value, "deep": {"er": value}}, {"deep": value}, {}):
        headers = headers_for(names, arguments)
        assert headers == inbound.mcp_param_headers(names, arguments)
        assert disagreement(SCHEMA, arguments, {name.lower(): text for name, text in headers.items()}) is None


@pytest.mark.parametrize("argument", ["text", "number", "flag"])
@pytest.mark.parametrize("value", SCALARS)
def test_a_header_agrees_with_an_argument_where_the_sdk_says_so(argument: str, value: Any) -> None:
    for said in HEADERS:
        check({argument: value}, {f"{PREFIX}{argument}".lower(): said})
    check({argument: value}, {})
    check({}, {f"{PREFIX}{argument}".lower(): "a"})


@given(
    st.fixed_dictionaries(
        {},
        optional={name: st.sampled_from(SCALARS) for name in ("text", "number", "flag", "other")}
        | {"deep": st.sampled_from(SCALARS).map(lambda value: {"er": value}) | st.sampled_from(SCALARS)},
    ),
    st.dictionaries(
        st.sampled_from([f"mcp-param-{name}" for name in ("text", "number", "flag", "deep", "unknown")]),
        st.sampled_from(HEADERS) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=4),
    ),
)
def test_any_headers_agree_with_arguments_where_the_sdk_says_so(
    arguments: dict[str, Any], headers: dict[str, str]
) -> None:
    check(arguments, headers)


def test_what_does_not_agree_is_named() -> None:
    def said(arguments: dict[str, Any], **headers: str) -> str:
        return disagreement(SCHEMA, arguments, {f"mcp-param-{name}": text for name, text in headers.items()}) or ""

    assert "Mcp-Param-Text header is missing" in said({"text": "a"})
    assert "'text' argument is absent" in said({}, text="a")
    assert "malformed" in said({"text": "a"}, text="=?base64?a?=")
    assert "'deep.er'" in said({"deep": {"er": "a"}}, deep="b")
    assert "does not match" in said({"number": True}, number="1")
