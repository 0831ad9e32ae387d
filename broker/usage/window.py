"""A window that moves: how many calls there were in the last so many seconds, and whether one more is too much."""

from collections import deque
from typing import Final

from broker.core.quota import Rate

MAX_ENTRIES: Final = 256
"""What a window remembers, at most: beyond that, calls that come close together are remembered as the last of them, so
that a large limit of many callers does not fill the memory. Such a call counts for a 256th of the window longer, never
shorter.
"""


class Window:
    """Times of calls on a clock that never steps back (F-97). `rate`: the limit, which may become another one of the
    same length.
    """

    __slots__ = ("_entries", "_grain", "_total", "rate")

    def __init__(self, rate: Rate) -> None:
        self._entries: deque[list[float]] = deque()
        """The first and the last time of calls that are remembered together, and how many they are."""
        self._total = 0
        self.limit(rate)

    def limit(self, rate: Rate) -> None:
        """From now on so many; what was counted stays."""
        self.rate = rate
        self._grain = rate.seconds / MAX_ENTRIES if rate.count > MAX_ENTRIES else 0.0

    def has_room(self, now: float) -> bool:
        """Whether one more call is not too much."""
        entries = self._entries
        if entries and entries[0][1] + self.rate.seconds <= now:
            self._forget(now)
        return self._total < self.rate.count

    def missing(self, now: float) -> float:
        """Seconds until one more call is not too much."""
        if self.has_room(now):
            return 0.0
        excess, end = self._total - self.rate.count + 1, now
        for _, last, calls in self._entries:  # so many of the oldest must be over
            end = last + self.rate.seconds
            excess -= int(calls)
            if excess <= 0:
                break
        return end - now

    def take(self, now: float) -> None:
        """One more call."""
        self._total += 1
        if self._grain and self._entries:
            latest = self._entries[-1]
            if now - latest[0] < self._grain:
                latest[1] = now
                latest[2] += 1
                return
        self._entries.append([now, now, 1])

    def is_empty(self, now: float) -> bool:
        """Whether there was no call in it."""
        return not self._entries or self._entries[-1][1] + self.rate.seconds <= now

    def _forget(self, now: float) -> None:
        entries, seconds = self._entries, self.rate.seconds
        while entries and entries[0][1] + seconds <= now:
            self._total -= int(entries.popleft()[2])
