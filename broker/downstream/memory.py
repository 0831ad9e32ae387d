"""How much memory the broker may take: past that new requests are sent away, before the kernel ends all (F-98)."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker.allocation import give_back

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

    def __init__(
        self,
        limit: int | None = None,
        used: Callable[[], int] = resident,
        give_back: Callable[[], None] = give_back,
    ) -> None:
        self.limit = limit
        self.used = 0
        self.is_high = False
        """Whether a new request has to wait outside."""
        self._read, self._give_back = used, give_back
        self.look()

    @property
    def is_critical(self) -> bool:
        """Whether what only waits has to go."""
        return self._is_over(CRITICAL)

    def look(self) -> None:
        """Read it once: a few microseconds. What is only kept after it was freed is no reason to begin to refuse; to
        give it back takes milliseconds, so that later on it is left to the one who does it every few seconds.
        """
        self.used = self._read()
        if self._is_over(HIGH) and not self.is_high:
            self._give_back()
            self.used = self._read()
        self.is_high = self._is_over(HIGH)

    def _is_over(self, share: float) -> bool:
        return self.limit is not None and self.used > share * self.limit
