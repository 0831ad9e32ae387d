"""The files of the audit: lines are appended, whole or not at all, and old files go.

Each broker writes files of its own (`20261124T101500Z-3f9c01ab-0001.jsonl`), and holds a lock on the one it is writing,
so that others, which share the directory, neither repair nor remove it.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.clock import Clock

if sys.platform != "win32":
    import fcntl

SUFFIX: Final = ".jsonl"
MAX_FILE: Final = 64 * 1024 * 1024
"""Bytes of one file: what is removed at a time must not be a month."""
PARTS: Final = 8
"""A file is at most this part of all: removing the oldest makes room and leaves the others."""
DAY: Final = 86_400.0
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}-[0-9]{4,}\.jsonl")
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept. `is_synced`: a batch counts as written once the disk has it."""

    keep_days: int = 90
    max_bytes: int = 1 << 30
    is_synced: bool = False

    @property
    def file_bytes(self) -> int:
        """Bytes after which another file is begun."""
        return min(MAX_FILE, self.max_bytes // PARTS)


class Files:
    """See the module. All of it belongs to the one thread that writes."""

    def __init__(self, directory: Path, bounds: Bounds, clock: Clock) -> None:
        self.directory = directory
        self._bounds = bounds
        self._clock = clock
        self._mine = clock.random_bytes(4).hex()
        self._count = 0
        self._fd: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._day = ""

    def prepare(self) -> None:
        """Make the directory, cut off half lines that a crash has left, remove what is too old. Raises: OSError."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in paths(self.directory):
            _repair(path)
        self._prune()

    def turn(self, size: int) -> bool:
        """Have a file open that takes `size` more bytes; whether another one was begun. Raises: OSError."""
        day = datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y%m%d")
        is_full = self._size > 0 and self._size + size > self._bounds.file_bytes
        if self._fd is not None and day == self._day and not is_full and self._is_mine():
            return False
        self.close()
        self.prepare()
        self._begin(day)
        return True

    def append(self, lines: bytes) -> None:
        """Write whole lines, at once. Raises: OSError; then none of them is there."""
        assert self._fd is not None, "turn comes first"
        try:
            written = os.write(self._fd, lines)
            if written < len(lines):
                os.ftruncate(self._fd, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._bounds.is_synced:
                os.fsync(self._fd)
        except OSError:
            self.close()  # another file is begun, in case it is this one that is broken
            raise
        self._size += written

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
        if self._path is not None and not self._size:
            self._path.unlink(missing_ok=True)  # nothing was ever written to it
        self._fd, self._path, self._size = None, None, 0

    def _begin(self, day: str) -> None:
        moment = datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y%m%dT%H%M%SZ")
        path = self.directory / f"{moment}-{self._mine}-{self._count + 1:04}{SUFFIX}"
        self._fd = self._opened(path)
        _lock(self._fd)
        self._count += 1
        self._path, self._size, self._day = path, 0, day

    def _opened(self, path: Path) -> int:
        return os.open(path, _FLAGS | os.O_EXCL, 0o600)

    def _is_mine(self) -> bool:
        """Whether the file is still where it was made: not removed, not put aside."""
        assert self._fd is not None and self._path is not None
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:
            return False

    def _prune(self) -> None:
        now = self._clock.wall()
        found = [(path, path.stat()) for path in paths(self.directory) if path.exists()]
        room = self._bounds.max_bytes - self._bounds.file_bytes  # what is begun now needs some
        kept = sum(status.st_size for _, status in found)
        for path, status in found:
            if now - status.st_mtime > self._bounds.keep_days * DAY or kept > room:
                if _is_in_use(path):
                    continue
                path.unlink(missing_ok=True)
                kept -= status.st_size


def paths(directory: Path) -> Iterator[Path]:
    """The files of all brokers, the oldest first."""
    names = (path for path in directory.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))
    return iter(sorted(names, key=lambda path: path.name))


def _repair(path: Path) -> None:
    """Cut off a last line that has no end: it was never reported as written. A file in use is left alone."""
    try:
        fd = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return  # gone meanwhile, or not ours to change
    try:
        size = os.fstat(fd).st_size
        if not size or not _lock(fd):
            return
        end = size
        while end and (block := _before(fd, end)):
            cut = block.rfind(b"\n")
            if cut >= 0:
                end -= len(block) - cut - 1
                break
            end -= len(block)
        if end < size:
            os.ftruncate(fd, end)
    finally:
        os.close(fd)


def _before(fd: int, end: int) -> bytes:
    start = max(0, end - 65536)
    os.lseek(fd, start, os.SEEK_SET)
    return os.read(fd, end - start)


def _is_in_use(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Take the lock; whether nobody else has it. Where there are no such locks, nobody seems to."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
