"""The index of the audit: it answers what the lines answer, whatever of them it has, and is made anew if it is lost."""

import itertools
import logging
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.clock import FakeClock, SystemClock
from broker.config import Secret
from broker.stores import audit_index
from broker.stores.audit_index import AuditIndex
from broker.stores.audit_rows import Batch
from broker.stores.errors import StoreUnavailable
from broker.stores.location import Location
from broker.stores.opening import open_index, open_index_to_read
from broker.usage import index_rows
from broker.usage.indexing import EVERY, PACE, Indexer
from broker.usage.lookup import find, who_saw
from broker.usage.question import Question, Seen
from broker.usage.records import Mark, Record
from broker.usage.searching import Search
from tests.stores.conftest import BACKENDS, at_file, postgresql
from tests.usage.audited import until
from tests.usage.trails import BEGAN, call, discovery, file_name, write

__all__ = ["at_file", "postgresql"]

ONE, TWO = Mark("h1", ("one__echo", "one__drop"), {}), Mark("h2", ("one__echo",), {"one__echo": "renamed"})
DAY = 86_400.0


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables: making them takes longer than all else here."""
    state = tmp_path_factory.mktemp("empty")

    async def make() -> None:
        await (await open_index(Location(state, state / "broker.db"))).aclose()

    anyio.run(make)
    return state / "broker.db"


@pytest.fixture(params=BACKENDS)
def location(request: pytest.FixtureRequest, tmp_path: Path, empty: Path) -> Location:
    state = tmp_path / "state"
    if request.param == "postgresql":
        return Location(state, state / "broker.db", Secret(request.getfixturevalue("postgresql")))
    state.mkdir()
    shutil.copy(empty, state)
    return Location(state, state / "broker.db")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit"


@pytest.fixture
def indexer(location: Location, kept: Path) -> Indexer:
    return Indexer(kept, partial(open_index, location), SystemClock(), 90)


@asynccontextmanager
async def reading(location: Location, kept: Path) -> AsyncGenerator[Search, None]:
    index = await open_index_to_read(location)
    assert index is not None
    try:
        async with Search.over(kept, index) as search:
            yield search
    finally:
        await index.aclose()


async def told(location: Location, kept: Path, question: Question, limit: int = 50) -> list[dict[str, Any]]:
    async with reading(location, kept) as search:
        return await search.find(question, limit)


async def sightings(location: Location, kept: Path, name: str, question: Question) -> list[Seen]:
    async with reading(location, kept) as search:
        return await search.who_saw(name, question)


async def rows(location: Location) -> int:
    index = await open_index(location)
    try:
        async with index.reading() as state:
            return len(await state.newest((), None, None, None, 10_000))
    finally:
        await index.aclose()


def some(count: int, who: str = "key:ann", first: float = BEGAN) -> list[Record]:
    return [call(who, f"tool{index % 7}", at=first + index) for index in range(count)]


async def test_what_was_asked_of_the_lines_is_answered_by_the_index(
    indexer: Indexer, location: Location, kept: Path
) -> None:
    write(kept / file_name(1), [*some(20), call("key:bob", "drop", at=BEGAN + 50, outcome="denied")])
    write(kept / file_name(2), [discovery("key:ann", ONE, at=BEGAN + 1), discovery("key:bob", TWO, at=BEGAN + 2)])
    assert await indexer.look(pace=0) == 23
    for question in (
        Question(),
        Question(caller="key:b*"),
        Question(caller="ann"),
        Question(tool="one__drop"),
        Question(team="acme/data", outcome="denied"),
        Question(since=BEGAN + 3, until=BEGAN + 6),
    ):
        assert await told(location, kept, question) == find(kept, question, 50) != []
    (seen,) = await sightings(location, kept, "renamed", Question())
    assert [seen] == who_saw(kept, "renamed", Question()) and seen.principal == "key:bob"


async def test_what_is_not_in_the_index_yet_is_read_from_the_lines(
    indexer: Indexer, location: Location, kept: Path
) -> None:
    path = kept / file_name(1)
    write(path, [*some(3), discovery("key:ann", ONE, at=BEGAN + 10)])
    await indexer.look(pace=0)
    more = [discovery("key:ann", ONE, at=BEGAN + 20), call("key:bob", "echo", at=BEGAN + 21)]
    write(path, [discovery("key:eve", ONE, at=BEGAN + 19), *more])
    write(kept / file_name(2), [call("key:bob", "echo", at=BEGAN + 22)])
    assert await told(location, kept, Question()) == find(kept, Question(), 50)
    assert len(await told(location, kept, Question(caller="key:bob"))) == 2
    found = await sightings(location, kept, "one__drop", Question())
    assert found == who_saw(kept, "one__drop", Question())
    assert [(one.principal, one.times) for one in found] == [("key:ann", 2), ("key:eve", 1)]


async def test_it_goes_on_where_it_was_and_nothing_is_there_twice(
    indexer: Indexer, location: Location, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_rows, "LINES", 4)
    write(kept / file_name(1), some(10))
    assert await indexer.look(pace=0) == 10 and await indexer.look(pace=0) == 0
    write(kept / file_name(1), some(3, first=BEGAN + 100))
    other = Indexer(kept, partial(open_index, location), SystemClock(), 90)  # a broker that has just started
    assert await other.look(pace=0) == 3 and await indexer.look(pace=0) == 0
    assert await rows(location) == 13


async def test_brokers_that_index_the_same_files_at_once_do_it_once(
    location: Location, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_rows, "LINES", 5)
    for number in range(3):
        write(kept / file_name(number), some(40, first=BEGAN + number * 100))
    counts: list[int] = []

    async def run() -> None:
        counts.append(await Indexer(kept, partial(open_index, location), SystemClock(), 90).look(pace=0))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(run)
    await run()
    assert sum(counts) == 120 == await rows(location)


async def test_a_line_that_is_being_written_is_left_until_it_is_whole(
    indexer: Indexer, location: Location, kept: Path
) -> None:
    path = kept / file_name(1)
    write(path, some(2))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    assert await indexer.look(pace=0) == 2
    path.write_bytes(whole + whole)
    assert await indexer.look(pace=0) == 2
    assert await told(location, kept, Question()) == find(kept, Question(), 50)


async def test_rows_of_a_file_that_was_removed_go_also_if_they_are_many(
    indexer: Indexer, location: Location, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_index, "FORGOTTEN", 3)
    write(kept / file_name(1), [*some(10), discovery("key:ann", ONE, at=BEGAN)])
    write(kept / file_name(2), some(2))
    await indexer.look(pace=0)
    (kept / file_name(1)).unlink()
    assert len(await told(location, kept, Question())) == 2, "also before anybody tidies"
    assert await sightings(location, kept, "one__echo", Question()) == []
    await indexer.look(pace=0)
    assert await rows(location) == 2


async def test_a_file_that_was_cut_is_indexed_anew(indexer: Indexer, location: Location, kept: Path) -> None:
    path = kept / file_name(1)
    write(path, some(5))
    await indexer.look(pace=0)
    path.unlink()
    write(path, some(2, who="key:eve"))
    assert await told(location, kept, Question()) == find(kept, Question(), 50)
    await indexer.look(pace=0)
    assert await rows(location) == 2


async def test_it_can_be_made_anew(indexer: Indexer, location: Location, kept: Path) -> None:
    write(kept / file_name(1), some(5))
    await indexer.look(pace=0)
    index = await open_index(location)
    async with index.database.writing() as connection:
        await connection.exec_driver_sql("DELETE FROM audit_records WHERE position > 0")
    await index.aclose()
    assert await indexer.rebuild() == 5
    assert await told(location, kept, Question()) == find(kept, Question(), 50)


async def test_a_long_list_comes_in_pages(
    indexer: Indexer, location: Location, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.usage.searching.PAGE", 3)
    write(kept / file_name(1), [call("key:ann", "echo", at=BEGAN + index // 4) for index in range(20)])
    write(kept / file_name(2), [call("key:bob", "echo", at=BEGAN + index // 4) for index in range(20)])
    await indexer.look(pace=0)
    for limit in (1, 3, 7, 40, 100):
        assert await told(location, kept, Question(), limit) == find(kept, Question(), limit)
        assert await told(location, kept, Question(caller="*:BOB"), limit) == [], "the case of letters counts"


def test_who_reads_many_lines_leaves_the_interpreter_to_the_loop_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, rests, seconds = tmp_path / "lines", list[float](), itertools.count()
    lines.write_bytes(b"{}\n" * 3 * index_rows.AT_ONCE)
    monkeypatch.setattr(index_rows.time, "sleep", rests.append)
    monkeypatch.setattr(index_rows.time, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(index_rows, "MOST_REST", 1000.0)
    batch = index_rows.batch_of(lines, 0, pace=30)
    assert batch is not None and batch.end == lines.stat().st_size
    assert rests == [30.0] * 3, "behind each but the last, and where it looks whether there is more"


def test_a_disk_that_stalls_is_followed_by_no_rest_that_the_end_of_the_broker_would_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, rests, seconds = tmp_path / "lines", list[float](), itertools.count(step=10)
    lines.write_bytes(b"{}\n" * index_rows.LINES)
    monkeypatch.setattr(index_rows.time, "sleep", rests.append)
    monkeypatch.setattr(index_rows.time, "monotonic", lambda: float(next(seconds)))
    assert index_rows.batch_of(lines, 0, pace=PACE) is not None
    assert sum(rests) <= 2.0, "of a batch whose every part took ten seconds"


async def test_a_database_that_was_locked_is_followed_by_no_longer_rest_than_between_two_looks(
    kept: Path, at_file: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, rests = FakeClock(), list[float]()

    async def take(self: AuditIndex, origin: str, name: str, batch: Batch) -> bool:
        clock.advance(5.0)  # as long as SQLite waits
        return True

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(AuditIndex, "take", take)
    monkeypatch.setattr(clock, "sleep", sleep)
    write(kept / file_name(1), [call("key:ann", "echo", at=BEGAN)])
    assert await Indexer(kept, partial(open_index, at_file), clock, 90).look(pace=PACE) == 1
    assert rests == [EVERY]


async def test_where_nothing_is_recorded_no_database_is_made(at_file: Location, kept: Path) -> None:
    assert await Indexer(kept, partial(open_index, at_file), SystemClock(), 90).look(pace=0) == 0
    assert not at_file.path.exists()


async def test_reading_makes_no_database(at_file: Location) -> None:
    assert await open_index_to_read(at_file) is None
    assert not at_file.path.exists()


async def test_records_of_another_machine_are_found_with_what_the_index_has(
    location: Location, kept: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "audit"
    write(
        elsewhere / file_name(7),
        [call("key:eve", "echo", at=BEGAN, outcome="error"), discovery("key:eve", ONE, at=BEGAN)],
    )
    await Indexer(elsewhere, partial(open_index, location), SystemClock(), 90).look(pace=0)
    write(kept / file_name(1), some(1))
    await Indexer(kept, partial(open_index, location), SystemClock(), 90).look(pace=0)
    (one,) = await told(location, kept, Question(caller="key:eve", event="call"))
    assert one["partial"] and (one["own"], one["public"], one["code"]) == ("echo", "one__echo", 1001)
    assert [seen.principal for seen in await sightings(location, kept, "one__drop", Question())] == ["key:eve"]
    assert len(find(kept, Question(), 50)) == 1


async def test_what_other_machines_have_left_goes_when_it_is_too_old(
    location: Location, kept: Path, tmp_path: Path
) -> None:
    class Wall(FakeClock):
        def wall(self) -> float:
            return BEGAN + self.now()

    clock = Wall()
    write(tmp_path / "elsewhere" / "audit" / file_name(7), some(3))
    await Indexer(tmp_path / "elsewhere" / "audit", partial(open_index, location), clock, 2).look(pace=0)
    write(kept / file_name(1), some(1))
    mine = Indexer(kept, partial(open_index, location), clock, 2)
    await mine.look(pace=0)
    assert await rows(location) == 4
    clock.advance(4 * DAY)
    write(kept / file_name(2), some(1))
    await mine.look(pace=0)
    assert await rows(location) == 2, "its own are there as long as their files"


async def test_a_database_that_cannot_be_written_is_said_once_and_so_is_its_return(
    kept: Path, at_file: Location, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "broker")
    is_down = True

    async def open_it() -> AuditIndex:
        if is_down:
            raise StoreUnavailable("the database is down")
        return await open_index(at_file)

    clock = FakeClock()
    clock.sleep = _hurried  # type: ignore[method-assign]
    write(kept / file_name(1), some(2))
    indexer = Indexer(kept, open_it, clock, 90)
    async with indexer.running():
        await until(lambda: indexer.trouble != "")
        is_down = False
        await until(lambda: indexer.trouble == "" and indexer.behind == 0)
    said = [record.getMessage() for record in caplog.records if "index of the audit" in record.getMessage()]
    assert len(said) == 2 and "the database is down" in said[0] and "again" in said[1]
    assert await rows(at_file) == 2


async def test_the_database_is_opened_once_for_many_looks_and_closed_at_the_end(
    kept: Path, at_file: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, closed, clock = list[AuditIndex](), list[AuditIndex](), FakeClock()
    clock.sleep = _hurried  # type: ignore[method-assign]

    async def open_it() -> AuditIndex:
        opened.append(await open_index(at_file))
        return opened[-1]

    aclose = AuditIndex.aclose

    async def note(index: AuditIndex) -> None:
        closed.append(index)
        await aclose(index)

    monkeypatch.setattr(AuditIndex, "aclose", note)
    indexer = Indexer(kept, open_it, clock, 90)
    async with indexer.running():
        for number in range(1, 4):
            write(kept / file_name(number), some(2))
            await until(lambda number=number: len(indexer._seen) == number)
        assert len(opened) == 1 and not closed
    assert closed == opened
    assert await rows(at_file) == 6


async def test_an_index_whose_file_was_removed_is_made_anew(kept: Path, at_file: Location) -> None:
    clock, opened = FakeClock(), list[AuditIndex]()
    clock.sleep = _hurried  # type: ignore[method-assign]

    async def open_it() -> AuditIndex:
        opened.append(await open_index(at_file))
        return opened[-1]

    write(kept / file_name(1), some(2))
    indexer = Indexer(kept, open_it, clock, 90)
    async with indexer.running():
        await until(lambda: len(indexer._seen) == 1)
        for file in at_file.directory.glob("broker.db*"):
            file.unlink()
        write(kept / file_name(2), some(2))
        await until(lambda: len(opened) == 2 and len(indexer._seen) == 2)
    assert await rows(at_file) == 4


async def _hurried(seconds: float) -> None:
    await anyio.sleep(0.001)


PEOPLE, TOOLS = (
    st.sampled_from(["key:ann", "key:bob", "jwt:https://x.dev ada"]),
    st.sampled_from(["echo", "drop", "a%b_c"]),
)
MOMENTS = st.integers(0, 6).map(lambda second: BEGAN + second)
RECORDS = st.one_of(
    st.builds(
        call,
        *(PEOPLE, TOOLS),
        at=MOMENTS,
        server=st.sampled_from(["one", "two"]),
        outcome=st.sampled_from(["done", "error", "denied"]),
        team=st.sampled_from(["", "data", "web"]),
    ),
    st.builds(discovery, PEOPLE, st.sampled_from([ONE, TWO]), at=MOMENTS, view=st.sampled_from(["", "one"])),
)
TIMES = st.none() | st.integers(0, 7).map(lambda second: BEGAN + second)
QUESTIONS = st.builds(
    Question,
    event=st.none() | st.sampled_from(["call", "discovery"]),
    caller=st.none() | st.sampled_from(["key:ann", "ann", "key:*", "*A*", "jwt:*", "*"]),
    organization=st.none() | st.sampled_from(["acme", "a*", "x"]),
    team=st.none() | st.sampled_from(["data", "acme/data", "acme/*", "*c*", "ACME/web", "acme/"]),
    tool=st.none() | st.sampled_from(["one__echo", "*__echo", "two__a%b_c", "*a%b*", "one__a_b_c"]),
    server=st.none() | st.sampled_from(["one", "t*"]),
    outcome=st.none() | st.sampled_from(["done", "1001", "den*", "*"]),
    rule=st.none() | st.sampled_from(["org:*", "org:acme/allow/0"]),
    since=TIMES,
    until=TIMES,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(RECORDS, max_size=12), min_size=1, max_size=3),
    later=st.lists(RECORDS, max_size=6),
    questions=st.lists(QUESTIONS, min_size=1, max_size=8),
    limit=st.sampled_from([1, 3, 50]),
)
async def test_whatever_is_asked_the_index_answers_what_the_lines_answer(
    empty: Path,
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[Record]],
    later: list[Record],
    questions: list[Question],
    limit: int,
) -> None:
    state = tmp_path_factory.mktemp("state")
    kept, location = state / "audit", Location(state, state / "broker.db")
    shutil.copy(empty, state)
    for number, records in enumerate(files):
        write(kept / file_name(number), records)
    await Indexer(kept, partial(open_index, location), SystemClock(), 90).look(pace=0)
    write(kept / file_name(0), later)
    os.utime(kept / file_name(0))
    async with reading(location, kept) as search:
        for question in questions:
            assert await search.find(question, limit) == find(kept, question, limit)
            for name in ("one__echo", "one__drop", "renamed"):
                assert await search.who_saw(name, question) == who_saw(kept, name, question)
