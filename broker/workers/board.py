"""Memory that all workers of one broker share: what is counted over all of them. Standard library only.

Two tables, each of buckets of a few cells; a cell belongs to the name whose digest stands in it, until what it says is
as good as nothing. A *tally* has a column for each worker, so that what a dead one held can be taken out. A *window* is
a ring of the times of calls.

All of it is read and written under one lock, which is that of the process: the kernel takes it from one that dies.
What a section of code does under it is a few microseconds, and waits for nothing.
"""

import errno
import hashlib
import mmap
import os
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Final

from broker.workers.assignment import Worker

if sys.platform != "win32":
    import fcntl

TALLIES: Final = 65_536
"""Names that are counted at a time: levels with a limit of calls at a time, callers, and addresses of connections."""
WINDOWS: Final = 65_536
"""Limits of calls in a time that are counted at a time, each of one level or caller. Beyond it, who is not counted yet
is refused. The memory of a cell is taken when it is first used."""
BUCKET: Final = 8
"""Cells among which a name finds its own. With a quarter of all in use, one name in 4000 finds none free."""
ENTRIES: Final = 256
"""Of a window: what it remembers, as that of one process does."""
LOCK_WITHIN: Final = 0.5
"""Seconds that the lock is waited for, once: only a worker that was stopped in the middle (SIGSTOP) can hold it for so
long. Until it goes on, nobody waits again."""
_SPIN: Final = 0.0002
"""Seconds between two tries."""

_KEY: Final = 16
_SALT: Final = 16
_PAGE: Final = 4096
_COLUMN: Final = struct.Struct("<qqdd")
"""Of a tally: what a worker has, how many of it wait, since when, and when it last said so."""
_HEAD: Final = struct.Struct("<dQQQ")
"""Of a window: its seconds, the place of its oldest entry, how many entries, and how many calls they are."""
_ENTRY: Final = struct.Struct("<ddQ")
"""The first and the last time of calls that are remembered together, and how many they are."""
_WINDOW: Final = _KEY + _HEAD.size
_RING: Final = ENTRIES * _ENTRY.size
_SWEEP: Final = 64
"""Cells that are looked at under one hold of the lock, where all are."""


class BoardStuck(OSError):
    """The lock cannot be had."""

    def __init__(self) -> None:
        super().__init__(errno.EDEADLK, "the memory that workers share is locked by one that does not go on")


def make_board(workers: int) -> int:
    """A descriptor of an empty one. No name leads to it."""
    size = _size(workers)
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("mcp-broker")
    else:  # pragma: no cover - not where the tests run
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size)
    os.pwrite(handle, os.urandom(_SALT), 0)
    return handle


def _tally_size(workers: int) -> int:
    return _KEY + workers * _COLUMN.size


def _size(workers: int) -> int:
    return _PAGE + TALLIES * _tally_size(workers) + WINDOWS * (_WINDOW + _RING)


@dataclass(slots=True)
class Column:
    """What one worker has of a tally. `waiting` of it wait, the first of them `since`; so it was `seen` last."""

    amount: int = 0
    waiting: int = 0
    since: float = 0.0
    seen: float = 0.0


class Board:
    """See the module. `worker`: whose columns are written."""

    def __init__(self, handle: int, worker: Worker) -> None:
        self.worker = worker
        self._handle = handle
        self._memory = mmap.mmap(handle, _size(worker.count))
        self._salt = self._memory[:_SALT]
        self._tally = _tally_size(worker.count)
        self._windows = _PAGE + TALLIES * self._tally
        self._rings = self._windows + WINDOWS * _WINDOW
        self._depth = 0
        self._asked_for: set[int] = set()
        """Windows and tallies that were made or found since the lock was taken, for whoever counts in them."""
        self._is_stuck = False
        """Whether the lock could not be had last time."""

    def close(self) -> None:
        """Not to be used any more."""
        self._memory.close()
        os.close(self._handle)

    # -- the lock: `with board:`, also in one that is in one --------------------------------------------------------

    def __enter__(self) -> None:
        if not self._depth:
            self._lock()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._asked_for.clear()
            fcntl.lockf(self._handle, fcntl.LOCK_UN)

    def _lock(self) -> None:
        end = 0.0
        while True:
            try:
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                now = time.monotonic()
                end = end or now + LOCK_WITHIN
                if self._is_stuck or now >= end:
                    self._is_stuck = True
                    raise BoardStuck from None
                time.sleep(_SPIN)
            else:
                self._is_stuck = False
                return

    # -- cells ----------------------------------------------------------------------------------------------------

    def digest(self, *name: str) -> bytes:
        """By what cells of that name are found. Nobody outside can make names that meet in one bucket."""
        return hashlib.blake2b("\0".join(name).encode(), digest_size=_KEY, key=self._salt).digest()

    def _bucket(self, digest: bytes, cells: int) -> int:
        return int.from_bytes(digest[:8], "little") % (cells // BUCKET) * BUCKET

    def _is(self, at: int, digest: bytes) -> bool:
        return self._memory[at : at + _KEY] == digest

    # -- tallies --------------------------------------------------------------------------------------------------

    def find_tally(self, digest: bytes, *, make: bool) -> int:
        """Where the tally of that name is; 0: nowhere, or, of one that was to be made, there is no room. What is made
        or found so stays its own for as long as the lock is held, though nothing is counted in it.
        """
        first, free = _PAGE + self._bucket(digest, TALLIES) * self._tally, 0
        for at in range(first, first + BUCKET * self._tally, self._tally):
            if self._is(at, digest):
                if make:
                    self._asked_for.add(at)
                return at
            if make and not free and at not in self._asked_for and self._is_idle_tally(at):
                free = at
        if free:
            self._memory[free : free + self._tally] = digest + bytes(self._tally - _KEY)
            self._asked_for.add(free)
        return free

    def _is_idle_tally(self, at: int) -> bool:
        return not any(one.amount or one.waiting for one in self.columns(at))

    def columns(self, at: int) -> list[Column]:
        """Of all workers, in the order of their numbers."""
        start = at + _KEY
        return [Column(*one) for one in _COLUMN.iter_unpack(self._memory[start : at + self._tally])]

    def total(self, at: int) -> int:
        """What all workers have."""
        return sum(one[0] for one in _COLUMN.iter_unpack(self._memory[at + _KEY : at + self._tally]))

    def mine(self, at: int) -> Column:
        """Of this worker."""
        return Column(*_COLUMN.unpack_from(self._memory, self._column(at, self.worker.number)))

    def put(self, at: int, column: Column) -> None:
        """Of this worker, from now on."""
        place = self._column(at, self.worker.number)
        _COLUMN.pack_into(self._memory, place, column.amount, column.waiting, column.since, column.seen)

    def _column(self, at: int, number: int) -> int:
        return at + _KEY + (number - 1) * _COLUMN.size

    def clear(self, number: int) -> None:
        """A worker is dead: it has nothing of anything."""
        empty, many = bytes(_COLUMN.size), _SWEEP * self._tally
        for start in range(_PAGE, _PAGE + TALLIES * self._tally, many):
            with self:
                if self._memory.find(b"\0" * many, start, start + many) == start:
                    continue
                for at in range(start, start + many, self._tally):
                    place = self._column(at, number)
                    if self._memory[place : place + _COLUMN.size] != empty:
                        self._memory[place : place + _COLUMN.size] = empty

    # -- windows --------------------------------------------------------------------------------------------------

    def find_window(self, digest: bytes, seconds: int, now: float, *, make: bool = True) -> int:
        """Where the window of that name is; 0: nowhere, or, of one that was to be made, there is no room. What is made
        or found so stays its own for as long as the lock is held, though there is no call in it.
        """
        first, free = self._windows + self._bucket(digest, WINDOWS) * _WINDOW, 0
        for at in range(first, first + BUCKET * _WINDOW, _WINDOW):
            if self._is(at, digest):
                if make:
                    self._asked_for.add(at)
                return at
            if make and not free and at not in self._asked_for and self.forget(at, now) == 0:
                free = at
        if free:
            self._memory[free : free + _WINDOW] = digest + _HEAD.pack(float(seconds), 0, 0, 0)
            self._asked_for.add(free)
        return free

    def forget(self, at: int, now: float) -> int:
        """Drop what has left the window; how many calls are in it."""
        seconds, oldest, count, calls = _HEAD.unpack_from(self._memory, at + _KEY)
        had = count
        while count:
            _, last, some = self._entry(at, oldest)
            if last + seconds > now:
                break
            oldest, count, calls = (oldest + 1) % ENTRIES, count - 1, calls - some
        calls = max(0, calls) if count else 0  # one that was killed may have written the half of it
        if count != had:
            self._put_head(at, seconds, oldest, count, calls)
        return calls

    def over_at(self, at: int, excess: int) -> float:
        """When so many of the oldest calls have left the window."""
        seconds, oldest, count, _ = _HEAD.unpack_from(self._memory, at + _KEY)
        end = 0.0
        for number in range(count):
            _, last, calls = self._entry(at, (oldest + number) % ENTRIES)
            end, excess = last + seconds, excess - calls
            if excess <= 0:
                break
        return end

    def add_call(self, at: int, now: float, grain: float) -> None:
        """One more. `grain`: calls within so many seconds are remembered as the last of them."""
        seconds, oldest, count, calls = _HEAD.unpack_from(self._memory, at + _KEY)
        latest = (oldest + count - 1) % ENTRIES
        if count:
            first, last, some = self._entry(at, latest)
            if now - first < grain or count == ENTRIES:
                self._put_head(at, seconds, oldest, count, calls + 1)  # first: one that is killed here has called
                self._put_entry(at, latest, first, max(now, last), some + 1)
                return
        self._put_entry(at, (latest + 1) % ENTRIES, now, now, 1)
        self._put_head(at, seconds, oldest, count + 1, calls + 1)

    def _put_head(self, at: int, seconds: float, oldest: int, count: int, calls: int) -> None:
        _HEAD.pack_into(self._memory, at + _KEY, seconds, oldest, count, calls)

    def _entry(self, at: int, number: int) -> tuple[float, float, int]:
        return _ENTRY.unpack_from(self._memory, self._ring(at) + number * _ENTRY.size)

    def _put_entry(self, at: int, number: int, first: float, last: float, calls: int) -> None:
        _ENTRY.pack_into(self._memory, self._ring(at) + number * _ENTRY.size, first, last, calls)

    def _ring(self, at: int) -> int:
        return self._rings + (at - self._windows) // _WINDOW * _RING
