"""So many calls at a time, and a fair queue of those that wait.

A call passes all of its gates at once, or waits before one that is full; it never holds one place while it waits for
another. Whoever leaves gives the place to the next in turn, and the callers take turns: one that floods the queue waits
behind its own calls. A full queue makes room for a caller with few calls by turning away one of the caller with most.
"""

from bisect import insort
from collections.abc import Iterable
from math import inf
from typing import Final

import anyio

from broker.core.quota import Limits
from broker.errors import LimitReached

RETRY_AFTER: Final = 1.0
"""Seconds after which it is worth another try where all places are taken. When one is free nobody knows."""


class Waiter:
    """One call before a gate. It has passed, or was turned away, when `ready` is set."""

    __slots__ = ("at", "gates", "has_passed", "number", "principal", "ready")

    def __init__(self, principal: str, gates: "tuple[Gate, ...]", number: int) -> None:
        self.principal = principal
        self.gates = gates
        self.number = number
        self.ready = anyio.Event()
        self.has_passed = False
        self.at: Gate | None = None
        """Where it stands now."""

    def let_pass(self) -> None:
        """It has passed all of its gates."""
        self.has_passed = True
        self.ready.set()

    def withdraw(self) -> None:
        """It waits no more; a place that it was given meanwhile is the next one's."""
        if self.has_passed:
            leave(self.gates)
        elif self.at is not None:
            self.at.remove(self)


class Gate:
    """See the module. `level`: whose limit it is."""

    def __init__(self, level: str) -> None:
        self.level = level
        self.cap: float = inf
        self.room = 0
        self.patience = 0.0
        self.running = 0
        """Calls that have passed, and are not over."""
        self.waiting = 0
        self._lanes: dict[str, list[Waiter]] = {}
        """By principal, each in the order of arrival; the one whose turn is next comes first."""
        self._arrived = 0

    def __repr__(self) -> str:
        return f"<Gate {self.level} {self.running}/{self.cap:g}, {self.waiting} waiting>"

    @property
    def is_full(self) -> bool:
        """Whether a call would have to wait."""
        return self.running >= self.cap

    @property
    def is_idle(self) -> bool:
        """Whether nobody has passed it, or waits."""
        return not self.running and not self.waiting

    def allow(self, limits: Limits) -> None:
        """Other limits from now on: nobody is stopped who has passed, and whoever may pass now does."""
        self.cap = inf if limits.concurrency is None else limits.concurrency
        self.room, self.patience = limits.queue, limits.wait
        self.pump()

    async def wait(self, gates: "tuple[Gate, ...]", principal: str) -> None:
        """Wait before this gate, which is one of `gates`, until all of them are passed.

        Raises: LimitReached, if the queue is full, or it takes too long.
        """
        self._arrived += 1
        waiter = Waiter(principal, gates, self._arrived)
        self._make_room(principal)
        self.add(waiter)
        try:
            with anyio.move_on_after(self.patience):
                await waiter.ready.wait()
        except BaseException:
            waiter.withdraw()
            raise
        if not waiter.has_passed:
            waiter.withdraw()
            raise self.refusal()

    def leave(self) -> None:
        """A call that has passed is over."""
        self.running -= 1

    def refusal(self) -> LimitReached:
        """What is said to who is turned away."""
        return LimitReached(self.level, f"{self.cap:g} at a time", RETRY_AFTER)

    def add(self, waiter: Waiter) -> None:
        """At its place among those of its caller."""
        waiter.at = self
        insort(self._lanes.setdefault(waiter.principal, []), waiter, key=lambda one: one.number)
        self.waiting += 1

    def remove(self, waiter: Waiter) -> None:
        """One that stands here."""
        lane = self._lanes[waiter.principal]
        lane.remove(waiter)
        if not lane:
            del self._lanes[waiter.principal]
        waiter.at = None
        self.waiting -= 1

    def pump(self) -> None:
        """Let pass who may. What is before a gate while that has a free place waits for another, and stands there."""
        while self._lanes and not self.is_full:
            waiter = self.take_first()
            full = enter(waiter.gates)
            if full is not None:
                full.add(waiter)
            else:
                waiter.let_pass()

    @property
    def first(self) -> Waiter:
        """Whose turn it is; there is one."""
        return next(iter(self._lanes.values()))[0]

    def take_first(self) -> Waiter:
        """Whose turn it is: it does not stand here any more."""
        principal, lane = next(iter(self._lanes.items()))
        waiter = lane[0]
        self.remove(waiter)
        if lane:  # its caller's turn comes again after all others
            self._lanes[principal] = self._lanes.pop(principal)
        return waiter

    def _make_room(self, principal: str) -> None:
        """Raises: LimitReached, unless there is room, or another caller has more of it than this one would have."""
        if self.waiting < self.room:
            return
        longest = max(self._lanes.values(), key=len, default=list[Waiter]())
        if len(longest) <= len(self._lanes.get(principal, ())) + 1:
            raise self.refusal()
        last = longest[-1]
        self.remove(last)
        last.ready.set()


def enter(gates: Iterable[Gate]) -> Gate | None:
    """Pass all of them; or none, if one is full: the first that is."""
    for gate in gates:
        if gate.running >= gate.cap:
            return gate
    for gate in gates:
        gate.running += 1
    return None


def leave(gates: Iterable[Gate]) -> None:
    """The call is over: its places are the next ones'."""
    for gate in gates:
        gate.leave()
    for gate in gates:
        if gate.waiting:
            gate.pump()
