"""The seam under limits: where calls are counted, in this process alone or in memory that several share."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from broker.core.quota import Rate
from broker.usage import gate as gates_of_one
from broker.usage import window as windows_of_one
from broker.usage.gate import Gate
from broker.usage.window import Window


class AnyWindow(Protocol):
    """How many calls there were in the last so many seconds: see `window.py`."""

    rate: Rate

    def limit(self, rate: Rate) -> None:
        """From now on so many, in as many seconds; what was counted stays."""
        ...

    def has_room(self, now: float) -> bool:
        """Whether one more call is not too much."""
        ...

    def missing(self, now: float) -> float:
        """Seconds until one more call is not too much."""
        ...

    def is_empty(self, now: float) -> bool:
        """Whether there was no call in it."""
        ...


class Counting(Protocol):
    """See the module. What it makes is given to it alone. `name`: of what is counted: who uses the same name counts the
    same. All may raise LimitReached: nothing can be counted now, and nothing was.
    """

    def window(self, rate: Rate, *name: str) -> AnyWindow:
        """Of calls in a time."""
        ...

    def gate(self, level: str, *name: str) -> Gate:
        """Of calls at a time."""
        ...

    def full_one(self, windows: Sequence[AnyWindow], now: float, /) -> AnyWindow | None:
        """One of them for which one more call is too much."""
        ...

    def take(self, windows: Sequence[AnyWindow], now: float, /) -> AnyWindow | None:
        """One more call in all of them; or in none, if it is too much for one: that one."""
        ...

    def enter(self, gates: Sequence[Gate], /) -> Gate | None:
        """Pass all of them; or none, if one is full: the first that is."""
        ...


class OwnCounting:
    """In this process alone. What it is given it has made."""

    def __init__(self) -> None:
        own: Any = windows_of_one
        self.full_one: Callable[[Sequence[AnyWindow], float], AnyWindow | None] = own.full_one
        self.take: Callable[[Sequence[AnyWindow], float], AnyWindow | None] = own.take
        self.enter: Callable[[Sequence[Gate]], Gate | None] = gates_of_one.enter

    def window(self, rate: Rate, *name: str) -> AnyWindow:
        """See `Counting`."""
        return Window(rate)

    def gate(self, level: str, *name: str) -> Gate:
        """See `Counting`."""
        return Gate(level)


OWN_COUNTING: Final = OwnCounting()
