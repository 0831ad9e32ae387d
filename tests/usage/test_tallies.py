"""What was used, from memory into the database: in batches, each once, also after faults."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar

import pytest

from broker.clock import FakeClock
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.request import Kind
from broker.core.tally import Sums, Use
from broker.stores.errors import StoreUnavailable
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.usage import UsageStore
from broker.stores.usage_rows import Seen
from broker.usage import tallies as module
from broker.usage.tallies import OTHERS, Tallies

CALLER = Caller("key:acme/data/ci", "acme", "data", "ci")
QUERY = Use.of(CALLER, Entry(Kind.TOOL, "sql__query", "sql", "query"))
NOON = 1_700_000_000.0


class Store(UsageStore):
    """A store that can fail before, or after, a batch is in."""

    fails = ""
    meanwhile: ClassVar[list[Callable[[], None]]] = []
    """What happens while a batch is written."""

    async def add(self, *batch: object) -> bool:  # type: ignore[override]
        for happens in Store.meanwhile:
            happens()
        if Store.fails == "before":
            raise StoreUnavailable("the database is down")
        if Store.fails == "fault":
            raise RuntimeError("a fault of ours")
        is_new = await super().add(*batch)  # type: ignore[arg-type]
        if Store.fails == "after":
            raise StoreUnavailable("the database is gone")
        return is_new


class World:
    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock(NOON)
        self.location = Location(directory, directory / "broker.db")
        Store.fails, Store.meanwhile = "", []
        self.tallies = Tallies(self.clock, self.open_store, keep_days=1)

    async def open_store(self) -> Store:
        return Store((await open_store(self.location)).database, "broker-1")

    async def calls(self) -> dict[tuple[str, ...], int]:
        store = await self.open_store()
        found = await store.read("tool", 0, 10**11, 3600, Seen(everything=True))
        await store.database.aclose()
        return {tuple(row.of.values()): row.sums.calls for row in found}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    yield found
    Store.fails, Store.meanwhile = "", []
    await found.tallies.flush()
    await found.tallies._leave()


async def test_calls_are_added_up_and_written_at_the_end(world: World) -> None:
    async with world.tallies.running():
        for _ in range(3):
            world.tallies.of(QUERY).add(Sums(1, 0, 0, 10, 5, 5))
    assert await world.calls() == {("sql", "tools", "query"): 3}


async def test_calls_that_go_on_while_a_batch_is_written_wait_for_the_next_one(world: World) -> None:
    written = 0

    def call() -> None:
        nonlocal written
        written += 1
        assert written < 10, "one batch after the other"
        world.tallies.of(QUERY).add(Sums(1))

    Store.meanwhile = [call]
    world.tallies.of(QUERY).add(Sums(1))
    await world.tallies.flush()
    assert written == 1
    Store.meanwhile = []
    await world.tallies.flush()
    assert await world.calls() == {("sql", "tools", "query"): 2}


async def test_a_flush_writes_all_that_was_counted_before_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BATCH", 2)
    for name in "abcde":
        world.tallies.of(Use.of(CALLER, Entry(Kind.TOOL, f"sql__{name}", "sql", name))).add(Sums(1))
    await world.tallies.flush()
    assert await world.calls() == {("sql", "tools", name): 1 for name in "abcde"}


async def test_a_call_that_ends_while_the_last_batch_is_written_is_written_too(world: World) -> None:
    def last_call() -> None:
        Store.meanwhile = []
        world.tallies.of(QUERY).add(Sums(1))

    Store.meanwhile = [last_call]
    async with world.tallies.running():
        world.tallies.of(QUERY).add(Sums(1))
    assert await world.calls() == {("sql", "tools", "query"): 2}


@pytest.mark.parametrize("fails", ["before", "after"])
async def test_a_batch_whose_fate_is_not_known_is_counted_once(world: World, fails: str) -> None:
    world.tallies.of(QUERY).add(Sums(1))
    Store.fails = fails
    await world.tallies.flush()
    assert world.tallies.trouble
    world.tallies.of(QUERY).add(Sums(1))
    Store.fails = ""
    await world.tallies.flush()
    assert not world.tallies.trouble
    assert await world.calls() == {("sql", "tools", "query"): 2}


async def test_more_uses_than_are_told_apart_are_counted_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_USES", 2)
    for number in range(5):
        world.tallies.of(Use("acme", "", f"jwt:{number}", "sql", "tools", "query")).add(Sums(1))
    await world.tallies.flush()
    assert await world.calls() == {("sql", "tools", "query"): 2, (OTHERS.server, OTHERS.kind, OTHERS.name): 3}


async def test_uris_and_arguments_are_no_part_of_what_is_counted() -> None:
    secret = Entry(Kind.RESOURCE, "sql+file:///x?token=hunter2", "sql", "file:///x?token=hunter2")
    assert "hunter2" not in repr(Use.of(CALLER, secret))


async def test_what_is_too_old_is_forgotten(world: World) -> None:
    world.tallies.of(QUERY).add(Sums(1))
    await world.tallies.flush()
    world.clock.advance(2 * 86_400)
    await world.tallies.flush()
    assert await world.calls() == {}


async def test_F104_a_fault_of_ours_ends_nobodys_call_and_loses_no_count(world: World) -> None:
    async with world.tallies.running():
        world.tallies.of(QUERY).calls += 2
        Store.fails = "fault"
        await world.tallies.flush()
        assert "a fault of the broker" in world.tallies.trouble
        Store.fails = ""
        await world.tallies.flush()
        assert not world.tallies.trouble
    assert await world.calls() == {("sql", "tools", "query"): 2}
