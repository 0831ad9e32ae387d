"""What the allocator is told: big messages, one after the other, take no fresh pages from the system."""

import gc
import json
import logging
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from broker import allocation
from broker.app import Broker, run
from broker.cli.begin import begin
from broker.clock import FakeClock
from broker.config import load
from tests.peers import ROOT
from tests.relay.fake import TIMEOUT

MESSAGES = """
import resource, sys
from broker.allocation import keep_pages

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

was_told = sys.argv[1] == "kept" and keep_pages()
before = pages()
for _ in range(100):
    parts = [bytes([n]) * 100_000 for n in range(1, 30)]
    del parts
print(int(was_told), pages() - before)
"""


def fresh_pages(how: str) -> tuple[bool, int]:
    """Whether a process could be told, and how many pages a hundred rounds of big messages take in it."""
    script = [sys.executable, "-c", MESSAGES, how]
    done = subprocess.run(script, capture_output=True, check=True, cwd=ROOT, timeout=60)
    was_told, pages = map(int, done.stdout.split())
    return bool(was_told), pages


def test_pages_of_big_messages_are_kept_where_the_C_library_can() -> None:
    was_told, pages = fresh_pages("kept")
    assert was_told == (platform.libc_ver()[0] == "glibc")
    if was_told:
        assert pages < 5_000 < fresh_pages("as usual")[1]


HOLES = """
import sys
from broker.allocation import give_back, keep_pages
from broker.downstream.memory import resident

was_told = keep_pages()
pieces = [bytes(20_000) for _ in range(4_000)]
between = pieces[::20]
del pieces
before = resident()
give_back()
print(int(was_told), before - resident())
"""


def test_what_was_freed_between_what_is_in_use_goes_back_to_the_system_where_the_C_library_can() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, check=True, cwd=ROOT, timeout=60)
    was_told, given = map(int, done.stdout.split())
    if was_told:
        assert given > 50_000_000, "of 76 MB in holes"


async def serve_until(tmp_path: Path, clock: FakeClock, times: list[float]) -> None:
    """A broker that serves until it has given back three times."""

    async def front(broker: Broker) -> None:
        with anyio.fail_after(TIMEOUT):
            while len(times) < 3:
                clock.advance(1)
                await anyio.lowlevel.checkpoint()

    path = tmp_path / "servers.yaml"
    path.write_text(json.dumps({"broker": {"state_dir": str(tmp_path)}, "servers": {}}), encoding="utf-8")
    await run(Broker(load(path, {}), clock=clock), front)


async def test_a_broker_that_serves_gives_back_what_it_has_freed_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    times = list[float]()
    clock = FakeClock()
    monkeypatch.setattr(allocation, "give_back", lambda: times.append(clock.now()))
    await serve_until(tmp_path, clock, times)
    assert all(later - earlier >= allocation.GIVE_BACK for earlier, later in pairwise([0, *times]))


async def test_a_system_that_gives_no_thread_for_it_ends_no_broker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times = list[float]()
    clock = FakeClock()
    run_sync: Any = anyio.to_thread.run_sync

    async def none_for_it(work: object, *more: Any) -> Any:
        if work is not allocation.give_back:
            return await run_sync(work, *more)
        times.append(clock.now())
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(anyio.to_thread, "run_sync", none_for_it)
    await serve_until(tmp_path, clock, times)
    assert caplog.messages.count("what was freed is not given back: the system gives no more threads") == 1, "said once"


def test_a_Python_that_loads_no_library_asks_nothing_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: str | None) -> None:
        raise OSError("Dynamic loading not supported")

    monkeypatch.setattr("ctypes.CDLL", none)
    assert not allocation.keep_pages()
    allocation.give_back()


def test_the_loop_waits_half_a_millisecond_for_a_thread_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "spare_the_collector", lambda: None)
    monkeypatch.setattr(allocation, "keep_pages", lambda: True)
    before = sys.getswitchinterval()
    try:
        allocation.settle_in()
        assert sys.getswitchinterval() == pytest.approx(0.0005)
    finally:
        sys.setswitchinterval(before)


@pytest.fixture
def loading() -> Iterator[None]:
    """The collector and the log as a command finds them, and as they were."""
    root, hooks = logging.getLogger(), (sys.excepthook, sys.unraisablehook, threading.excepthook)
    before = root.level, list(root.handlers)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


@pytest.mark.usefixtures("loading")
def test_the_collector_works_once_all_is_loaded_and_leaves_that_alone() -> None:
    begin("error")
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000
