"""What only a database server does: slow, read-only, without a free connection (F-94)."""

from dataclasses import replace

import anyio
import pytest
from sqlalchemy import text

from broker.config import Secret
from broker.stores.errors import StoreReadOnly, StoreUnavailable
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.rows import KeyRow
from tests.patience import PATIENCE
from tests.stores.conftest import SERVER, on_server
from tests.stores.test_directory import CI, fill

if SERVER:

    async def test_F94_a_statement_that_takes_too_long_is_given_up(postgresql: str, at_file: Location) -> None:
        store = await open_store(replace(at_file, url=Secret(postgresql)))
        try:
            with anyio.fail_after(PATIENCE), pytest.raises(StoreUnavailable, match="does not answer"):
                async with store.database.reading() as connection:
                    await connection.execute(text("SELECT pg_sleep(600)"))
            assert await store.revision_if_touched() == 0, "the next one is served"
        finally:
            await store.aclose()

    async def test_F94_a_replica_that_is_read_only_serves_reads(postgresql: str, at_file: Location) -> None:
        location = replace(at_file, url=Secret(postgresql))
        store = await open_store(location)
        await fill(store)
        await store.aclose()
        name = postgresql.rpartition("/")[2]
        await anyio.to_thread.run_sync(on_server, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        store = await open_store(location)
        try:
            with pytest.raises(StoreReadOnly, match="is read-only"):
                async with store.changing() as change:
                    await change.remove(KeyRow, id=CI.id)
            assert len(list((await store.load()).directory.places())) == 1
        finally:
            await store.aclose()

    async def test_F94_nobody_waits_for_long_for_a_free_connection(postgresql: str, at_file: Location) -> None:
        store = await open_store(replace(at_file, url=Secret(postgresql), pool_size=2))
        try:
            async with store.reading() as one, store.reading() as other:
                with anyio.fail_after(PATIENCE), pytest.raises(StoreUnavailable, match="no free connection"):
                    async with store.reading():
                        pass
                assert await one.revision() == await other.revision() == 0
            assert await store.revision_if_touched() == 0
        finally:
            await store.aclose()


def test_the_password_is_in_nothing_that_the_store_shows(at_file: Location) -> None:
    location = replace(at_file, url=Secret("postgresql://me:hunter2@db.example/broker"))
    assert "hunter2" not in repr(location)
