"""Headers of modern messages, held to what the SDK says of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound

from broker.core.era import META_CLIENT_CAPABILITIES, META_VERSION, MODERN_VERSIONS
from broker.core.headers import (
    METHOD_HEADER,
    NAME_HEADER,
    NAMED_BY,
    VERSION_HEADER,
    decoded,
    disagreement,
    encoded,
    repeated_routing,
)

VERSION = MODERN_VERSIONS[0]
TEXTS = [
    *("", "echo", " echo", "echo ", " ", "a b", "grüße", "a\nb", "\t", "\x7f", "a~!", "=?", "?="),
    *("=?base64?", "=?base64?=", "=?base64??=", "=?base64?ZWNobw==?=", "=?base64?ZWNobx==?=", "=?base64?ZWNobw?="),
    *("=?base64?ZW NobA==?=", "=?base64?/w==?=", "=?base64?é?=", "x=?base64?ZWNobw==?=", "=?BASE64?ZWNobw==?="),
    *("=?base64?ZWNobw==?= ", "=?base64?a?=b?=", "=?base64?_-8=?="),
]
PIECES = st.sampled_from(["=?base64?", "?=", "ZWNobw==", "=?", "a", " ", "é", "\n", "=", "\U0001f600"])
ANY_TEXT = st.sampled_from(TEXTS) | st.lists(PIECES, max_size=5).map("".join) | st.text(max_size=8)


def test_the_names_are_those_of_the_sdk() -> None:
    assert inbound.MCP_PROTOCOL_VERSION_HEADER == VERSION_HEADER
    assert inbound.MCP_METHOD_HEADER == METHOD_HEADER
    assert inbound.MCP_NAME_HEADER == NAME_HEADER
    assert inbound.NAME_BEARING_METHODS == NAMED_BY


@pytest.mark.parametrize("text", TEXTS)
def test_a_value_is_encoded_as_the_sdk_does_and_comes_back(text: str) -> None:
    assert encoded(text) == inbound.encode_header_value(text)
    assert decoded(encoded(text)) == text


@given(ANY_TEXT)
def test_any_value_is_encoded_as_the_sdk_does_and_comes_back(text: str) -> None:
    assert encoded(text) == inbound.encode_header_value(text)
    assert decoded(encoded(text)) == text
    assert encoded(text).isascii() and encoded(text).isprintable()


def decoded_by_sdk(text: str) -> str | None:
    try:
        return inbound.decode_header_value(text)
    except ValueError:  # of what is not ASCII in an encoded value
        return None


@pytest.mark.parametrize("text", TEXTS)
def test_a_header_stands_for_what_the_sdk_takes_it_for(text: str) -> None:
    assert decoded(text) == decoded_by_sdk(text)


@given(ANY_TEXT)
def test_any_header_stands_for_what_the_sdk_takes_it_for(text: str) -> None:
    assert decoded(text) == decoded_by_sdk(text)


LINES = st.lists(
    st.tuples(st.sampled_from([VERSION_HEADER, METHOD_HEADER, NAME_HEADER, "accept", "mcp-param-a"]), st.just("x")),
    max_size=5,
)


@given(LINES)
def test_a_header_that_says_twice_where_a_message_goes_is_named_as_the_sdk_does(lines: list[tuple[str, str]]) -> None:
    assert repeated_routing(lines) == inbound.find_duplicated_routing_header(lines)


def test_other_headers_may_come_twice() -> None:
    assert repeated_routing([("accept", "a"), ("accept", "b"), (METHOD_HEADER, "x")]) is None
    assert repeated_routing([(METHOD_HEADER, "x"), ("accept", "b"), (METHOD_HEADER, "x")]) == METHOD_HEADER


def verdict_of_sdk(method: str, params: dict[str, Any], version: object, headers: dict[str, str]) -> str | None:
    meta = {META_VERSION: version, META_CLIENT_CAPABILITIES: {}}
    found = inbound.classify_inbound_request(
        {"method": method, "params": {**params, "_meta": meta}},
        headers=headers,
        supported_modern_versions=[VERSION, "another"],
    )
    return found.message if isinstance(found, inbound.InboundLadderRejection) else None


VERSIONS = [VERSION, "another", None, 1]
METHODS = ["tools/call", "prompts/get", "resources/read", "tools/list"]
NAMES: list[Any] = ["echo", "Echo", "grüße", "=?base64?x?=", None, 1, ["echo"]]


def check(method: str, member: str, name: object, version: object, headers: dict[str, str]) -> None:
    params = {member: name}
    assert disagreement(method, params, version, headers) == verdict_of_sdk(method, params, version, headers)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", ["", VERSION_HEADER, METHOD_HEADER, NAME_HEADER])
def test_headers_agree_with_a_message_where_the_sdk_says_so(method: str, name: object, missing: str) -> None:
    full = {VERSION_HEADER: VERSION, METHOD_HEADER: method, NAME_HEADER: encoded(str(name))}
    headers = {header: value for header, value in full.items() if header != missing}
    for member in ("name", "uri"):
        for version in VERSIONS:
            check(method, member, name, version, headers)


@given(
    st.sampled_from(METHODS),
    st.sampled_from(["name", "uri"]),
    st.sampled_from(NAMES),
    st.sampled_from(VERSIONS),
    st.dictionaries(
        st.sampled_from([VERSION_HEADER, METHOD_HEADER, NAME_HEADER]),
        st.sampled_from([VERSION, "another", *METHODS, *map(str, NAMES), *(encoded(str(name)) for name in NAMES)]),
    ),
)
def test_any_headers_agree_with_a_message_where_the_sdk_says_so(
    method: str, member: str, name: object, version: object, headers: dict[str, str]
) -> None:
    check(method, member, name, version, headers)
