"""Whether files were changed since they were last read: changed in what they hold, and not in the middle of a change.

They are looked at again and again. Where they come from they may be written in steps, moved into place or be links that
are turned to other files, so what counts is what a path leads to now: once that has been the same in two looks, its
content is compared.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

MAX_READ: Final = 16 * 1024 * 1024
"""Bytes of a file that are compared: more than any that the configuration may name."""

Stamp = tuple[int, int, int, int] | None
"""Device, file, time and size; None: there is nothing to look at."""


class Changes:
    """See the module. Reads files: not for the event loop."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = frozenset(files)
        self._last = self._stamps()
        self._settled = self._last
        self._held = self._digests()

    def look(self) -> bool:
        """Whether something else is in them than at the last `note`, or than when this last said so."""
        now = self._stamps()
        is_moving, self._last = now != self._last, now
        if is_moving or now == self._settled:
            return False
        self._settled = now
        held = self._digests()
        is_changed, self._held = held != self._held, held
        return is_changed

    def note(self) -> None:
        """They are about to be read: what is in them now is known."""
        self._last = self._settled = self._stamps()
        self._held = self._digests()

    def follow(self, files: Iterable[Path]) -> None:
        """Look at these from now on. Of those that were looked at before, what is known stays known: one that was
        changed while it was read is read again.
        """
        files = frozenset(files)
        new = Changes(files - self._files)
        kept = files & self._files
        self._last = {**_of(self._last, kept), **new._last}
        self._settled = {**_of(self._settled, kept), **new._settled}
        self._held = {**{file: self._held[file] for file in kept}, **new._held}
        self._files = files

    def _stamps(self) -> Mapping[Path, Stamp]:
        return {file: _stamp(file) for file in self._files}

    def _digests(self) -> Mapping[Path, bytes | None]:
        return {file: _digest(file) for file in self._files}


def _of(stamps: Mapping[Path, Stamp], files: frozenset[Path]) -> dict[Path, Stamp]:
    return {file: stamps[file] for file in files}


def _stamp(file: Path) -> Stamp:
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _digest(file: Path) -> bytes | None:
    try:
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                return None
            return hashlib.sha256(opened.read(MAX_READ)).digest()
    except (OSError, ValueError):
        return None
