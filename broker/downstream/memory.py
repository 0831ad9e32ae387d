"""How much memory the broker may take: past that new requests are sent away, before the kernel ends all (F-98)."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

HIGH: Final = 0.85
"""Of the limit: above it no new request is taken. What is in flight needs the rest."""
CRITICAL: Final = 0.95
"""Of the limit: above it streams that only wait for news are ended, the oldest first."""
LOOK: Final = 1.0
"""Seconds between two looks."""
RETRY_AFTER: Final = 5
"""Seconds after which whoever was sent away may come again."""

_CGROUPS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_UNLIMITED: Final = 1 << 60
"""Bytes. A control group of the first version says a number like this where it has no limit."""


def limit_of_machine(shared_by: int = 1) -> int | None:
    """Bytes that the control group of this process allows (a container's limit), of which so many processes have equal
    parts; None where there is none.
    """
    for file in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path(file).read_text(encoding="ascii"))
            return limit // shared_by if limit < _UNLIMITED else None
    return None


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


class Memory:
    """What was found at the last look. Without a limit it never refuses."""

    def __init__(self, limit: int | None = None, used: Callable[[], int] = resident) -> None:
        self.limit = limit
        self.used = 0
        self.is_high = False
        """Whether a new request has to wait outside."""
        self._read = used
        self.look()

    @property
    def is_critical(self) -> bool:
        """Whether what only waits has to go."""
        return self.limit is not None and self.used > CRITICAL * self.limit

    def look(self) -> None:
        """Read it once. A few microseconds."""
        self.used = self._read()
        self.is_high = self.limit is not None and self.used > HIGH * self.limit
