"""Whoever asks for more than their role gives is refused, learns nothing, changes nothing, and is recorded."""

from collections.abc import Awaitable, Callable

import pytest

from broker.admin import keys, members, organizations, teams
from broker.admin.errors import AdminError, Invalid, NotAllowed, NotFound
from broker.admin.journal import Unrecorded
from broker.admin.rules import MAX_PATTERNS, MAX_RULES, MAX_SIZE, Rules
from broker.core.caller import LOCAL, Caller, Role
from broker.stores.errors import StoreError
from tests.admin.conftest import START, World, user

ALL = Rules(allow=[{"servers": ["*"]}])
DOCS = [{"servers": ["docs"]}]
NOBODY = user("nobody", organization="", team="")

Attempt = Callable[[World, Caller, str], Awaitable[object]]

ON_A_KEY: dict[str, Attempt] = {
    "rotate": lambda world, actor, key: keys.rotate(world.office, actor, key),
    "revoke": lambda world, actor, key: keys.revoke(world.office, actor, key),
    "delete": lambda world, actor, key: keys.delete(world.office, actor, key),
    "grant rules": lambda world, actor, key: keys.grant(world.office, actor, key, ALL),
    "grant a role": lambda world, actor, key: keys.grant(world.office, actor, key, Rules(), role=Role.MEMBER),
    "move it": lambda world, actor, key: keys.move(world.office, actor, key, "acme", "data"),
    "show": lambda world, actor, key: keys.show(world.office, actor, key),
}
ON_A_PLACE: dict[str, Attempt] = {
    "create a key": lambda world, actor, place: keys.create(world.office, actor, *split(place), "mine"),
    "list keys": lambda world, actor, place: keys.listed(world.office, actor, *split(place)),
    "grant": lambda world, actor, place: teams.grant(world.office, actor, *split(place), ALL),
    "delete": lambda world, actor, place: teams.delete(world.office, actor, *split(place)),
    "show": lambda world, actor, place: teams.show(world.office, actor, *split(place)),
    "become a member": lambda world, actor, place: members.grant(
        world.office, actor, actor.principal, *split(place), Role.MEMBER
    ),
    "remove a member": lambda world, actor, place: members.remove(world.office, actor, "jwt:i ada", *split(place)),
}


def split(place: str) -> tuple[str, str]:
    organization, _, team = place.partition("/")
    return organization, team


async def state(world: World) -> object:
    return (await world.office.store.load()).directory


async def refused(world: World, kind: type[AdminError], attempt: Awaitable[object]) -> AdminError:
    """The attempt is refused so, changes nothing, and is recorded."""
    before, recorded = await state(world), len(world.notes.deeds)
    with pytest.raises(AdminError) as found:
        await attempt
    assert type(found.value) is kind, found.value
    assert await state(world) == before
    assert len(world.notes.deeds) == recorded + 1
    assert world.notes.deeds[-1].outcome == "refused" and world.notes.deeds[-1].why
    return found.value


@pytest.mark.parametrize("what", ON_A_KEY)
async def test_a_key_of_another_team_sounds_like_one_that_is_not_there(world: World, what: str) -> None:
    admin = await world.actor("acme", "data", Role.TEAM_ADMIN)
    others = [
        (await keys.create(world.office, LOCAL, *split(place), "theirs")).view.id for place in ("acme/web", "beta/data")
    ]
    said = []
    for key in [*others, "abcdefghijkl", "acme/web/theirs", "acme/web/nothing", "beta/data/theirs", "no/such/key"]:
        error = await refused(world, NotFound, ON_A_KEY[what](world, admin, key))
        said.append(str(error).replace(key, "KEY"))
    assert set(said) == {"there is no key 'KEY' that you may see"}


@pytest.mark.parametrize("what", ON_A_PLACE)
async def test_another_team_sounds_like_one_that_is_not_there(world: World, what: str) -> None:
    admin = await world.actor("acme", "data", Role.TEAM_ADMIN)
    said = set()
    for place in ("acme/web", "acme/ops", "acme/nothing", "beta/data", "gamma/data"):
        error = await refused(world, NotFound, ON_A_PLACE[what](world, admin, place))
        said.add(str(error).replace(place, "PLACE"))
    assert said == {"there is no team PLACE that you may see"}


@pytest.mark.parametrize("what", ON_A_KEY)
async def test_a_member_without_a_role_can_do_nothing_to_the_keys_of_its_team(world: World, what: str) -> None:
    member = await world.actor("acme", "data", Role.MEMBER)
    other = (await keys.create(world.office, LOCAL, "acme", "data", "other")).view.id
    error = await refused(world, NotAllowed, ON_A_KEY[what](world, member, other))
    assert str(error) == "for team acme/data you are member; this needs team-admin"
    if what == "show":
        assert (await keys.show(world.office, member, member.key)).id == member.key
        assert [view.id for view in await keys.listed(world.office, member)] == [member.key]
    else:
        await refused(world, NotAllowed, ON_A_KEY[what](world, member, member.key))


@pytest.mark.parametrize("what", [what for what in ON_A_PLACE if what not in ("show", "list keys")])
async def test_a_member_without_a_role_can_do_nothing_to_its_team(world: World, what: str) -> None:
    member = await world.actor("acme", "data", Role.MEMBER)
    await refused(world, NotAllowed, ON_A_PLACE[what](world, member, "acme/data"))


@pytest.mark.parametrize("what", [*ON_A_PLACE])
async def test_who_has_no_place_sees_none(world: World, what: str) -> None:
    await refused(world, NotFound, ON_A_PLACE[what](world, NOBODY, "acme/data"))
    assert await organizations.listed(world.office, NOBODY) == []
    assert await teams.listed(world.office, NOBODY) == []
    assert await keys.listed(world.office, NOBODY) == []


async def test_nobody_gives_a_role_above_their_own(world: World) -> None:
    admin = await world.actor("acme", "data", Role.TEAM_ADMIN)
    mine = (await keys.create(world.office, admin, "acme", "data", "mine", role=Role.TEAM_ADMIN)).view.id
    for role in (Role.ORG_ADMIN, Role.ADMIN):
        await refused(world, NotAllowed, keys.create(world.office, admin, "acme", "data", "more", role=role))
        await refused(world, NotAllowed, keys.grant(world.office, admin, mine, Rules(), role=role))
        await refused(world, NotAllowed, keys.grant(world.office, admin, admin.key, Rules(), role=role))
    await refused(world, NotAllowed, members.grant(world.office, admin, admin.principal, "acme", "", Role.ORG_ADMIN))
    boss = await world.actor("acme", "data", Role.ORG_ADMIN)
    await refused(world, NotAllowed, keys.create(world.office, boss, "acme", "web", "more", role=Role.ADMIN))
    assert (await keys.create(world.office, boss, "acme", "web", "peer", role=Role.ORG_ADMIN)).view.role == "org-admin"


@pytest.mark.parametrize("what", [what for what in ON_A_KEY if what != "show"])
@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ADMIN])
async def test_nobody_acts_on_a_key_with_a_higher_role(world: World, what: str, role: Role) -> None:
    """A rotated key is a key in the hands of who rotated it."""
    admin = await world.actor("acme", "data", Role.TEAM_ADMIN)
    higher = await world.actor("acme", "data", role)
    await refused(world, NotAllowed, ON_A_KEY[what](world, admin, higher.key))


async def test_nobody_changes_the_level_that_their_role_stands_on(world: World) -> None:
    admin, boss = [await world.actor("acme", "data", role) for role in (Role.TEAM_ADMIN, Role.ORG_ADMIN)]
    await refused(world, NotAllowed, teams.grant(world.office, admin, "acme", "data", ALL))
    await refused(world, NotAllowed, teams.delete(world.office, admin, "acme", "data"))
    await refused(world, NotAllowed, teams.create(world.office, admin, "acme", "more", ALL))
    await refused(world, NotAllowed, organizations.grant(world.office, boss, "acme", ALL))
    await refused(world, NotAllowed, organizations.delete(world.office, boss, "acme"))
    await refused(world, NotFound, organizations.grant(world.office, boss, "beta", ALL))
    await refused(world, NotFound, organizations.create(world.office, boss, "gamma", ALL))
    assert (await teams.grant(world.office, boss, "acme", "data", ALL)).allow == ALL.allow


async def test_a_key_outside_of_teams_is_for_who_administers_the_organization(world: World) -> None:
    admin, boss = [await world.actor("acme", "data", role) for role in (Role.TEAM_ADMIN, Role.ORG_ADMIN)]
    await refused(world, NotAllowed, keys.create(world.office, admin, "acme", "", "direct"))
    direct = (await keys.create(world.office, boss, "acme", "", "direct")).view.id
    await refused(world, NotAllowed, keys.rotate(world.office, admin, direct))


async def test_a_move_needs_the_role_in_both_teams(world: World) -> None:
    admin = await world.actor("acme", "data", Role.TEAM_ADMIN)
    mine = (await keys.create(world.office, admin, "acme", "data", "mine")).view.id
    theirs = (await keys.create(world.office, LOCAL, "acme", "web", "theirs")).view.id
    await refused(world, NotFound, keys.move(world.office, admin, mine, "acme", "web"))
    await refused(world, NotFound, keys.move(world.office, admin, theirs, "acme", "data"))
    await refused(world, NotAllowed, keys.move(world.office, admin, mine, "acme", ""))
    await members.grant(world.office, LOCAL, admin.principal, "acme", "web", Role.MEMBER)
    await refused(world, NotAllowed, keys.move(world.office, admin, mine, "acme", "web"))
    await refused(world, NotAllowed, keys.move(world.office, admin, theirs, "acme", "data"))
    await members.grant(world.office, LOCAL, admin.principal, "acme", "web", Role.TEAM_ADMIN)
    assert (await keys.move(world.office, admin, mine, "acme", "web")).team == "web"
    assert (await keys.move(world.office, admin, theirs, "acme", "data")).team == "data"


async def test_a_limited_key_hands_on_its_limits(world: World) -> None:
    """A key can never grant more than its maker has."""
    limited = await world.actor("acme", "data", Role.TEAM_ADMIN, rules=Rules(allow=DOCS, deny=[{"servers": ["hr"]}]))
    made = (await keys.create(world.office, limited, "acme", "data", "mine")).view
    assert (made.allow, made.deny) == (DOCS, [{"servers": ["hr"]}])
    await refused(world, NotAllowed, keys.create(world.office, limited, "acme", "data", "more", rules=ALL))
    await refused(world, NotAllowed, keys.grant(world.office, limited, made.id, Rules(allow=None)))
    await refused(world, NotAllowed, keys.grant(world.office, limited, made.id, Rules(deny=[])))
    await refused(world, NotAllowed, keys.grant(world.office, limited, limited.key, Rules(allow=None)))
    free = (await keys.create(world.office, LOCAL, "acme", "data", "free")).view.id
    await refused(world, NotAllowed, keys.rotate(world.office, limited, free))
    assert (await keys.revoke(world.office, limited, free)).state == "revoked", "to end it gives nothing"
    assert (await keys.rotate(world.office, limited, made.id)).view.id == made.id


async def test_no_key_that_a_key_makes_or_takes_over_outlives_it(world: World) -> None:
    """A key can never grant more than its maker has: not more time, either."""
    now = world.office.clock.wall()
    brief = await world.actor("acme", "data", Role.TEAM_ADMIN, expires=now + 1000)
    made = (await keys.create(world.office, brief, "acme", "data", "mine")).view
    assert made.expires == now + 1000
    await refused(world, NotAllowed, keys.create(world.office, brief, "acme", "data", "more", expires=now + 1001))
    assert (await keys.create(world.office, brief, "acme", "data", "less", expires=now + 10)).view.expires == now + 10
    for one in (made.id, brief.key):
        await refused(world, NotAllowed, keys.grant(world.office, brief, one, Rules(), expires=now + 2000))
    free = (await keys.create(world.office, LOCAL, "acme", "data", "free")).view.id
    await refused(world, NotAllowed, keys.rotate(world.office, brief, free))
    assert (await keys.revoke(world.office, brief, free)).state == "revoked", "to end it gives nothing"
    assert (await keys.rotate(world.office, brief, made.id)).view.expires == now + 1000


async def test_a_key_with_limits_hands_them_on_and_cannot_loosen_them(world: World) -> None:
    """Neither by making another key, nor by changing its own or taking over one without limits."""
    tight = {"rate": ["5/minute"], "concurrency": 2}
    limited = await world.actor("acme", "data", Role.TEAM_ADMIN, rules=Rules(limits=tight))
    made = (await keys.create(world.office, limited, "acme", "data", "mine")).view
    assert made.limits == tight and made.allow is None
    for limits in ({"rate": ["6/minute"], "concurrency": 2}, {"rate": ["5/minute"]}, {"rate": ["5/second"]}, None):
        await refused(world, NotAllowed, keys.grant(world.office, limited, made.id, Rules(limits=limits)))
        await refused(world, NotAllowed, keys.grant(world.office, limited, limited.key, Rules(limits=limits)))
    free = (await keys.create(world.office, LOCAL, "acme", "data", "free")).view.id
    await refused(world, NotAllowed, keys.rotate(world.office, limited, free))
    tighter = {"rate": ["5/hour"], "concurrency": 1}
    assert (await keys.grant(world.office, limited, made.id, Rules(limits=tighter))).limits == tighter


async def test_nobody_changes_the_limits_of_the_level_that_their_role_stands_on(world: World) -> None:
    boss = await world.actor("acme", "data", Role.TEAM_ADMIN)
    await refused(world, NotAllowed, teams.grant(world.office, boss, "acme", "data", Rules(limits=None)))
    head = await world.actor("acme", "", Role.ORG_ADMIN)
    await refused(world, NotAllowed, organizations.grant(world.office, head, "acme", Rules(limits=None)))
    limits = {"rate": ["5/minute"]}
    assert (await teams.grant(world.office, head, "acme", "data", Rules(limits=limits))).limits == limits


async def test_a_limited_key_gives_no_role_to_whom_its_limits_do_not_bind(world: World) -> None:
    """Somebody with a token who is made a member stands in the team, and has all that the team may use."""
    limited = await world.actor("acme", "data", Role.TEAM_ADMIN, rules=Rules(allow=DOCS))
    free = (await keys.create(world.office, LOCAL, "acme", "data", "free")).view.id
    for principal in ("jwt:https://login.acme.dev accomplice", f"key:{free}"):
        for role in (Role.MEMBER, Role.TEAM_ADMIN):
            await refused(world, NotAllowed, members.grant(world.office, limited, principal, "acme", "data", role))
    await members.grant(world.office, LOCAL, "jwt:i ada", "acme", "data", Role.MEMBER)
    assert await members.remove(world.office, limited, "jwt:i ada", "acme", "data") is None, "to take gives nothing"


async def test_a_limited_key_gives_teams_and_organizations_no_more_than_it_has(world: World) -> None:
    docs = Rules(allow=DOCS)
    limited = await world.actor("acme", "data", Role.ORG_ADMIN, rules=docs)
    for rules in (Rules(), ALL):
        await refused(world, NotAllowed, teams.create(world.office, limited, "acme", "more", rules))
        await refused(world, NotAllowed, teams.grant(world.office, limited, "acme", "web", rules))
    assert (await teams.create(world.office, limited, "acme", "more", docs)).allow == DOCS
    assert (await teams.grant(world.office, limited, "acme", "web", docs)).allow == DOCS
    admin = await world.actor("beta", "data", Role.ADMIN, rules=docs)
    await refused(world, NotAllowed, organizations.create(world.office, admin, "gamma", ALL))
    await refused(world, NotAllowed, organizations.grant(world.office, admin, "beta", ALL))
    assert (await organizations.create(world.office, admin, "gamma", docs)).allow == DOCS


async def test_members_and_teams_are_bounded_like_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_MEMBERS", 2)
    monkeypatch.setattr(teams, "MAX_TEAMS", 3)
    monkeypatch.setattr(keys, "MAX_KEYS", 2)
    for number in range(2):
        await members.grant(world.office, LOCAL, f"jwt:i {number}", "acme", "data", Role.MEMBER)
        await keys.create(world.office, LOCAL, "acme", "data", f"key{number}")
    await refused(world, Invalid, members.grant(world.office, LOCAL, "jwt:i 2", "acme", "data", Role.MEMBER))
    await members.grant(world.office, LOCAL, "jwt:i 1", "acme", "data", Role.TEAM_ADMIN)
    await members.grant(world.office, LOCAL, "jwt:i 2", "acme", "web", Role.MEMBER)
    await refused(world, Invalid, keys.create(world.office, LOCAL, "acme", "data", "key2"))
    await keys.create(world.office, LOCAL, "acme", "web", "key2")
    await teams.create(world.office, LOCAL, "acme", "third", Rules())
    await refused(world, Invalid, teams.create(world.office, LOCAL, "acme", "fourth", Rules()))
    await teams.create(world.office, LOCAL, "beta", "fourth", Rules())


TOO_MANY = {
    "rules": [{"servers": ["docs"]}] * (MAX_RULES + 1),
    "patterns": [{"tools": [f"docs__{index}" for index in range(MAX_PATTERNS + 1)]}],
    "bytes": [{"tools": ["docs__*"], "when": {"args.x": {"in": ["v" * 1000] * (MAX_SIZE // 1000 + 1)}}}],
}


@pytest.mark.parametrize("what", TOO_MANY)
@pytest.mark.parametrize("word", ["allow", "deny"])
async def test_who_administers_a_team_cannot_bury_the_broker_in_rules(world: World, what: str, word: str) -> None:
    admin = await world.actor("acme", "data", Role.TEAM_ADMIN)
    rules = Rules(**{word: TOO_MANY[what]})
    said = [
        str(await refused(world, Invalid, attempt))
        for attempt in (
            keys.create(world.office, admin, "acme", "data", "buried", rules=rules),
            keys.grant(world.office, admin, admin.key, rules),
            teams.create(world.office, LOCAL, "acme", "buried", rules),
            organizations.grant(world.office, LOCAL, "beta", rules),
        )
    ]
    assert len(set(said)) == 1 and what in said[0]


async def test_what_the_credential_said_counts_only_while_it_is_so(world: World) -> None:
    """The caller was admitted a moment ago; since then its key was demoted, moved, revoked, or its team deleted."""
    demoted, moved, revoked, gone, expired = [
        await world.actor("acme", "web", Role.TEAM_ADMIN, name)
        for name in ("demoted", "moved", "revoked", "gone", "old")
    ]
    await keys.grant(world.office, LOCAL, demoted.key, Rules(), role=Role.MEMBER)
    await keys.move(world.office, LOCAL, moved.key, "acme", "data")
    await keys.revoke(world.office, LOCAL, revoked.key)
    await keys.delete(world.office, LOCAL, gone.key)
    await keys.grant(world.office, LOCAL, expired.key, Rules(), expires=START + 1)
    world.clock.advance(1)
    await refused(world, NotAllowed, keys.create(world.office, demoted, "acme", "web", "x"))
    await refused(world, NotFound, keys.create(world.office, moved, "acme", "web", "x"))
    for actor in (revoked, gone, expired):
        error = await refused(world, NotAllowed, keys.create(world.office, actor, "acme", "web", "x"))
        assert str(error) == "your key is not valid any more"


async def test_a_deleted_team_takes_its_keys_and_memberships_with_it(world: World) -> None:
    admin = await world.actor("acme", "web", Role.TEAM_ADMIN)
    ada = user("ada", team="web", role=Role.TEAM_ADMIN)
    eve = user("eve", organization="")
    await members.grant(world.office, LOCAL, eve.principal, "acme", "web", Role.TEAM_ADMIN)
    assert (await keys.create(world.office, eve, "acme", "web", "of-eve")).view.team == "web"
    assert await teams.delete(world.office, LOCAL, "acme", "web") == 2
    assert len(await world.table()) == 0
    await refused(world, NotAllowed, keys.create(world.office, admin, "acme", "web", "x"))
    await refused(world, NotFound, keys.create(world.office, ada, "acme", "web", "x"))
    await teams.create(world.office, LOCAL, "acme", "web", Rules())
    await refused(world, NotFound, keys.create(world.office, eve, "acme", "web", "x"))


async def test_a_file_key_acts_with_the_role_that_the_file_gives(world: World) -> None:
    place = next(world.file[0].places())
    made = await keys.create(world.office, place.caller, "acme", "ops", "mine")
    assert made.view.team == "ops"
    await refused(world, NotFound, keys.create(world.office, place.caller, "acme", "data", "mine"))


async def test_who_administers_one_organization_has_no_say_in_another(world: World) -> None:
    boss = user("boss", organization="beta", role=Role.ORG_ADMIN)
    assert [one.name for one in await organizations.listed(world.office, boss)] == ["beta"]
    assert [one.name for one in await teams.listed(world.office, boss)] == ["data"]
    await refused(world, NotFound, teams.create(world.office, boss, "acme", "x", Rules()))
    await refused(world, NotFound, teams.listed(world.office, boss, "acme"))
    await refused(world, NotFound, members.listed(world.office, boss, "acme"))
    await refused(world, NotFound, organizations.show(world.office, boss, "acme"))


async def test_a_membership_above_one_s_own_role_cannot_be_changed(world: World) -> None:
    admin = await world.actor("acme", "data", Role.TEAM_ADMIN)
    await members.grant(world.office, LOCAL, "jwt:i ada", "acme", "data", Role.ORG_ADMIN)
    await refused(world, NotAllowed, members.remove(world.office, admin, "jwt:i ada", "acme", "data"))
    await refused(world, NotAllowed, members.grant(world.office, admin, "jwt:i ada", "acme", "data", Role.MEMBER))
    await members.grant(world.office, admin, "jwt:i bob", "acme", "data", Role.TEAM_ADMIN)
    assert [one.principal for one in await members.listed(world.office, admin, "acme", "data")] == [
        "jwt:i ada",
        "jwt:i bob",
    ]
    assert await members.remove(world.office, admin, "jwt:i bob", "acme", "data") is None


async def test_nobody_pulls_a_user_out_of_another_team_without_the_role_in_both(world: World) -> None:
    admin = await world.actor("acme", "data", Role.TEAM_ADMIN)
    await members.grant(world.office, LOCAL, "jwt:i ada", "acme", "web", Role.MEMBER)
    await refused(world, NotAllowed, members.grant(world.office, admin, "jwt:i ada", "acme", "data", Role.MEMBER))
    await members.grant(world.office, LOCAL, "jwt:i ada", "acme", "data", Role.MEMBER)
    await members.grant(world.office, admin, "jwt:i ada", "acme", "data", Role.TEAM_ADMIN)  # of its own team


async def test_what_cannot_be_recorded_is_not_done(world: World) -> None:
    before = await state(world)
    world.notes.error = Unrecorded("the disk is full")
    with pytest.raises(Unrecorded):
        await keys.create(world.office, LOCAL, "acme", "data", "ci")
    assert await state(world) == before


async def test_a_store_that_fails_is_recorded_as_that(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(world.office.clock, "random_bytes", lambda _size: fail())
    with pytest.raises(StoreError):
        await keys.create(world.office, LOCAL, "acme", "data", "ci")
    assert world.notes.deeds[-1].outcome == "failed"
