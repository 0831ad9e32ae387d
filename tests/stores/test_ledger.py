"""Budgets that several brokers spend from one database: blocks, what comes back, and what never happens."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import insert, select, text

from broker.config import Secret
from broker.core.amount import UNIT
from broker.core.budget import Account
from broker.core.period import Period
from broker.core.purse import Purse, settle
from broker.stores.engine import Database
from broker.stores.errors import StoreError
from broker.stores.ledger import BATCH, KEPT, LEASE, Ledger, Standing, Telling
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.script import Script
from broker.stores.tables import budget_accounts
from tests.calls import watched
from tests.patience import PATIENCE
from tests.stores.conftest import SERVER, Open, location, opened, postgresql

__all__ = ["location", "opened", "postgresql"]

NOW = 1_000_000.0
DAY = Account("team:acme/data", Period.DAY, 950_400)


class Holder:
    """One broker: a purse, and how it talks to the ledger."""

    def __init__(self, ledger: Ledger, limit: int) -> None:
        self.ledger, self.limit, self.purse = ledger, limit * UNIT, Purse()

    def telling(self, need: int = 0, *, gives_back: bool = False) -> Telling:
        purse = self.purse
        if gives_back:
            purse.give_back()
        return Telling(DAY, self.limit, purse.spent, purse.reserved, need * UNIT, gives_back)

    async def tell(self, need: int = 0, *, now: float = NOW, gives_back: bool = False) -> Standing:
        telling = self.telling(need, gives_back=gives_back)
        (standing,) = await self.ledger.tell([telling], now)
        self.purse.granted(standing.amount, telling.spent)
        return standing

    def spend(self, units: int) -> None:
        assert self.purse.reserve(units * UNIT)
        settle([self], units * UNIT, units * UNIT)

    @property
    def free(self) -> int:
        return self.purse.free // UNIT


Make = Callable[[int], Awaitable[Holder]]


@pytest.fixture
async def holders(opened: Open) -> AsyncIterator[Make]:
    made: list[Holder] = []

    async def make(limit: int) -> Holder:
        made.append(Holder(Ledger((await opened()).database, f"broker-{len(made)}"), limit))
        return made[-1]

    yield make


async def test_a_block_is_one_per_cent_of_the_rest_and_one_unit_at_least(holders: Make) -> None:
    small, large = await holders(50), await holders(5000)
    await small.tell(1)
    assert small.free == 1
    await large.tell(1)
    assert large.free == 49


async def test_who_needs_more_than_a_block_gets_what_it_needs(holders: Make) -> None:
    one = await holders(50)
    await one.tell(20)
    assert one.free == 20


async def test_the_last_unit_goes_to_one_of_two_brokers(holders: Make) -> None:
    one, other = await holders(1), await holders(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.tell, 1)
        tasks.start_soon(other.tell, 1)
    assert one.free + other.free == 1


async def test_brokers_that_need_at_once_never_hold_more_than_there_is(holders: Make) -> None:
    brokers = [await holders(20) for _ in range(3)]

    async def told(broker: Holder) -> Standing:
        """As a broker does it: what the database had no time for, on a busy machine, is told again."""
        with anyio.fail_after(PATIENCE):
            while True:
                with suppress(StoreError):
                    return await broker.tell(1)

    async def spend(broker: Holder) -> None:
        while (await told(broker)).amount > broker.purse.spent:
            broker.spend(broker.free)

    async with anyio.create_task_group() as tasks:
        for broker in brokers:
            tasks.start_soon(spend, broker)
    assert sum(broker.purse.spent for broker in brokers) == 20 * UNIT


@pytest.mark.skipif(not SERVER, reason="of PostgreSQL")
@pytest.mark.parametrize("is_dead", [False, True])
async def test_who_waits_for_a_new_account_holds_no_old_one(postgresql: str, tmp_path: Path, is_dead: bool) -> None:
    """Else two brokers could wait for each other."""
    store = await open_store(Location(tmp_path, tmp_path / "none", Secret(postgresql)))
    ledger, earlier = Ledger(store.database, "one"), Account("a", Period.DAY, 0)
    assert earlier < DAY
    try:
        await ledger.tell([Telling(earlier, UNIT, 0, 0, 0, False)], NOW)
        async with store.database.writing() as connection, anyio.create_task_group() as tasks:
            row = {"place": DAY.where, "period": DAY.period.value, "began": DAY.begin}
            await connection.execute(insert(budget_accounts).values(row))
            if is_dead:
                tasks.start_soon(ledger.bury, "dead", {earlier: 1, DAY: 1})
            else:
                tasks.start_soon(ledger.tell, [Telling(one, UNIT, 0, 0, 0, False) for one in (earlier, DAY)], NOW)
            waiting = text("SELECT count(*) FROM pg_locks WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))")
            with anyio.fail_after(10):
                while not await connection.scalar(waiting):  # noqa: ASYNC110 - what another session does sets no event
                    await anyio.sleep(0.01)
            old = select(budget_accounts.c.place).where(budget_accounts.c.place == earlier.where)
            assert await connection.scalar(old.with_for_update(nowait=True)) == earlier.where
            await connection.commit()
    finally:
        await store.aclose()


async def test_what_is_given_back_another_broker_gets(holders: Make) -> None:
    one, other = await holders(10), await holders(10)
    await one.tell(10)
    one.spend(4)
    assert (await other.tell(1)).away == 10 * UNIT and other.free == 0
    await one.tell(gives_back=True)
    assert one.free == 0
    await other.tell(6)
    assert other.free == 6
    assert not (await one.tell(1)).amount > one.purse.spent


async def test_what_a_broker_that_died_had_not_spent_comes_back_when_its_lease_ends(holders: Make) -> None:
    dead, other = await holders(10), await holders(10)
    await dead.tell(10)
    dead.spend(3)
    assert dead.purse.reserve(2 * UNIT)
    await dead.tell()
    await other.tell(1, now=NOW + LEASE - 1)
    assert other.free == 0
    standing = await other.tell(7, now=NOW + LEASE)
    assert other.free == 7
    assert standing.used == 3 * UNIT and standing.away == 0


async def test_a_broker_that_was_taken_for_dead_tells_what_it_spent_meanwhile_once(holders: Make) -> None:
    slow, other = await holders(10), await holders(10)
    await slow.tell(10)
    slow.spend(3)
    await slow.tell()
    slow.spend(2)
    await other.tell(6, now=NOW + LEASE)
    assert other.free == 6
    await slow.ledger.tell([slow.telling()], NOW + LEASE)  # an answer that was lost
    assert (await slow.tell(now=NOW + LEASE)).used == 5 * UNIT
    assert slow.free == 0
    assert (await other.tell(1, now=NOW + LEASE)).block == 0


async def test_an_answer_that_is_lost_changes_nothing(holders: Make) -> None:
    one, other = await holders(100), await holders(100)
    await one.tell(3)
    one.spend(2)
    lost = one.telling()
    await one.ledger.tell([lost], NOW)
    standing = await one.tell()
    assert (standing.used, one.free) == (2 * UNIT, 1)
    await one.ledger.tell([one.telling(1)], NOW)  # a block was granted, and nobody has heard of it
    await one.tell()
    assert one.free == 2
    assert (await other.tell(1)).used == 2 * UNIT


async def test_eighty_per_cent_are_said_once_by_one_broker(holders: Make) -> None:
    one, other = await holders(10), await holders(10)
    await one.tell(7)
    one.spend(7)
    assert not (await one.tell(1)).is_warning
    one.spend(1)
    assert (await one.tell()).is_warning
    assert not (await one.tell()).is_warning
    assert not (await other.tell()).is_warning


async def test_a_limit_that_is_lowered_lets_nobody_have_more(holders: Make) -> None:
    one = await holders(100)
    await one.tell(10)
    one.spend(10)
    one.limit = 5 * UNIT
    await one.tell(1)
    assert one.free == 0
    one.limit = 20 * UNIT
    await one.tell(1)
    assert one.free == 1


async def test_accounts_of_long_ago_are_forgotten(holders: Make) -> None:
    one = await holders(10)
    await one.tell(1)
    one.spend(1)
    await one.tell()
    await one.ledger.forget(DAY.begin + KEPT)
    assert (await one.tell()).used == UNIT
    await one.ledger.forget(DAY.begin + KEPT + 1)
    assert (await (await holders(10)).tell()).used == 0


def counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that it carries out from here on, less the beginning and the end of a transaction."""
    asked: list[str] = []
    carry_out = database.carry_out

    def noting(script: Script[Any]) -> Script[Any]:
        rows: Any = None
        while True:
            try:
                statement = script.send(rows)
            except StopIteration as end:
                return end.value
            asked.append(statement.text)
            rows = yield statement

    monkeypatch.setattr(database, "carry_out", lambda script: carry_out(noting(script)))
    return asked


def tellings_of(accounts: int, spent: int = 0) -> list[Telling]:
    """One for each of so many keys, which needs something if it has not spent anything."""
    keys = [Account(f"key:acme/data/k{number}", Period.DAY, 950_400) for number in range(accounts)]
    return [Telling(key, UNIT, spent, 0, 0 if spent else 1) for key in keys]


async def test_a_telling_of_hundreds_of_accounts_takes_as_many_statements_as_one_of_two(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger((await opened()).database, "broker")
    told = tellings_of(BATCH)
    asked, counts = counted(ledger.database, monkeypatch), list[int]()
    for tellings in (told[:2], told[2:]):
        before = len(asked)
        standings = await ledger.tell(tellings, NOW)
        counts.append(len(asked) - before)
        assert [one.block for one in standings] == [UNIT] * len(tellings)
    assert counts == [5, 5]


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
async def test_a_telling_asks_the_loop_for_one_step_of_a_thread_and_no_more(
    holders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement by itself was a step of the loop: some 15 ms of it once a second, in which calls waited."""
    one = await holders(50)
    await one.tell(1)
    steps, run_sync = list[object](), anyio.to_thread.run_sync

    async def noting(work: Callable[..., Any], *arguments: Any) -> Any:
        steps.append(work)
        return await run_sync(work, *arguments)

    monkeypatch.setattr(anyio.to_thread, "run_sync", noting)
    frames = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal frames
        frames += event == "call" and "sqlalchemy" in frame.f_code.co_filename

    with watched(count):
        await one.tell(1)
    assert len(steps) == 1
    assert not frames, "it goes through SQLAlchemy, on the loop"


async def test_more_accounts_than_fit_into_a_statement_are_all_told(opened: Open) -> None:
    ledger = Ledger((await opened()).database, "broker")
    told = [
        Telling(Account(f"key:acme/data/k{number}", Period.DAY, 950_400), UNIT, 1, 0) for number in range(BATCH + 1)
    ]
    standings = await ledger.tell(told, NOW)
    assert {one.account for one in standings} == {one.account for one in told}
    assert [one.used for one in await ledger.tell(told, NOW)] == [1] * len(told)
