"""A change is in force within a second, whoever made it; a store that is down keeps what is known (F-94)."""

import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream
from sqlalchemy.engine import make_url

from broker.clock import FakeClock, SystemClock
from broker.config import Secret
from broker.core.directory import Directory
from broker.stores import watch as module
from broker.stores.directory import DirectoryStore
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.rows import KeyRow
from broker.stores.watch import Watch
from tests.patience import PATIENCE
from tests.stores.conftest import SERVER, Open
from tests.stores.test_directory import CI, fill


class Seen:
    """What `on_change` got."""

    def __init__(self) -> None:
        self.directories: list[Directory] = []
        self.changed = anyio.Event()

    def __call__(self, directory: Directory) -> None:
        self.directories.append(directory)
        self.changed.set()
        self.changed = anyio.Event()

    @property
    def keys(self) -> list[str]:
        return [place.key.name for place in self.directories[-1].places()] if self.directories else []


def watching(location: Location, clock: FakeClock | SystemClock | None = None) -> tuple[Watch, Seen]:
    seen = Seen()
    return Watch(location, lambda: open_store(location), clock or FakeClock(), seen), seen


@asynccontextmanager
async def served(watch: Watch) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.serve)
        with anyio.fail_after(PATIENCE):
            await watch.settled.wait()
        yield
        tasks.cancel_scope.cancel()


async def test_a_change_is_passed_on_within_a_second(location: Location, opened: Open) -> None:
    store = await opened()
    await fill(store)
    watch, seen = watching(location, SystemClock())
    assert module.INTERVAL < 1
    async with served(watch):
        assert seen.keys == ["ci"]
        changed = seen.changed
        async with store.changing() as change:
            await change.add(replace(CI, id="bbbbbbbbbbbb", name="second"))
        with anyio.fail_after(PATIENCE):
            await changed.wait()
        assert seen.keys == ["ci", "second"] and watch.known is seen.directories[-1]
    assert len(seen.directories) == 2 and watch.silence() == 0


async def test_nothing_is_opened_before_there_is_a_file_and_then_it_is(at_file: Location) -> None:
    watch, seen = watching(at_file)
    await watch.look()
    assert watch.settled.is_set() and watch.known is None and not watch.trouble and not at_file.path.exists()
    store = await open_store(at_file)
    await fill(store)
    await store.aclose()
    await watch.look()
    assert seen.keys == ["ci"]
    await watch._close()  # pyright: ignore[reportPrivateUsage]


async def test_an_empty_store_is_not_opened_and_nobody_waits_for_it(at_file: Location) -> None:
    store = await open_store(at_file)
    await store.aclose()
    opened: list[str] = []

    async def note() -> DirectoryStore:
        opened.append("once")
        return await open_store(at_file)

    watch = Watch(at_file, note, FakeClock(), Seen())
    await watch.look()
    assert watch.settled.is_set() and opened == [] and watch.silence() == 0


async def test_a_store_that_has_only_just_failed_is_silent_already(at_file: Location) -> None:
    at_file.directory.mkdir()
    at_file.path.write_bytes(b"no database " * 1000)
    watch, _ = watching(at_file)
    await watch.look()
    assert watch.trouble and watch.silence() > 0


async def test_a_look_that_finds_nothing_new_reads_nothing(at_file: Location) -> None:
    store = await open_store(at_file)
    await fill(store)
    watch, seen = watching(at_file)
    for _ in range(3):
        await watch.look()
    assert len(seen.directories) == 1
    with closing(sqlite3.connect(at_file.path)) as other:
        other.execute("CREATE TABLE of_somebody_else (x)")  # a change of the file, not of the directory
        other.commit()
    await watch.look()
    assert len(seen.directories) == 1
    await store.aclose()
    await watch._close()  # pyright: ignore[reportPrivateUsage]


async def test_a_store_that_is_gone_keeps_what_is_known_is_said_once_and_comes_back(
    at_file: Location, caplog: pytest.LogCaptureFixture
) -> None:
    store = await open_store(at_file)
    await fill(store)
    await store.aclose()
    clock = FakeClock()
    watch, seen = watching(at_file, clock)
    await watch.look()
    aside = at_file.path.with_name("aside")
    at_file.path.rename(aside)
    with caplog.at_level(logging.INFO, logger=module.__name__):
        for _ in range(3):
            clock.advance(10)
            await watch.look()
        assert "was removed" in watch.trouble and watch.silence() == 30
        assert watch.known is not None and seen.keys == ["ci"]
        assert len(caplog.records) == 1
        aside.rename(at_file.path)
        await watch.look()
    assert not watch.trouble and watch.silence() == 0
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    await watch._close()  # pyright: ignore[reportPrivateUsage]


async def test_a_file_that_is_replaced_is_opened_anew(at_file: Location, tmp_path: Path) -> None:
    store = await open_store(at_file)
    await fill(store)
    await store.aclose()
    watch, seen = watching(at_file)
    await watch.look()
    other = Location(tmp_path / "other", tmp_path / "other" / "broker.db")
    store = await open_store(other)
    await fill(store)
    async with store.changing() as change:
        await change.set(KeyRow, {"name": "restored"}, id=CI.id)
    await store.aclose()
    os.replace(other.path, at_file.path)
    await watch.look()
    assert seen.keys == ["restored"]
    await watch._close()  # pyright: ignore[reportPrivateUsage]


async def test_a_damaged_file_is_trouble_and_what_is_known_stays(at_file: Location) -> None:
    store = await open_store(at_file)
    await fill(store)
    await store.aclose()
    watch, seen = watching(at_file)
    await watch.look()
    await watch._close()  # pyright: ignore[reportPrivateUsage]
    at_file.path.write_bytes(b"no database " * 1000)
    await watch.look()
    assert "is no SQLite database" in watch.trouble and seen.keys == ["ci"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, False), ("empty", False), ("tables", False), ("keys", True), ("damaged", True), ("other", False)],
)
async def test_whether_something_is_stored_is_known_without_the_driver(
    at_file: Location, content: str | None, expected: bool
) -> None:
    if content in ("tables", "keys"):
        store = await open_store(at_file)
        if content == "keys":
            await fill(store)
        await store.aclose()
    elif content is not None:
        at_file.directory.mkdir()
        at_file.path.write_bytes({"empty": b"", "damaged": b"x" * 5000, "other": b""}[content])
        if content == "other":
            with closing(sqlite3.connect(at_file.path)) as other:
                other.execute("CREATE TABLE of_somebody_else (x)")
    assert at_file.holds_something() is expected
    assert replace(at_file, url=Secret("postgresql://x/y")).holds_something()


class Cut:
    """A way to PostgreSQL that can be cut: connections on it break, and new ones are refused or hang."""

    def __init__(self) -> None:
        url = make_url(SERVER)
        self._target = (url.host or "127.0.0.1", url.port or 5432)
        self.mode = "open"
        self.port = 0
        self._scopes: set[anyio.CancelScope] = set()

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
            task_status.started()
            await listener.serve(self._pass_on)

    def set(self, mode: str) -> None:
        self.mode = mode
        for scope in self._scopes:
            scope.cancel()

    async def _pass_on(self, near: SocketStream) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            async with near:
                if self.mode == "refuses":
                    return
                if self.mode == "hangs":
                    await anyio.sleep_forever()
                async with await anyio.connect_tcp(*self._target) as far, anyio.create_task_group() as tasks:
                    tasks.start_soon(_pump, near, far)
                    tasks.start_soon(_pump, far, near)
        self._scopes.discard(scope)


async def _pump(source: SocketStream, sink: SocketStream) -> None:
    try:
        async for chunk in source:
            await sink.send(chunk)
        await sink.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


if SERVER:

    @pytest.mark.parametrize("how", ["refuses", "hangs"])
    async def test_F94_postgresql_that_is_down_is_waited_for_and_forgotten_nothing(
        postgresql: str, at_file: Location, how: str
    ) -> None:
        """Down at the start: trouble, nothing known. Up: read. Down again: what is known stays. Up: read again."""
        cut = Cut()
        async with anyio.create_task_group() as tasks:
            await tasks.start(cut.serve)
            url = make_url(postgresql).set(host="127.0.0.1", port=cut.port).render_as_string(hide_password=False)
            direct = await open_store(replace(at_file, url=Secret(postgresql)))
            await fill(direct)
            clock = FakeClock()
            watch, seen = watching(replace(at_file, url=Secret(url)), clock)
            cut.set(how)
            with anyio.fail_after(PATIENCE):
                await watch.look()
            assert "does not answer" in watch.trouble and watch.known is None and watch.settled.is_set()
            cut.set("open")
            await watch.look()
            assert not watch.trouble and seen.keys == ["ci"]
            cut.set(how)
            clock.advance(5)
            with anyio.fail_after(PATIENCE):
                await watch.look()
            assert watch.trouble and seen.keys == ["ci"] and len(seen.directories) == 1 and watch.silence() == 5
            async with direct.changing() as change:
                await change.set(KeyRow, {"name": "meanwhile"}, id=CI.id)
            cut.set("open")
            await watch.look()
            assert not watch.trouble and seen.keys == ["meanwhile"]
            await direct.aclose()
            await watch._close()  # pyright: ignore[reportPrivateUsage]
            tasks.cancel_scope.cancel()

    async def test_F94_a_wrong_password_or_database_is_said_without_the_password(at_file: Location) -> None:
        url = make_url(SERVER).set(database="not_there", password="hunter2")
        watch, _ = watching(replace(at_file, url=Secret(url.render_as_string(hide_password=False))))
        await watch.look()
        assert "not_there does not exist" in watch.trouble and "hunter2" not in watch.trouble
