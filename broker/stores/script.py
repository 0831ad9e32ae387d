"""Transactions that are made again and again: plain statements, which the driver gets as they are.

A script yields its statements one by one and is sent the rows of each; what it returns is the result. It knows nothing
of where it runs: on SQLite in a thread, from its beginning to its end, so that the event loop is asked for nothing
meanwhile; on PostgreSQL over the loop's own connection. SQLAlchemy would take some 15 ms of the loop for what takes
less than one here, and every call that comes in that time would wait.
"""

import sqlite3
from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

_T = TypeVar("_T")
Rows = list[tuple[Any, ...]]


class Statement(NamedTuple):
    """Its parameters are `$1`, `$2` ... in both dialects; no other `$` may be in it. `values`: of one execution; with
    `is_many`, of as many as there are, whose rows are not told.
    """

    text: str
    values: Sequence[Any]
    is_many: bool = False


Script = Generator[Statement, Rows, _T]


def run_on_sqlite(connection: sqlite3.Connection, script: Script[_T]) -> _T:
    """One transaction, made wholly or not at all. Raises: sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        rows: Any = None
        while True:
            try:
                text, values, is_many = script.send(rows)
            except StopIteration as end:
                connection.execute("COMMIT")
                return end.value
            run = connection.executemany if is_many else connection.execute
            rows = run(_numbered(text), values).fetchall()
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


async def run_on_server(connection: AsyncConnection, script: Script[_T]) -> _T:
    """The same within a transaction that somebody else begins and ends. Raises: as the driver does."""
    rows: Any = None
    while True:
        try:
            text, values, is_many = script.send(rows)
        except StopIteration as end:
            return end.value
        found = await connection.exec_driver_sql(text, list(values) if is_many else tuple(values))
        rows = [tuple(row) for row in found] if found.returns_rows else []


@lru_cache(maxsize=256)
def _numbered(text: str) -> str:
    """In SQLite's own words, in which parameters have numbers and no names."""
    return text.replace("$", "?")


@lru_cache(maxsize=256)
def places(count: int, width: int, first: int, *, is_sqlite: bool) -> str:
    """`(($1, $2), ($3, $4))`: a list of so many rows for `IN`, beginning with parameter `first`."""
    rows = (", ".join(f"${first + row * width + column}" for column in range(width)) for row in range(count))
    return f"({'VALUES ' if is_sqlite else ''}{', '.join(f'({row})' for row in rows)})"
