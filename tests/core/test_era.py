"""What changes when the eras differ, row by row, and that nothing changes when they do not."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import era
from broker.core.era import (
    ALL_VERSIONS,
    CACHEABLE,
    LATEST_LEGACY,
    LATEST_MODERN,
    LEGACY_VERSIONS,
    META_SUBSCRIPTION,
    MODERN_VERSIONS,
    PER_HOP,
    Version,
    error_for_caller,
    hop_params,
    is_modern,
    negotiate,
    passing_meta,
    passing_params,
    result_for_caller,
    tool_for_caller,
)

ME = {"name": "mcp-broker", "version": "0"}
LEGACY, MODERN = LATEST_LEGACY, LATEST_MODERN
METHODS = ["tools/call", "prompts/get", "resources/read", "completion/complete"]
HOP_KEYS = dict.fromkeys(PER_HOP, "of the other hop")
PASSING = {"a.b/c": [1], "traceparent": "00-x", "io.modelcontextprotocol/related-task": {"taskId": "t"}, "x": None}


def result(method: str, given: dict[str, Any], upstream: Version, caller: Version) -> dict[str, Any]:
    return result_for_caller(method, copy.deepcopy(given), upstream=upstream, caller=caller, server=ME, scope="public")


def test_a_version_is_modern_or_legacy_or_unknown() -> None:
    assert [is_modern(version) for version in ALL_VERSIONS] == [False] * 4 + [True]
    assert not is_modern("2099-01-01") and not is_modern("")
    assert {getattr(era, name) for name in dir(era) if name.startswith("META_")} == PER_HOP


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
def test_an_initialize_gets_the_legacy_version_it_asks_for(version: Version) -> None:
    assert negotiate(version) == version


@pytest.mark.parametrize("requested", [*MODERN_VERSIONS, "2099-01-01", "", None, 1, ["2024-11-05"], {}])
def test_an_initialize_for_any_other_version_gets_the_latest_legacy_one(requested: object) -> None:
    assert negotiate(requested) == LATEST_LEGACY


def test_only_what_the_broker_can_carry_back_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"elicitation": {}, "roots": {"listChanged": True}, "experimental": {"x": {}}, "other": {}}
    assert set(era.declared_upstream(capabilities, LATEST_MODERN)) <= era.CARRIED_CAPABILITIES
    monkeypatch.setattr(era, "CARRIED_CAPABILITIES", frozenset({"roots"}))
    assert era.declared_upstream(capabilities, LATEST_MODERN) == {"roots": {"listChanged": True}}
    assert era.declared_upstream({}, LATEST_MODERN) == {}, "who offers nothing can be asked nothing"
    offered = {"roots": {}}
    kept = era.declared_upstream(offered, LATEST_MODERN)
    assert kept == offered and kept is not offered, "what a session keeps is not what a request may withhold"


@pytest.mark.parametrize("extensions", [{"a/b": {"x": 1}}, {era.TASKS: {}, "a/b": {"x": 1}}, {}, None, [1]])
def test_the_tasks_extension_is_declared_between_modern_sides_and_no_tasks_of_the_callers(extensions: Any) -> None:
    capabilities = {"tasks": {"list": {}}, "extensions": extensions, "sampling": {}}
    others = extensions
    if isinstance(extensions, dict):
        others = {name: value for name, value in extensions.items() if name != era.TASKS}
    assert era.declared_upstream(capabilities, LATEST_MODERN) == {"extensions": extensions, "sampling": {}}
    assert era.declared_upstream(capabilities, LATEST_LEGACY) == {"extensions": others, "sampling": {}}


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_the_meta_of_a_hop_is_set_afresh_and_the_rest_passes(version: Version) -> None:
    params = {"name": "x", "arguments": {"_meta": 1}, "unknown": [2], "_meta": {**HOP_KEYS, **PASSING}}
    before = copy.deepcopy(params)
    sent = hop_params(params, version, client=ME, capabilities={"roots": {}}, progress_token=7)
    hop: dict[str, Any] = {era.META_PROGRESS: 7}
    if is_modern(version):
        hop |= {era.META_VERSION: version, era.META_CLIENT_INFO: ME, era.META_CLIENT_CAPABILITIES: {"roots": {}}}
    assert sent == {"name": "x", "arguments": {"_meta": 1}, "unknown": [2], "_meta": {**PASSING, **hop}}
    assert params == before


@pytest.mark.parametrize("meta", [None, [], "x", {}, HOP_KEYS])
def test_a_legacy_request_without_any_meta_left_has_none(meta: object) -> None:
    sent = hop_params({"name": "x", "_meta": meta}, LEGACY, client=ME, capabilities={}, progress_token=None)
    assert sent == {"name": "x"}


@pytest.mark.parametrize("meta", [None, 1, "x", [], [["a", 1]]])
def test_a_meta_that_is_no_object_has_no_keys(meta: object) -> None:
    assert passing_meta(meta) == {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("version", LEGACY_VERSIONS)
def test_between_legacy_sides_only_the_meta_of_the_hop_changes(method: str, version: Version) -> None:
    given = {"content": [], "structuredContent": [1], "ttlMs": 5, "resultType": "x", "unknown": {"y": 1}}
    assert result(method, given, version, LEGACY) == given
    assert result(method, {**given, "_meta": {**HOP_KEYS, **PASSING}}, version, LEGACY) == {**given, "_meta": PASSING}
    assert result(method, {**given, "_meta": HOP_KEYS}, LEGACY, version) == given


@pytest.mark.parametrize("method", METHODS)
def test_between_modern_sides_only_the_meta_of_the_hop_changes(method: str) -> None:
    given = {"resultType": "complete", "ttlMs": 5, "cacheScope": "public", "structuredContent": 3, "unknown": 1}
    mine = {era.META_SERVER_INFO: ME}
    assert result(method, given, MODERN, MODERN) == {**given, "_meta": mine}
    full = {**given, "_meta": {**HOP_KEYS, **PASSING}}
    assert result(method, full, MODERN, MODERN) == {**given, "_meta": {**PASSING, **mine}}


def test_a_modern_caller_gets_what_a_modern_upstream_forgot() -> None:
    given = result("resources/read", {"contents": []}, MODERN, MODERN)
    assert (given["resultType"], given["ttlMs"], given["cacheScope"]) == ("complete", 0, "private")


@pytest.mark.parametrize("method", METHODS)
def test_a_legacy_result_gets_what_a_modern_caller_needs(method: str) -> None:
    given = {"content": [], "structuredContent": {"a": 1}, "unknown": 1}
    cache = {"ttlMs": 0, "cacheScope": "private"} if method in CACHEABLE else {}
    expected = {**given, "resultType": "complete", **cache, "_meta": {**PASSING, era.META_SERVER_INFO: ME}}
    assert result(method, {**given, "_meta": PASSING}, LEGACY, MODERN) == expected


def test_a_legacy_upstream_cannot_declare_a_read_public() -> None:
    given = result("resources/read", {"contents": [], "ttlMs": 10**18, "cacheScope": "public"}, LEGACY, MODERN)
    assert (given["ttlMs"], given["cacheScope"]) == (0, "private")


@pytest.mark.parametrize("method", METHODS)
def test_a_modern_result_loses_what_a_legacy_caller_does_not_know(method: str) -> None:
    given = {"resultType": "complete", "content": [], "structuredContent": {"a": 1}, "unknown": 1}
    if method in CACHEABLE:
        given |= {"ttlMs": 5, "cacheScope": "public"}
    expected = {"content": [], "structuredContent": {"a": 1}, "unknown": 1, "_meta": PASSING}
    assert result(method, {**given, "_meta": {**HOP_KEYS, **PASSING}}, MODERN, LEGACY) == expected


@pytest.mark.parametrize(
    ("structured", "content", "expected"),
    [
        ([1, "é"], None, [{"type": "text", "text": '[1, "é"]'}]),
        ([1], [], [{"type": "text", "text": "[1]"}]),
        (None, None, [{"type": "text", "text": "null"}]),
        ("x", [{"type": "text", "text": "said"}], [{"type": "text", "text": "said"}]),
        (3, [{"type": "image"}], [{"type": "image"}]),
    ],
)
def test_structured_content_that_is_no_object_becomes_text(
    structured: object, content: object, expected: object
) -> None:
    given = {"structuredContent": structured} | ({} if content is None else {"content": content})
    assert result("tools/call", given, MODERN, LEGACY) == {"content": expected}
    assert result("tools/call", given, LEGACY, LEGACY) == given


URI = "a+file:///x"


@pytest.mark.parametrize(
    ("code", "data", "uri", "expected"),
    [
        (-32002, None, URI, (-32602, {"uri": URI})),
        (-32002, {"x": 1}, URI, (-32602, {"x": 1, "uri": URI})),
        (-32002, {"uri": "b"}, URI, (-32602, {"uri": "b"})),
        (-32002, "text", URI, (-32602, {"uri": URI})),
        (-32002, None, None, (-32602, None)),
        (-32042, {"elicitations": []}, None, (-32603, {"elicitations": []})),
        (-32050, 1, None, (-32603, 1)),
        (-32099, 1, None, (-32603, 1)),
        (-32020, 1, None, (-32020, 1)),
        (-32021, 1, None, (-32021, 1)),
        (-32022, 1, None, (-32022, 1)),
        (-32019, 1, URI, (-32019, 1)),
        (-32100, 1, URI, (-32100, 1)),
        (-32603, 1, URI, (-32603, 1)),
        (42, 1, URI, (42, 1)),
    ],
)
def test_a_modern_caller_gets_no_code_that_its_version_forbids(
    code: int, data: object, uri: str | None, expected: object
) -> None:
    for upstream in (None, LEGACY, MODERN):
        if upstream is LEGACY and code in (-32020, -32021, -32022):
            continue  # no legacy upstream can mean what the modern era means by them
        assert error_for_caller(code, data, caller=MODERN, uri=uri, upstream=upstream) == expected


@pytest.mark.parametrize("upstream", [None, MODERN])
@pytest.mark.parametrize(
    ("code", "data", "uri", "expected"),
    [
        (-32020, 1, None, (-32603, 1)),
        (-32021, 1, None, (-32603, 1)),
        (-32022, 1, None, (-32603, 1)),
        (-32602, {"uri": URI, "x": 1}, URI, (-32002, {"uri": URI, "x": 1})),
        (-32602, {"uri": "b"}, URI, (-32602, {"uri": "b"})),
        (-32602, {"uri": URI}, None, (-32602, {"uri": URI})),
        (-32602, None, URI, (-32602, None)),
        (-32042, {"elicitations": []}, None, (-32042, {"elicitations": []})),
        (-32050, 1, None, (-32050, 1)),
        (-32603, 1, URI, (-32603, 1)),
        (42, 1, URI, (42, 1)),
    ],
)
def test_a_legacy_caller_gets_modern_codes_as_its_own(
    code: int, data: object, uri: str | None, expected: object, upstream: Version | None
) -> None:
    assert error_for_caller(code, data, caller=LEGACY, uri=uri, upstream=upstream) == expected


@given(st.integers(-33000, -31000) | st.sampled_from([-32602, -32042, -32020]), st.sampled_from([None, {"uri": URI}]))
def test_between_legacy_sides_errors_pass_as_they_are(code: int, data: object) -> None:
    for upstream in LEGACY_VERSIONS:
        assert error_for_caller(code, data, caller=LEGACY, uri=URI, upstream=upstream) == (code, data)


@pytest.mark.parametrize(
    ("schema", "stays"),
    [
        ({"type": "object"}, True),
        (None, True),
        ({"type": "array"}, False),
        ({"type": ["object"]}, False),
        ({"oneOf": []}, False),
        (True, False),
        ([], False),
    ],
)
def test_a_legacy_caller_gets_no_output_schema_but_of_objects(schema: object, stays: bool) -> None:
    tool = {"name": "x", "inputSchema": {}, "outputSchema": schema, "unknown": 1}
    before = copy.deepcopy(tool)
    without = {"name": "x", "inputSchema": {}, "unknown": 1}
    assert tool_for_caller(tool, upstream=MODERN, caller=LEGACY) == (tool if stays else without)
    assert tool_for_caller(tool, upstream=MODERN, caller=MODERN) is tool
    assert tool_for_caller(tool, upstream=LEGACY, caller=LEGACY) is tool
    assert tool == before


@pytest.mark.parametrize(
    ("execution", "hidden"),
    [
        ({"taskSupport": "required"}, True),
        ({"taskSupport": "optional"}, False),
        ({}, False),
        (None, False),
        ("required", False),
    ],
)
def test_a_modern_caller_is_not_shown_a_tool_that_needs_legacy_tasks(execution: object, hidden: bool) -> None:
    tool = {"name": "x", "execution": execution, "outputSchema": {"type": "array"}}
    assert tool_for_caller(tool, upstream=LEGACY, caller=MODERN) is (None if hidden else tool)
    assert tool_for_caller(tool, upstream=LEGACY, caller=LEGACY) is tool
    assert tool_for_caller(tool, upstream=MODERN, caller=MODERN) is tool


@pytest.mark.parametrize(
    ("given", "expected"),
    [(5, 5), (0, 0), (-1, 0), (10**18, 300_000), (2.9, 2), (1e300, 300_000), (True, 0), ("5", 0), (None, 0), ([], 0)],
)
def test_f41_a_time_to_live_is_clamped_and_one_that_is_none_is_nothing(given: object, expected: int) -> None:
    read = era.result_for_caller("resources/read", {"ttlMs": given}, upstream=MODERN, caller=MODERN, server=ME)
    assert read["ttlMs"] == expected and type(read["ttlMs"]) is int


@pytest.mark.parametrize("given", ["public", "private", "PUBLIC", None, 1])
@pytest.mark.parametrize("scope", ["public", "private"])
def test_a_read_is_public_only_where_its_server_and_all_rules_say_so(given: object, scope: str) -> None:
    result = {"cacheScope": given, "ttlMs": 1}
    read = era.result_for_caller("resources/read", result, upstream=MODERN, caller=MODERN, server=ME, scope=scope)
    assert read["cacheScope"] == ("public" if given == scope == "public" else "private")


@pytest.mark.parametrize("code", [-32020, -32021, -32022])
def test_codes_of_the_modern_era_come_from_modern_upstreams_only(code: int) -> None:
    for caller, upstream, expected in (
        (MODERN, MODERN, code),
        (MODERN, None, code),
        (MODERN, LEGACY, -32603),
        (LEGACY, MODERN, -32603),
        (LEGACY, LEGACY, code),
    ):
        got = era.error_for_caller(code, {"requiredCapabilities": {}}, caller=caller, upstream=upstream, uri=None)
        assert got == (expected, {"requiredCapabilities": {}})


@pytest.mark.parametrize("caller", ALL_VERSIONS)
@pytest.mark.parametrize("support", ["required", "optional", "forbidden", None, 1])
def test_a_tool_that_is_a_task_only_is_shown_to_who_can_make_one(caller: Version, support: object) -> None:
    tool = {"name": "t", "execution": {"taskSupport": support}}
    shown = era.tool_for_caller(tool, upstream=LEGACY, caller=caller)
    assert (shown is None) == (support == "required" and caller != LATEST_LEGACY)
    assert era.tool_for_caller(tool, upstream=MODERN, caller=caller) is not None


@pytest.mark.parametrize(
    ("params", "passing"),
    [
        ({"uri": "a:b", "_meta": {META_SUBSCRIPTION: 1, "k": 2}}, {"uri": "a:b", "_meta": {"k": 2}}),
        ({"uri": "a:b", "_meta": {META_SUBSCRIPTION: 1}}, {"uri": "a:b"}),
        ({"x": None}, {"x": None}),
        ({"_meta": "none"}, {}),
    ],
)
def test_what_concerns_one_hop_passes_with_no_notification_and_no_result(
    params: dict[str, Any], passing: dict[str, Any]
) -> None:
    assert passing_params(params) == passing
    result = copy.deepcopy(params)
    assert era.result_for_caller("tools/call", result, upstream=LEGACY, caller=LEGACY, server=ME) == passing
