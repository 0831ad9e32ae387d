"""Who is told that a list has changed: against a straightforward model, and through a running broker."""

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from broker.core.caller import LOCAL
from broker.core.catalog import Catalog, Listing, shelve
from broker.core.match import Rules
from broker.core.names import Mount, Naming
from broker.core.policy import Policy
from broker.core.request import LISTS, Kind
from broker.relay.notify import LIST_CHANGED, Hub, Subscriber
from tests.relay.fake import TIMEOUT, Fake, house, tool

VIEWS = ("", "one", "two", "nobody")
OWN = ("a", "b", "c")
Items = dict[str, int]
"""Own name -> which version of its definition."""

items = st.dictionaries(st.sampled_from(OWN), st.integers(0, 1))
kinds = st.sets(st.sampled_from(list(Kind)), min_size=1)


def catalog(naming: Naming, lists: dict[Kind, Items]) -> Catalog:
    found = {
        kind: tuple(
            {LISTS[kind].name_key: name, "name": name, "inputSchema": {}, "n": n}
            | ({"uri": f"x:{name}"} if kind is Kind.RESOURCE else {})
            for name, n in one.items()
        )
        for kind, one in lists.items()
    }
    mount = next(mount for mount in naming.mounts if mount.key == "one")
    return Catalog.empty(naming).with_shelf(shelve(naming, mount, Listing(items=found)))


def expected(view: str, before: Items, after: Items, denied: set[str], order: bool) -> bool:
    """Told if something of it is visible, unless the list differs and every difference is hidden."""
    if view not in ("", "one"):
        return False
    old = [(name, n) for name, n in before.items() if name not in denied]
    new = [(name, n) for name, n in after.items() if name not in denied]
    if list(before.items()) == list(after.items()):
        return bool(new)
    return old != new


@given(st.fixed_dictionaries({kind: st.tuples(items, items) for kind in Kind}), kinds, st.sets(st.sampled_from(OWN)))
def test_the_hub_tells_exactly_whom_the_model_tells(
    lists: dict[Kind, tuple[Items, Items]], changed: set[Kind], denied: set[str]
) -> None:
    naming = Naming.of([Mount("one", "one"), Mount("two", "two")])
    deny = tuple(denied)
    rules = {kind: Rules.from_texts(("*",), deny) for kind in (Kind.TOOL, Kind.PROMPT)}
    rules[Kind.RESOURCE] = Rules.from_texts(("*",), (*deny, *(f"x:{name}" for name in denied)))
    policy = Policy({"one": rules}, {"one": frozenset({"one"}), "two": frozenset({"two"})})
    before = catalog(naming, {kind: pair[0] for kind, pair in lists.items()})
    after = catalog(naming, {kind: pair[1] for kind, pair in lists.items()})
    hub, told = Hub(), Counter[tuple[str, str]]()
    for view in VIEWS:
        hub.add(Subscriber(LOCAL, view, lambda method, params, view=view: told.update([(view, method)])))
    hub.changed(policy, "one", changed, before, after)
    model = {
        (view, LIST_CHANGED[kind])
        for view in VIEWS
        for kind in changed
        if expected(view, *lists[kind], denied, order=True)
    }
    assert told == Counter(dict.fromkeys(model, 1)), "each once"


def test_a_subscriber_that_is_removed_is_told_nothing_and_twice_is_no_error() -> None:
    hub = Hub()
    told: list[str] = []
    subscriber = Subscriber(LOCAL, "", lambda method, params: told.append(method))
    hub.add(subscriber)
    hub.add(subscriber)
    assert len(hub) == 1
    hub.remove(subscriber)
    hub.remove(subscriber)
    naming = Naming.of([Mount("one", "one")])
    hub.changed(Policy(), "one", [Kind.TOOL], Catalog.empty(naming), catalog(naming, {Kind.TOOL: {"a": 0}}))
    assert told == [] and len(hub) == 0


async def test_I42_a_change_that_is_hidden_is_not_told_through_a_whole_broker(tmp_path: Path) -> None:
    servers: dict[str, Any] = {"one": {"tools": {"deny": ["secret*"]}}, "two": {}}
    async with house(tmp_path, {"one": Fake(), "two": Fake()}, servers=servers) as place:
        told: list[tuple[str, str]] = []
        for view in ("", "one", "two"):
            place.broker.engine.hub.add(
                Subscriber(LOCAL, view, lambda method, params, view=view: told.append((view, method)))
            )
        fake = place.fakes["one"]

        async def changes(tools: list[Any]) -> None:
            before = place.broker.generation.catalog
            fake.tools = tools
            fake.announce()
            with anyio.fail_after(TIMEOUT):
                while place.broker.generation.catalog is before:
                    place.clock.advance(1)  # past the spacing of refreshes, whenever it began
                    await anyio.lowlevel.checkpoint()

        await changes([tool("echo"), tool("slow"), tool("secret1")])
        assert told == []
        await changes([tool("echo"), tool("secret2")])
        assert sorted(told) == [("", LIST_CHANGED[Kind.TOOL]), ("one", LIST_CHANGED[Kind.TOOL])]
