"""What a fault cost us: memory, descriptors, children, and the CPU of each callback of the loop.

`bounded` holds all of it around every test of this directory (conftest.py). A test that needs more says why:
`@pytest.mark.costs("why", callback=0.1, memory=80 * MIB)`. What the test itself does in our process is not the
broker's: `apart` takes it out, and so are the servers of web.py, which live here too.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

import pytest

from broker.allocation import give_back

MIB = 2**20
CALLBACK = 0.05
"""Seconds of CPU that one callback may take: meanwhile nobody else is served."""
MEMORY = 64 * MIB
"""Bytes by which the peak of our memory may grow in one test: the largest message is 16 MiB, and what holds it is
copied as it grows. Tests of what must cost less say so (`memory_below`)."""
SPARE = 3
"""Descriptors of the test's own event loop, which ends after it."""

_is_of_the_test: ContextVar[bool] = ContextVar("_is_of_the_test", default=False)
_inherited: set[int] = set()
"""Children that this process had before the test: other tests of a whole run share its process table."""


@contextmanager
def bounded(callback: float = CALLBACK, memory: int = MEMORY) -> Generator[None, None, None]:
    """Inside, no callback takes more seconds of CPU, the peak of memory grows by no more bytes, and nothing is left."""
    if not sys.platform.startswith("linux"):
        yield
        return
    _memory.begin()
    with nothing_left(), _loop.watching():
        yield
    grown = _memory.growth()
    assert _loop.worst <= callback, f"a callback took {_loop.worst * 1000:.0f} ms of CPU, {_loop.who}"
    assert grown <= memory, f"memory grew by {grown / MIB:.0f} MiB"


@contextmanager
def nothing_left() -> Generator[None, None, None]:
    """No process that began inside is left, not even a zombie, and no descriptor.

    The collector looks only at what the test has made: what was there before it (thousands of tests that were
    collected, every module) would take it longer than most of these tests take.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    _inherited.clear()
    _inherited.update(_all_children())
    opened = descriptors()
    gc.freeze()
    try:
        yield
        if descriptors() > opened + SPARE:
            gc.collect()  # what pytest keeps of a test, an event loop of its own among it
    finally:
        gc.unfreeze()
    assert children() == {}
    assert descriptors() <= opened + SPARE


# --- processes and descriptors -------------------------------------------------------------------------------------


def children() -> dict[int, str]:
    """Our children since the test began, zombies included: process id -> state."""
    return {pid: state for pid, state in _all_children().items() if pid not in _inherited}


def _all_children() -> dict[int, str]:
    """Our children, zombies included: process id -> state."""
    found: dict[int, str] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():
                    found[int(entry.name)] = fields[0]
    return found


def descriptors(pid: int | str = "self") -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


# --- memory --------------------------------------------------------------------------------------------------------


def memory(field: str, pid: int | str = "self") -> int:
    """Bytes, by a field of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


class MemoryWatch:
    """How far the peak of our memory has grown since `begin`."""

    def __init__(self) -> None:
        self._before = self._peak = 0

    def begin(self) -> None:
        give_back()
        self._before = memory("VmRSS")
        self._peak = 0
        self._look_again()

    def growth(self) -> int:
        """Bytes."""
        return max(self._peak, memory("VmHWM")) - self._before

    @contextmanager
    def below(self, growth: int) -> Generator[None, None, None]:
        """The peak grows by less than `growth` bytes inside."""
        give_back()
        self._look_again()
        before = memory("VmRSS")
        yield
        assert memory("VmHWM") - before < growth

    def _look_again(self) -> None:
        """The kernel's peak begins anew; what it was is kept."""
        self._peak = max(self._peak, memory("VmHWM")) if self._peak else memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


# --- the loop ------------------------------------------------------------------------------------------------------


class LoopWatch:
    """The most CPU that one callback of the loop took, in seconds. `thread_time`: a busy machine is no fault.

    Without what the collector of garbage took: it walks through all that pytest holds, which is not ours.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        self.who = ""
        self._place = ""
        self._not_ours = 0.0
        self._thread = 0

    @contextmanager
    def watching(self) -> Generator[None, None, None]:
        """Watch whatever loop of this thread runs inside, uvloop aside: it calls back without Python."""
        self.worst, self.who, self._thread = 0.0, "", threading.get_ident()
        before = signal.signal(signal.SIGPROF, self._look)
        gc.callbacks.append(self._collected)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.Handle, "_run", self._timed(asyncio.Handle._run))
            try:
                yield
            finally:
                gc.callbacks.remove(self._collected)
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.signal(signal.SIGPROF, before)

    @contextmanager
    def apart(self) -> Generator[None, None, None]:
        """What is done inside is the test's. No `await` in it."""
        before = time.thread_time()
        try:
            yield
        finally:
            self._not_ours += time.thread_time() - before

    def _timed(self, run: Callable[[asyncio.Handle], None]) -> Callable[[asyncio.Handle], None]:
        def timed(handle: asyncio.Handle) -> None:
            if threading.get_ident() != self._thread or handle._context.get(_is_of_the_test):
                return run(handle)
            self._place = ""
            signal.setitimer(signal.ITIMER_PROF, CALLBACK)
            self._not_ours, before = 0.0, time.thread_time()
            run(handle)
            taken = time.thread_time() - before - self._not_ours
            if taken > self.worst:
                self.worst, self.who = taken, self._place or repr(handle)[:300]
            return None

        return timed

    def _look(self, number: int, frame: FrameType | None) -> None:
        """A callback has taken its time: it is here."""
        self._place = "in\n" + "".join(traceback.format_stack(frame, limit=12))

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if threading.get_ident() == self._thread:
            self._not_ours += time.thread_time() * (-1 if phase == "start" else 1)


def belongs_to_the_test() -> None:
    """Whatever this task does from now on, and whatever it begins, is the test's."""
    _is_of_the_test.set(True)


_loop, _memory = LoopWatch(), MemoryWatch()
apart, memory_below = _loop.apart, _memory.below
