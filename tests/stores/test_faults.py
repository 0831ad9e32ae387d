"""A file that is locked, damaged, full, read-only, or shared: F-91, F-93."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import URL, event

from broker.stores import engine
from broker.stores.directory import DirectoryStore
from broker.stores.errors import StoreReadOnly, StoreUnavailable, StoreUnusable
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.rows import KeyRow
from broker.stores.script import Script, Statement
from tests.peers import ROOT
from tests.stores.test_directory import CI, fill

CHILD = Path(__file__).parent / "child.py"
PATIENCE: float = 120
"""Seconds for a process, on a loaded machine."""
MANY = [{"servers": ["x" * 1000]}] * 1000


@pytest.fixture
async def store(at_file: Location) -> AsyncIterator[DirectoryStore]:
    store = await open_store(at_file)
    await fill(store)
    yield store
    await store.aclose()


def start(*args: str, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*wrapper, sys.executable, str(CHILD), *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=PATIENCE)
    return out.splitlines()


async def rename(store: DirectoryStore, name: str) -> None:
    async with store.changing() as change:
        await change.set(KeyRow, {"name": name}, id=CI.id)


async def test_F93_what_one_part_of_a_broker_opens_costs_no_other_part_its_lock_on_the_file(
    store: DirectoryStore, at_file: Location
) -> None:
    """Without the lock, whoever closes the file takes it for nobody's, and removes the log that is still written."""
    log = at_file.path.with_name(f"{at_file.path.name}-wal")
    assert log.exists()
    other = await open_store(at_file)
    somebody_else = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM keys'); c.close()"
    await anyio.run_process([sys.executable, "-c", somebody_else, str(at_file.path)])
    assert log.exists()
    await rename(store, "kept")
    await other.aclose()
    assert next(iter((await store.load()).directory.places())).key.name == "kept"


async def test_F93_a_writer_waits_for_another_process_that_writes(store: DirectoryStore, at_file: Location) -> None:
    waits = anyio.Event()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement == "BEGIN IMMEDIATE":
            waits.set()

    event.listen(store.database.engine.sync_engine, "before_cursor_execute", note)
    with closing(sqlite3.connect(at_file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rename, store, "waited")
            await waits.wait()
            assert next(iter((await store.load()).directory.places())).key.name == "ci", "readers do not wait"
            other.execute("UPDATE keys SET role = 'member'")
            other.execute("COMMIT")
    key = next(iter((await store.load()).directory.places())).key
    assert (key.name, key.role) == ("waited", "member"), "both changes are there"


async def test_F93_a_file_that_stays_locked_is_a_clear_error(
    at_file: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.2)
    store = await open_store(at_file)
    try:
        await fill(store)
        with closing(sqlite3.connect(at_file.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="is locked by another process"):
                await rename(store, "x")
            assert (await store.load()).revision == 1
            other.execute("ROLLBACK")
        await rename(store, "x")
    finally:
        await store.aclose()


@pytest.mark.parametrize("damage", ["all of it", "the beginning", "the middle", "cut"])
async def test_F93_a_damaged_file_is_refused_with_what_to_do(at_file: Location, damage: str) -> None:
    store = await open_store(at_file)
    await fill(store)
    await store.aclose()
    data = bytearray(at_file.path.read_bytes())
    match damage:
        case "all of it":
            data = bytearray(os.urandom(len(data)))
        case "the beginning":
            data[:64] = b"#" * 64
        case "the middle":
            data[4096:] = os.urandom(len(data) - 4096)
        case _:
            del data[len(data) // 2 :]
    at_file.path.write_bytes(bytes(data))
    with pytest.raises(StoreUnusable, match="Restore it from a backup, or move it away"):
        broken = await open_store(at_file)
        try:
            await broken.load()
        finally:
            await broken.aclose()
    assert at_file.path.read_bytes() == bytes(data), "nothing was mended behind the operator's back"


async def test_F93_on_a_full_disk_changes_fail_clearly_and_reads_go_on(store: DirectoryStore) -> None:
    def limit(connection: Any, _record: object) -> None:
        # SQLite's own bound on a file: what it says then is what it says of a full disk.
        cursor = connection.cursor()
        cursor.execute("PRAGMA max_page_count = 1")
        cursor.close()

    await store.database.engine.dispose()
    event.listen(store.database.engine.sync_engine, "connect", limit)
    with pytest.raises(StoreReadOnly, match="the disk is full"):
        async with store.changing() as change:
            await change.add(replace(CI, id="cccccccccccc", name="other", allow=MANY))
    assert len(list((await store.load()).directory.places())) == 1
    event.remove(store.database.engine.sync_engine, "connect", limit)
    await store.database.engine.dispose()
    await rename(store, "recovered")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
async def test_F93_in_a_read_only_directory_changes_fail_clearly_and_reads_go_on(
    store: DirectoryStore, at_file: Location
) -> None:
    # Root may write anything, unless it gives that up.
    wrapper = ("setpriv", "--bounding-set", "-dac_override", "--") if os.geteuid() == 0 else ()
    await store.aclose()
    modes = {path: path.stat().st_mode for path in (at_file.path, at_file.directory)}
    for path in modes:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        said = await anyio.to_thread.run_sync(lambda: lines_of(start("try", str(at_file.directory), wrapper=wrapper)))
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert said[:2] == ["open", "1 keys"]
    assert said[2].startswith("StoreReadOnly: ") and "read-only" in said[2]
    assert said[3] == "1 keys"


async def test_F93_where_no_file_can_be_made_the_remedy_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(StoreReadOnly, match=r"broker\.state_dir"):
        await open_store(Location(tmp_path / "state", tmp_path / "state" / "broker.db"))


async def test_F93_brokers_that_start_at_once_on_one_file_lose_nothing(at_file: Location) -> None:
    """Four processes make the file, its tables, and keys, all at the same time."""
    children = [start("create", str(at_file.directory), f"child{number}", "25") for number in range(4)]
    said = [await anyio.to_thread.run_sync(lines_of, child) for child in children]
    assert [child.returncode for child in children] == [0] * 4
    made = {line for lines in said for line in lines if line != "open"}
    store = await open_store(at_file)
    try:
        stored = await store.load()
    finally:
        await store.aclose()
    assert len(made) == 100
    assert {place.key.id for place in stored.directory.places()} == made
    assert all(len(place.key.hashes) == 1 for place in stored.directory.places())
    assert stored.revision == 100


async def test_F91_what_was_acknowledged_before_a_kill_is_there_and_nothing_is_half(at_file: Location) -> None:
    child = start("create", str(at_file.directory), "child")
    assert child.stdout is not None
    acknowledged = {line.strip() for line in (child.stdout.readline() for _ in range(12)) if line.strip() != "open"}
    child.kill()
    child.communicate(timeout=PATIENCE)
    store = await open_store(at_file)
    try:
        places = list((await store.load()).directory.places())
        await rename(store, "goes-on")
    finally:
        await store.aclose()
    assert len(acknowledged) == 11 and acknowledged <= {place.key.id for place in places}
    assert all(len(place.key.hashes) == 1 for place in places)
    with closing(sqlite3.connect(at_file.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_the_file_and_its_directory_are_for_their_owner_only(store: DirectoryStore, at_file: Location) -> None:
    assert at_file.directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in at_file.directory.iterdir()} == {0}


async def test_the_settings_of_every_connection(store: DirectoryStore) -> None:
    async with store.database.reading() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 5000}


def test_setpriv_is_there_where_it_is_needed() -> None:
    """The read-only test would otherwise prove nothing, for root."""
    assert os.geteuid() != 0 or shutil.which("setpriv")


def add_writer(name: str, began: threading.Event | None = None, goes_on: threading.Event | None = None) -> Script[str]:
    yield Statement("INSERT INTO usage_writers (writer, number, seen) VALUES ($1, 1, 1)", (name,))
    if began is not None and goes_on is not None:
        began.set()
        goes_on.wait(PATIENCE)
    rows = yield Statement("SELECT writer FROM usage_writers WHERE writer = $1", (name,))
    return rows[0][0]


async def test_a_script_whose_task_is_cancelled_is_made_wholly_before_the_next_one_and_before_the_end(
    at_file: Location,
) -> None:
    """Asyncio's own cancellation passes every shield. A connection that was closed while a script had it was the end of
    the process: a broker that ended while the index was written died of it."""
    database = (await open_store(at_file)).database
    began, goes_on = threading.Event(), threading.Event()
    first = asyncio.create_task(database.carry_out(add_writer("first", began, goes_on)))
    await anyio.to_thread.run_sync(began.wait, PATIENCE)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(database.carry_out(add_writer("second")))
    end = asyncio.create_task(database.aclose())
    try:
        done, _ = await asyncio.wait((second, end), timeout=0.05)
        assert not done, "somebody else has the connection"
    finally:
        goes_on.set()
    assert await second == "second"
    await end
    await database.aclose()  # `second` may have come after it
    with closing(sqlite3.connect(at_file.path)) as connection:
        found = connection.execute("SELECT writer FROM usage_writers ORDER BY writer").fetchall()
    assert found == [("first",), ("second",)]


async def test_a_script_makes_no_database_where_one_was_removed(at_file: Location) -> None:
    """It would have no tables, and others than its owner could read it."""
    database = (await open_store(at_file)).database
    at_file.path.unlink()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await database.carry_out(add_writer("one"))
    assert not at_file.path.exists()
    await database.aclose()


async def test_a_database_that_is_replaced_while_a_script_opens_it_is_noticed_at_the_next_one(
    at_file: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, opened = (await open_store(at_file)).database, engine._plain  # pyright: ignore[reportPrivateUsage]
    kept = at_file.path.with_name("kept")

    def and_replaced(url: URL) -> sqlite3.Connection:
        connection = opened(url)
        at_file.path.rename(kept)
        at_file.path.touch()
        return connection

    monkeypatch.setattr(engine, "_plain", and_replaced)
    await database.carry_out(add_writer("one"))
    with pytest.raises(StoreUnavailable, match="replaced"):
        await database.carry_out(add_writer("two"))
    await database.aclose()


async def test_a_sqlite_that_is_too_old_is_refused_with_what_to_do(
    at_file: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with pytest.raises(StoreUnusable, match=r"3\.34\.1.*3\.35 or newer.*store\.url"):
        await open_store(at_file)
    assert not at_file.path.exists()
