"""What one broker spends from memory, over a ledger in a file: who waits, who is refused, what comes back."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.clock import FakeClock
from broker.core.amount import UNIT
from broker.core.budget import Limit
from broker.core.period import Period
from broker.core.purse import Telling, settle
from broker.errors import BudgetReached, BudgetUnknown
from broker.stores.engine import Database
from broker.stores.errors import StoreUnavailable
from broker.stores.ledger import KEPT, LEASE, Ledger
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.usage import journal as journal_module
from broker.usage import purses as module
from broker.usage.journal import Journal
from broker.usage.pocket import IDLE, TICK, TRUSTED, Pocket, Wallet
from broker.usage.purses import BURIED, Purses
from tests.patience import PATIENCE

NOON = 1_700_000_000.0
TEAM = Limit("team:acme/data", Period.DAY, 10 * UNIT)
KEY = Limit("key:acme/data/ci", Period.HOUR, 4 * UNIT)


class World:
    """Brokers on one database, on one clock."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock(NOON)
        self.location = Location(directory, directory / "broker.db")
        self.stack = AsyncExitStack()
        self.warned: list[tuple[str, int]] = []
        self.is_down = False
        self.brokers = 0
        self.told = anyio.Event()

    async def broker(self) -> Purses:
        self.brokers += 1
        holder = f"broker-{self.brokers}"

        async def open_ledger() -> Ledger:
            if self.is_down:
                raise StoreUnavailable("the database is down")
            return Told(self, (await open_store(self.location)).database, holder)

        async def warn(limit: Limit, used: int) -> None:
            self.warned.append((limit.rule, used))

        purses = Purses(self.clock, open_ledger, Journal(self.location.directory / "budgets", holder), warn)
        await self.stack.enter_async_context(purses.running())
        return purses

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for what is told to the database, and its answer."""
        with anyio.fail_after(PATIENCE):
            while not is_so():
                self.told = anyio.Event()
                await self.told.wait()

    async def later(self, seconds: float) -> None:
        """Let time pass; whoever sleeps so long wakes up."""
        await anyio.wait_all_tasks_blocked()
        self.clock.advance(seconds)
        await anyio.wait_all_tasks_blocked()


class Told(Ledger):
    """A ledger that can be cut off."""

    def __init__(self, world: World, *more: object) -> None:
        super().__init__(*more)  # type: ignore[arg-type]
        self.world = world

    async def tell(self, *asked: object) -> list[object]:  # type: ignore[override]
        if self.world.is_down:
            raise StoreUnavailable("the database is down")
        try:
            return await super().tell(*asked)  # type: ignore[arg-type,return-value]
        finally:
            self.world.told.set()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    async with found.stack:
        yield found


def units(pockets: tuple[Pocket, ...]) -> list[int]:
    """What is free in each."""
    return [one.purse.free // UNIT for one in pockets]


async def test_every_budget_must_reach_and_none_is_taken_from_if_one_does_not(world: World) -> None:
    purses = await world.broker()
    (team, key) = await purses.reserve(Wallet([TEAM, KEY]), 4 * UNIT)
    assert (team.purse.reserved, key.purse.reserved) == (4 * UNIT, 4 * UNIT)
    with pytest.raises(BudgetReached) as refusal:
        await purses.reserve(Wallet([TEAM, KEY]), 1 * UNIT)
    assert refusal.value.data == {
        "level": "key:acme/data/ci",
        "limit": "budget 4/hour",
        "retryAfter": 2800,
        "resets": "2023-11-14T23:00:00Z",
    }
    assert "key acme/data/ci has used up its budget of 4/hour" in refusal.value.message
    assert team.purse.reserved == 4 * UNIT
    purses.settle((team, key), 4 * UNIT, 3 * UNIT)
    assert (team.purse.spent, key.purse.spent) == (3 * UNIT, 3 * UNIT)
    await purses.reserve(Wallet([TEAM, KEY]), 1 * UNIT)


async def test_of_64_calls_at_once_one_gets_the_last_unit(world: World) -> None:
    purses, last = await world.broker(), Limit("org:acme", Period.MONTH, UNIT)
    got: list[tuple[Pocket, ...]] = []
    refused: list[BudgetReached] = []

    async def call() -> None:
        try:
            got.append(await purses.reserve(Wallet([last]), UNIT))
        except BudgetReached as refusal:
            refused.append(refusal)

    async with anyio.create_task_group() as tasks:
        for _ in range(64):
            tasks.start_soon(call)
    assert (len(got), len(refused)) == (1, 63)


async def test_two_brokers_that_spend_as_fast_as_they_can_spend_the_budget_and_no_more(world: World) -> None:
    brokers = [await world.broker(), await world.broker()]
    spent = 0

    async def call(purses: Purses) -> None:
        nonlocal spent
        with pytest.raises(BudgetReached):
            while True:
                purses.settle(await purses.reserve(Wallet([TEAM]), UNIT), UNIT, UNIT)
                spent += 1

    async with anyio.create_task_group() as tasks:
        for purses in brokers * 4:
            tasks.start_soon(call, purses)
    assert 9 <= spent <= 10  # a block may be with the other broker, which has just been refused another


async def test_a_call_that_has_room_does_not_wait_for_the_database(world: World) -> None:
    purses, large = await world.broker(), Limit("org:acme", Period.DAY, 1000 * UNIT)
    await purses.reserve(Wallet([large]), UNIT)
    with anyio.move_on_after(0):  # not one step of the loop
        await purses.reserve(Wallet([large]), UNIT)
        return
    pytest.fail("it waited")


async def test_a_round_in_which_nothing_has_changed_asks_the_database_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, scripts, carry_out = await world.broker(), list[object](), Database.carry_out
    (pocket,) = await broker.reserve(Wallet([TEAM]), UNIT)
    await world.until(lambda: pocket.purse.free == UNIT)

    async def note(database: Database, script: Any) -> Any:
        scripts.append(script)
        return await carry_out(database, script)

    monkeypatch.setattr(Database, "carry_out", note)
    for _ in range(3):
        await world.later(TICK)
    assert not scripts
    broker.settle([pocket], UNIT, UNIT)
    await world.later(TICK)
    assert len(scripts) == 1


async def test_what_is_released_is_there_for_the_next_call(world: World) -> None:
    purses = await world.broker()
    pockets = await purses.reserve(Wallet([KEY]), 4 * UNIT)
    purses.settle(pockets, 4 * UNIT, 0)
    await purses.reserve(Wallet([KEY]), 4 * UNIT)


async def test_a_block_that_nobody_uses_is_left_to_other_brokers(world: World) -> None:
    one, other = await world.broker(), await world.broker()
    pockets = await one.reserve(Wallet([KEY]), 4 * UNIT)
    one.settle(pockets, 4 * UNIT, UNIT)
    with pytest.raises(BudgetReached) as refusal:
        await other.reserve(Wallet([KEY]), 3 * UNIT)
    assert refusal.value.data["retryAfter"] == IDLE
    await world.later(IDLE)
    await world.until(lambda: pockets[0].purse.free == 0 and not pockets[0].purse.is_dirty)
    await world.later(TICK)
    await other.reserve(Wallet([KEY]), 3 * UNIT)


async def test_a_new_period_begins_anew_and_a_call_is_paid_in_that_in_which_it_began(world: World) -> None:
    purses = await world.broker()
    before = await purses.reserve(Wallet([KEY]), 4 * UNIT)
    world.clock.advance(3600)
    after = await purses.reserve(Wallet([KEY]), 4 * UNIT)
    assert after[0].account.begin == before[0].account.begin + 3600
    purses.settle(before, 4 * UNIT, 4 * UNIT)
    assert (before[0].purse.spent, after[0].purse.spent) == (4 * UNIT, 0)


async def test_a_call_that_waits_over_the_turn_of_a_period_is_paid_in_the_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    purses = await world.broker()
    ask = purses._ask

    async def slowly(*asked: Any) -> None:
        monkeypatch.undo()
        await ask(*asked)
        world.clock.advance(3600)

    monkeypatch.setattr(purses, "_ask", slowly)
    (pocket,) = await purses.reserve(Wallet([KEY]), UNIT)
    assert pocket.account == KEY.account(NOON + 3600) and pocket.purse.reserved == UNIT


async def test_F95_a_database_that_is_down_refuses_only_what_is_not_leased_and_comes_back_alone(world: World) -> None:
    purses, large = await world.broker(), Limit("org:acme", Period.DAY, 1000 * UNIT)
    await purses.reserve(Wallet([large]), UNIT)
    world.is_down = True
    await purses.reserve(Wallet([large]), UNIT)
    with pytest.raises(BudgetUnknown) as refusal:
        await purses.reserve(Wallet([KEY]), UNIT)
    assert refusal.value.message == "the budget of key acme/data/ci cannot be looked up now: try again later"
    assert purses.trouble == "the database is down"
    world.is_down = False
    await world.later(TICK)
    await world.until(lambda: not purses.trouble)
    await purses.reserve(Wallet([KEY]), UNIT)


async def test_F95_what_nobody_has_confirmed_for_long_is_not_spent(world: World) -> None:
    purses, large = await world.broker(), Limit("org:acme", Period.DAY, 1000 * UNIT)
    await purses.reserve(Wallet([large]), UNIT)
    world.is_down = True
    world.clock.advance(TRUSTED)
    with pytest.raises(BudgetUnknown):
        await purses.reserve(Wallet([large]), UNIT)


async def test_F95_what_was_spent_while_the_database_was_down_is_counted_afterwards(world: World) -> None:
    purses, large = await world.broker(), Limit("org:acme", Period.DAY, 1000 * UNIT)
    (pocket,) = await purses.reserve(Wallet([large]), UNIT)
    await world.until(lambda: not pocket.is_low)
    world.is_down = True
    purses.settle([pocket], UNIT, UNIT)
    await world.later(TICK)
    assert purses.trouble and pocket.purse.is_dirty
    world.is_down = False
    await world.later(TICK)
    await world.until(lambda: not pocket.purse.is_dirty)


async def test_a_lease_that_is_in_use_is_renewed(world: World) -> None:
    one, other = await world.broker(), await world.broker()
    (pocket,) = await one.reserve(Wallet([KEY]), 4 * UNIT)
    for _ in range(int(LEASE) // 10 + 1):
        told = pocket.told
        await world.later(10.0)
        await world.until(lambda told=told: pocket.told > told)
    with pytest.raises(BudgetReached):
        await other.reserve(Wallet([KEY]), UNIT)


async def test_a_broker_that_ends_gives_back_what_it_has_not_spent(world: World) -> None:
    async def open_ledger() -> Ledger:
        return Ledger((await open_store(world.location)).database, "ends")

    async def warn(limit: Limit, used: int) -> None:
        pytest.fail("nothing to warn of")

    journals = world.location.directory / "budgets"
    ends = Purses(world.clock, open_ledger, Journal(journals, "ends"), warn)
    async with ends.running():
        pockets = await ends.reserve(Wallet([KEY]), 4 * UNIT)
        ends.settle(pockets, 4 * UNIT, UNIT)
    other = await world.broker()
    await other.reserve(Wallet([KEY]), 3 * UNIT)


async def test_eighty_per_cent_are_said_once(world: World) -> None:
    purses = await world.broker()
    for amount in (3, 1):
        (pocket,) = await purses.reserve(Wallet([KEY]), amount * UNIT)
        purses.settle([pocket], amount * UNIT, amount * UNIT)
        await world.later(TICK)
        await world.until(lambda pocket=pocket: not pocket.purse.is_dirty)
    await anyio.wait_all_tasks_blocked()
    assert world.warned == [("key:acme/data/ci/budget/hour", 4 * UNIT)]


async def test_a_limit_that_is_raised_is_in_force_at_once(world: World) -> None:
    purses = await world.broker()
    await purses.reserve(Wallet([KEY]), 4 * UNIT)
    with pytest.raises(BudgetReached):
        await purses.reserve(Wallet([KEY]), UNIT)
    await purses.reserve(Wallet([Limit(KEY.where, KEY.period, 8 * UNIT)]), UNIT)


async def test_a_call_that_is_cancelled_while_it_waits_takes_nothing(world: World) -> None:
    purses = await world.broker()
    with anyio.move_on_after(0) as scope:
        await purses.reserve(Wallet([KEY]), 4 * UNIT)
    assert scope.cancelled_caught
    await purses.reserve(Wallet([KEY]), 4 * UNIT)


async def test_purses_of_which_there_is_nothing_more_are_forgotten(world: World) -> None:
    purses = await world.broker()
    pockets = await purses.reserve(Wallet([KEY]), 4 * UNIT)
    purses.settle(pockets, 4 * UNIT, 4 * UNIT)
    await world.later(TICK)
    await world.until(lambda: not pockets[0].purse.is_dirty)
    await world.later(IDLE + TICK)
    assert len(purses) == 0


async def test_what_a_dead_broker_had_spent_is_counted_and_what_it_held_is_free_at_once(world: World) -> None:
    journals = world.location.directory / "budgets"
    ledger = Ledger((await open_store(world.location)).database, "dead")
    journal = Journal(journals, "dead")
    journal.open()
    account = KEY.account(NOON)
    await ledger.tell([Telling(account, KEY.amount, 0, 0, 4 * UNIT)], NOON)
    slot = journal.slot(account)
    slot.cells[slot.cell] = 3 * UNIT  # of two calls, and the database has not heard of any
    await ledger.database.aclose()
    alive = await world.broker()
    with pytest.raises(BudgetReached):
        await alive.reserve(Wallet([KEY]), UNIT)
    journal.close(is_told=False)  # the process is gone, and its lock
    await world.later(BURIED)
    await alive.reserve(Wallet([KEY]), UNIT)
    with pytest.raises(BudgetReached):
        await alive.reserve(Wallet([KEY]), UNIT)
    assert [path.name for path in journals.iterdir()] == ["broker-1.spent"]


async def test_a_broker_that_has_told_all_leaves_no_file(world: World) -> None:
    journals = world.location.directory / "budgets"
    async with world.stack:
        pockets = await (await world.broker()).reserve(Wallet([KEY]), 4 * UNIT)
        assert [path.name for path in journals.iterdir()] == ["broker-1.spent"]
        settle(pockets, 4 * UNIT, UNIT)
    assert list(journals.iterdir()) == []


async def test_a_database_that_was_down_and_is_of_use_to_nobody_now_is_found_well_again(world: World) -> None:
    purses = await world.broker()
    world.is_down = True
    purses.prepare()
    await anyio.wait_all_tasks_blocked()
    assert (purses.trouble, len(purses)) == ("the database is down", 0)
    world.is_down = False
    await world.later(TICK)
    await world.until(lambda: not purses.trouble)
    await purses.reserve(Wallet([KEY]), UNIT)


async def test_periods_of_long_ago_are_forgotten_while_it_runs(world: World) -> None:
    purses = await world.broker()
    account = KEY.account(NOON)
    (old,) = await purses.reserve(Wallet([KEY]), UNIT)
    purses.settle([old], UNIT, UNIT)
    await world.later(IDLE + TICK)
    await world.until(lambda: old.is_over)
    await world.later(TICK)
    assert len(purses) == 0
    async with aclosing(await open_store(world.location)) as store:
        assert (await store.held([account], NOON))[account].spent == UNIT
        world.clock.advance(KEPT + 7200)
        await purses.reserve(Wallet([KEY]), UNIT)
        assert await store.held([account], NOON) == {}


async def test_budgets_hold_where_no_file_can_be_made(world: World) -> None:
    (world.location.directory / "budgets").write_text("in the way")
    purses = await world.broker()
    await purses.reserve(Wallet([KEY]), 4 * UNIT)
    with pytest.raises(BudgetReached):
        await purses.reserve(Wallet([KEY]), UNIT)


async def test_F93_a_store_that_another_process_has_locked_refuses_what_is_not_leased_within_a_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    purses = await world.broker()
    (pocket,) = await purses.reserve(Wallet([KEY]), UNIT)
    await world.until(lambda: not pocket.is_low)
    monkeypatch.setattr(module, "WITHIN", 0.1)
    with closing(sqlite3.connect(world.location.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        purses.settle([pocket], UNIT, UNIT)
        with pytest.raises(BudgetUnknown):
            await purses.reserve(Wallet([KEY, TEAM]), 3 * UNIT)
        other.execute("ROLLBACK")
    # What it was refused it does not hold, and what was asked for in its name is there for the next.
    assert pocket.purse.reserved == 0
    await world.until(lambda: not pocket.purse.is_dirty)
    await purses.reserve(Wallet([KEY, TEAM]), 3 * UNIT)


async def test_a_call_before_which_others_are_always_quicker_is_refused_in_bounded_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    purses = await world.broker()
    await purses.reserve(Wallet([TEAM]), UNIT)
    monkeypatch.setattr(module, "WITHIN", 0.05)

    async def others_took_it(*_: object) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(purses, "_ask", others_took_it)
    with anyio.fail_after(PATIENCE), pytest.raises(BudgetUnknown):
        await purses.reserve(Wallet([TEAM]), 9 * UNIT)


@pytest.mark.parametrize("what", ["remove", "read"])
async def test_a_dead_brokers_file_that_cannot_be_cleared_away_stops_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    directory = world.location.directory / "budgets"
    directory.mkdir()
    (directory / "dead.spent").write_bytes(b"x")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    if what == "remove":
        monkeypatch.setattr(journal_module.LeftBehind, "remove", refused)
    else:
        monkeypatch.setattr(journal_module, "_read", refused)
    purses = await world.broker()
    await purses.reserve(Wallet([TEAM]), UNIT)
    await world.later(BURIED)
    (team,) = await purses.reserve(Wallet([TEAM]), 2 * UNIT)
    assert team.purse.reserved == 3 * UNIT


async def test_F104_a_fault_of_ours_refuses_who_needs_a_budget_and_is_over_with_its_cause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    purses, tell = await world.broker(), Told.tell

    async def faulty(*_: object) -> list[object]:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Told, "tell", faulty)
    with pytest.raises(BudgetUnknown):
        await purses.reserve(Wallet([TEAM]), UNIT)
    assert "a fault of the broker" in purses.trouble
    monkeypatch.setattr(Told, "tell", tell)
    await world.later(TICK)
    await world.until(lambda: not purses.trouble)
    (team,) = await purses.reserve(Wallet([TEAM]), UNIT)
    assert team.purse.reserved == UNIT
