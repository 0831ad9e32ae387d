"""Usage in the database: sums by the hour, written in batches of which each counts once, and read in groups."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, false, func, literal, or_, select

from broker.core.tally import Sums, Use
from broker.stores.engine import Database
from broker.stores.script import Script, Statement
from broker.stores.tables import usage_hours, usage_writers
from broker.stores.usage_rows import Group, Row, Seen

Hour = int
"""Seconds since 1970 at which it began."""

_SUMS: Final = ("calls", "failed", "refused", "cost", "micros")
_COLUMNS: Final[Mapping[Group, tuple[str, ...]]] = {
    "organization": ("organization",),
    "team": ("organization", "team"),
    "key": ("organization", "team", "principal"),
    "server": ("server",),
    "tool": ("server", "kind", "name"),
}
MAX_ROWS: Final = 100_000
"""That one answer is made of. More is a question for the database itself."""


class UsageStore:
    """See the module. `writer`: this broker, and no other that ever was."""

    def __init__(self, database: Database, writer: str) -> None:
        self.database = database
        self.writer = writer

    async def add(self, number: int, batch: Mapping[tuple[Hour, Use], Sums], now: float) -> bool:
        """Add a batch, unless it is in already: it may be sent again when nobody knows what became of it. `number`
        grows with each. Whether it was added. Raises: StoreError.
        """
        return await self.database.carry_out(self._add(number, batch, now))

    def _add(self, number: int, batch: Mapping[tuple[Hour, Use], Sums], now: float) -> Script[bool]:
        if not (yield Statement(_TOLD, (self.writer, number, now))):
            return False
        # Each is added to what is there of its hour and use, in the order of the batch.
        yield Statement(_added(is_sqlite=self.database.is_sqlite), [_row(*one) for one in batch.items()], is_many=True)
        return True

    async def forget(self, before: float) -> None:
        """Remove hours that began before then, and brokers that have long ended. Raises: StoreError."""
        async with self.database.writing() as connection:
            await connection.execute(delete(usage_hours).where(usage_hours.c.hour < before))
            await connection.execute(delete(usage_writers).where(usage_writers.c.seen < before))

    async def read(self, by: Group, since: float, until: float, step: int, seen: Seen) -> list[Row]:
        """Sums by group and time, the times `step` seconds apart: a number of hours. Raises: StoreError."""
        hours = usage_hours.c
        columns = [hours[name] for name in _COLUMNS[by]]
        time = (hours.hour - hours.hour % literal(step)).label("at")
        sums = [func.sum(hours[name]).label(name) for name in _SUMS]
        asked = (
            select(*columns, time, *sums, func.max(hours.slowest).label("slowest"))
            .where(hours.hour >= since, hours.hour < until, _visible(seen))
            .group_by(*columns, time)
            .order_by(time, *columns)
            .limit(MAX_ROWS)
        )
        async with self.database.reading() as connection:
            found = (await connection.execute(asked)).mappings().all()
        return [
            Row(
                {name: row[name] for name in _COLUMNS[by]},
                int(row["at"]),
                Sums(**{name: int(row[name]) for name in (*_SUMS, "slowest")}),
            )
            for row in found
        ]


_TOLD: Final = (
    "INSERT INTO usage_writers (writer, number, seen) VALUES ($1, $2, $3) ON CONFLICT (writer) "
    "DO UPDATE SET number = excluded.number, seen = excluded.seen "
    "WHERE usage_writers.number < excluded.number RETURNING number"
)
_KEY: Final = ("hour", *Use._fields)


def _added(*, is_sqlite: bool) -> str:
    names = (*_KEY, *_SUMS, "slowest")
    grown = [f"{name} = usage_hours.{name} + excluded.{name}" for name in _SUMS]
    greatest = "max" if is_sqlite else "greatest"
    grown.append(f"slowest = {greatest}(usage_hours.slowest, excluded.slowest)")
    values = ", ".join(f"${number}" for number, _ in enumerate(names, 1))
    return (
        f"INSERT INTO usage_hours ({', '.join(names)}) VALUES ({values}) "
        f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {', '.join(grown)}"
    )


def _row(key: tuple[Hour, Use], sums: Sums) -> tuple[Any, ...]:
    hour, use = key
    return (hour, *use, sums.calls, sums.failed, sums.refused, sums.cost, sums.micros, sums.slowest)


def _visible(seen: Seen) -> ColumnElement[bool]:
    hours = usage_hours.c
    if seen.everything:
        return hours.hour >= 0
    whose: Sequence[ColumnElement[bool]] = [
        and_(hours.organization == organization, hours.team == team) if team else hours.organization == organization
        for organization, team in seen.places
    ]
    own = [hours.principal == seen.principal] if seen.principal else []
    return or_(false(), *whose, *own)
