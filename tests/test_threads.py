"""A system that gives no more threads: what needs one says so, and goes on when there are some again."""

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from broker.clock import FakeClock
from broker.reload import LOOK, Reloads
from broker.stores.audit_index import AuditIndex
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.watch import Watch
from broker.threads import NoThreads, at_any_rate, begin, in_thread
from broker.usage.indexing import Indexer
from tests.patience import PATIENCE
from tests.relay.fake import Fake, house, tool


@asynccontextmanager
async def no_threads() -> AsyncGenerator[None]:
    """Threads that are to have more stack than there are addresses: the system refuses them as it does at a bound.
    Those that are idle have something to do meanwhile.
    """
    release, full = threading.Event(), anyio.Event()

    async def occupy() -> None:
        try:
            await in_thread(release.wait)
        except NoThreads:
            full.set()

    async with anyio.create_task_group() as tasks:
        before = threading.stack_size(1 << 50)
        try:
            while not full.is_set():
                tasks.start_soon(occupy)
                await anyio.lowlevel.checkpoint()
            yield
        finally:
            threading.stack_size(before)
            release.set()


async def test_what_finds_no_thread_says_so() -> None:
    async with no_threads():
        with pytest.raises(NoThreads, match="gives no more threads"):
            await in_thread(threading.get_ident)
    assert await in_thread(threading.get_ident) != threading.get_ident()


async def test_what_must_be_done_is_done_without_a_thread() -> None:
    done: list[int] = []
    async with no_threads():
        await at_any_rate(lambda: done.append(threading.get_ident()))
    await at_any_rate(lambda: done.append(threading.get_ident()))
    assert done[0] == threading.get_ident() != done[1]


async def test_a_fault_of_the_work_itself_is_not_taken_for_it() -> None:
    def faulty() -> None:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        await in_thread(faulty)


async def later(clock: FakeClock, is_so: Callable[[], bool]) -> None:
    """The time passes until it is so."""
    with anyio.fail_after(PATIENCE):
        while not is_so():
            clock.advance(LOOK)
            await anyio.lowlevel.checkpoint()


async def test_a_thread_of_ones_own_is_told_as_well() -> None:
    async with no_threads():
        with pytest.raises(NoThreads):
            begin(threading.Thread(target=print))


async def test_a_file_that_no_thread_can_read_is_put_in_force_once_one_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path, {"one": Fake()}) as place, anyio.create_task_group() as tasks:
        reloads = Reloads(place.broker, {})
        tasks.start_soon(reloads.watch)
        tasks.start_soon(reloads.serve)
        generation = place.broker.generation
        async with no_threads():
            reloads.want()
            await later(place.clock, lambda: bool(reloads.trouble))
            await later(place.clock, lambda: "whether the file has changed is not known" in caplog.text)
            assert "cannot be read now: the system gives no more threads" in reloads.trouble
            assert place.broker.generation is generation and reloads.failed == 1
        await later(place.clock, lambda: reloads.done == 1)
        assert reloads.trouble == "" and place.broker.generation is not generation
        assert (await place.ask("tools/list"))["tools"]
        tasks.cancel_scope.cancel()


async def test_a_store_that_no_thread_can_open_is_opened_once_one_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    location, clock = Location(tmp_path, tmp_path / "broker.db"), FakeClock()
    location.path.write_bytes(b"no database")
    watch = Watch(location, lambda: open_store(location), clock, lambda directory: None)
    async with anyio.create_task_group() as tasks:
        async with no_threads():
            tasks.start_soon(watch.serve)
            await later(clock, lambda: bool(watch.trouble))
            assert watch.trouble == "the store cannot be opened: the system gives no more threads"
        await later(clock, lambda: watch.is_unusable)
        assert "is no SQLite database" in watch.trouble
        tasks.cancel_scope.cancel()


async def test_a_listing_that_no_thread_can_keep_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake = Fake()
    async with house(tmp_path, {"one": fake}) as place, no_threads():
        before = place.broker.generation.catalog
        fake.tools = [tool("new")]
        fake.announce()
        await later(place.clock, lambda: "no catalog snapshot: the system gives no more threads" in caplog.text)
        assert place.broker.generation.catalog is not before
        assert [one["name"] for one in (await place.ask("tools/list"))["tools"]] == ["one__new"]


async def test_an_index_that_no_thread_can_look_for_is_trouble_until_one_can(tmp_path: Path) -> None:
    async def open_nothing() -> AuditIndex:
        raise AssertionError("there is nothing to index")

    clock = FakeClock()
    indexer = Indexer(tmp_path, open_nothing, clock, 90)
    async with indexer.running():
        async with no_threads():
            await later(clock, lambda: "gives no more threads" in indexer.trouble)
        await later(clock, lambda: indexer.trouble == "")
