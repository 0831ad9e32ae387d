"""Limits that hold over several workers: what is counted stands in memory that all of them share.

A window is that of one process, kept elsewhere. A gate lets its own callers take turns, as ever, and the workers take
turns at it too: each that has somebody waiting is next after those that wait longer, and goes to the end once one of
its calls has passed. Who leaves rings the bell of every worker that waits; a bell that is not heard costs `LOOK`. What
cannot be written, since the lock cannot be had, is owed, and tried again every `LOOK`.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from math import inf
from typing import Final

import anyio

from broker.clock import Clock
from broker.core.quota import Rate
from broker.errors import LimitReached
from broker.usage.counting import AnyWindow
from broker.usage.gate import Gate, Waiter
from broker.usage.window import MAX_ENTRIES
from broker.workers.board import Board, BoardStuck

LOOK: Final = 0.1
"""Seconds between two looks of a worker at the gates before which it waits, and at what it owes."""
CLAIM: Final = 1.0
"""Seconds after its last look for which the turn of a worker is kept: one that hangs must not hold the others."""
AGAIN: Final = 1.0
"""Seconds after which it is worth another try where nothing could be counted."""


class _Lock(AbstractContextManager[None]):
    def __init__(self, board: Board) -> None:
        self._board = board

    def __enter__(self) -> None:
        try:
            self._board.__enter__()
        except BoardStuck:
            raise LimitReached("broker", "what can be counted now", AGAIN) from None

    def __exit__(self, *_: object) -> None:
        self._board.__exit__()


class SharedWindow:
    """See `AnyWindow`."""

    def __init__(self, board: Board, lock: AbstractContextManager[None], rate: Rate, name: Sequence[str]) -> None:
        self._board = board
        self._lock = lock
        self._digest = board.digest("window", str(rate.seconds), *name)
        self.limit(rate)

    def limit(self, rate: Rate) -> None:
        """See `AnyWindow`."""
        self.rate = rate
        self._grain = rate.seconds / MAX_ENTRIES if rate.count > MAX_ENTRIES else 0.0

    def has_room(self, now: float) -> bool:
        """See `AnyWindow`. What cannot be counted has none."""
        with self._lock:
            at = self._at(now)
            return at > 0 and self._board.forget(at, now) < self.rate.count

    def missing(self, now: float) -> float:
        """See `AnyWindow`."""
        with self._lock:
            at = self._at(now)
            if not at:
                return AGAIN
            excess = self._board.forget(at, now) - self.rate.count + 1
            return self._board.over_at(at, excess) - now if excess > 0 else 0.0

    def take(self, now: float) -> None:
        """See `AnyWindow`."""
        with self._lock:
            at = self._at(now)
            if at:
                self._board.add_call(at, now, self._grain)

    def is_empty(self, now: float) -> bool:
        """See `AnyWindow`."""
        with self._lock:
            at = self._board.find_window(self._digest, self.rate.seconds, now, make=False)
            return not at or self._board.forget(at, now) == 0

    def _at(self, now: float) -> int:
        return self._board.find_window(self._digest, self.rate.seconds, now)


class SharedGate(Gate):
    """See `Gate`, and the module."""

    def __init__(self, counting: "SharedCounting", level: str, name: Sequence[str]) -> None:
        super().__init__(level)
        self.counting = counting
        self._board = counting.board
        self._digest = counting.board.digest("gate", *name)
        self._owed = 0
        """Calls that are over, and could not be taken out."""
        self.lock = counting.lock

    @property
    def has_place(self) -> bool:
        """Whether the call whose turn it is may pass; those of other workers that wait longer come first."""
        if self.cap == inf:
            return True
        with self.lock:
            at = self._board.find_tally(self._digest, make=True)
            if not at:
                return False
            columns, me, now = self._board.columns(at), self._board.worker.number - 1, self.counting.clock.now()
            free = self.cap - sum(one.amount for one in columns) + self._owed
            mine = (columns[me].since if columns[me].waiting else inf), me
            ahead = sum(
                1
                for number, one in enumerate(columns)
                if number != me and one.waiting and now - one.seen < CLAIM and (one.since, number) < mine
            )
            return free > ahead

    @property
    def is_idle(self) -> bool:
        """See `Gate`. One that owes is not to be forgotten: what it owes would be held for ever."""
        return super().is_idle and self not in self.counting.owing

    @property
    def is_full(self) -> bool:
        """See `Gate`: who comes now is behind all that wait."""
        return self.waiting > 0 or not self.has_place

    def enter(self) -> None:
        """One call more has passed. Raises: LimitReached."""
        self._change(1)
        self.running += 1

    def leave(self) -> None:
        """See `Gate`."""
        super().leave()
        self._owed += 1
        try:
            self._change(0)
        except LimitReached:
            self.counting.owing.add(self)

    def add(self, waiter: Waiter) -> None:
        """See `Gate`."""
        super().add(waiter)
        self.counting.waiting.add(self)
        with suppress(LimitReached):  # it is said with the next look
            self.look()

    def remove(self, waiter: Waiter) -> None:
        """See `Gate`."""
        super().remove(waiter)
        if not self.waiting:
            self.counting.waiting.discard(self)
        try:
            self.look()
        except LimitReached:
            self.counting.owing.add(self)

    def settle(self) -> None:
        """Write what is owed, if that is possible now."""
        try:
            with self.lock:
                self.look()
                self._change(0)
        except LimitReached:
            return
        self.counting.owing.discard(self)

    def pump(self) -> None:
        """See `Gate`."""
        with suppress(LimitReached), self.lock:  # else whoever waits looks again
            while self.waiting and self.has_place:
                gates = self.first.gates
                full = next((one for one in gates if not _has_place(one)), None)
                waiter = self.take_first()
                if full is not None:
                    full.add(waiter)
                else:
                    for one in gates:
                        _enter(one)
                    waiter.let_pass()

    def look(self) -> None:
        """Say that there is somebody who waits, or that there is nobody any more. Raises: LimitReached."""
        with self.lock:
            at = self._board.find_tally(self._digest, make=self.waiting > 0)
            if at:
                mine, now = self._board.mine(at), self.counting.clock.now()
                if not mine.waiting:
                    mine.since = now
                had, mine.waiting, mine.seen = mine.waiting, self.waiting, now
                self._board.put(at, mine)
                if had and not mine.waiting:
                    self._ring(at)

    def _change(self, amount: int) -> None:
        """So many calls more. Raises: LimitReached."""
        with self.lock:
            at = self._board.find_tally(self._digest, make=amount > 0)
            if at:
                mine = self._board.mine(at)
                mine.amount = max(0, mine.amount + amount - self._owed)
                if amount > 0:
                    mine.since = self.counting.clock.now()
                self._board.put(at, mine)
                if self._owed:
                    self._ring(at)
            self._owed = 0

    def _ring(self, at: int) -> None:
        """There is a place, or a turn, for the others."""
        for number, one in enumerate(self._board.columns(at), 1):
            if one.waiting and number != self._board.worker.number:
                self.counting.ring(number)


def _has_place(gate: Gate) -> bool:
    assert isinstance(gate, SharedGate)
    return gate.has_place


def _enter(gate: Gate) -> None:
    assert isinstance(gate, SharedGate)
    gate.enter()


class SharedCounting:
    """See `Counting`. `bells`: a pipe of each worker, by its number less one: reading and writing end."""

    def __init__(self, board: Board, clock: Clock, bells: Sequence[tuple[int, int]]) -> None:
        self.board = board
        self.clock = clock
        self.lock: AbstractContextManager[None] = _Lock(board)
        self.waiting: set[SharedGate] = set()
        """Gates before which somebody of this worker waits."""
        self.owing: set[SharedGate] = set()
        """Gates of which this worker could not write yet what has changed."""
        self._bells = bells

    def window(self, rate: Rate, *name: str) -> SharedWindow:
        """See `Counting`."""
        return SharedWindow(self.board, self.lock, rate, name)

    def gate(self, level: str, *name: str) -> SharedGate:
        """See `Counting`."""
        return SharedGate(self, level, name)

    def full_one(self, windows: Sequence[AnyWindow], now: float) -> AnyWindow | None:
        """See `Counting`."""
        if not windows:
            return None
        with self.lock:
            return next((one for one in windows if isinstance(one, SharedWindow) and not one.has_room(now)), None)

    def take(self, windows: Sequence[AnyWindow], now: float) -> AnyWindow | None:
        """See `Counting`."""
        if not windows:
            return None
        with self.lock:
            full = self.full_one(windows, now)
            for one in windows if full is None else ():
                assert isinstance(one, SharedWindow)
                one.take(now)
            return full

    def enter(self, gates: Sequence[Gate]) -> Gate | None:
        """See `Counting`."""
        if not gates:
            return None
        with self.lock:
            full = next((one for one in gates if one.is_full), None)
            for one in gates if full is None else ():
                _enter(one)
            return full

    def ring(self, number: int) -> None:
        """Let a worker look whether one of its calls may pass."""
        with suppress(BlockingIOError):  # then it has been rung for already
            os.write(self._bells[number - 1][1], b"!")

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None, None]:
        """While entered, this worker hears its bell, and looks by itself."""
        bell, loop = self._bells[self.board.worker.number - 1][0], asyncio.get_running_loop()
        loop.add_reader(bell, self._answer, bell)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._look_on)
                yield
                tasks.cancel_scope.cancel()
        finally:
            loop.remove_reader(bell)

    async def _look_on(self) -> None:
        while True:
            await self.clock.sleep(LOOK)
            for gate in tuple(self.owing):
                gate.settle()
            for gate in tuple(self.waiting):
                with suppress(LimitReached):
                    gate.look()
                gate.pump()

    def _answer(self, bell: int) -> None:
        with suppress(BlockingIOError):
            os.read(bell, 4096)
        for gate in tuple(self.waiting):
            gate.pump()
