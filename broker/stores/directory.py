"""The directory in the database: read whole, changed in transactions that each count in `revision`."""

import gc
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import starmap
from math import inf
from operator import is_
from typing import Any, Final, TypeVar, cast

import anyio
import anyio.to_thread
from sqlalchemy import CursorResult, Select, Table, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.budget import Account
from broker.core.caller import Role
from broker.core.directory import Directory, Key, KeyHash, Membership, Organization, Source, Team, hashes_in
from broker.core.grants import Level, key_level, organization_level, team_level
from broker.core.roll import Roll
from broker.stores import tables
from broker.stores.engine import Database
from broker.stores.ledger import read_accounts
from broker.stores.rows import HashRow, KeyRow, MembershipRow, OrganizationRow, TeamRow, terms_of
from broker.stores.ruling import read_level
from broker.stores.usage import UsageStore
from broker.stores.usage_rows import Group, Held, Row, Seen

log = logging.getLogger(__name__)

_Row = TypeVar("_Row", OrganizationRow, TeamRow, KeyRow, HashRow, MembershipRow)
_TABLES: dict[type[Any], Table] = {
    OrganizationRow: tables.organizations,
    TeamRow: tables.teams,
    KeyRow: tables.keys,
    HashRow: tables.key_hashes,
    MembershipRow: tables.memberships,
}
MANY: Final = 10_000
"""Keys that are read at once, from which on the garbage collector is told to leave them alone. What is garbage at that
moment, and not yet collected, stays too: too little to count, and not at every change."""
_EMPTY: Final = Roll[Key]({})
_ROLES: dict[str, Role] = {str(one): one for one in Role}


class Reading:
    """Questions within one transaction. `where` of all of them: columns and the values they must have."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all(self, kind: type[_Row], **where: object) -> list[_Row]:
        """The rows, by primary key."""
        return list(_rows(kind, await self.found(kind, **where)))

    async def found(self, kind: type[Any], **where: object) -> CursorResult[Any]:
        """The same, as it came: it is here whole, and not read yet."""
        asked = _asked(kind).filter_by(**where).order_by(*_TABLES[kind].primary_key.columns)
        return await self._connection.execute(asked)

    async def one(self, kind: type[_Row], **where: object) -> _Row | None:
        """The row, or None."""
        found = await self.all(kind, **where)
        return found[0] if found else None

    async def hashes_of(self, **where: object) -> list[HashRow]:
        """The hashes of the keys that fit `where`."""
        fitting = select(tables.keys.c.id).filter_by(**where)
        asked = _asked(HashRow).where(tables.key_hashes.c.key_id.in_(fitting)).order_by("hash")
        return list(_rows(HashRow, await self._connection.execute(asked)))

    async def count_of(self, kind: type[_Row], **where: object) -> int:
        """How many rows there are."""
        asked = select(func.count()).select_from(_TABLES[kind]).filter_by(**where)
        return (await self._connection.execute(asked)).scalar_one()

    async def revision(self) -> int:
        """How often the directory was changed."""
        return (await self._connection.execute(select(tables.revision.c.number))).scalar_one()


class Change(Reading):
    """Questions and changes in one transaction: what was read holds until it ends."""

    async def add(self, row: OrganizationRow | TeamRow | KeyRow | HashRow | MembershipRow) -> None:
        """Raises: Conflict, if there is one of that name."""
        await self._connection.execute(insert(_TABLES[type(row)]).values(asdict(row)))

    async def set(self, kind: type[_Row], values: dict[str, Any], **where: object) -> int:
        """Change columns; how many rows it were."""
        done = await self._connection.execute(update(_TABLES[kind]).filter_by(**where).values(values))
        return done.rowcount

    async def remove(self, kind: type[_Row], **where: object) -> int:
        """How many rows it were. Hashes go with their key."""
        done = await self._connection.execute(delete(_TABLES[kind]).filter_by(**where))
        return done.rowcount

    async def count(self) -> None:
        """This is a change. It comes first: on PostgreSQL it is the row at which writers queue."""
        number = tables.revision.c.number
        await self._connection.execute(update(tables.revision).values({number: number + 1}))


@dataclass(frozen=True, slots=True)
class Stored:
    """The directory as of a revision."""

    revision: int
    directory: Directory


class DirectoryStore:
    """See the module. It owns the database: `aclose` closes it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._watching: AsyncConnection | None = None
        self._data_version: int | None = None

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[Reading]:
        """Raises: StoreError."""
        async with self.database.reading() as connection:
            yield Reading(connection)

    @asynccontextmanager
    async def changing(self) -> AsyncGenerator[Change]:
        """One change of the directory, made wholly or, if it raises, not at all. Raises: StoreError."""
        async with self.database.writing() as connection:
            change = Change(connection)
            await change.count()
            yield change

    async def load(self, before: Directory | None = None) -> Stored:
        """Everything, in the state of one moment. What is as in the directory `before`, is the same object. Raises:
        StoreError.
        """
        with _collector_at_rest():
            return await self._loaded(before)

    async def _loaded(self, before: Directory | None) -> Stored:
        async with self.reading() as reading:
            number = await reading.revision()
            found = {kind: await reading.found(kind) for kind in _TABLES}
            # In a thread: with ten thousand keys this is a tenth of a second, in which every call would wait.
            return Stored(number, await anyio.to_thread.run_sync(_assembled, found, before))

    async def used(self, by: Group, since: float, until: float, step: int, seen: Seen) -> list[Row]:
        """See `UsageStore.read`. Raises: StoreError."""
        return await UsageStore(self.database, "").read(by, since, until, step, seen)

    async def held(self, accounts: Collection[Account], now: float) -> dict[Account, Held]:
        """See `read_accounts`. Raises: StoreError."""
        return await read_accounts(self.database, accounts, now)

    async def revision_if_touched(self) -> int | None:
        """The revision, if the database may have changed since this was last asked; None if it has not.

        SQLite says of one connection whether others have written since, without reading anything; that connection is
        kept for it. Raises: StoreError, and then the next one counts as a change.
        """
        if self.database.is_sqlite and not await self._is_touched():
            return None
        try:
            async with self.reading() as reading:
                return await reading.revision()
        except BaseException:
            self._data_version = None
            raise

    async def _is_touched(self) -> bool:
        known = self._data_version
        with anyio.CancelScope(shield=True), self.database.translated():
            self._data_version = await self._read_data_version()
        return self._data_version != known

    async def _read_data_version(self) -> int:
        try:
            if self._watching is None:
                self._watching = await self.database.engine.connect()
                await self._watching.execution_options(**{Database.WATCHES: True})
            found: int = (await self._watching.exec_driver_sql("PRAGMA data_version")).scalar_one()
            await self._watching.rollback()
        except SQLAlchemyError:
            await self._forget()
            raise
        return found

    async def _forget(self) -> None:
        watching, self._watching, self._data_version = self._watching, None, None
        if watching is not None:
            await watching.close()

    async def aclose(self) -> None:
        """Close the database, also while being cancelled."""
        with anyio.CancelScope(shield=True):
            await self._forget()
            await self.database.aclose()


def _asked(kind: type[Any]) -> Select[Any]:
    """The columns in the order of the fields."""
    columns = _TABLES[kind].columns
    return select(*(columns[one.name] for one in fields(kind)))


def _rows(kind: type[_Row], found: CursorResult[Any]) -> Iterator[_Row]:
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


def _assembled(found: Mapping[type[Any], CursorResult[Any]], before: Directory | None) -> Directory:
    """The directory of the rows of each kind."""
    assembly = _Assembly(before or Directory())
    made = _put_together(found, assembly)
    for _, _, roll in made.rolls():
        roll.derived(hashes_in)  # here, and not where it is first needed: there every request would wait
    if assembly.made >= MANY:
        # They stay until others take their place, and are no circles: without this the collector walks all of them
        # twice more, and then again and again, while every request waits.
        gc.freeze()
    return made


@contextmanager
def _collector_at_rest() -> Generator[None]:
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
    for organization in _rows(OrganizationRow, found[OrganizationRow]):
        assembly.add_organization(organization)
    for team in _rows(TeamRow, found[TeamRow]):
        assembly.add_team(team)
    held: dict[str, list[KeyHash]] = {}
    for one in _rows(HashRow, found[HashRow]):
        held.setdefault(one.key_id, []).append(KeyHash(one.hash, _end(one.not_after)))
    for key in _rows(KeyRow, found[KeyRow]):
        assembly.add_key(key, tuple(held.get(key.id, ())))
    members = _rows(MembershipRow, found[MembershipRow])
    return assembly.directory(tuple(Membership(row.principal, row.organization, row.team, row.role) for row in members))


class _Assembly:
    """Rows -> a `Directory`. Places without a row of their own are of the file, or of nobody: `merge` knows. A key that
    is as it was `before` is the same object, and so is the roll of a place of which no key is another.
    """

    def __init__(self, before: Directory) -> None:
        self.made = 0
        """Keys that are others than before."""
        self._before = {(organization, team): roll for organization, team, roll in before.rolls()}
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
        places = dict.fromkeys([*self._teams, *(place for place in self._keys if place[1])])
        teams: dict[str, dict[str, Team]] = {}
        for organization, name in places:
            place = (organization, name)
            team = Team(name, self._teams.get(place), self._roll(place), Source.DATABASE)
            teams.setdefault(organization, {})[name] = team
        names = dict.fromkeys([*self._organizations, *teams, *(organization for organization, _ in self._keys)])
        organizations = (
            Organization(
                name,
                self._organizations.get(name),
                teams.get(name, {}),
                self._roll((name, "")),
                Source.DATABASE,
            )
            for name in names
        )
        return Directory({one.name: one for one in organizations}, members)

    def _roll(self, place: tuple[str, str]) -> Roll[Key]:
        keys, before = self._keys.get(place, {}), self._before.get(place, _EMPTY)
        is_same = len(keys) == len(before) and all(map(is_, keys.values(), before.values()))
        return before if is_same else Roll(keys)

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
