"""A window that moves: how many calls there were in the last so many seconds."""

from collections import deque
from typing import Final

from broker.core.quota import Rate

MAX_ENTRIES: Final = 1024
"""What a window remembers, at most: beyond that, calls that come close together are remembered as the last of them, so
that a large limit costs no more memory. Such a call counts for a thousandth of the window longer, never shorter.
"""


class Window:
    """Times of calls on a clock that never steps back (F-97). In any `seconds`, no more than are asked for."""

    __slots__ = ("_entries", "_total", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._entries: deque[list[float]] = deque()
        """The first and the last time of calls that are remembered together, and how many they are."""
        self._total = 0

    def missing(self, count: int, now: float) -> float:
        """Seconds until one more call is not more than `count`; 0: it is not."""
        entries = self._entries
        while entries and entries[0][1] + self.seconds <= now:
            self._total -= int(entries.popleft()[2])
        excess = self._total - count + 1
        if excess <= 0:
            return 0.0
        end = now
        for _, last, calls in entries:  # so many of the oldest must be over
            end = last + self.seconds
            excess -= int(calls)
            if excess <= 0:
                break
        return end - now

    def take(self, rate: Rate, now: float) -> None:
        """One more call."""
        self._total += 1
        entries = self._entries
        if entries and rate.count > MAX_ENTRIES and now - entries[-1][0] < self.seconds / MAX_ENTRIES:
            entries[-1][1] = now
            entries[-1][2] += 1
        else:
            entries.append([now, now, 1])

    def is_empty(self, now: float) -> bool:
        """Whether there was no call in it."""
        return not self._entries or self._entries[-1][1] + self.seconds <= now
