"""What the file and the database have in common: places, their callers, and how both become one directory."""

from broker.core.caller import LOCAL, Caller, Role
from broker.core.directory import Directory, Key, KeyHash, Membership, Organization, Source, Team, merge
from broker.core.grants import Level, Rule, key_level, organization_level, team_level
from broker.core.match import Pattern

ALL = (Rule(servers=(Pattern("*"),)),)
NONE = Directory()


def key(name: str, team: str = "data", source: Source = Source.FILE, hex: str = "") -> Key:
    hashes = (KeyHash(hex or f"hash of {name}"),)
    return Key(name, name, key_level("acme", team, name), hashes, 7.0, Role.TEAM_ADMIN, source=source)


def team(*keys: Key, level: Level | None = None, source: Source = Source.FILE) -> Team:
    return Team("data", level, {one.id: one for one in keys}, source)


def directory(level: Level | None, *teams: Team, keys: tuple[Key, ...] = (), source: Source = Source.FILE) -> Directory:
    return Directory(
        {"acme": Organization("acme", level, {one.name: one for one in teams}, {one.id: one for one in keys}, source)}
    )


ACME = organization_level("acme", ALL)
DATA = team_level("acme", "data")
OF_FILE = directory(ACME, team(key("ci"), level=DATA), keys=(key("boss", ""),))


def test_the_local_caller_stands_in_no_organization_and_may_administer() -> None:
    assert Caller("local", role=Role.ADMIN) == LOCAL and LOCAL.organization == ""
    assert Caller("key:x").role is Role.MEMBER


def test_levels_are_named_after_their_places() -> None:
    assert (ACME.where, DATA.where) == ("org:acme", "team:acme/data")
    assert key_level("acme", "data", "ci").where == "key:acme/data/ci"
    assert key_level("acme", "", "boss").where == "key:acme/boss"
    assert organization_level("acme").allow == (), "an organization without allow allows nothing"
    assert DATA.is_silent and not ACME.is_silent


def test_every_key_has_a_place_and_a_caller() -> None:
    boss, ci = OF_FILE.places()
    assert boss.caller == Caller("key:acme/boss", "acme", "", "boss", Role.TEAM_ADMIN, expires=7.0)
    assert ci.caller == Caller("key:acme/data/ci", "acme", "data", "ci", Role.TEAM_ADMIN, expires=7.0)
    (stored,) = directory(ACME, team(key("abc", source=Source.DATABASE))).places()
    assert stored.caller.principal == "key:abc", "its id is unique, and stays if the key moves"


def test_what_only_one_source_knows_is_in_force() -> None:
    assert merge(OF_FILE, NONE) == (OF_FILE, ())
    stored = directory(ACME, team(key("x", source=Source.DATABASE), level=DATA, source=Source.DATABASE))
    assert merge(NONE, stored) == (stored, ())


def test_a_key_made_at_run_time_belongs_to_a_team_of_the_file() -> None:
    place = directory(
        None,
        team(key("new", source=Source.DATABASE), source=Source.DATABASE),
        keys=(key("other", "", Source.DATABASE),),
        source=Source.DATABASE,
    )
    merged, said = merge(OF_FILE, place)
    assert said == ()
    acme = merged.organizations["acme"]
    assert acme.level is ACME and acme.source is Source.FILE and list(acme.keys) == ["boss", "other"]
    assert acme.teams["data"].level is DATA and list(acme.teams["data"].keys) == ["ci", "new"]


def test_the_file_wins_and_what_is_not_used_is_said() -> None:
    wide = team_level("acme", "data", ALL)
    twin = key("other", source=Source.DATABASE, hex="hash of boss")
    place = directory(
        organization_level("acme", ALL * 2),
        team(key("ci", source=Source.DATABASE, hex="x"), twin, level=wide, source=Source.DATABASE),
        source=Source.DATABASE,
    )
    merged, said = merge(OF_FILE, place)
    assert merged == OF_FILE
    assert said == (
        "organization acme is defined in the file: its rules in the database are not used",
        "team acme/data is defined in the file: its rules in the database are not used",
        "key:acme/data/ci of the database is a key of the file too: the one in the file is used",
        "key:acme/data/other of the database is a key of the file too: the one in the file is used",
    )


def test_keys_of_a_place_that_nobody_defines_are_not_served() -> None:
    place = team(key("lost", source=Source.DATABASE), source=Source.DATABASE)
    merged, said = merge(directory(ACME), directory(None, place, source=Source.DATABASE))
    assert merged.organizations["acme"].teams == {} and said == (
        "team acme/data is defined nowhere: its keys are not served",
    )
    merged, said = merge(NONE, directory(None, place, source=Source.DATABASE))
    assert merged == NONE and said == ("organization acme is defined nowhere: its keys are not served",)


def test_members_and_scopes_of_both_are_in_force() -> None:
    ann = Membership("jwt:https://x ann", "acme", "data", Role.TEAM_ADMIN)
    bob = Membership("jwt:https://x bob", "acme")
    file = Directory(memberships=(ann,), scopes={"https://x": {"read": ALL}})
    database = Directory(memberships=(Membership(ann.principal, "acme", "data"), bob))
    merged, said = merge(file, database)
    assert merged.memberships == (ann, bob) and merged.scopes == file.scopes and said == ()


def test_keys_of_the_database_alone_are_taken_over_as_they_are() -> None:
    stored = directory(ACME, keys=(key("x", "", source=Source.DATABASE),), source=Source.DATABASE)
    merged, _ = merge(NONE, stored)
    assert merged.organizations["acme"].keys is stored.organizations["acme"].keys
