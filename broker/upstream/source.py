"""What comes out of a pipe of a child, pushed to whoever takes it: no task waits for it, and no stream keeps it.

A `Source` is the reading end of one pipe; `Lines` makes messages of it. What nobody takes yet stays in the pipe, so
that the child waits, not the broker's memory.
"""

import asyncio
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from broker.core.framing import LEAST, TURN, LineSplitter, LineTooLong
from broker.core.wire import Steps

Take = Callable[[bytes], Steps[None] | None]
"""Takes one message that has come. Called from the event loop, so it must neither block nor raise. What would take long
is returned: steps, each for a turn of its own, before which nothing more is handed on."""
TakePiece = Callable[[bytes], None]
"""Takes what has come of a stream, likewise."""


FEW: Final = 16
"""Lines of one piece that are handed on without a look at what came before in the same turn."""


class Source(asyncio.Protocol):
    """See the module. Belongs to one transport, which reads while somebody takes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        """Set when nothing more will be handed on: the pipe has ended, or whoever took what came has found that it must
        not go on (`Lines`)."""
        self._transport: asyncio.ReadTransport | None = None
        self._take: TakePiece | None = None
        self._held: list[bytes] = []
        """What came before anybody took it: a piece or two, since nothing is read after it but what is on its way."""

    def read(self, take: TakePiece) -> None:
        """Whatever comes goes to `take` from the next turn of the event loop on, what came already first."""
        self._take = take
        if self._held:
            self._loop.call_soon(self._begin)
        else:
            self.resume()

    def _begin(self) -> None:
        if self._take is not None:
            held, self._held = self._held, []
            self.resume()  # first: whoever takes what was held may say that this is enough
            for data in held:
                self.data_received(data)

    def stop(self) -> None:
        """Nobody takes what comes any more."""
        self._take = None
        self.pause()

    def pause(self) -> None:
        """Read no more for now. Safe to call twice."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again. Safe to call twice."""
        if self._transport is not None and not self._transport.is_reading() and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.ReadTransport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._take is None or self._held:  # asyncio may have a piece on its way when the first is held
            self._held.append(data)
            self.pause()
        else:
            self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self.ended.set()


class Lines:
    """The lines of a source, each handed to `take` when it is whole, at most `limit` bytes long."""

    def __init__(self, source: Source, take: Take, limit: int) -> None:
        self._source = source
        self._take = take
        self._splitter = LineSplitter(limit)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        """Whole lines that are too many for one turn."""
        self._handed_on = 0
        """What was handed on in this turn of the loop, of pieces of more than a few lines."""
        self._steps: Steps[None] | None = None
        """What is left to do of the line that was handed on last."""
        self._is_behind = False
        """Whether lines are handed on in turns. Nothing is read meanwhile."""
        self._is_over = False
        self.fault = ""
        """Why the rest is not read, if it is not."""
        self.ended = source.ended
        """See `Source`."""

    def begin(self) -> None:
        """Hand on what comes, until it ends."""
        self._source.read(self._feed)

    def stop(self) -> None:
        """Nobody takes them any more."""
        self._is_over = True
        self._steps = None
        self._waiting.clear()
        self._source.stop()

    def _feed(self, chunk: bytes) -> None:
        try:
            lines = self._splitter.feed(chunk)
        except LineTooLong as error:
            return self._break(str(error))
        if self._is_behind:  # it was on its way when the reading was paused
            self._waiting.extend(lines)
        elif self._is_within(len(chunk) + LEAST * len(lines), len(lines)):
            self._hand_on(lines)
            if self._steps is not None:
                self._fall_behind()
                self._loop.call_soon(self._go_on)
        else:
            self._fall_behind()
            self._waiting.extend(lines)
            self._go_on()

    def _fall_behind(self) -> None:
        self._is_behind = True
        self._source.pause()

    def _is_within(self, weight: int, count: int) -> bool:
        """Whether so much more can be handed on in this turn of the loop: uvloop reads a pipe many times in one."""
        if count <= FEW:
            return weight <= TURN
        if not self._handed_on:
            self._loop.call_soon(self._begin_turn)
        self._handed_on += weight
        return self._handed_on <= TURN

    def _begin_turn(self) -> None:
        self._handed_on = 0

    def _go_on(self) -> None:
        """The next of many lines; once all are handed on, the source is read again, in a turn of its own."""
        if self._is_over:
            return
        if self._steps is not None:
            self._step(self._steps)
        elif not self._waiting:
            self._is_behind = False
            return self._source.resume()
        else:
            lines: list[bytes] = []
            size = 0
            while self._waiting and size < TURN:
                lines.append(self._waiting.popleft())
                size += len(lines[-1]) + LEAST
            self._hand_on(lines)
        self._loop.call_soon(self._go_on)

    def _hand_on(self, lines: list[bytes]) -> None:
        is_done = False
        try:
            for number, line in enumerate(lines, 1):
                if self._is_over:
                    break
                steps = self._take(line.removeprefix(BOM_UTF8))  # some Windows programs begin with one (F-11)
                if steps is not None:
                    self._steps = steps
                    self._waiting.extendleft(reversed(lines[number:]))
                    break
            is_done = True
        finally:
            if not is_done:  # the event loop logs what it was; a stream with a hole in it must not go on
                self._break("a fault in the broker")

    def _step(self, steps: Steps[None]) -> None:
        is_done = False
        try:
            if next(steps, steps) is steps:
                self._steps = None
            is_done = True
        finally:
            if not is_done:
                self._break("a fault in the broker")

    def _break(self, why: str) -> None:
        self.fault = why
        self.stop()
        self.ended.set()
