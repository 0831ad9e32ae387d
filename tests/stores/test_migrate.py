"""The tables: made by Alembic's scripts, once, equal to those of the program; never by an older program than theirs."""

from collections.abc import Mapping
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from broker.stores import audit_tables, migrate, tables
from broker.stores.errors import StoreUnusable
from tests.stores.conftest import Open


def test_the_newest_script_is_the_one_that_the_program_names() -> None:
    scripts = ScriptDirectory(str(migrate._SCRIPTS))  # pyright: ignore[reportPrivateUsage]
    assert scripts.get_heads() == [tables.SCHEMA], "one line of scripts, and tables.SCHEMA names its end"
    assert all(path.name.startswith(path.name[:4]) for path in (migrate._SCRIPTS / "versions").glob("[0-9]*.py"))  # pyright: ignore[reportPrivateUsage]


async def test_the_scripts_make_the_tables_of_the_program(opened: Open) -> None:
    def differences(connection: Connection) -> list[Any]:
        options: Mapping[str, Any] = {"compare_type": True}
        context = MigrationContext.configure(connection, opts=dict(options))
        return list(compare_metadata(context, audit_tables.metadata))

    store = await opened()
    async with store.database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_second_start_migrates_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    await opened()

    def fail(_connection: Connection) -> None:
        raise AssertionError("migrated again")

    monkeypatch.setattr(migrate, "_upgrade", fail)
    await opened()


async def test_a_database_of_a_newer_program_is_refused_with_what_to_do(opened: Open) -> None:
    store = await opened()
    async with store.database.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnusable, match=r"made by a newer mcp-broker .* 9999.* Update mcp-broker"):
        await opened()
    async with store.reading() as reading:
        assert await reading.revision() == 0, "what runs goes on"


async def test_a_database_from_before_there_were_limits_keeps_what_it_has(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upgrade_to_the_first(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(migrate._SCRIPTS))  # pyright: ignore[reportPrivateUsage]
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "SCHEMA", "0001")
        patch.setattr(migrate, "_upgrade", upgrade_to_the_first)
        store = await opened()
    async with store.database.writing() as connection:
        await connection.execute(text("INSERT INTO organizations (name, created) VALUES ('acme', 1.0)"))
    store = await opened()
    level = (await store.load()).directory.organizations["acme"].level
    assert level is not None and level.limits.is_none


async def test_a_migration_that_fails_leaves_nothing_behind(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = migrate._upgrade  # pyright: ignore[reportPrivateUsage]

    def fail(connection: Connection) -> None:
        upgrade(connection)
        raise RuntimeError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_upgrade", fail)
        with pytest.raises(RuntimeError, match="the power went"):
            await opened()
    store = await opened()
    assert (await store.load()).revision == 0
