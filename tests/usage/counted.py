"""The two places where limits are counted, for tests that both must pass."""

import itertools

from broker.clock import Clock, FakeClock
from broker.core.quota import Rate
from broker.usage.counting import OWN_COUNTING, Counting
from broker.usage.shared import SharedCounting, SharedGate, SharedWindow
from broker.workers.assignment import Worker
from broker.workers.board import Board, make_board

PLACES = ["in this process", "in memory of several"]
_worlds = itertools.count()
_boards: list[Board] = []


class _Fresh(SharedCounting):
    """Of names that nobody else uses, on one board for all tests."""

    def __init__(self, clock: Clock) -> None:
        if not _boards:
            _boards.append(Board(make_board(3), Worker(2, 3)))
        super().__init__(_boards[0], clock, ())
        self._world = str(next(_worlds))

    def window(self, rate: Rate, *name: str) -> SharedWindow:
        return super().window(rate, self._world, *name)

    def gate(self, level: str, *name: str) -> SharedGate:
        return super().gate(level, self._world, *name)


def counting(place: str, clock: Clock | None = None) -> Counting:
    """Where nothing is counted yet."""
    return OWN_COUNTING if place == PLACES[0] else _Fresh(clock or FakeClock())
