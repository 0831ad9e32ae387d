"""A database: connections, transactions, and its faults in our words.

SQLite in one file that several brokers share, or PostgreSQL. On SQLite a write takes the file's lock when it begins
(`BEGIN IMMEDIATE`): what it has read cannot change under it, and two writers wait for each other instead of failing
half-way. On PostgreSQL writers queue at a row of their own (`directory.py` changes `revision` first).
"""

import os
import sqlite3
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlencode

import anyio
from sqlalchemy import URL, event, exc, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from broker.stores.errors import Conflict, StoreError, StoreReadOnly, StoreUnavailable, StoreUnusable
from broker.stores.location import Location
from broker.stores.script import Script, run_on_server, run_on_sqlite
from broker.threads import at_any_rate, in_thread

_T = TypeVar("_T")

BUSY_TIMEOUT: Final = 5.0
"""Seconds that a statement waits for another process that writes; without a wait two brokers would fail each other."""
STATEMENT_TIMEOUT: Final = 2.0
"""Seconds that a statement may take on PostgreSQL: no request waits for a database that does not answer (F-94)."""
CONNECT_TIMEOUT: Final = 2.0
"""Seconds until PostgreSQL must have accepted a connection."""
SQLITE_CONNECTIONS: Final = 4
"""Each is a thread. One polls, one writes, the others read."""
RECYCLE: Final = 1800
"""Seconds after which a connection is replaced, before a firewall forgets it."""

_WRITES: Final = "broker_writes"
_WATCHES: Final = "broker_watches"

_MENDED: Final = "Restore it from a backup, or move it away: a new one is made, without the keys that were in it."
_UNUSABLE: Final = {
    sqlite3.SQLITE_CORRUPT: f"is damaged. {_MENDED}",
    sqlite3.SQLITE_NOTADB: f"is no SQLite database. {_MENDED}",
}
_READ_ONLY: Final = {
    sqlite3.SQLITE_READONLY: "cannot be written: the file or its directory is read-only",
    sqlite3.SQLITE_PERM: "cannot be written: permission denied",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full",
    sqlite3.SQLITE_IOERR: "cannot be written: the disk reports an error, or is full",
}
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: f"is locked by another process, for more than {BUSY_TIMEOUT:g} s",
    sqlite3.SQLITE_LOCKED: "is locked",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: its directory is missing, or may not be read or written",
}
_PG_READ_ONLY: Final = {
    "25006": "is read-only: a replica that is not the primary, it seems",
    "53100": "cannot be written: its disk is full",
    "42501": "may not be written by this user",
}
_PG_UNUSABLE: Final = {
    "28P01": "refuses the password",
    "28000": "refuses this user",
    "3D000": "does not exist",
    "XX001": f"is damaged. {_MENDED}",
}


class Database:
    """See the module. `name` is what errors call it: a path, or host and database, never a password."""

    WATCHES: ClassVar = _WATCHES
    """An option of connections that only ask for `PRAGMA data_version`, outside of any transaction."""

    def __init__(self, url: URL, pool_size: int = SQLITE_CONNECTIONS) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        database = url.database or ""
        self.name = database.removeprefix("file://") if self.is_sqlite else f"{url.host or 'localhost'}/{database}"
        self.engine = _sqlite(url) if self.is_sqlite else _postgresql(url, pool_size)
        self._url = url
        self._plain: sqlite3.Connection | None = None
        """For scripts; made when it is first needed, and anew after each failure."""
        self._file: tuple[int, int] | None = None
        """Which file it has open."""
        self._turn = threading.RLock()
        """Of the thread that uses `_plain`. A task that is cancelled may leave it at work (what asyncio cancels, anyio
        cannot shield), and a connection that is closed under it takes the process with it."""

    @classmethod
    def at(cls, location: Location) -> "Database":
        """The database of a location; nothing is connected yet."""
        if location.url is None:
            return cls(_url_of_file(location))
        url = make_url(location.url.reveal()).set(drivername="postgresql+asyncpg")
        if "sslmode" in url.query:  # libpq's word; the driver has another
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": url.query["sslmode"]})
        return cls(url, location.pool_size)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection]:
        """One transaction that sees one state.

        Cancellation waits for it: every statement is bounded in time, and a driver that is cancelled while it connects
        leaves the connection behind. Raises: StoreError.
        """
        with anyio.CancelScope(shield=True), self.translated():
            async with self.engine.connect() as connection:
                if not self.is_sqlite:  # there several statements see one state only if they ask for it
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """One transaction, committed at the end, rolled back by an exception.

        It is made wholly or not at all, also when whoever asked for it is cancelled: that waits, `BUSY_TIMEOUT` at most
        and the statements themselves. Raises: StoreError.
        """
        with anyio.CancelScope(shield=True), self.translated():
            async with self.engine.connect() as connection:
                await connection.execution_options(**{_WRITES: True})
                async with connection.begin():
                    yield connection

    async def carry_out(self, script: Script[_T]) -> _T:
        """One writing transaction of plain statements, on SQLite in a thread; see `writing`. Raises: StoreError."""
        if not self.is_sqlite:
            async with self.writing() as connection:
                return await run_on_server(connection, script)
        with self.translated():
            return await in_thread(self._carried_out, script)

    def _carried_out(self, script: Script[_T]) -> _T:
        with self._turn:  # a connection has one transaction at a time
            return self._run(script)

    def _run(self, script: Script[_T]) -> _T:
        if self._plain is not None and _file_at(self._url) != self._file:
            self._forget_plain()  # what it writes nobody would ever read
            raise StoreUnavailable(f"the database {self.name} was removed or replaced")
        if self._plain is None:
            self._file = _file_at(self._url)  # before: one that takes its place meanwhile is another
            self._plain = _plain(self._url)
        try:
            return run_on_sqlite(self._plain, script)
        except sqlite3.Error:
            self._forget_plain()
            raise

    def _forget_plain(self) -> None:
        with self._turn:
            plain, self._plain = self._plain, None
            if plain is not None:
                plain.close()

    async def aclose(self) -> None:
        """Close every connection, once the script that is at work has ended."""
        with anyio.CancelScope(shield=True):
            if self.is_sqlite:
                await at_any_rate(self._forget_plain)
            await self.engine.dispose()

    @contextmanager
    def translated(self) -> Generator[None]:
        """Faults of the driver become a `StoreError`."""
        try:
            yield
        except (exc.IntegrityError, sqlite3.IntegrityError):
            raise Conflict("it exists already") from None
        except (exc.SQLAlchemyError, sqlite3.Error, OSError, TimeoutError) as error:
            raise self._told(error) from error

    def _told(self, error: BaseException) -> StoreError:
        origin = getattr(error, "orig", None) or error
        code = getattr(origin, "sqlite_errorcode", None)
        return self._sqlite_fault(code & 0xFF) if isinstance(code, int) else self._other_fault(error, origin)

    def _sqlite_fault(self, code: int) -> StoreError:
        for kind, texts in (
            (StoreUnusable, _UNUSABLE),
            (StoreReadOnly, _READ_ONLY),
            (StoreUnavailable, _UNAVAILABLE),
        ):
            if code in texts:
                return kind(f"the database {self.name} {texts[code]}")
        return StoreUnavailable(f"the database {self.name} failed (SQLite error {code})")

    def _other_fault(self, error: BaseException, origin: BaseException) -> StoreError:
        state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
        for kind, texts in ((StoreUnusable, _PG_UNUSABLE), (StoreReadOnly, _PG_READ_ONLY)):
            if state in texts:
                return kind(f"the database {self.name} {texts[state]}")
        if isinstance(error, exc.TimeoutError):
            return StoreUnavailable(f"the database {self.name} has no free connection")
        # Neither the driver's text nor SQLAlchemy's: statements and their parameters are in them.
        why = f"error {state}" if state else type(origin).__name__
        return StoreUnavailable(f"the database {self.name} does not answer ({why})")


def _url_of_file(location: Location) -> URL:
    """SQLite shares a file through others beside it. Where those cannot be made they are there already (somebody else
    may write), or nobody has the file open, and then it may be read alone: `watch.py` opens it anew when it changes."""
    if not location.is_read_only():
        return URL.create("sqlite+aiosqlite", database=str(location.path))
    alone = {} if location.path.with_name(f"{location.path.name}-wal").exists() else {"immutable": "1"}
    query = {"mode": "ro", "uri": "true", **alone}
    return URL.create("sqlite+aiosqlite", database=location.path.absolute().as_uri(), query=query)


def _sqlite(url: URL) -> AsyncEngine:
    engine = create_async_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None},
        pool_size=SQLITE_CONNECTIONS,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT,
    )
    event.listen(engine.sync_engine, "connect", _configure_sqlite_to_read if url.query else _configure_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _file_at(url: URL) -> tuple[int, int] | None:
    """Which file is there; None for none, and for one that is only read."""
    try:
        found = os.stat(f"{url.database}")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _plain(url: URL) -> sqlite3.Connection:
    """A connection as those of the engine are, for whichever thread has its turn. It makes no file: one without tables
    would be of no use, and others than its owner could read it."""
    place = f"{url.database}" if url.query else Path(f"{url.database}").absolute().as_uri()
    database = f"{place}?{urlencode(url.query or {'mode': 'rw'})}"
    connection = sqlite3.connect(
        database, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, uri=True
    )
    (_configure_sqlite_to_read if url.query else _configure_sqlite)(connection, None)
    return connection


def _configure_sqlite_to_read(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT * 1000)}")
    cursor.close()


def _configure_sqlite(connection: Any, record: Any) -> None:
    # SQLite's own defaults are those of a file for one process.
    _configure_sqlite_to_read(connection, record)
    cursor = connection.cursor()
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "PRAGMA foreign_keys = ON"):
        cursor.execute(statement)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # The driver's own implicit transactions are off: they begin too late to protect what was read.
    options = connection.get_execution_options()
    if not options.get(_WATCHES, False):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITES, False) else "BEGIN")


def _postgresql(url: URL, pool_size: int) -> AsyncEngine:
    settings = {
        "application_name": "mcp-broker",
        "statement_timeout": str(int(STATEMENT_TIMEOUT * 1000)),
        "lock_timeout": str(int(STATEMENT_TIMEOUT * 1000)),
        "idle_in_transaction_session_timeout": str(int(STATEMENT_TIMEOUT * 5000)),
    }
    return create_async_engine(
        url,
        # The client's own limit is for a server that is gone without a word; the server's comes first.
        connect_args={
            "server_settings": settings,
            "timeout": CONNECT_TIMEOUT,
            "command_timeout": STATEMENT_TIMEOUT + 1,
        },
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=STATEMENT_TIMEOUT,
        pool_pre_ping=True,
        pool_recycle=RECYCLE,
    )
