"""Open a store. The drivers are loaded here, in a thread, and only when there is something to store or to read."""

import importlib
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from broker.stores.errors import StoreUnusable
from broker.stores.location import Location
from broker.threads import in_thread

if TYPE_CHECKING:
    from broker.stores.audit_index import AuditIndex
    from broker.stores.directory import DirectoryStore
    from broker.stores.engine import Database
    from broker.stores.ledger import Ledger
    from broker.stores.usage import UsageStore


SQLITE: Final = (3, 35)
"""The first one that answers a change with the rows that it was made in (`RETURNING`). Python brings its own, or the
system's."""


async def open_store(location: Location) -> "DirectoryStore":
    """A store whose tables are there and up to date; whoever opened it closes it (`aclose`).

    Raises: StoreError.
    """
    directory = await _driver("broker.stores.directory")
    return directory.DirectoryStore(await _prepared(location))


async def open_ledger(location: Location, holder: str) -> "Ledger":
    """The budgets; whoever opened it closes its database. Raises: StoreError."""
    ledger = await _driver("broker.stores.ledger")
    return ledger.Ledger(await _prepared(location), holder)


async def open_usage(location: Location, writer: str) -> "UsageStore":
    """What was used; whoever opened it closes its database. Raises: StoreError."""
    usage = await _driver("broker.stores.usage")
    return usage.UsageStore(await _prepared(location), writer)


async def open_index(location: Location) -> "AuditIndex":
    """The index of the audit, its tables up to date; whoever opened it closes it (`aclose`). Raises: StoreError."""
    audit_index = await _driver("broker.stores.audit_index")
    return audit_index.AuditIndex(await _prepared(location))


async def open_index_to_read(location: Location) -> "AuditIndex | None":
    """The same, if there is one: nothing is made for it. Raises: StoreError."""
    if location.url is None and not location.path.exists():
        return None
    audit_index = await _driver("broker.stores.audit_index")
    index = audit_index.AuditIndex(await _database(location))
    try:
        if await index.is_there():
            return index
    except BaseException:
        await index.aclose()
        raise
    await index.aclose()
    return None


async def _prepared(location: Location) -> "Database":
    database = await _database(location)
    migrate = await _driver("broker.stores.migrate")
    try:
        await migrate.prepare(database, location)
        return database
    except BaseException:
        await database.aclose()
        raise


async def _database(location: Location) -> "Database":
    if location.url is not None:
        try:
            await _driver("asyncpg")
        except ImportError:
            raise StoreUnusable(
                "store.url is a PostgreSQL database, and its driver is not installed. "
                "Say: pip install 'mcp-broker[postgres]'"
            ) from None
    elif sqlite3.sqlite_version_info < SQLITE:
        raise StoreUnusable(
            f"this Python has SQLite {sqlite3.sqlite_version}, and the store needs {SQLITE[0]}.{SQLITE[1]} or newer. "
            "Use another Python, or set store.url to a PostgreSQL database"
        )
    engine = await _driver("broker.stores.engine")
    return engine.Database.at(location)


async def _driver(name: str) -> Any:
    return await in_thread(importlib.import_module, name)
