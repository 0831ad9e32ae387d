"""The thread that writes: nobody waits for it, what it cannot write is counted, and it recovers alone (F-92)."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import orjson
import pytest

from broker.clock import SystemClock
from broker.core.caller import Caller
from broker.core.policy import Policy
from broker.usage import records
from broker.usage import writer as writer_module
from broker.usage.files import Bounds, Files, paths
from broker.usage.records import CallRecord, DiscoveryRecord, Mark
from broker.usage.revision import Revision
from broker.usage.writer import Writer
from tests.patience import PATIENCE
from tests.usage.trails import call_of, filled

TIMEOUT = PATIENCE
ANN = Caller("key:ann", "acme", "data", "ann")


class Disk(Files):
    """Files on a disk that can be broken, and held."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, Bounds(), SystemClock())
        self.is_full = False
        self.may_go = threading.Event()
        self.may_go.set()
        self.has_come = threading.Event()
        self.tried = threading.Semaphore(0)

    def _opened(self, path: Path) -> int:
        return os.open("/dev/full", os.O_WRONLY) if self.is_full else super()._opened(path)

    def _is_mine(self) -> bool:
        return not self.is_full and super()._is_mine()

    def append(self, lines: bytes) -> None:
        self.has_come.set()
        self.may_go.wait(TIMEOUT)
        try:
            super().append(lines)
        finally:
            self.tried.release()


def call(public: str = "one__echo") -> CallRecord:
    return call_of(ANN, public=public)


def written(directory: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for path in paths(directory) for line in path.read_bytes().splitlines()]


@contextmanager
def writing(disk: Files) -> Iterator[Writer]:
    writer = Writer(disk, SystemClock(), gather=0, retry=0.01)
    writer.start()
    try:
        yield writer
    finally:
        writer.close()


async def until(is_true: Callable[[], bool]) -> None:
    with anyio.fail_after(TIMEOUT):
        while not is_true():  # noqa: ASYNC110
            await anyio.sleep(0.005)  # the thread makes it true


async def test_records_are_numbered_and_written_in_their_order(tmp_path: Path) -> None:
    with writing(Disk(tmp_path)) as writer:
        for index in range(2000):
            assert writer.put(call(f"one__{index}"))
    found = written(tmp_path)
    assert [one["seq"] for one in found] == list(range(1, 2001))
    assert [one["public"] for one in found] == [f"one__{index}" for index in range(2000)]


async def test_who_waits_is_told_once_the_record_is_on_the_disk(tmp_path: Path) -> None:
    with writing(Disk(tmp_path)) as writer:
        assert await writer.written(call(), TIMEOUT)
        assert len(written(tmp_path)) == 1


async def test_F92_a_full_disk_is_said_once_and_forgotten_once_it_has_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 3)
    disk = Disk(tmp_path)
    disk.is_full = True
    with caplog.at_level(logging.WARNING), writing(disk) as writer:
        assert writer.put(call("one__0"))
        await until(lambda: writer.is_failing)
        assert not await writer.written(call("one__1"), TIMEOUT)  # at once: it is known to fail
        assert writer.put(call("one__2"))
        assert not writer.put(call("one__3")) and not writer.put(call("one__4"))
        for _ in range(3):
            assert disk.tried.acquire(timeout=TIMEOUT)
        disk.is_full = False
        await until(lambda: not writer.is_failing and not writer.lag)
        assert writer.put(call("one__5"))
    found = written(tmp_path)
    assert [one["event"] for one in found] == ["gap", "call", "call", "call", "call"]
    assert found[0]["lost"] == 2 == writer.lost
    assert [one["seq"] for one in found[1:]] == [1, 2, 3, 6]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "No space left" in said[0] and "2 records are lost" in said[1]


async def test_F92_a_slow_disk_holds_nobody_longer_than_was_said(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.may_go.clear()
    with writing(disk) as writer:
        with anyio.fail_after(TIMEOUT):
            assert not await writer.written(call(), 0.05)
        assert writer.put(call())  # at once, while the disk is held
        disk.may_go.set()
    assert len(written(tmp_path)) == 2


async def test_a_directory_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with writing(Files(tmp_path / "file" / "audit", Bounds(), SystemClock())) as writer:
        assert writer.put(call())
        await until(lambda: writer.is_failing)


async def test_what_a_view_holds_is_said_once_in_every_file(tmp_path: Path) -> None:
    mark = Mark("h1", ("one__echo", "one__slow"), {})
    shown = [DiscoveryRecord(ANN, "http", "2025-11-25", "tools/list", mark) for _ in range(3)]
    disk = Disk(tmp_path)
    with writing(disk) as writer:
        assert await writer.written(shown[0], TIMEOUT)
        assert await writer.written(shown[1], TIMEOUT)
        next(paths(tmp_path)).rename(tmp_path / "aside.txt")
        assert await writer.written(shown[2], TIMEOUT)
    events = ["view", "discovery", "discovery"]
    assert [orjson.loads(one)["event"] for one in (tmp_path / "aside.txt").read_bytes().splitlines()] == events
    assert [one["event"] for one in written(tmp_path)] == ["view", "discovery"]


def test_F81_I45_whatever_a_name_holds_its_record_is_one_line_of_bounded_fields(tmp_path: Path) -> None:
    nasty = "a\r\nb\x1b[31m\u2028\x85" + "x" * 5000
    with writing(Disk(tmp_path)) as writer:
        writer.put(call(nasty))
        writer.put(call("db+postgres://user:hunter2@host/x"))
    (path,) = paths(tmp_path)
    raw = path.read_bytes()
    assert raw.count(b"\n") == 2 and b"hunter2" not in raw
    assert all(character.isprintable() for character in raw.decode().replace("\n", ""))
    assert all(len(str(value).encode()) <= 1024 for one in written(tmp_path) for value in one.values())


def test_what_records_share_is_kept_and_a_long_name_that_somebody_made_up_is_not(tmp_path: Path) -> None:
    before = records._what.cache_info().currsize
    with writing(Disk(tmp_path)) as writer:
        for index in range(50):
            writer.put(call(f"one__{index:05}" * 500))
        writer.put(call_of(Caller("jwt:" + "x" * 5000)))
    assert records._what.cache_info().currsize <= before + 1
    found = written(tmp_path)
    assert len(found) == 51 and len(found[-1]["principal"]) <= 1024
    assert len({one["public"] for one in found[:-1]}) == 50


async def test_every_line_says_its_own_whatever_it_shares_with_others(tmp_path: Path) -> None:
    callers = [Caller("key:ann", "acme", "data", "ann"), Caller("key:ann", "acme", "web", "ann"), Caller("key:bob")]
    asked = [("one__echo", "done", 0), ("one__echo", "error", 1001), ("one__drop", "denied", 0)]
    with writing(Disk(tmp_path)) as writer:
        for who in callers:
            for public, outcome, code in asked:
                record = call_of(who, request_bytes=7, public=public, outcome=outcome)
                if code:
                    record.code = code
                writer.put(record)
    found = [
        (one["principal"], one.get("team", ""), one["public"], one["outcome"], one.get("code", 0))
        for one in written(tmp_path)
    ]
    assert found == [(who.principal, who.team, *one) for who in callers for one in asked]


def test_a_name_that_is_no_unicode_is_recorded_as_what_it_is_and_stops_nobody(tmp_path: Path) -> None:
    with writing(Disk(tmp_path)) as writer:
        writer.put(call("one__\ud800"))
        writer.put(call("one__grüße"))
        writer.put(call("one__\x7f"))
    assert [one["public"] for one in written(tmp_path)] == ["one__\\ud800", "one__grüße", "one__\\x7f"]


class Told(CallRecord):
    """One that says when its line is made."""

    def __init__(self, public: str, made: list[str]) -> None:
        super().__init__(ANN)
        filled(self, public=public)
        self._made = made

    def line(self, *, in_haste: bool = False) -> bytes:
        self._made.append(self.public)
        return super().line(in_haste=in_haste)


async def test_the_loop_goes_on_between_parts_of_a_batch_unless_somebody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "AT_ONCE", 2)
    monkeypatch.setattr(writer_module, "REST", 2 * TIMEOUT)
    made: list[str] = []
    writer = Writer(Disk(tmp_path), SystemClock(), gather=0)
    for public in "abc":
        writer.put(Told(public, made))
    writer.start()
    await until(lambda: made == ["a", "b"])
    assert await writer.written(Told("d", made), TIMEOUT)
    for public in "efg":
        writer.put(Told(public, made))
    writer.close()
    assert [one["public"] for one in written(tmp_path)] == list("abcdefg")


async def test_a_writer_that_is_behind_does_not_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "AT_ONCE", 2)
    monkeypatch.setattr(writer_module, "BATCH", 3)
    rests: list[float] = []
    made: list[str] = []
    writer = Writer(Disk(tmp_path), SystemClock(), gather=0)
    monkeypatch.setattr(writer._pause, "wait", rests.append)
    for public in "abcdefg":
        writer.put(Told(public, made))
    writer.start()
    await until(lambda: not writer.lag)
    writer.close()
    assert {*made} == {*"abcdefg"} and writer_module.REST not in rests


async def test_the_line_of_a_call_is_made_on_the_loop_once_the_answer_is_out(tmp_path: Path) -> None:
    """The thread kept the interpreter for a batch of them, and who called in that moment waited."""
    threads: list[int] = []

    class Watched(CallRecord):
        def line(self, *, in_haste: bool = False) -> bytes:
            threads.append(threading.get_ident())
            return super().line(in_haste=in_haste)

    disk = Disk(tmp_path)
    with writing(disk) as writer:
        disk.may_go.clear()
        writer.put(call("one__before"))
        await until(disk.has_come.is_set)
        for number in range(3):
            writer.put(filled(Watched(ANN), public=f"one__{number}"))
            assert not threads, "not before the loop comes round"
            await anyio.lowlevel.checkpoint()
            assert threads.pop() == threading.get_ident()
        disk.may_go.set()
        await until(lambda: not writer.lag)
        assert not threads, "it is made once"
    assert [one["public"] for one in written(tmp_path)] == ["one__before", "one__0", "one__1", "one__2"]


def test_what_takes_long_of_a_record_is_left_to_the_thread_that_writes() -> None:
    unknown, long, rare, plain = call(), call("x" * (records.MAX_FIELD + 1)), call(), call()
    unknown.policy = Revision(Policy())
    rare.arguments = {"db": "test"}
    found = [record.line(in_haste=True) for record in (unknown, long, rare, plain)]
    assert found == [b"", b"", b"", plain.line()]
    assert unknown.policy.text
    assert unknown.line(in_haste=True) == unknown.line()
