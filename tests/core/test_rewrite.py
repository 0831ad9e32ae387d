"""URIs in what an upstream sends: each in public form where it stands, and nothing else changed."""

import copy
import json
from typing import Any

import pytest

from broker.core.rewrite import names_app, rewrite_app_meta, rewrite_error_data, rewrite_foreign, rewrite_result

LINK = {"type": "resource_link", "uri": "file:///x", "name": "uri"}
EMBEDDED = {"type": "resource", "resource": {"uri": "file:///x", "text": "file:///x", "_meta": {"uri": "file:///x"}}}
TEXT = {"type": "text", "text": "file:///x", "uri": "file:///x", "resource": {"uri": "file:///x"}}
CURIOUS: list[Any] = [
    None,
    1,
    "file:///x",
    [LINK],
    {},
    {"type": "resource_link"},
    {"type": "resource_link", "uri": 7},
    {"type": "resource"},
    {"type": "resource", "resource": None},
    {"type": "resource", "resource": [{"uri": "file:///x"}]},
    {"type": "resource", "resource": {"uri": None}},
    {"type": ["resource"], "uri": "file:///x"},
]
PUBLIC_LINK = {**LINK, "uri": "a+file:///x"}
PUBLIC_EMBEDDED = {"type": "resource", "resource": {**EMBEDDED["resource"], "uri": "a+file:///x"}}


def publish(uri: str) -> str:
    return f"a+{uri}"


def rewritten(method: str, given: dict[str, Any]) -> dict[str, Any]:
    result = json.loads(json.dumps(given))
    rewrite_result(method, result, publish)
    return result


def test_links_and_embedded_resources_of_a_call_are_published() -> None:
    rest = {"structuredContent": {"uri": "file:///x"}, "uri": "file:///x", "contents": [LINK]}
    given = {"content": [LINK, TEXT, EMBEDDED, *CURIOUS], **rest}
    expected = {"content": [PUBLIC_LINK, TEXT, PUBLIC_EMBEDDED, *CURIOUS], **rest}
    assert rewritten("tools/call", given) == expected


def test_the_messages_of_a_prompt_are_published_with_one_block_or_several() -> None:
    given = {"messages": [{"content": LINK}, {"content": [EMBEDDED, LINK]}, {"content": TEXT}, {}, None]}
    expected = {
        "messages": [{"content": PUBLIC_LINK}, {"content": [PUBLIC_EMBEDDED, PUBLIC_LINK]}, {"content": TEXT}, {}, None]
    }
    assert rewritten("prompts/get", given) == expected


def test_the_contents_of_a_read_are_published() -> None:
    given = {"contents": [{"uri": "file:///x", "text": "file:///x"}, {"uri": 1}, {}, None, "file:///x"]}
    expected = {"contents": [{"uri": "a+file:///x", "text": "file:///x"}, {"uri": 1}, {}, None, "file:///x"]}
    assert rewritten("resources/read", given) == expected


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
@pytest.mark.parametrize("value", [None, 1, "x", {}, {"uri": "file:///x"}, []])
def test_what_is_no_list_is_left_alone(method: str, value: object) -> None:
    given = {"content": value, "messages": value, "contents": value}
    assert rewritten(method, given) == given


def test_other_results_are_left_alone() -> None:
    given = {"content": [LINK], "contents": [LINK], "completion": {"values": ["file:///x"]}}
    assert rewritten("completion/complete", given) == given


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"ui": {"resourceUri": "ui://x", "y": 1}, "z": 2}, {"ui": {"resourceUri": "a+ui://x", "y": 1}, "z": 2}),
        ({"ui/resourceUri": "ui://x"}, {"ui/resourceUri": "a+ui://x"}),
        ({"ui": {"resourceUri": 1}, "ui/resourceUri": None}, {"ui": {"resourceUri": 1}, "ui/resourceUri": None}),
        ({"ui": "ui://x"}, {"ui": "ui://x"}),
        ({}, {}),
        ([], []),
        (None, None),
    ],
)
def test_the_page_that_a_tool_names_is_published_in_a_copy(meta: object, expected: object) -> None:
    tool = {"name": "x", "_meta": meta}
    before = copy.deepcopy(tool)
    assert rewrite_app_meta(tool, publish) == {"name": "x", "_meta": expected}
    assert tool == before


def test_a_tool_without_meta_gets_none() -> None:
    assert rewrite_app_meta({"name": "x"}, publish) == {"name": "x"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"uri": "file:///x", "y": 1}, {"uri": "a+file:///x", "y": 1}),
        ({"uri": 1}, {"uri": 1}),
        ({}, {}),
        ("file:///x", "file:///x"),
        (None, None),
    ],
)
def test_the_uri_of_an_error_is_published(data: object, expected: object) -> None:
    assert rewrite_error_data(data, publish) == expected


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"ui": {"resourceUri": "ui://x"}}, True),
        ({"ui": {}}, True),
        ({"ui/resourceUri": "ui://x"}, True),
        ({"ui": "x", "ui/resourceUri": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_tool_with_a_page_of_mcp_apps_is_told_by_its_meta(meta: Any, expected: bool) -> None:
    assert names_app({"_meta": meta}) == expected


def test_of_an_extension_the_fields_that_the_core_knows_are_published() -> None:
    result: dict[str, Any] = {
        "uri": "a:b",
        "content": [dict(LINK)],
        "contents": [{"uri": "a:b"}],
        "messages": [{"content": dict(LINK)}],
        "tools": [{"name": "own"}, {"name": "other"}, {"name": 1}, None],
        "prompts": [{"name": "own"}],
        "resources": [{"uri": "a:b"}],
        "resourceTemplates": [{"uriTemplate": "a:{b}"}, {"uriTemplate": None}],
        "_meta": {"ui": {"resourceUri": "ui://x"}},
        "anything": {"uri": "a:b", "name": "own"},
    }
    rewrite_foreign(result, lambda uri: f"k+{uri}", {"own": "k__own"})
    link = {**LINK, "uri": "k+file:///x"}
    assert result == {
        "uri": "k+a:b",
        "content": [link],
        "contents": [{"uri": "k+a:b"}],
        "messages": [{"content": link}],
        "tools": [{"name": "k__own"}, {"name": "other"}, {"name": 1}, None],
        "prompts": [{"name": "k__own"}],
        "resources": [{"uri": "k+a:b"}],
        "resourceTemplates": [{"uriTemplate": "k+a:{b}"}, {"uriTemplate": None}],
        "_meta": {"ui": {"resourceUri": "k+ui://x"}},
        "anything": {"uri": "a:b", "name": "own"},
    }
    bare: dict[str, Any] = {}
    rewrite_foreign(bare, lambda uri: f"k+{uri}", {})
    assert bare == {}
