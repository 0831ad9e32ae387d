"""Who may see what was used, and what is left of budgets."""

from dataclasses import replace

import pytest

from broker.admin import usage
from broker.admin.errors import Invalid
from broker.admin.usage import BudgetView, UsageView
from broker.core.amount import UNIT
from broker.core.budget import Limit
from broker.core.caller import LOCAL, Caller, Role
from broker.core.directory import Organization, Team
from broker.core.period import Period
from broker.core.purse import Telling
from broker.core.quota import LevelLimits
from broker.core.tally import Sums, Use
from broker.stores.ledger import LEASE, Ledger
from broker.stores.usage import UsageStore
from tests.admin.conftest import START, World, user

HOUR = 3600
NOW = START - START % HOUR


async def call(world: World, *uses: tuple[str, str, str, int]) -> None:
    """So many calls of a principal in a place, in this hour."""
    store = UsageStore(world.office.store.database, "broker-1")
    batch = {
        (int(NOW), Use(organization, team, principal, "sql", "tools", "query")): Sums(
            calls, 1, 0, calls * UNIT // 4, calls * 1000, 2000
        )
        for organization, team, principal, calls in uses
    }
    assert await store.add(1, batch, START)


async def seen(world: World, actor: Caller) -> dict[str, int]:
    found = await usage.used(world.office, actor, usage.asked("key", "all", "", "", START))
    return {one.principal: one.calls for one in found}


async def test_everybody_sees_itself_and_what_it_administers(world: World) -> None:
    member = await world.actor("acme", "data", Role.MEMBER)
    await call(
        world,
        ("acme", "data", member.principal, 1),
        ("acme", "data", "key:other", 2),
        ("acme", "web", "key:web", 4),
        ("acme", "", "key:root", 8),
        ("beta", "data", "key:beta", 16),
    )
    lead = await world.actor("acme", "data", Role.TEAM_ADMIN)
    boss = await world.actor("acme", "", Role.ORG_ADMIN)
    ops = await world.actor("beta", "", Role.ADMIN)
    assert await seen(world, user("nobody", "beta")) == {}
    assert await seen(world, member) == {member.principal: 1}
    assert await seen(world, lead) == {member.principal: 1, "key:other": 2}
    assert sum((await seen(world, boss)).values()) == 15
    assert sum((await seen(world, ops)).values()) == sum((await seen(world, LOCAL)).values()) == 31


async def test_a_row_has_what_its_group_tells_apart_and_nothing_else(world: World) -> None:
    await call(world, ("acme", "data", "key:ci", 3))
    question = usage.asked("team", "hour", START - HOUR, "", START)
    assert await usage.used(world.office, LOCAL, question) == [
        UsageView(int(NOW), "acme", "data", "", "", "", "", 3, 1, 0, "0.75", 0.003, 0.002)
    ]
    whole = usage.asked("tool", "all", "1970-01-01", "1970-01-12T13:46:41Z", START)
    (row,) = await usage.used(world.office, LOCAL, whole)
    assert (row.at, row.server, row.kind, row.name, row.calls) == (0, "sql", "tools", "query", 3)


@pytest.mark.parametrize(("since", "until"), [("2", ""), ("1970-01-12", "1970-01-11"), ("", "0001-01-01T00:00:00Z")])
def test_a_time_that_is_none_is_refused(since: str, until: str) -> None:
    with pytest.raises(Invalid):
        usage.asked("tool", "all", since, until, START)


def test_a_question_has_bounds() -> None:
    with pytest.raises(Invalid, match="ten years"):
        usage.asked("tool", "hour", 0.0, 400 * 366 * 86_400.0, START)


async def test_budgets_are_seen_by_who_administers_them_and_by_who_is_paid_from_them(world: World) -> None:
    acme = world.file[0].organizations["acme"]
    assert acme.level is not None and acme.teams["ops"].level is not None
    daily = LevelLimits(budget={Period.DAY: 10 * UNIT})
    ops = Team("ops", replace(acme.teams["ops"].level, limits=daily), acme.teams["ops"].keys)
    world.file[0] = replace(
        world.file[0], organizations={"acme": Organization("acme", replace(acme.level, limits=daily), {"ops": ops})}
    )
    limit = Limit("team:acme/ops", Period.DAY, 10 * UNIT)
    ledger = Ledger(world.office.store.database, "broker-1")
    await ledger.tell([Telling(limit.account(START), limit.amount, 3 * UNIT, 2 * UNIT)], START)
    view = BudgetView("team:acme/ops", "day", "10", "3", "2", 950_400, 1_036_800)
    assert view in await usage.budgets(world.office, LOCAL)

    async def levels(actor: Caller) -> list[str]:
        return [one.level for one in await usage.budgets(world.office, actor)]

    assert await levels(user("stranger", "beta")) == []
    assert await levels(user("ada", "acme", "data")) == ["org:acme"]
    assert await levels(user("eve", "acme", "ops")) == ["org:acme", "team:acme/ops"]
    assert await levels(user("boss", "acme", "", Role.ORG_ADMIN)) == ["org:acme", "team:acme/ops"]
    world.clock.advance(LEASE)
    assert replace(view, leased="0") in await usage.budgets(world.office, LOCAL)
