"""Organizations, teams, keys and members: what the file and the database have in common, as immutable values.

Each source gives a `Directory`; `merge` makes the one that is in force. The file wins: what it defines cannot be
changed at run time, but keys that are made at run time can belong to a team of the file. A source says so with an
organization or a team that has no level of its own (`level=None`): a place for keys, defined elsewhere.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import NamedTuple

from broker.core.caller import Caller, Role
from broker.core.grants import Level, Rule
from broker.core.roll import Roll, rolled


class Source(StrEnum):
    """Where something is defined."""

    FILE = "file"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class KeyHash:
    """What is stored of a key: `hex`, the HMAC-SHA-256 of its whole text. `not_after`: seconds since 1970, at which a
    hash that was rotated away ends.
    """

    hex: str
    not_after: float = inf


@dataclass(frozen=True, slots=True)
class Key:
    """One API key. `id` is unique in its place and stays over rotation; a key of the file has its name for an id."""

    id: str
    name: str
    level: Level
    hashes: tuple[KeyHash, ...] = ()
    expires: float = inf
    """Seconds since 1970."""
    role: Role = Role.MEMBER
    revoked: bool = False
    source: Source = Source.FILE

    @property
    def principal(self) -> str:
        """Who asks with it. A key of the file has no id of its own, so its place is part of its principal."""
        return f"key:{self.id}" if self.source is Source.DATABASE else self.level.where


@dataclass(frozen=True, slots=True)
class Team:
    """A team, with its keys by id, which are a `Roll`. `level`: None for one that the other source defines."""

    name: str
    level: Level | None
    keys: Mapping[str, Key] = field(default_factory=dict[str, Key])
    source: Source = Source.FILE

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", rolled(self.keys))


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization: its teams by name, and the keys that stand outside of any. `level`: see `Team`."""

    name: str
    level: Level | None
    teams: Mapping[str, Team] = field(default_factory=dict[str, Team])
    keys: Mapping[str, Key] = field(default_factory=dict[str, Key])
    source: Source = Source.FILE

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", rolled(self.keys))


@dataclass(frozen=True, slots=True)
class Membership:
    """The role of a user (`jwt:<issuer> <subject>`) in an organization, or in one team of it."""

    principal: str
    organization: str
    team: str = ""
    role: Role = Role.MEMBER


@dataclass(frozen=True, slots=True)
class Place:
    """A key, and where it is."""

    organization: str
    team: str
    key: Key

    @property
    def caller(self) -> Caller:
        """Who asks with this key."""
        key = self.key
        return Caller(key.principal, self.organization, self.team, key.id, key.role, expires=key.expires)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Directory:
    """Everybody that one source, or both, know of."""

    organizations: Mapping[str, Organization] = field(default_factory=dict[str, Organization])
    memberships: tuple[Membership, ...] = ()
    scopes: Mapping[str, Mapping[str, tuple[Rule, ...]]] = field(
        default_factory=dict[str, Mapping[str, tuple[Rule, ...]]]
    )
    """Per issuer that maps scopes: what each of them allows. A token of it gets what any of its scopes allows."""

    def rolls(self) -> Iterator[tuple[str, str, Roll[Key]]]:
        """The keys of each organization ("" for the team) and team, in order. Where nothing has changed since another
        directory, it is the same roll."""
        for organization in self.organizations.values():
            yield organization.name, "", rolled(organization.keys)
            for team in organization.teams.values():
                yield organization.name, team.name, rolled(team.keys)

    def places(self) -> Iterator[Place]:
        """Every key, in order."""
        return (Place(organization, team, key) for organization, team, roll in self.rolls() for key in roll.values())


class Hashes(NamedTuple):
    """The keys of a place by hash, and the hashes that come twice there."""

    keys: Mapping[str, Key]
    twice: frozenset[str]


def hashes_in(roll: Roll[Key]) -> Hashes:
    """For `Roll.derived`. Nothing is called for a key: there may be a hundred thousand."""
    keys = {one.hex: key for key in roll.values() for one in key.hashes}
    every = [one.hex for key in roll.values() for one in key.hashes]
    if len(every) == len(keys):
        return Hashes(keys, frozenset())
    return Hashes(keys, frozenset(one for one, times in Counter(every).items() if times > 1))


def merge(file: Directory, database: Directory) -> tuple[Directory, tuple[str, ...]]:
    """See `Merger`, for once."""
    return Merger(file).merge(database)


class Merger:
    """What of the file and the database is in force, again and again: where the keys of a place are those of the last
    time, so is their roll.
    """

    def __init__(self, file: Directory) -> None:
        self._file = file
        self._taken = frozenset(one.hex for place in file.places() for one in place.key.hashes)
        self._joined: dict[tuple[str, str], tuple[Roll[Key], Roll[Key]]] = {}
        """By organization and team: the keys of the database, and those in force there. Only where nothing was left
        out: that is said each time."""
        self._before = self._joined
        """The same, of the time before."""

    def merge(self, database: Directory) -> tuple[Directory, tuple[str, ...]]:
        """The directory in force, and what of the database is not in it, as sentences for the log and for `check`.

        A place that neither source defines is left out with all its keys (a team that was taken out of the file): its
        callers are denied. So is a key of the database that has the hash, or the id at its place, of one of the file.
        """
        file, said = self._file, list[str]()
        self._before, self._joined = self._joined, {}
        organizations: dict[str, Organization] = {}
        for name in {**file.organizations, **database.organizations}:
            ours = file.organizations.get(name) or Organization(name, None)
            theirs = database.organizations.get(name) or Organization(name, None, source=Source.DATABASE)
            owner = ours if _owns(f"organization {name}", ours.level, theirs.level, said) else theirs
            if owner.level is not None:
                teams = self._teams(name, ours.teams, theirs.teams, said)
                keys = self._keys((name, ""), ours.keys, theirs.keys, said)
                organizations[name] = replace(owner, teams=teams, keys=keys)
        members = {
            (one.principal, one.organization, one.team): one for one in (*database.memberships, *file.memberships)
        }
        return Directory(organizations, tuple(members.values()), {**database.scopes, **file.scopes}), tuple(said)

    def _teams(
        self, organization: str, file: Mapping[str, Team], database: Mapping[str, Team], said: list[str]
    ) -> Mapping[str, Team]:
        teams: dict[str, Team] = {}
        for name in {**file, **database}:
            ours = file.get(name) or Team(name, None)
            theirs = database.get(name) or Team(name, None, source=Source.DATABASE)
            owner = ours if _owns(f"team {organization}/{name}", ours.level, theirs.level, said) else theirs
            if owner.level is not None:
                keys = self._keys((organization, name), ours.keys, theirs.keys, said)
                teams[name] = replace(owner, keys=keys)
        return teams

    def _keys(
        self, place: tuple[str, str], file: Mapping[str, Key], database: Mapping[str, Key], said: list[str]
    ) -> Mapping[str, Key]:
        ours, theirs = rolled(file), rolled(database)
        known = self._before.get(place)
        if known is not None and known[0] is theirs:
            self._joined[place] = known
            return known[1]
        kept = _without(theirs, ours, self._taken, said)
        joined = _joined(ours, kept) if ours and kept else kept or ours
        if kept is theirs:
            self._joined[place] = theirs, joined
        return joined


def _joined(file: Roll[Key], database: Roll[Key]) -> Roll[Key]:
    """Both, of which no key and no hash is in the other."""
    joined, ours, theirs = Roll({**file, **database}), file.derived(hashes_in), database.derived(hashes_in)
    joined.know(hashes_in, Hashes({**ours.keys, **theirs.keys}, ours.twice | theirs.twice))
    return joined


def _without(database: Roll[Key], file: Roll[Key], taken: frozenset[str], said: list[str]) -> Roll[Key]:
    """Those of the database that are no keys of the file too. `taken`: all hashes of the file."""
    lost = database.keys() & file.keys()
    if taken and database:
        hashes = database.derived(hashes_in).keys
        lost |= {hashes[one].id for one in hashes.keys() & taken}
    if not lost:
        return database
    where = [key.level.where for key in database.values() if key.id in lost]
    said += (f"{one} of the database is a key of the file too: the one in the file is used" for one in where)
    return Roll({name: key for name, key in database.items() if key.id not in lost})


def _owns(what: str, file: Level | None, database: Level | None, said: list[str]) -> bool:
    """Whether the file's definition is the one in force."""
    if file is not None and database is not None:
        said.append(f"{what} is defined in the file: its rules in the database are not used")
    elif file is None and database is None:
        said.append(f"{what} is defined nowhere: its keys are not served")
    return file is not None
