"""The merged snapshot: order, twins, and that every URI that is handed out can be handed back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.catalog import Catalog, Dropped, Entry, Listing, Shelf, shelve
from broker.core.era import LATEST_MODERN
from broker.core.names import Mount, Naming
from broker.core.request import LISTS, Kind
from tests.calls import measured

KEYS = ["one", "two", "bare"]
NAMING = Naming.of([Mount("one", "one"), Mount("two", "second"), Mount("bare", "")])
MOUNTS = {mount.key: mount for mount in NAMING.mounts}


def listing(**names: list[str]) -> Listing:
    return Listing(
        items={
            kind: tuple({LISTS[kind].name_key: own, "inputSchema": {}} for own in names.get(kind.value, []))
            for kind in Kind
        }
    )


def shelf_of(key: str, **names: list[str]) -> Shelf:
    return shelve(NAMING, MOUNTS[key], listing(**names))


def catalog_of(*shelves: Shelf) -> Catalog:
    catalog = Catalog.empty(NAMING)
    for shelf in shelves:
        catalog = catalog.with_shelf(shelf)
    return catalog


def publics(catalog: Catalog, kind: Kind) -> list[str]:
    return [entry.public for entry in catalog.entries(kind)]


@given(st.permutations(KEYS))
def test_the_order_is_that_of_the_configuration_then_of_the_upstream(order: list[str]) -> None:
    catalog = catalog_of(*(shelf_of(key, tools=["b", "a"]) for key in order))
    assert list(catalog.shelves) == KEYS
    assert publics(catalog, Kind.TOOL) == ["one__b", "one__a", "second__b", "second__a", "b", "a"]


@given(st.sampled_from(KEYS))
def test_a_change_of_one_server_leaves_the_others_as_they_were(key: str) -> None:
    before = catalog_of(*(shelf_of(key, tools=["a"]) for key in KEYS))
    after = before.with_shelf(shelf_of(key, tools=["new"]))
    for other in KEYS:
        assert (after.shelves[other] is before.shelves[other]) is (other != key)
        public = before.shelves[other].entries[Kind.TOOL][0].public
        assert (after.lookup(Kind.TOOL, public) is before.lookup(Kind.TOOL, public)) is (other != key)
    assert before.lookup(Kind.TOOL, "one__a") is not None, "the old catalog still answers"


def test_a_shelf_of_a_server_that_is_not_configured_is_not_served() -> None:
    stranger = shelve(NAMING, Mount("stranger", "stranger"), listing(tools=["a"]))
    assert list(Catalog.empty(NAMING).with_shelf(stranger).shelves) == []


def test_the_first_of_twins_is_served_and_the_others_reported() -> None:
    digest = shelf_of("one", tools=["x.y"]).entries[Kind.TOOL][0].public.removeprefix("one__")
    shelf = shelf_of("one", tools=["a", "b", "a", "x.y", digest], prompts=["a"])
    assert [entry.own for entry in shelf.entries[Kind.TOOL]] == ["a", "b", "x.y"]
    assert [entry.own for entry in shelf.entries[Kind.PROMPT]] == ["a"]
    assert shelf.dropped == (
        Dropped(Kind.TOOL, "a", "a twin of 'a', which is served"),
        Dropped(Kind.TOOL, digest, "a twin of 'x.y', which is served"),
    )


def test_what_has_the_form_of_another_server_is_dropped_and_reported() -> None:
    shelf = shelf_of(
        "bare",
        tools=["one__x", "second__x", "two__x", "one..x", "x"],
        prompts=["one__x"],
        resources=["one+file:///x", "ui://second+x", "two+file:///x"],
        templates=["second+x://{id}"],
    )
    assert [entry.public for kind in Kind for entry in shelf.entries[kind]] == ["two__x", "x", "two+file:///x"]
    assert [(dropped.kind, dropped.own) for dropped in shelf.dropped] == [
        (Kind.TOOL, "one__x"),
        (Kind.TOOL, "second__x"),
        (Kind.TOOL, "one..x"),
        (Kind.PROMPT, "one__x"),
        (Kind.RESOURCE, "one+file:///x"),
        (Kind.RESOURCE, "ui://second+x"),
        (Kind.TEMPLATE, "second+x://{id}"),
    ]
    assert {dropped.reason for dropped in shelf.dropped} == {"the form of its name belongs to another server"}


def test_what_was_malformed_stays_reported() -> None:
    fault = Dropped(Kind.TOOL, "x", "no inputSchema")
    shelf = shelve(NAMING, MOUNTS["one"], Listing(items=listing(tools=["a", "a"]).items, dropped=(fault,)))
    assert shelf.dropped == (fault, Dropped(Kind.TOOL, "a", "a twin of 'a', which is served"))


def test_a_definition_changes_in_its_name_and_its_page_only() -> None:
    tool: dict[str, Any] = {
        "name": "x.y",
        "title": "x.y",
        "inputSchema": {"type": "object", "properties": {"uri": {"const": "ui://page"}}},
        "_meta": {"ui": {"resourceUri": "ui://page", "visibility": ["app"]}},
        "unknown": {"a": [1]},
    }
    shelf = shelve(NAMING, MOUNTS["one"], Listing(items={Kind.TOOL: (tool,)}))
    (entry,) = shelf.entries[Kind.TOOL]
    assert entry.definition == {
        **tool,
        "name": entry.public,
        "_meta": {"ui": {"resourceUri": "ui://one+page", "visibility": ["app"]}},
    }
    assert tool["_meta"]["ui"]["resourceUri"] == "ui://page", "the listing stays as it came"
    assert entry.listed and entry.own == "x.y" and shelf.public_of_own == {"x.y": entry.public}


@pytest.mark.parametrize(
    ("schema", "mirrors"),
    [
        ({}, False),
        ({"properties": {"a": {"x-mcp-header": "A"}}}, True),
        ({"anyOf": [1, {"x-mcp-header": "A"}]}, True),
        ({"properties": {"a": {"type": "string", "x-mcp-header": "A"}}, "maximum": 2**70}, True),
        ({"description": "x-mcp-header", "enum": ["x-mcp-header"]}, False),
        ({"description": '{"x-mcp-header": 1, "x-mcp-header":1}', '{"x-mcp-header': 1, ',"x-mcp-header': 1}, False),
    ],
)
def test_a_tool_that_wants_arguments_in_headers_is_known_by_its_schema(schema: dict[str, Any], mirrors: bool) -> None:
    items = {Kind.TOOL: ({"name": "a", "inputSchema": schema},), Kind.PROMPT: ({"name": "x-mcp-header"},)}
    shelf = shelve(NAMING, MOUNTS["one"], Listing(items=items))
    assert [entry.mirrors_arguments for kind in Kind for entry in shelf.entries[kind]] == [mirrors, False]


def test_names_are_looked_up_never_split() -> None:
    catalog = catalog_of(shelf_of("one", tools=["a"], prompts=["p"], templates=["x://{id}"]))
    assert catalog.lookup(Kind.TOOL, "one__b") is None
    assert catalog.lookup(Kind.TOOL, "one__p") is None
    assert catalog.lookup(Kind.PROMPT, "one__a") is None
    assert catalog.lookup(Kind.TEMPLATE, "one+x://{other}") is None
    assert catalog.lookup(Kind.TEMPLATE, "one+x://{id}") == Entry(Kind.TEMPLATE, "one+x://{id}", "one", "x://{id}")


def test_a_resource_that_nobody_lists_belongs_to_a_server_by_its_form() -> None:
    catalog = catalog_of(
        shelf_of("one", resources=["file:///x"], templates=["db://{a}", "file:///{b}", "file:///{c}"]), shelf_of("bare")
    )
    listed = catalog.lookup(Kind.RESOURCE, "one+file:///x")
    assert listed is not None and listed.listed and listed.template is None
    unlisted = catalog.lookup(Kind.RESOURCE, "one+file:///y")
    assert unlisted == Entry(
        Kind.RESOURCE,
        "one+file:///y",
        "one",
        "file:///y",
        template="file:///{b}",
        templates=("file:///{b}", "file:///{c}"),
    )
    assert unlisted is not None and not unlisted.listed
    unseen = catalog.lookup(Kind.RESOURCE, "second+file:///y")
    assert unseen == Entry(Kind.RESOURCE, "second+file:///y", "two", "file:///y")
    assert catalog.lookup(Kind.RESOURCE, "file:///y") == Entry(Kind.RESOURCE, "file:///y", "bare", "file:///y")
    assert catalog.lookup(Kind.RESOURCE, "https://host/x") is None, "a link into the web is nobody's resource"
    alone = Catalog.empty(Naming.of([Mount("one", "one")]))
    assert alone.lookup(Kind.RESOURCE, "file:///y") is None
    assert catalog_of().lookup(Kind.RESOURCE, "https://host/x") == Entry(
        Kind.RESOURCE, "https://host/x", "bare", "https://host/x"
    )


URIS = st.sampled_from(
    [
        "file:///x",
        "a:b",
        "ui://page",
        "ui://one+page",
        "one+file:///x",
        "second+x",
        "mailto:a+b@c",
        "+",
        "{x}",
        "x+y+z",
        "http://host/a",
        "https://host/b",
        "https://host/docs/1",
        "http://host/one+x",
        "HTTPS://host/c",
        "http:/x",
        "https://listed/",
        "http",
        "httpx://host/",
        "data:,https://x",
    ]
) | st.text(min_size=1, max_size=20)
WEB_TEMPLATES = ["https://host/docs/{id}", "http{s}://host/a", "{+any}", "h{x}", "file:///{x}", "https{x}", "*x"]


@given(
    st.sampled_from(KEYS),
    URIS,
    st.lists(URIS, max_size=2, unique=True),
    st.lists(st.sampled_from(WEB_TEMPLATES), max_size=2, unique=True),
)
def test_every_uri_that_is_handed_out_can_be_handed_back(
    key: str, own: str, resources: list[str], templates: list[str]
) -> None:
    shelf = shelf_of(key, resources=resources, templates=templates)
    catalog = catalog_of(*(shelf_of(other) for other in KEYS if other != key), shelf)
    for entry in shelf.entries[Kind.RESOURCE]:
        assert shelf.publish(entry.own) == entry.public
        assert catalog.lookup(Kind.RESOURCE, entry.public) is entry
    public = shelf.publish(own)
    if own.startswith(("http://", "https://")) and shelf.publish.is_web_link(own):
        assert public == own and own not in resources
        return
    found = catalog.lookup(Kind.RESOURCE, public)
    assert found is not None
    if key == "bare" and NAMING.publish_uri(MOUNTS[key], own) is None:
        assert public == own and found.server != key, "a form that belongs to another server is that server's"
    else:
        assert (found.server, found.own) == (key, own)


@pytest.mark.parametrize(
    ("own", "resources", "templates", "is_link"),
    [
        ("https://host/x", [], [], True),
        ("http://host/x", [], [], True),
        ("https://host/x", ["https://host/x"], [], False),
        ("https://host/x", ["https://host/"], [], True),
        ("https://host/x", [], ["https://host/{id}"], False),
        ("https://host/x", [], ["https://other/{id}"], True),
        ("https://host/x", [], ["{+uri}"], False),
        ("https://host/x", [], ["http{s}://host/{id}"], False),
        ("https://host/x", [], ["htt{x}"], False),
        ("https://host/x", [], ["file:///{id}"], True),
        ("file:///x", [], [], False),
        ("ui://x", [], [], False),
    ],
)
@pytest.mark.parametrize("key", KEYS)
def test_a_web_address_that_the_server_does_not_serve_is_a_link(
    key: str, own: str, resources: list[str], templates: list[str], is_link: bool
) -> None:
    publish = shelf_of(key, resources=resources, templates=templates).publish
    assert publish.is_web_link(own) is is_link
    if is_link:
        assert publish(own) == own
    else:
        assert publish(own) == NAMING.publish_uri(MOUNTS[key], own)


def test_a_call_costs_the_same_however_large_the_catalog_is() -> None:
    small, large = shelf_of("one", tools=["a"]), shelf_of("two", tools=[f"t{number}" for number in range(20_000)])
    catalog = catalog_of(small, large)
    with measured() as spent:
        for _ in range(10_000):
            catalog.lookup(Kind.TOOL, "one__a")
    assert spent.seconds < 0.1


def test_an_entry_is_a_value_whatever_its_definition() -> None:
    entry = Entry(Kind.TOOL, "a", "s", "a", {"name": "a"})
    assert entry == Entry(Kind.TOOL, "a", "s", "a") and entry.listed and not Entry(Kind.TOOL, "a", "s", "a").listed


def test_tools_with_a_page_are_found_by_their_own_name_and_those_that_need_a_task_are_marked() -> None:
    page = {"_meta": {"ui": {"resourceUri": "ui://x"}}}
    needs = {"execution": {"taskSupport": "required"}}
    tools: tuple[dict[str, Any], ...] = (
        {"name": "show", "inputSchema": {}, **page},
        {"name": "plain", "inputSchema": {}, **needs},
    )
    one, second = (shelve(NAMING, MOUNTS[key], Listing(items={Kind.TOOL: tools})) for key in ("one", "two"))
    catalog = catalog_of(one, second)
    assert [entry.public for entry in catalog.app_tools("show")] == ["one__show", "second__show"]
    assert catalog.app_tools("plain") == catalog.app_tools("one__show") == ()
    assert [entry.needs_task for entry in one.entries[Kind.TOOL]] == [False, True]
    modern = shelve(NAMING, MOUNTS["one"], Listing(LATEST_MODERN, items={Kind.TOOL: tools}))
    assert not any(entry.needs_task for entry in modern.entries[Kind.TOOL])


def test_what_is_kept_of_an_entry_is_the_same_to_rules_and_has_no_definition() -> None:
    tool = Entry(Kind.TOOL, "one__a", "one", "a", {"name": "one__a", "description": "x" * 1000}, needs_task=True)
    unlisted = Entry(Kind.RESOURCE, "one+x:y", "one", "x:y", template="x:{id}", templates=("x:{id}",))
    assert (tool.kept(), tool.kept().judged_by, tool.kept().definition) == (tool, tool.judged_by, {"name": "a"})
    assert tool.kept().listed and tool.kept().needs_task
    assert unlisted.kept() is unlisted
