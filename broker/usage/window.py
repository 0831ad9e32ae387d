"""A window that moves: how many calls there were in the last so many seconds, and whether one more is too much."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from broker.core.quota import Rate

MAX_ENTRIES: Final = 256
"""What a window remembers, at most: beyond that, calls that come close together are remembered as the last of them, so
that a large limit of many callers does not fill the memory. Such a call counts for a 256th of the window longer, never
shorter.
"""


@dataclass(slots=True)
class Run:
    """Calls that are remembered together: when the first and the last of them came, and how many they are."""

    first: float
    last: float
    calls: int


_NO_RUN: Final = Run(-inf, -inf, 0)


class Window:
    """Times of calls on a clock that never steps back (F-97). `rate`: the limit, which may become another one of the
    same length. `total`: of the calls that are remembered, of which some may be over.
    """

    __slots__ = ("_runs", "count", "grain", "latest", "rate", "total")

    def __init__(self, rate: Rate) -> None:
        self._runs: deque[Run] = deque()
        self.latest = _NO_RUN
        """The last of them."""
        self.total = 0
        self.limit(rate)

    def limit(self, rate: Rate) -> None:
        """From now on so many; what was counted stays."""
        self.rate = rate
        self.count = rate.count
        self.grain = rate.seconds / MAX_ENTRIES if rate.count > MAX_ENTRIES else 0.0

    def has_room(self, now: float) -> bool:
        """Whether one more call is not too much. What is over is looked for only where that matters."""
        if self.total >= self.count:
            self._forget(now)
        return self.total < self.count

    def missing(self, now: float) -> float:
        """Seconds until one more call is not too much."""
        if self.has_room(now):
            return 0.0
        excess, end = self.total - self.count + 1, now
        for run in self._runs:  # so many of the oldest must be over
            end = run.last + self.rate.seconds
            excess -= run.calls
            if excess <= 0:
                break
        return end - now

    def begin(self, now: float) -> None:
        """One more call, which is the first that is remembered together with those that come at once after it."""
        self._forget(now)  # there are never more than are told apart
        self.total += 1
        self.latest = Run(now, now, 1)
        self._runs.append(self.latest)

    def is_empty(self, now: float) -> bool:
        """Whether there was no call in it."""
        return self.latest.last + self.rate.seconds <= now

    def _forget(self, now: float) -> None:
        runs, seconds = self._runs, self.rate.seconds
        while runs and runs[0].last + seconds <= now:
            self.total -= runs.popleft().calls


def full_one(windows: Iterable[Window], now: float) -> Window | None:
    """One of them for which one more call is too much."""
    for window in windows:
        if window.total >= window.count and not window.has_room(now):
            return window
    return None


def take(windows: Iterable[Window], now: float) -> Window | None:
    """One more call in all of them; or in none, if it is too much for one: that one. Every call comes here: it is
    written without others.
    """
    for window in windows:
        if window.total >= window.count and not window.has_room(now):
            return window
    for window in windows:
        latest = window.latest
        if now - latest.first < window.grain:
            window.total += 1
            latest.last = now
            latest.calls += 1
        else:
            window.begin(now)
    return None
