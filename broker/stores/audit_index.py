"""The index of the audit in the database: written batch by batch as files grow, and asked by time and by column.

A batch says from where to where of its file it goes, and is taken once: two brokers that index the same file do not
count it twice, and one that was killed goes on where the last whole batch has ended.
"""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, delete, func, inspect, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.stores.audit_rows import TEXTS, Batch, Found, Indexed, Narrowing, Showing
from broker.stores.audit_tables import audit_files, audit_records, audit_views
from broker.stores.engine import Database
from broker.stores.errors import Conflict
from broker.stores.script import Script, Statement

FORGOTTEN: Final = 5_000
"""Rows that are removed in one transaction: others that write wait for it."""
COLUMNS: Final = ("time", *TEXTS)
"""Of a record, as they are returned."""


class AuditIndex:
    """See the module. Everything raises StoreError."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def is_there(self) -> bool:
        """Whether the database has tables for it: one of an older program has none until a broker has started."""
        async with self.database.reading() as connection:
            return await connection.run_sync(lambda found: inspect(found).has_table(audit_files.name))

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator["Reading"]:
        """Questions about one state of it."""
        async with self.database.reading() as connection:
            yield Reading(connection)

    async def take(self, origin: str, name: str, batch: Batch) -> bool:
        """Add a batch; whether it was the next one of its file: somebody else may have added it meanwhile."""
        try:
            return await self.database.carry_out(_take(origin, name, batch, is_sqlite=self.database.is_sqlite))
        except Conflict:  # both have begun with the file
            return False

    async def forget(self, file: int) -> bool:
        """Remove what is known of a file, `FORGOTTEN` rows at most; whether all of it is gone."""
        async with self.database.writing() as connection:
            for table, column in ((audit_records, audit_records.c.position), (audit_views, audit_views.c.hash)):
                part = select(column).where(table.c.file_id == file).order_by(column).limit(FORGOTTEN).subquery()
                last, count = (
                    await connection.execute(select(func.max(part.c[0]), func.count()).select_from(part))
                ).one()
                if count:
                    await connection.execute(delete(table).where(table.c.file_id == file, column <= last))
                if count == FORGOTTEN:
                    return False
            await connection.execute(delete(audit_files).where(audit_files.c.id == file))
            return True

    async def aclose(self) -> None:
        """Close the database."""
        await self.database.aclose()


class Reading:
    """See `AuditIndex.reading`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def files(self) -> list[Indexed]:
        """All files, of all origins."""
        at = audit_files.c
        asked = select(at.id, at.origin, at.name, at.indexed, at.newest)
        return [Indexed(*row) for row in await self._connection.execute(asked)]

    async def newest(
        self, narrowing: Narrowing, since: float | None, until: float | None, before: Found | None, limit: int
    ) -> list[Found]:
        """Records that may be what is asked for, the newest first; `before`: the last one of the page before."""
        at = audit_records.c
        files = audit_files.c.id == at.file_id
        asked = select(audit_files.c.origin, audit_files.c.name, at.position, *(at[one] for one in COLUMNS))
        place = (at.time, audit_files.c.name, at.position)
        asked = _narrowed(asked.join(audit_files, files), since, until).order_by(*(one.desc() for one in place))
        for columns, pattern in narrowing:
            asked = asked.where(or_(*(_fits(name, pattern) for name in columns)))
        if before is not None:
            asked = asked.where(tuple_(*place) < tuple_(*before.place), at.time <= before.place[0])
        rows = [tuple[Any, ...](row) for row in await self._connection.execute(asked.limit(limit))]
        return [Found(row[0], row[1], row[2], dict(zip(COLUMNS, row[3:], strict=True))) for row in rows]

    async def shown(self, name: str, files: Collection[int], since: float | None, until: float | None) -> list[Showing]:
        """To whom a name (a full one, or a public one) was shown, and how, as these files say."""
        at = audit_records.c
        who = [at[one] for one in ("principal", "organization", "team", "key", "view", "method")]
        # The view of each file apart: under other prefixes the names of one hash are others.
        in_view = (audit_views.c.file_id == at.file_id) & (audit_views.c.hash == at.hash)
        asked = (
            select(*who, func.min(at.time), func.max(at.time), func.count())
            .join(audit_views, in_view)
            .where(audit_views.c.name == name, audit_views.c.file_id.in_(files), at.hash != "")
            .group_by(*who)
        )
        rows = [tuple[Any, ...](row) for row in await self._connection.execute(_narrowed(asked, since, until))]
        names = [column.name for column in who]
        return [Showing(dict(zip(names, row[: len(who)], strict=True)), *row[len(who) :]) for row in rows]

    async def showing(self, file: int, name: str) -> set[str]:
        """The hashes of views in a file in which a name is."""
        asked = select(audit_views.c.hash).where(audit_views.c.file_id == file, audit_views.c.name == name)
        return set((await self._connection.execute(asked)).scalars())


_MOVE: Final = (
    "UPDATE audit_files SET indexed = $1, newest = %s(newest, $2) "
    "WHERE origin = $3 AND name = $4 AND indexed = $5 RETURNING id"
)
_BEGIN: Final = "INSERT INTO audit_files (origin, name, indexed, newest) VALUES ($1, $2, $3, $4) RETURNING id"
_ROW: Final = ("file_id", "position", *COLUMNS)
_ADD: Final = (
    f"INSERT INTO audit_records ({', '.join(_ROW)}) VALUES ({', '.join(f'${at}' for at, _ in enumerate(_ROW, 1))})"
)
_SHOW: Final = "INSERT INTO audit_views (file_id, hash, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"


def _take(origin: str, name: str, batch: Batch, *, is_sqlite: bool) -> Script[bool]:
    """The file is indexed up to the end of the batch from now on, if it was up to its begin."""
    moved = _MOVE % ("max" if is_sqlite else "greatest")
    found = yield Statement(moved, (batch.end, batch.newest, origin, name, batch.begin))
    if not found:
        if batch.begin:
            return False
        found = yield Statement(_BEGIN, (origin, name, batch.end, batch.newest))
    file = found[0][0]
    if batch.rows:
        yield Statement(_ADD, [(file, *row) for row in batch.rows], is_many=True)
    if batch.views:
        yield Statement(_SHOW, [(file, *shown) for shown in sorted(batch.views)], is_many=True)
    return True


def _narrowed(asked: Select[Any], since: float | None, until: float | None) -> Select[Any]:
    time = audit_records.c.time
    if since is not None:
        asked = asked.where(time >= since)
    if until is not None:
        asked = asked.where(time < until)
    return asked


def _fits(name: str, pattern: str) -> ColumnElement[bool]:
    column = audit_records.c[name]
    found = column == pattern
    if "*" in pattern:
        literal = pattern.translate({ord(one): f"\\{one}" for one in "\\%_"})
        found = column.like(literal.replace("*", "%"), escape="\\")
    # What is not in the index that is meant is not looked for in it: it holds those only that differ.
    return found & (column != audit_records.c.full_name) if name == "public" else found
