"""What does it serve? All pages, bounded, each item on its own merits."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.catalog import Cleaned, Listing
from broker.core.era import LATEST_LEGACY, LATEST_MODERN
from broker.core.request import Kind
from broker.errors import BrokerError, MalformedAnswer
from broker.upstream import discover as module
from broker.upstream.discover import discover, fetch_list
from broker.upstream.http import HttpLink
from broker.upstream.peer import Peer
from tests.upstream.fakes import ScriptedLink, error, tool

TOOLS = "tools/list"


def paged(*pages: list[Any]) -> ScriptedLink:
    """A link whose tools come on these pages; cursors are page numbers."""

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        at = int(params.get("cursor", 0))
        more = {"nextCursor": str(at + 1)} if at + 1 < len(pages) else {}
        return {"tools": pages[at], **more}

    return ScriptedLink({TOOLS: answer})


async def test_all_pages_are_one_list_in_order() -> None:
    link = paged([tool("a"), tool("b")], [], [tool("c")])
    found = await fetch_list(link, Kind.TOOL, 1)
    assert [item["name"] for item in found.items] == ["a", "b", "c"] and found.dropped == ()
    assert [params.get("cursor") for _, params in link.asked] == [None, "1", "2"]


async def test_an_empty_cursor_is_a_cursor() -> None:
    link = ScriptedLink({TOOLS: [{"tools": [], "nextCursor": ""}, {"tools": [tool("a")]}]})
    assert len((await fetch_list(link, Kind.TOOL, 1)).items) == 1
    assert link.asked[1][1]["cursor"] == ""


ENDLESS: dict[str, Any] = {
    "the same cursor": {"tools": [], "nextCursor": "x"},
    "two in turn": [{"tools": [], "nextCursor": c} for c in "abab"],
    "a number": {"tools": [], "nextCursor": 7},
    "an object": {"tools": [], "nextCursor": {}},
    "a huge one": {"tools": [], "nextCursor": "c" * 100_000},
    "no list": {"tools": {}},
    "nothing": {},
}


@pytest.mark.parametrize("case", list(ENDLESS))
async def test_a_list_that_turns_in_a_circle_is_an_error(case: str) -> None:
    link = ScriptedLink({TOOLS: ENDLESS[case]})
    with pytest.raises(MalformedAnswer):
        await fetch_list(link, Kind.TOOL, 1)
    assert link.count(TOOLS) <= 4


async def test_pages_are_bounded() -> None:
    link = paged(*[[tool(f"t{n}")] for n in range(60)])
    with pytest.raises(MalformedAnswer, match="50 pages"):
        await fetch_list(link, Kind.TOOL, 1)
    assert link.count(TOOLS) == module.MAX_PAGES


ITEMS: list[tuple[Any, str | None]] = [
    (tool("fine"), None),
    (tool("caf\u00e9 \u202e"), None),
    (None, "not an object"),
    ([], "not an object"),
    ({}, "no name"),
    (tool(""), "no name"),
    (tool(7), "no name"),
    (tool("a\x1bb"), "control characters"),
    (tool("x" * 2000), "longer than"),
    ({"name": "a"}, "no inputSchema"),
    ({"name": "a", "inputSchema": []}, "no inputSchema"),
    (tool("big", title="x" * 300_000), "larger than"),
]


@pytest.mark.parametrize(("item", "expected"), ITEMS)
async def test_an_item_is_judged_alone(item: Any, expected: str | None) -> None:
    found = await fetch_list(paged([tool("before"), item, tool("after")]), Kind.TOOL, 1)
    assert len(found.items) == (2 if expected else 3)
    assert expected is None or expected in found.dropped[0].reason


async def test_F27_F35_a_list_is_bounded_in_items_bytes_and_complaints(monkeypatch: pytest.MonkeyPatch) -> None:
    many = await fetch_list(paged([tool(f"t{n}") for n in range(5000)]), Kind.TOOL, 1)
    assert len(many.items) == module.MAX_ITEMS
    assert len(many.dropped) == module.MAX_DROPPED + 1 and "2900 more" in many.dropped[-1].reason
    bad = await fetch_list(paged(*[[0] * 1000 for _ in range(40)]), Kind.TOOL, 1)
    assert bad.items == () and len(bad.dropped) == module.MAX_DROPPED + 1
    monkeypatch.setattr(module, "MAX_LIST", 1000)
    large = await fetch_list(paged([tool(f"t{n}", title="x" * 200) for n in range(10)]), Kind.TOOL, 1)
    assert len(large.items) == 3 and "together" in large.dropped[0].reason


LONG: list[tuple[list[Any], int]] = [
    ([tool(f"t{n}") for n in range(5000)], 5000 * module.LEAST // module.TURN),
    ([0] * 5000, 5000 * module.LEAST // module.TURN),
    ([tool(f"t{n}", title="x" * 100_000) for n in range(30)], 10),
]


@pytest.mark.parametrize(("page", "turns"), LONG, ids=("many", "many that are none", "large"))
async def test_F27_others_have_their_turn_while_a_long_page_is_judged(page: list[Any], turns: int) -> None:
    judged = asyncio.create_task(fetch_list(paged(page), Kind.TOOL, 1))
    taken = 0
    while not judged.done():
        await asyncio.sleep(0)
        taken += 1
    assert taken >= turns
    assert len((await judged).items) + len((await judged).dropped) > 0


def peered(link: ScriptedLink, *capabilities: str) -> ScriptedLink:
    link.peer = Peer(LATEST_LEGACY, {}, {name: {} for name in capabilities})
    return link


async def test_F35_the_values_of_a_definition_that_is_too_large_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[int] = []
    count = module.wire.count_values
    monkeypatch.setattr(module.wire, "count_values", lambda text: counted.append(len(text)) or count(text))
    found = await fetch_list(paged([tool("large", description=["a"] * 100_000), tool("small")]), Kind.TOOL, 1)
    assert [item["name"] for item in found.items] == ["small"]
    assert found.dropped[0].reason == f"its definition is larger than {module.MAX_DEFINITION} bytes"
    assert len(counted) == 1 and counted[0] < 1000


async def test_one_list_that_cannot_be_had_keeps_what_was_known_and_costs_the_others_nothing() -> None:
    script: dict[str, Any] = {
        TOOLS: {"tools": [tool("new")]},
        "prompts/list": error(-32603, message="broken\x1b" + "x" * 1000),
        "resources/list": {"resources": [{"uri": "a:b", "name": "n"}], "ttlMs": 2000},
    }
    known = Listing(items={Kind.PROMPT: ({"name": "old"},), Kind.TOOL: (tool("gone"),)})
    listing = await discover(peered(ScriptedLink(script), "tools", "prompts", "resources"), 1, known)
    assert [item["name"] for item in listing.items[Kind.TOOL]] == ["new"]
    assert listing.items[Kind.PROMPT] == ({"name": "old"},) and listing.items[Kind.TEMPLATE] == ()
    assert listing.ttl == {Kind.PROMPT: 0.0, Kind.RESOURCE: 2.0}
    (dropped,) = listing.dropped
    assert dropped.own == "*" and dropped.reason.isprintable() and len(dropped.reason) < 300


async def test_nothing_that_can_be_had_is_an_error_and_nothing_declared_is_none() -> None:
    with pytest.raises(BrokerError):
        await discover(peered(ScriptedLink({TOOLS: error(1)}), "tools"), 1, None)
    assert (await discover(peered(ScriptedLink({})), 1, None)).items == {}


TTLS = [(1000, 1.0), (-5, 0.0), (True, None), ("7", None), (None, None), (10**18, 1e15)]


@pytest.mark.parametrize(("given_ttl", "expected"), TTLS)
async def test_F41_a_ttl_is_a_number_and_the_least_counts(given_ttl: Any, expected: float | None) -> None:
    found = await fetch_list(ScriptedLink({TOOLS: {"tools": [], "ttlMs": given_ttl}}), Kind.TOOL, 1)
    assert found.ttl == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["properties", "x-mcp-header", "type", "items", "allOf", "$defs", "not", "a", "if"]), inner
        )
    ),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(schema=st.dictionaries(st.sampled_from(["properties", "type", "x-mcp-header", "allOf", "$ref"]), JSON))
def test_SP22_no_schema_breaks_the_reading_of_header_annotations(schema: dict[str, Any]) -> None:
    async def read() -> None:
        client: Any = SimpleNamespace(upstream="up")
        link = HttpLink(client)
        for version in (LATEST_LEGACY, LATEST_MODERN):
            link.version = version
            fault = link.tool_fault({"name": "t", "inputSchema": schema})
            assert fault is None or version == LATEST_MODERN
            link.learn_tools(({"name": "t", "inputSchema": schema},))

    asyncio.run(read())


async def test_I39_items_are_cleaned_when_they_are_discovered_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await fetch_list(paged([tool("a", description="x\u202ey"), tool("b", description="fine")]), Kind.TOOL, 1)
    assert [item.get("description") for item in found.items] == ["xy", "fine"]
    assert found.cleaned == (Cleaned("tools", "a", "description: invisible characters taken out"),)
    many = await fetch_list(paged([tool(f"t{n}", title="\u200b") for n in range(500)]), Kind.TOOL, 1)
    assert len(many.cleaned) == module.MAX_DROPPED and all(item["title"] == "" for item in many.items)
    link = ScriptedLink({TOOLS: lambda params: {"tools": [tool("a", title="\x1b[1mA")]}})
    link.peer = Peer(LATEST_LEGACY, capabilities={"tools": {}}, instructions="use\u200b a")
    listing = await discover(link, 1, None)
    assert [(one.kind, one.own) for one in listing.cleaned] == [("instructions", ""), ("tools", "a")]
