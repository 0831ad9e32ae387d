"""What a broker has spent of budgets, in a file that outlives it: for what the database was not told yet.

The file is mapped into memory, so that a call writes eight bytes and asks nobody; what was written there survives the
death of the process, though not that of the machine. It is locked by its broker: one that is not locked is of a dead
one, and any broker that uses the same directory tells the database what is in it.
"""

import errno
import logging
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.core.budget import Account
from broker.core.period import Period
from broker.stores.lock import try_lock

log = logging.getLogger(__name__)

SLOTS: Final = 4096
"""Accounts of one broker at a time that are kept; of more, what was not told is lost with the process."""
SLOT: Final = 256
"""Bytes of each. An account has 3 names of 32 characters."""
SUFFIX: Final = ".spent"
TRIES: Final = 5
"""Times that a file is made which another broker removes at the same moment."""
_SPENT = struct.Struct("=q")
_KEY = struct.Struct("<H")
_MAX_KEY: Final = SLOT - _SPENT.size - _KEY.size


@dataclass(slots=True, eq=False)
class Slot:
    """Of one account: `cells[cell] = spent` keeps what was spent in all, eight bytes at once."""

    cells: "memoryview[int]"
    cell: int


NO_SLOT: Final = Slot(memoryview(bytearray(_SPENT.size)).cast("q"), 0)
"""Nothing is kept."""


class Journal:
    """See the module. `holder`: this broker, and no other that ever was; `directory` is made when it is opened."""

    def __init__(self, directory: Path, holder: str) -> None:
        self._directory = directory
        self._path = directory / f"{holder}{SUFFIX}"
        self._handle = -1
        self._memory: mmap.mmap | None = None
        self._cells = NO_SLOT.cells
        self._free: list[int] = []

    def open(self) -> None:
        """Raises: OSError, also if the disk has no room for all of it. Not for the event loop."""
        if self._memory is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handle = self._locked()
        try:
            _make_room(self._handle, SLOTS * SLOT)
            self._memory = mmap.mmap(self._handle, SLOTS * SLOT)
        except OSError:
            self._path.unlink(missing_ok=True)  # no other broker would: it has no size
            os.close(self._handle)  # else our own lock stands in the way of the next attempt
            raise
        self._cells = memoryview(self._memory).cast("q")
        self._free = [number * SLOT for number in reversed(range(SLOTS))]

    def _locked(self) -> int:
        """The file, which is ours from here on. Before it is locked another broker may take it for that of a dead one,
        and remove it. Raises: OSError.
        """
        for _ in range(TRIES):
            handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
            if try_lock(handle) and _is_at(handle, self._path):
                return handle
            os.close(handle)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def slot(self, account: Account) -> Slot:
        """A place for an account; `NO_SLOT`, if there is none."""
        key = "\n".join((account.where, account.period, str(account.begin))).encode()
        if self._memory is None or not self._free or len(key) > _MAX_KEY:
            return NO_SLOT
        at = self._free.pop()
        self._memory[at : at + SLOT] = bytes(SLOT)
        start = at + _SPENT.size
        self._memory[start + _KEY.size : start + _KEY.size + len(key)] = key
        _KEY.pack_into(self._memory, start, len(key))
        return Slot(self._cells, at // _SPENT.size)

    def leave(self, slot: Slot) -> None:
        """The database knows all of it."""
        if slot is not NO_SLOT and self._memory is not None:
            at = slot.cell * _SPENT.size
            self._memory[at : at + SLOT] = bytes(SLOT)
            self._free.append(at)

    def close(self, *, is_told: bool) -> None:
        """The broker ends. `is_told`: the database knows everything, and the file is of no use any more."""
        if self._memory is None:
            return
        self._cells.release()
        self._memory.close()
        self._memory = None
        if is_told:
            self._path.unlink(missing_ok=True)
        os.close(self._handle)

    def left_behind(self) -> "Iterator[LeftBehind]":
        """What brokers that are dead have spent, each locked while it is looked at. Not for the event loop."""
        for path in sorted(self._directory.glob(f"*{SUFFIX}")) if self._directory.is_dir() else ():
            if path == self._path:
                continue
            try:
                if not path.stat().st_size:
                    continue  # made, and not locked yet: it has a size once its broker has it
                handle = os.open(path, os.O_RDWR)
            except OSError:
                continue  # another broker was quicker, or it is not ours to read
            try:
                if try_lock(handle):
                    yield LeftBehind(path, path.name.removesuffix(SUFFIX), _read(path))
            finally:
                os.close(handle)


def _make_room(handle: int, size: int) -> None:
    """The disk must have it before it is mapped: a first write into a hole of the file, with the disk full, is no error
    but the end of the process (SIGBUS). Where blocks are copied when they are written that may still be. Raises:
    OSError.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.ftruncate(handle, size)


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """`spent`: by a dead broker, in all, of each account."""

    path: Path
    holder: str
    spent: Mapping[Account, int]

    def remove(self) -> None:
        """The database knows it."""
        self.path.unlink(missing_ok=True)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one that a path leads to."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> dict[Account, int]:
    """A file that is no journal says nothing."""
    data, found = path.read_bytes()[: SLOTS * SLOT], dict[Account, int]()
    for at in range(0, len(data) - SLOT + 1, SLOT):
        (spent,), (length,) = _SPENT.unpack_from(data, at), _KEY.unpack_from(data, at + _SPENT.size)
        start = at + _SPENT.size + _KEY.size
        if not length or spent <= 0:
            continue
        try:
            where, period, begin = data[start : start + min(length, _MAX_KEY)].decode().split("\n")
            found[Account(where, Period(period), int(begin))] = spent
        except ValueError:
            log.warning("%s: a line that cannot be read is left out", path)
    return found
