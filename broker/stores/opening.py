"""Open a store. The drivers are loaded here, in a thread, and only when there is something to store or to read."""

import importlib
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from broker.stores.errors import StoreUnusable
from broker.stores.location import Location

if TYPE_CHECKING:
    from broker.stores.directory import DirectoryStore
    from broker.stores.ledger import Ledger
    from broker.stores.usage import UsageStore


async def open_store(location: Location) -> "DirectoryStore":
    """A store whose tables are there and up to date; whoever opened it closes it (`aclose`).

    Raises: StoreError.
    """
    if location.url is not None:
        try:
            await _driver("asyncpg")
        except ImportError:
            raise StoreUnusable(
                "store.url is a PostgreSQL database, and its driver is not installed. "
                "Say: pip install 'mcp-broker[postgres]'"
            ) from None
    engine, migrate, directory = [await _driver(f"broker.stores.{name}") for name in ("engine", "migrate", "directory")]
    database = engine.Database.at(location)
    try:
        await migrate.prepare(database, location)
        return directory.DirectoryStore(database)
    except BaseException:
        await database.aclose()
        raise


async def open_ledger(location: Location, holder: str) -> "Ledger":
    """The budgets; whoever opened it closes its database. Raises: StoreError."""
    ledger = await _driver("broker.stores.ledger")
    return ledger.Ledger((await open_store(location)).database, holder)


async def open_usage(location: Location, writer: str) -> "UsageStore":
    """What was used; whoever opened it closes its database. Raises: StoreError."""
    usage = await _driver("broker.stores.usage")
    return usage.UsageStore((await open_store(location)).database, writer)


async def _driver(name: str) -> Any:
    return await anyio.to_thread.run_sync(importlib.import_module, name)
