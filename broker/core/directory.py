"""Organizations, teams, keys and members: what the file and the database have in common, as immutable values.

Each source gives a `Directory`; `merge` makes the one that is in force. The file wins: what it defines cannot be
changed at run time, but keys that are made at run time can belong to a team of the file. A source says so with an
organization or a team that has no level of its own (`level=None`): a place for keys, defined elsewhere.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf

from broker.core.caller import Caller, Role
from broker.core.grants import Level, Rule


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
    """A team, with its keys by id. `level`: None for one that the other source defines."""

    name: str
    level: Level | None
    keys: Mapping[str, Key] = field(default_factory=dict[str, Key])
    source: Source = Source.FILE


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization: its teams by name, and the keys that stand outside of any. `level`: see `Team`."""

    name: str
    level: Level | None
    teams: Mapping[str, Team] = field(default_factory=dict[str, Team])
    keys: Mapping[str, Key] = field(default_factory=dict[str, Key])
    source: Source = Source.FILE


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

    def keys_by_place(self) -> Iterator[tuple[str, str, Iterable[Key]]]:
        """The keys of each organization ("" for the team) and team, in order."""
        for organization in self.organizations.values():
            yield organization.name, "", organization.keys.values()
            for team in organization.teams.values():
                yield organization.name, team.name, team.keys.values()

    def places(self) -> Iterator[Place]:
        """Every key, in order."""
        return (Place(organization, team, key) for organization, team, keys in self.keys_by_place() for key in keys)


def merge(file: Directory, database: Directory) -> tuple[Directory, tuple[str, ...]]:
    """The directory in force, and what of the database is not in it, as sentences for the log and for `check`.

    A place that neither source defines is left out with all its keys (a team that was taken out of the file): its
    callers are denied. So is a key of the database that has the hash, or the id at its place, of one of the file.
    """
    said: list[str] = []
    taken = frozenset(one.hex for place in file.places() for one in place.key.hashes)
    organizations: dict[str, Organization] = {}
    for name in {**file.organizations, **database.organizations}:
        ours = file.organizations.get(name) or Organization(name, None)
        theirs = database.organizations.get(name) or Organization(name, None, source=Source.DATABASE)
        owner = ours if _owns(f"organization {name}", ours.level, theirs.level, said) else theirs
        if owner.level is not None:
            teams = _teams(name, ours.teams, theirs.teams, taken, said)
            organizations[name] = replace(owner, teams=teams, keys=_keys(ours.keys, theirs.keys, taken, said))
    members = {(one.principal, one.organization, one.team): one for one in (*database.memberships, *file.memberships)}
    return Directory(organizations, tuple(members.values()), {**database.scopes, **file.scopes}), tuple(said)


def _owns(what: str, file: Level | None, database: Level | None, said: list[str]) -> bool:
    """Whether the file's definition is the one in force."""
    if file is not None and database is not None:
        said.append(f"{what} is defined in the file: its rules in the database are not used")
    elif file is None and database is None:
        said.append(f"{what} is defined nowhere: its keys are not served")
    return file is not None


def _teams(
    organization: str, file: Mapping[str, Team], database: Mapping[str, Team], taken: frozenset[str], said: list[str]
) -> Mapping[str, Team]:
    teams: dict[str, Team] = {}
    for name in {**file, **database}:
        ours = file.get(name) or Team(name, None)
        theirs = database.get(name) or Team(name, None, source=Source.DATABASE)
        owner = ours if _owns(f"team {organization}/{name}", ours.level, theirs.level, said) else theirs
        if owner.level is not None:
            teams[name] = replace(owner, keys=_keys(ours.keys, theirs.keys, taken, said))
    return teams


def _keys(
    file: Mapping[str, Key], database: Mapping[str, Key], taken: frozenset[str], said: list[str]
) -> Mapping[str, Key]:
    if not file and not taken:
        return database  # nothing to compare a hundred thousand of them with
    keys = dict(file)
    for key in database.values():
        if key.id in file or any(one.hex in taken for one in key.hashes):
            said.append(f"{key.level.where} of the database is a key of the file too: the one in the file is used")
        else:
            keys[key.id] = key
    return keys
