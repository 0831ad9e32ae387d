"""The store on SQLite, and on PostgreSQL where BROKER_TEST_POSTGRES_URL names a server (`.ci/postgres` starts one)."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from broker.config import Secret
from broker.stores.directory import DirectoryStore
from broker.stores.location import Location
from broker.stores.opening import open_store

SERVER = os.environ.get("BROKER_TEST_POSTGRES_URL", "")
BACKENDS = ["sqlite", *(["postgresql"] if SERVER else [])]

Open = Callable[[], Awaitable[DirectoryStore]]


def on_server(statement: str) -> None:
    """Run a statement that no transaction may hold."""
    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(SERVER)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of an empty database of its own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    on_server(f"CREATE DATABASE {name}")
    try:
        yield make_url(SERVER).set(database=name).render_as_string(hide_password=False)
    finally:
        on_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=BACKENDS)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    state = tmp_path / "state"
    url = Secret(request.getfixturevalue("postgresql")) if request.param == "postgresql" else None
    return Location(state, state / "broker.db", url)


@pytest.fixture
def at_file(tmp_path: Path) -> Location:
    """SQLite only."""
    return Location(tmp_path / "state", tmp_path / "state" / "broker.db")


@pytest.fixture
async def opened(location: Location) -> AsyncIterator[Open]:
    """Opens the store; each of what it opened is like another process. All are closed at the end."""
    stores: list[DirectoryStore] = []

    async def once_more() -> DirectoryStore:
        stores.append(await open_store(location))
        return stores[-1]

    yield once_more
    for store in stores:
        await store.aclose()
