"""Rows -> a `Directory`: of all keys, or of those that were changed beside those that were not."""

import gc
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import starmap
from math import inf
from operator import is_
from typing import Any, Final, TypeVar, cast

from sqlalchemy import CursorResult

from broker.core.caller import Role
from broker.core.directory import Directory, Key, KeyHash, Membership, Organization, Source, Team, hashes_in
from broker.core.grants import Level, key_level, organization_level, team_level
from broker.core.roll import Roll
from broker.stores.rows import HashRow, KeyRow, MembershipRow, OrganizationRow, TeamRow, terms_of
from broker.stores.ruling import read_level

log = logging.getLogger(__name__)

MANY: Final = 10_000
"""Keys that are read at once, from which on the garbage collector is told to leave them alone. What is garbage at that
moment, and not yet collected, stays too: too little to count, and not at every change."""

_Row = TypeVar("_Row", OrganizationRow, TeamRow, KeyRow, HashRow, MembershipRow)
_ROLES: dict[str, Role] = {str(one): one for one in Role}
_EMPTY: Final = Roll[Key]({})


def rows_in(kind: type[_Row], found: CursorResult[Any]) -> Iterator[_Row]:
    """Each is made when it is asked for: of a hundred thousand that are looked at once, none is kept."""
    make = cast(Callable[..., _Row], kind)
    names = [one.name for one in fields(kind)]
    if "role" not in names:
        yield from starmap(make, found)
        return
    at = names.index("role")
    for one in found:
        # A role that this program does not know (a later one's) has no power.
        yield make(*one[:at], _ROLES.get(one[at], Role.MEMBER), *one[at + 1 :])


def assembled(
    found: Mapping[type[Any], CursorResult[Any]], before: Directory | None, concerned: AbstractSet[str] | None
) -> Directory:
    """The directory of the rows of each kind. `concerned`: ids of keys; those that have another are not among the rows,
    and are as they were `before`. None: all keys are among the rows.
    """
    assembly = _Assembly(before or Directory(), concerned)
    made = _put_together(found, assembly)
    for _, _, roll in made.rolls():
        roll.derived(hashes_in)  # here, and not where it is first needed: there every request would wait
    if before is not None and assembly.made >= MANY:  # else nobody keeps them
        # They stay until others take their place, and are no circles: without this the collector walks all of them
        # twice more, and then again and again, while every request waits.
        gc.freeze()
    return made


@contextmanager
def collector_at_rest() -> Generator[None]:
    """Nothing that is made meanwhile is garbage: to look for circles in it, again and again, took half of the time, and
    the loop waits each time.
    """
    was_at_work = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_at_work:  # else somebody else has sent it to rest, and ends that
            gc.enable()


def _put_together(found: Mapping[type[Any], CursorResult[Any]], assembly: "_Assembly") -> Directory:
    for organization in rows_in(OrganizationRow, found[OrganizationRow]):
        assembly.add_organization(organization)
    for team in rows_in(TeamRow, found[TeamRow]):
        assembly.add_team(team)
    held: dict[str, list[KeyHash]] = {}
    for one in rows_in(HashRow, found[HashRow]):
        held.setdefault(one.key_id, []).append(KeyHash(one.hash, _end(one.not_after)))
    for key in rows_in(KeyRow, found[KeyRow]):
        assembly.add_key(key, tuple(held.get(key.id, ())))
    members = rows_in(MembershipRow, found[MembershipRow])
    return assembly.directory(tuple(Membership(row.principal, row.organization, row.team, row.role) for row in members))


class _Assembly:
    """Rows -> a `Directory`. Places without a row of their own are of the file, or of nobody: `merge` knows. A key that
    is as it was `before` is the same object, and so is the roll of a place of which no key is another. `concerned`: see
    `assembled`.
    """

    def __init__(self, before: Directory, concerned: AbstractSet[str] | None) -> None:
        self.made = 0
        """Keys that are others than before."""
        self._before = {(organization, team): roll for organization, team, roll in before.rolls()}
        self._concerned = concerned
        self._organizations: dict[str, Level] = {}
        self._teams: dict[tuple[str, str], Level] = {}
        self._keys: dict[tuple[str, str], dict[str, Key]] = {}

    def add_organization(self, row: OrganizationRow) -> None:
        """A row."""
        self._organizations[row.name] = self._level(organization_level(row.name), row)

    def add_team(self, row: TeamRow) -> None:
        """A row."""
        level = self._level(team_level(row.organization, row.name), row)
        self._teams[row.organization, row.name] = level

    def add_key(self, row: KeyRow, hashes: tuple[KeyHash, ...]) -> None:
        """A row, and the hashes of that key."""
        level = self._level(key_level(row.organization, row.team, row.name), row)
        revoked = row.revoked is not None
        key = Key(row.id, row.name, level, hashes, _end(row.expires), row.role, revoked, Source.DATABASE)
        place = (row.organization, row.team)
        known = self._before.get(place, _EMPTY).get(row.id)
        if known is None or known != key:
            known, self.made = key, self.made + 1
        self._keys.setdefault(place, {})[row.id] = known

    def directory(self, members: tuple[Membership, ...]) -> Directory:
        """All of it."""
        known = () if self._concerned is None else self._before
        rolls = {place: roll for place in {**dict.fromkeys(known), **self._keys} if (roll := self._roll(place))}
        places = dict.fromkeys([*self._teams, *(place for place in rolls if place[1])])
        teams: dict[str, dict[str, Team]] = {}
        for organization, name in places:
            place = (organization, name)
            team = Team(name, self._teams.get(place), rolls.get(place, _EMPTY), Source.DATABASE)
            teams.setdefault(organization, {})[name] = team
        names = dict.fromkeys([*self._organizations, *teams, *(organization for organization, _ in rolls)])
        organizations = (
            Organization(
                name,
                self._organizations.get(name),
                teams.get(name, {}),
                rolls.get((name, ""), _EMPTY),
                Source.DATABASE,
            )
            for name in names
        )
        return Directory({one.name: one for one in organizations}, members)

    def _roll(self, place: tuple[str, str]) -> Roll[Key]:
        """The keys of a place, by id."""
        read, before = self._keys.get(place, {}), self._before.get(place, _EMPTY)
        if self._concerned is not None:
            if not read and before.keys().isdisjoint(self._concerned):
                return before
            kept = {name: key for name, key in before.items() if name not in self._concerned}
            read = dict(sorted({**kept, **read}.items()))
        is_same = len(read) == len(before) and all(map(is_, read.values(), before.values()))
        return before if is_same else Roll(read)

    def _level(self, empty: Level, row: OrganizationRow | TeamRow | KeyRow) -> Level:
        """A level whose rules or limits cannot be read allows nothing: one of them may have been a denial."""
        if row.allow is None and row.deny is None and row.limits is None:
            return empty  # as nearly every key
        try:
            return read_level(empty, terms_of(row))
        except ValueError:
            log.error("the rules or limits of %s in the store cannot be read: it is denied everything", empty.where)
            return replace(empty, allow=(), deny=())


def _end(seconds: float | None) -> float:
    return inf if seconds is None else seconds
