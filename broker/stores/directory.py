"""The directory in the database: changed in transactions that each count in `revision`, and say which keys they were
about; read whole, or where that is known of every change since, those keys and all that is no key.
"""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Final, TypeVar

import anyio
from sqlalchemy import CursorResult, Select, Table, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.budget import Account
from broker.core.directory import Directory
from broker.stores import tables
from broker.stores.assembly import assembled, collector_at_rest, rows_in
from broker.stores.engine import Database
from broker.stores.ledger import read_accounts
from broker.stores.rows import HashRow, KeyRow, MembershipRow, OrganizationRow, TeamRow
from broker.stores.usage import UsageStore
from broker.stores.usage_rows import Group, Held, Row, Seen
from broker.threads import in_thread

_Row = TypeVar("_Row", OrganizationRow, TeamRow, KeyRow, HashRow, MembershipRow)
_TABLES: dict[type[Any], Table] = {
    OrganizationRow: tables.organizations,
    TeamRow: tables.teams,
    KeyRow: tables.keys,
    HashRow: tables.key_hashes,
    MembershipRow: tables.memberships,
}
KEPT: Final = 1000
"""Changes of which it is kept which keys they were about. Whoever has not looked for so long reads all keys."""
MOST: Final = 500
"""Keys that are read one by one; where more were changed, all are read. As many as one statement may name."""
ALL: Final = "*"
"""Instead of the id of a key: it was about more than `MOST`."""
NONE: Final = ""
"""Likewise: about none. Every change has said something, else somebody has made it who does not know how."""


class Reading:
    """Questions within one transaction. `where` of all of them: columns and the values they must have."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all(self, kind: type[_Row], **where: object) -> list[_Row]:
        """The rows, by primary key."""
        return list(rows_in(kind, await self.found(kind, **where)))

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
        return list(rows_in(HashRow, await self._connection.execute(asked)))

    async def count_of(self, kind: type[_Row], **where: object) -> int:
        """How many rows there are."""
        asked = select(func.count()).select_from(_TABLES[kind]).filter_by(**where)
        return (await self._connection.execute(asked)).scalar_one()

    async def concerned(self, since: int, until: int) -> frozenset[str] | None:
        """The ids of the keys that the changes after `since` were about, up to `until`; None if not every one of them
        has said so, or there are too many: then any key may be another.
        """
        if not since < until <= since + MOST:  # a database that was put back may be older than what is known
            return None
        log = tables.key_changes.c
        asked = select(log.revision, log.key_id).where(log.revision > since, log.revision <= until).limit(2 * MOST)
        found = [(int(number), str(key)) for number, key in await self._connection.execute(asked)]
        keys = frozenset(key for _, key in found) - {NONE}
        is_whole = len(found) < 2 * MOST and {number for number, _ in found} == {*range(since + 1, until + 1)}
        return keys if is_whole and ALL not in keys and len(keys) <= MOST else None

    async def keys(self, ids: Collection[str]) -> dict[type[Any], CursorResult[Any]]:
        """These keys, as far as there are any, and their hashes."""
        found = {KeyRow: (tables.keys.c.id, "id"), HashRow: (tables.key_hashes.c.key_id, "hash")}
        return {
            kind: await self._connection.execute(_asked(kind).where(column.in_(sorted(ids))).order_by(order))
            for kind, (column, order) in found.items()
        }

    async def revision(self) -> int:
        """How often the directory was changed."""
        return (await self._connection.execute(select(tables.revision.c.number))).scalar_one()


class Change(Reading):
    """Questions and changes in one transaction: what was read holds until it ends."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection)
        self._concerned: set[str] = set()
        """Ids of keys."""

    async def add(self, row: OrganizationRow | TeamRow | KeyRow | HashRow | MembershipRow) -> None:
        """Raises: Conflict, if there is one of that name."""
        await self._connection.execute(insert(_TABLES[type(row)]).values(asdict(row)))
        if isinstance(row, KeyRow | HashRow):
            self._concerned.add(row.id if isinstance(row, KeyRow) else row.key_id)

    async def set(self, kind: type[_Row], values: dict[str, Any], **where: object) -> int:
        """Change columns; how many rows it were."""
        await self._note(kind, where)
        done = await self._connection.execute(update(_TABLES[kind]).filter_by(**where).values(values))
        return done.rowcount

    async def remove(self, kind: type[_Row], **where: object) -> int:
        """How many rows it were. Hashes go with their key."""
        await self._note(kind, where)
        done = await self._connection.execute(delete(_TABLES[kind]).filter_by(**where))
        return done.rowcount

    async def begin(self) -> None:
        """This is a change. It comes first: on PostgreSQL it is the row at which writers queue."""
        number = tables.revision.c.number
        await self._connection.execute(update(tables.revision).values({number: number + 1}))

    async def end(self) -> None:
        """Say which keys it was about: those who know all others need not read them again."""
        number, log = await self.revision(), tables.key_changes
        ids = sorted(self._concerned) if len(self._concerned) <= MOST else [ALL]
        await self._connection.execute(insert(log), [{"revision": number, "key_id": one} for one in ids or [NONE]])
        await self._connection.execute(delete(log).where(log.c.revision <= number - KEPT))

    async def _note(self, kind: type[Any], where: dict[str, object]) -> None:
        """What is done next is about these keys."""
        column = {KeyRow: tables.keys.c.id, HashRow: tables.key_hashes.c.key_id}.get(kind)
        if column is not None:
            asked = select(column).filter_by(**where).limit(MOST + 1)
            self._concerned.update((await self._connection.execute(asked)).scalars())


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
            await change.begin()
            yield change
            await change.end()

    async def load(self, before: Directory | None = None, since: int | None = None) -> Stored:
        """Everything, in the state of one moment. `before`: the directory whose place it takes, by whoever keeps it;
        what is the same in both is the same object. If `before` is that of this database as of `since`, only what was
        changed after that is read. Raises: StoreError.
        """
        with collector_at_rest():
            return await self._loaded(before, since)

    async def _loaded(self, before: Directory | None, since: int | None) -> Stored:
        async with self.reading() as reading:
            number = await reading.revision()
            changed = None if before is None or since is None else await reading.concerned(since, number)
            kinds = _TABLES if changed is None else _TABLES.keys() - {KeyRow, HashRow}
            found = {kind: await reading.found(kind) for kind in kinds}
            if changed is not None:
                found |= await reading.keys(changed)
            # In a thread: with ten thousand keys this is a tenth of a second, in which every call would wait.
            work = partial(assembled, found, before, changed)
            return Stored(number, await in_thread(work))

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
