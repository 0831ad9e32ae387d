"""What is kept of a caller's calls of an entry is good as long as all that it was made of, and nobody else's."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from broker.clock import FakeClock
from broker.core.amount import UNIT
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.cost import Cost, Prices
from broker.core.directory import Directory, Organization, Team
from broker.core.grants import organization_level, team_level
from broker.core.limits import LimitRules
from broker.core.period import Period
from broker.core.policy import Permit
from broker.core.quota import LevelLimits
from broker.core.request import Kind
from broker.core.tally import Use
from broker.errors import BudgetReached
from broker.stores.ledger import Ledger
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.usage import UsageStore
from broker.usage import budgets as module
from broker.usage.budgets import Budgets
from broker.usage.gate import Gate
from broker.usage.journal import Journal
from broker.usage.purses import Purses
from broker.usage.quotas import NO_HOLD, Hold
from broker.usage.tallies import Tallies

NOON = 1_700_000_000.0
ANN = Caller("key:ann", "acme", "data", "ann")
QUERY = Entry(Kind.TOOL, "sql__query", "sql", "query")
CALL = "tools/call"


def limits(**units: int) -> LimitRules:
    """Budgets of a day: of the organization, and of its teams."""
    teams = {
        name: Team(name, team_level("acme", name, limits=LevelLimits(budget={Period.DAY: units[name] * UNIT})))
        for name in units
        if name != "acme"
    }
    level = organization_level("acme", limits=LevelLimits(budget={Period.DAY: units.get("acme", 1000) * UNIT}))
    return LimitRules(Directory({"acme": Organization("acme", level, teams)}))


@dataclass
class World:
    """Budgets over a store in a file, and the terms in force."""

    directory: Path
    limits: LimitRules = field(default_factory=lambda: limits(data=5, web=5))
    prices: Mapping[str, Prices] = field(default_factory=lambda: {"sql": Prices(Cost(UNIT))})

    def __post_init__(self) -> None:
        self.clock = FakeClock(NOON)
        location = Location(self.directory, self.directory / "broker.db")

        async def open_ledger() -> Ledger:
            return Ledger((await open_store(location)).database, "me")

        async def open_usage() -> UsageStore:
            return UsageStore((await open_store(location)).database, "me")

        async def warn(*_: object) -> None:
            pass

        purses = Purses(self.clock, open_ledger, Journal(self.directory / "budgets", "me"), warn)
        self.tallies = Tallies(self.clock, open_usage, keep_days=9)
        self.budgets = Budgets(self.clock, self, purses, self.tallies)

    async def reserve(self, caller: Caller = ANN, entry: Entry = QUERY, method: str = CALL) -> Hold:
        permit = Permit(caller, entry, "test")
        hold = self.budgets.take(permit, method, is_retry=False)
        if hold.is_short:
            await hold.fill()
        return hold

    async def call(self, caller: Caller = ANN, entry: Entry = QUERY, method: str = CALL) -> None:
        (await self.reserve(caller, entry, method)).settle({"content": []})

    def spent(self) -> dict[str, float]:
        """In units, by place."""
        return {one.limit.where: one.purse.spent / UNIT for one in self.budgets.purses if one.purse.spent}

    def counted(self, caller: Caller = ANN, entry: Entry = QUERY) -> tuple[int, float]:
        """Calls, and their cost in units, that are not written yet."""
        tally = self.tallies.of(Use.of(caller, entry))
        return tally.calls, tally.cost / UNIT


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    async with found.budgets.running():
        yield found


async def test_another_price_is_that_of_the_next_call_and_not_of_one_under_way(world: World) -> None:
    await world.call()
    under_way = await world.reserve()
    world.prices = {"sql": Prices(Cost(UNIT), {"query": Cost(2 * UNIT)})}
    await world.call()
    assert world.counted() == (2, 3)
    under_way.settle({"content": []})
    assert world.counted() == (3, 4) and world.spent() == {"org:acme": 4, "team:acme/data": 4}


async def test_other_budgets_are_those_of_the_next_call(world: World) -> None:
    for _ in range(5):
        await world.call()
    with pytest.raises(BudgetReached):
        await world.call()
    world.limits = limits(data=7, web=5)
    await world.call()
    world.limits = limits(data=6, web=5)
    with pytest.raises(BudgetReached) as refusal:
        await world.call()
    assert refusal.value.data["limit"] == "budget 6/day"


@pytest.mark.parametrize("ends", [["settle", "settle", "release"], ["settle", "release", "release", "settle"]])
async def test_a_call_is_settled_once_and_gives_its_place_back_once(world: World, ends: list[str]) -> None:
    hold = await world.reserve()
    gate = Gate("server:sql")
    gate.running, hold.gates = 2, (gate,)
    for end in ends:
        hold.release() if end == "release" else hold.settle({"content": []})
    assert world.counted() == (1, 1) and world.spent() == {"org:acme": 1, "team:acme/data": 1}
    assert gate.running == 1 and all(one.purse.reserved == 0 for one in world.budgets.purses)


async def test_a_call_that_ends_without_an_answer_has_failed_and_costs_nothing_once(world: World) -> None:
    hold = await world.reserve()
    for _ in range(2):
        hold.release()
    hold.settle({"content": []})
    assert world.counted() == (1, 0) and world.spent() == {}
    assert world.tallies.of(Use.of(ANN, QUERY)).failed == 1
    assert all(one.purse.reserved == 0 for one in world.budgets.purses)


async def test_what_is_forgone_is_given_back_and_was_no_call(world: World) -> None:
    for _ in range(9):
        (await world.reserve()).forgo()
    assert world.counted() == (0, 0) and world.spent() == {}
    assert world.tallies.of(Use.of(ANN, QUERY)).failed == 0


@pytest.mark.parametrize("other", [{"principal": "key:bob"}, {"team": "web"}, {"key": "bob"}, {"organization": "zeta"}])
async def test_a_caller_whose_place_or_name_is_another_one_has_its_own_tab(world: World, other: Any) -> None:
    await world.call()
    await world.call(replace(ANN, **other))
    assert len(world.budgets._tabs) == 2
    is_paid_together = "team" not in other and "organization" not in other
    assert world.spent()["team:acme/data"] == 1 + is_paid_together


@pytest.mark.parametrize("other", [{"server": "docs"}, {"own": "drop"}, {"kind": Kind.PROMPT}, {"kind": Kind.RESOURCE}])
async def test_an_entry_that_is_another_one_has_its_own_price_and_count(world: World, other: Any) -> None:
    world.prices = {"sql": Prices(Cost(UNIT), {"query": Cost(2 * UNIT)}), "docs": Prices(Cost(UNIT))}
    entry = replace(QUERY, **other)
    await world.call()
    await world.call(ANN, entry, CALL if entry.kind is Kind.TOOL else "prompts/get")
    assert (world.counted(), world.counted(entry=entry)) == ((1, 2), (1, 1))


async def test_there_is_no_end_of_uris_and_they_are_one(world: World) -> None:
    entries = [Entry(Kind.RESOURCE, f"sql+file:///{number}", "sql", f"file:///{number}") for number in range(3)]
    for entry in entries:
        await world.call(ANN, entry, "resources/read")
    assert world.counted(entry=entries[0]) == (3, 3) and len(world.budgets._tabs) == 1


async def test_no_more_is_kept_than_has_a_bound_and_what_is_forgotten_is_looked_up_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TABS", 2)
    for number in (1, 2, 3, 1):
        await world.call(replace(ANN, principal=f"key:{number}", key=str(number)))
    assert len(world.budgets._tabs) <= 2 and len(world.budgets._wallets) <= 2
    assert world.counted(replace(ANN, principal="key:1")) == (2, 2)


async def test_what_comes_after_a_batch_was_taken_or_in_another_hour_is_counted_there(world: World) -> None:
    await world.call()
    assert world.counted() == (1, 1)
    await world.tallies.flush()
    await world.call()
    assert world.counted() == (1, 1)
    world.clock.advance(3600)
    await world.call()
    assert world.counted() == (1, 1)


async def test_where_nothing_has_a_price_and_nothing_is_counted_nothing_is_set_aside(tmp_path: Path) -> None:
    world = World(tmp_path, prices={"sql": Prices()})
    world.budgets.tallies = None
    assert await world.reserve() is NO_HOLD
    world.prices = {"sql": Prices(), "docs": Prices(Cost(UNIT))}
    (await world.reserve()).release()
