"""The life of a key: made, shown once, rotated, re-scoped, moved, revoked, deleted; and what a list shows of it."""

import re
from math import inf
from typing import Any

import pytest

from broker.admin import keys, members, organizations, teams
from broker.admin.errors import Exists, FixedByFile, Invalid, NotFound
from broker.admin.rules import Rules
from broker.admin.words import limits_json
from broker.core.caller import LOCAL, Role
from broker.core.directory import Directory, Source
from broker.identity.keys import BadKey
from broker.stores.directory import Reading
from broker.stores.rows import HashRow, KeyRow
from tests.admin.conftest import START, World
from tests.stores.conftest import location, postgresql

__all__ = ["location", "postgresql"]

SQL = [{"servers": ["sql"]}]
HR = [{"servers": ["hr"]}]


async def is_good(world: World, text: str) -> bool:
    try:
        (await world.table()).verify(text, world.clock.wall())
    except BadKey:
        return False
    return True


async def test_a_key_is_made_verified_and_shown_without_its_text(world: World) -> None:
    made = await keys.create(
        world.office, LOCAL, "acme", "data", "ci", role=Role.TEAM_ADMIN, expires=START + 60, rules=Rules(allow=SQL)
    )
    text = made.text.reveal()
    caller = (await world.table()).verify(text, START).caller
    assert (caller.principal, caller.team, caller.role, caller.expires) == (
        f"key:{made.view.id}",
        "data",
        Role.TEAM_ADMIN,
        START + 60,
    )
    shown = await keys.show(world.office, LOCAL, made.view.id)
    assert shown == made.view == await keys.show(world.office, LOCAL, "acme/data/ci")
    assert (shown.state, shown.created, shown.expires, shown.allow) == ("active", START, START + 60, SQL)
    assert text not in repr((made, shown, world.notes.deeds))
    assert world.notes.last() == ("local", "key.create", "key:acme/data/ci", "done")
    world.clock.advance(60)
    assert not await is_good(world, text)
    assert (await keys.show(world.office, LOCAL, made.view.id)).state == "expired"


async def test_a_rotated_key_keeps_its_id_and_the_old_text_ends_with_the_overlap(world: World) -> None:
    made = await keys.create(world.office, LOCAL, "acme", "data", "ci")
    world.clock.advance(10)
    again = await keys.rotate(world.office, LOCAL, made.view.id, overlap=30)
    old, new = made.text.reveal(), again.text.reveal()
    assert again.view.id == made.view.id and old != new
    assert (again.view.rotated, again.view.overlap_ends) == (START + 10, START + 40)
    assert await is_good(world, old) and await is_good(world, new)
    world.clock.advance(30)
    assert not await is_good(world, old) and await is_good(world, new)
    assert (await keys.show(world.office, LOCAL, made.view.id)).overlap_ends is None


async def test_an_overlap_of_nothing_ends_every_older_text_at_once(world: World) -> None:
    made = await keys.create(world.office, LOCAL, "acme", "data", "ci")
    second = await keys.rotate(world.office, LOCAL, made.view.id)
    third = await keys.rotate(world.office, LOCAL, made.view.id, overlap=0)
    good = [await is_good(world, one.text.reveal()) for one in (made, second, third)]
    assert good == [False, False, True]


async def test_a_key_that_rotates_in_a_loop_is_stopped(world: World) -> None:
    made = await keys.create(world.office, LOCAL, "acme", "data", "ci")
    for _ in range(keys.MAX_HASHES - 1):
        await keys.rotate(world.office, LOCAL, made.view.id)
    with pytest.raises(Invalid, match="overlap of 0"):
        await keys.rotate(world.office, LOCAL, made.view.id)
    assert await keys.rotate(world.office, LOCAL, made.view.id, overlap=0)


async def test_a_revoked_key_is_refused_stays_in_lists_and_cannot_be_rotated(world: World) -> None:
    made = await keys.create(world.office, LOCAL, "acme", "data", "ci")
    assert (await keys.revoke(world.office, LOCAL, made.view.id)).state == "revoked"
    assert not await is_good(world, made.text.reveal())
    assert [view.state for view in await keys.listed(world.office, LOCAL, "acme", "data")] == ["revoked"]
    with pytest.raises(Invalid, match="has ended"):
        await keys.rotate(world.office, LOCAL, made.view.id)
    with pytest.raises(Exists, match="delete it first"):
        await keys.create(world.office, LOCAL, "acme", "data", "ci")
    await keys.delete(world.office, LOCAL, made.view.id)
    assert (await keys.create(world.office, LOCAL, "acme", "data", "ci")).view.id != made.view.id


async def test_rules_role_and_end_are_set_each_for_itself(world: World) -> None:
    made = await keys.create(world.office, LOCAL, "acme", "data", "ci", rules=Rules(allow=SQL))
    changed = await keys.grant(world.office, LOCAL, made.view.id, Rules(deny=HR), role=Role.TEAM_ADMIN)
    assert (changed.allow, changed.deny, changed.role) == (SQL, HR, "team-admin")
    changed = await keys.grant(world.office, LOCAL, made.view.id, Rules(allow=None, deny=[]), expires=START + 5)
    assert (changed.allow, changed.deny, changed.role, changed.expires) == (None, None, "team-admin", START + 5)
    assert changed == await keys.show(world.office, LOCAL, made.view.id)


async def test_limits_are_set_shown_and_in_force_as_they_were_written(world: World) -> None:
    limits = {"rate": ["20/minute", "500/6h"], "concurrency": 2, "wait": 2.5, "servers": {"sql": {"rate": ["5/hour"]}}}
    limits |= {"budget": {"day": 100, "month": "2000.25"}}
    made = await keys.create(world.office, LOCAL, "acme", "data", "ci", rules=Rules(limits=limits))
    assert made.view.limits == limits == (await keys.show(world.office, LOCAL, "acme/data/ci")).limits
    team = await teams.grant(world.office, LOCAL, "acme", "data", Rules(limits={"rate": "9/day"}))
    assert team.limits == {"rate": "9/day"}
    level = (await world.office.store.load()).directory.organizations["acme"].teams["data"].keys[made.view.id].level
    assert limits_json(level.limits) == limits
    assert (await keys.grant(world.office, LOCAL, made.view.id, Rules(deny=HR))).limits == limits
    assert (await keys.grant(world.office, LOCAL, made.view.id, Rules(limits=None))).limits is None


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"rate": "-5/minute"}, "limits.rate.0: a rate is calls in a time"),
        ({"concurrency": 0}, "limits.concurrency: must be at least 1"),
        ({"rates": "5/minute"}, 'limits.rates: unknown key. Did you mean "rate"'),
        ({}, "limits: limits that limit nothing"),
        ({"servers": {"sqll": {"rate": "5/minute"}}}, 'limits.servers.sqll: there is no server "sqll"'),
        ({"rate": "5/minute", "wait": 4}, "limits: nobody waits without concurrency"),
    ],
)
async def test_limits_that_check_would_refuse_are_refused(world: World, limits: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=re.escape(said)):
        await keys.create(world.office, LOCAL, "acme", "data", "ci", rules=Rules(limits=limits))


async def test_a_key_moves_with_its_id_and_its_text(world: World) -> None:
    made = await keys.create(world.office, LOCAL, "acme", "data", "ci")
    await keys.create(world.office, LOCAL, "acme", "web", "ci")
    with pytest.raises(Exists, match="acme/web/ci"):
        await keys.move(world.office, LOCAL, made.view.id, "acme", "web")
    moved = await keys.move(world.office, LOCAL, made.view.id, "acme", "ops")
    caller = (await world.table()).verify(made.text.reveal(), START).caller
    assert (moved.team, caller.team, caller.expires) == ("ops", "ops", inf), "also into a team of the file"


async def test_a_key_of_the_file_is_shown_and_changed_only_there(world: World) -> None:
    assert (await keys.show(world.office, LOCAL, "acme/ops/robot")).source == "file"
    assert [view.id for view in await keys.listed(world.office, LOCAL, "acme", "ops")] == ["robot"]
    for attempt in (
        keys.rotate(world.office, LOCAL, "acme/ops/robot"),
        keys.revoke(world.office, LOCAL, "acme/ops/robot"),
        keys.delete(world.office, LOCAL, "acme/ops/robot"),
        keys.grant(world.office, LOCAL, "acme/ops/robot", Rules(allow=[])),
        keys.move(world.office, LOCAL, "acme/ops/robot", "acme", "data"),
        teams.grant(world.office, LOCAL, "acme", "ops", Rules(allow=[])),
        teams.delete(world.office, LOCAL, "acme", "ops"),
        organizations.grant(world.office, LOCAL, "acme", Rules(allow=[])),
        organizations.delete(world.office, LOCAL, "acme"),
    ):
        with pytest.raises(FixedByFile, match="defined in the configuration file: change it there"):
            await attempt
    with pytest.raises(Exists, match="in the configuration file"):
        await keys.create(world.office, LOCAL, "acme", "ops", "robot")


async def test_a_key_whose_team_was_taken_out_of_the_file_is_stranded_and_can_be_moved(world: World) -> None:
    made = await keys.create(world.office, LOCAL, "acme", "ops", "ci")
    acme = world.file[0].organizations["acme"]
    world.file[0] = Directory({"acme": type(acme)("acme", acme.level)})
    assert (await keys.show(world.office, LOCAL, made.view.id)).state == "stranded"
    with pytest.raises(NotFound, match="there is no team acme/ops"):
        await keys.create(world.office, LOCAL, "acme", "ops", "other")
    await teams.create(world.office, LOCAL, "acme", "ops", Rules())
    with pytest.raises(NotFound):
        await keys.show(world.office, LOCAL, made.view.id)
    assert not await is_good(world, made.text.reveal()), "a new team does not take over the keys of an old one"


@pytest.mark.parametrize("name", ["", "Ci", "a/b", "x" * 33, "-a", "a\n"])
async def test_a_name_is_one_of_the_file_s_kind(world: World, name: str) -> None:
    with pytest.raises(Invalid, match="a name must be"):
        await keys.create(world.office, LOCAL, "acme", "data", name)
    with pytest.raises(Invalid, match="a name must be"):
        await teams.create(world.office, LOCAL, "acme", name, Rules())
    with pytest.raises(Invalid, match="a name must be"):
        await organizations.create(world.office, LOCAL, name, Rules())


async def test_what_makes_no_sense_is_refused(world: World) -> None:
    with pytest.raises(Invalid, match="in the past"):
        await keys.create(world.office, LOCAL, "acme", "data", "ci", expires=START)
    with pytest.raises(Invalid, match=r'allow\.0\.srevers: unknown key\. Did you mean "servers"'):
        await keys.create(world.office, LOCAL, "acme", "data", "ci", rules=Rules(allow=[{"srevers": ["x"]}]))
    with pytest.raises(Invalid, match="name a team"):
        await keys.create(world.office, LOCAL, "acme", "", "ci", role=Role.TEAM_ADMIN)
    made = await keys.create(world.office, LOCAL, "acme", "data", "ci")
    with pytest.raises(Invalid, match="0 to 90 days"):
        await keys.rotate(world.office, LOCAL, made.view.id, overlap=-1)
    with pytest.raises(NotFound, match='Did you mean "acme/data"'):
        await keys.create(world.office, LOCAL, "acme", "dta", "ci")
    with pytest.raises(NotFound, match='Did you mean "acme"'):
        await keys.create(world.office, LOCAL, "acne", "", "ci")
    assert {deed.outcome for deed in world.notes.deeds[-3:]} == {"refused"}


async def test_who_lists_keys_reads_those_that_it_may_see_and_no_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await world.actor("acme", "data", Role.MEMBER)
    boss = await world.actor("acme", "data", Role.ORG_ADMIN)
    both = await world.actor("acme", "web", Role.TEAM_ADMIN)
    await members.grant(world.office, LOCAL, both.principal, "acme", "data", Role.TEAM_ADMIN)
    direct = (await keys.create(world.office, LOCAL, "acme", "", "direct")).view.id
    for number in range(5):
        await keys.create(world.office, LOCAL, "beta", "data", f"theirs{number}")
    read: list[KeyRow | HashRow] = []
    all_of, hashes_of = Reading.all, Reading.hashes_of

    async def all_rows(self: Reading, kind: type[KeyRow], **where: object) -> list[KeyRow]:
        found = await all_of(self, kind, **where)
        read.extend(found if kind is KeyRow else ())
        return found

    async def all_hashes(self: Reading, **where: object) -> list[HashRow]:
        found = await hashes_of(self, **where)
        read.extend(found)
        return found

    monkeypatch.setattr(Reading, "all", all_rows)
    monkeypatch.setattr(Reading, "hashes_of", all_hashes)
    acme = sorted([member.key, boss.key, both.key])
    for actor, asked, expected in (
        (member, (), [member.key]),
        (member, ("acme",), [member.key]),
        (member, ("acme", "data"), [member.key]),
        (both, (), acme),
        (both, ("acme", "data"), sorted([member.key, boss.key])),
        (both, ("", "web"), [both.key]),
        (boss, (), sorted([*acme, direct])),
        (boss, ("acme", "web"), [both.key]),
    ):
        read.clear()
        found = [view.id for view in await keys.listed(world.office, actor, *asked) if view.source is Source.DATABASE]
        assert found == expected, (actor, asked)
        assert {row.id if isinstance(row, KeyRow) else row.key_id for row in read} <= {*expected, actor.key}
    assert len(await keys.listed(world.office, LOCAL, "", "data")) == 7, "of all teams of that name"
