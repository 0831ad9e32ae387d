"""Bring a database to the tables of this program; Alembic's scripts do it, and only if there is something to do."""

import importlib
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.stores.engine import Database
from broker.stores.errors import StoreUnusable
from broker.stores.location import Location
from broker.stores.lock import locked
from broker.stores.tables import SCHEMA

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x6D63_7062
"""Of PostgreSQL's advisory locks: "mcpb"."""
_MIGRATION_SECONDS: Final = 600
"""How long a migration may take on PostgreSQL, where other statements have `STATEMENT_TIMEOUT`."""


async def prepare(database: Database, location: Location) -> None:
    """Make the tables, or bring them up to date. One process does it, and others that start meanwhile wait for it.

    Raises: StoreError; StoreUnusable, if a newer program has made the database.
    """
    if not database.is_sqlite:
        await _bring_up(database)
        return
    location.make_room()
    lock = location.path.with_name(f"{location.path.name}.lock")
    try:
        async with locked(lock):
            await _bring_up(database)
    except OSError:  # a directory that is read-only: the lock cannot be made, and nothing could be migrated
        await _bring_up(database)


async def _bring_up(database: Database) -> None:
    async with database.reading() as connection:
        found = await connection.run_sync(_version)
    if found == SCHEMA:
        return
    _refuse_newer(database, found)
    async with database.writing() as connection:
        if not database.is_sqlite:
            await _be_alone(connection)
        if await connection.run_sync(_version) != SCHEMA:
            await connection.run_sync(_upgrade)


async def _be_alone(connection: AsyncConnection) -> None:
    for setting in ("statement_timeout", "lock_timeout"):
        await connection.execute(text(f"SET LOCAL {setting} = {_MIGRATION_SECONDS * 1000}"))
    await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def _version(connection: Connection) -> str | None:
    """The script that the database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _refuse_newer(database: Database, found: str | None) -> None:
    known = {script.name.partition("_")[0] for script in (_SCRIPTS / "versions").glob("[0-9]*.py")}
    if found is not None and found not in known:
        raise StoreUnusable(
            f"the database {database.name} was made by a newer mcp-broker (its tables are at {found}, this one knows "
            f"{SCHEMA}). Update mcp-broker, or give this one another broker.state_dir or store.url."
        )


def _upgrade(connection: Connection) -> None:
    # Loaded here only: Alembic takes half a second, and a database is migrated once.
    command: Any = importlib.import_module("alembic.command")
    config: Any = importlib.import_module("alembic.config").Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
