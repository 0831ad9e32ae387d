"""What was used, in the database: batches count once, and sums are read by group, time and place."""

from collections.abc import AsyncIterator

import anyio
import pytest

from broker.core.tally import Sums, Use
from broker.stores.usage import UsageStore
from broker.stores.usage_rows import Seen
from tests.stores.conftest import Open, location, opened, postgresql

__all__ = ["location", "opened", "postgresql"]

HOUR = 3600
ALL = Seen(everything=True)
ADA = Use("acme", "data", "jwt:https://login.acme.dev ada", "sql", "tools", "query")
CI = Use("acme", "data", "key:acme/data/ci", "sql", "tools", "query")
WEB = Use("acme", "web", "key:acme/web/bot", "docs", "resources", "")
BETA = Use("beta", "", "key:beta/ops", "docs", "prompts", "review")


@pytest.fixture
async def store(opened: Open) -> AsyncIterator[UsageStore]:
    yield UsageStore((await opened()).database, "broker-1")


def sums(calls: int, cost: int = 0, slowest: int = 0) -> Sums:
    return Sums(calls, 0, 0, cost, slowest, slowest)


async def test_a_batch_that_is_sent_twice_counts_once(store: UsageStore, opened: Open) -> None:
    other = UsageStore((await opened()).database, "broker-2")
    assert await store.add(1, {(0, ADA): sums(2, 30, 5)}, now=0)
    assert not await store.add(1, {(0, ADA): sums(2, 30, 5)}, now=0)
    assert await store.add(2, {(0, ADA): sums(1, 10, 9)}, now=0)
    assert await other.add(1, {(0, ADA): sums(4, 5, 7)}, now=0)
    (row,) = await store.read("tool", 0, HOUR, HOUR, ALL)
    assert row.of == {"server": "sql", "kind": "tools", "name": "query"}
    assert row.sums == Sums(7, 0, 0, 45, 21, 9)


async def test_brokers_that_write_the_same_rows_at_once_lose_nothing(store: UsageStore, opened: Open) -> None:
    others = [UsageStore((await opened()).database, f"other-{number}") for number in range(2)]

    async def write(one: UsageStore) -> None:
        for number in range(1, 6):
            await one.add(number, {(0, ADA): sums(1), (0, CI): sums(1)}, now=0)

    async with anyio.create_task_group() as tasks:
        for one in (store, *others):
            tasks.start_soon(write, one)
    found = await store.read("key", 0, HOUR, HOUR, ALL)
    assert [row.sums.calls for row in found] == [15, 15]


async def test_sums_are_read_by_group_and_time(store: UsageStore) -> None:
    first = {(0, ADA): sums(1), (0, CI): sums(2), (HOUR, CI): sums(4)}
    await store.add(1, {**first, (HOUR, WEB): sums(8), (2 * HOUR, BETA): sums(16)}, now=0)
    rows = await store.read("team", 0, 3 * HOUR, 2 * HOUR, ALL)
    found = {(tuple(row.of.values()), row.at): row.sums.calls for row in rows}
    assert found == {(("acme", "data"), 0): 7, (("acme", "web"), 0): 8, (("beta", ""), 2 * HOUR): 16}
    later = {tuple(row.of.values()): row.sums.calls for row in await store.read("server", HOUR, 2 * HOUR, HOUR, ALL)}
    assert later == {("sql",): 4, ("docs",): 8}


async def test_nobody_reads_more_than_its_places_and_itself(store: UsageStore) -> None:
    await store.add(1, {(0, ADA): sums(1), (0, CI): sums(2), (0, WEB): sums(8), (0, BETA): sums(16)}, now=0)

    async def seen(whom: Seen) -> int:
        return sum(row.sums.calls for row in await store.read("organization", 0, HOUR, HOUR, whom))

    assert await seen(Seen()) == 0
    assert await seen(Seen(principal=CI.principal)) == 2
    assert await seen(Seen([("acme", "web")], CI.principal)) == 10
    assert await seen(Seen([("acme", "")])) == 11
    assert await seen(ALL) == 27


async def test_what_is_too_old_is_forgotten(store: UsageStore) -> None:
    await store.add(1, {(0, ADA): sums(1), (HOUR, ADA): sums(2)}, now=0)
    await store.forget(HOUR)
    assert [row.at for row in await store.read("tool", 0, HOUR * 2, HOUR, ALL)] == [HOUR]
