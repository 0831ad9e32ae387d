"""What a worker shares with the others, while it serves."""

import asyncio
import contextlib
import logging
import socket
from typing import Final

import anyio

from broker.clock import SystemClock
from broker.downstream.crew import NO_CREW, Crew
from broker.downstream.room import Held
from broker.usage.counting import OWN_COUNTING, Counting
from broker.usage.shared import SharedCounting
from broker.workers.assignment import Assignment
from broker.workers.board import Board
from broker.workers.held import SharedHeld

log = logging.getLogger(__name__)


class Shift:
    """See the module. `counting`: where limits are counted; `held`: where connections are."""

    def __init__(self, assignment: Assignment) -> None:
        self.crew = Crew(assignment.worker, assignment.directory)
        self.crew.listen()
        board = Board(assignment.board, assignment.worker)
        board.clear(assignment.worker.number)  # of the one before, if that died while nobody could take it out
        self.counting = SharedCounting(board, SystemClock(), assignment.bells)
        self.held = SharedHeld(board)
        self._leash = socket.socket(fileno=assignment.leash)

    def is_ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        with contextlib.suppress(OSError):
            self._leash.send(b"\n")

    async def serve(self, closing: anyio.Event) -> None:
        """Until cancelled. A supervisor that is gone takes its workers with it, kindly: `closing` is set."""
        self._leash.setblocking(False)
        async with self.counting.listening():
            with contextlib.suppress(OSError):
                while await asyncio.get_running_loop().sock_recv(self._leash, 64):
                    pass
            if not closing.is_set():
                log.error("the supervisor is gone: this worker ends")
                closing.set()
            await anyio.sleep_forever()


class AloneAtWork:
    """For a broker of one process."""

    crew: Crew = NO_CREW
    counting: Counting = OWN_COUNTING
    held: Held | None = None

    def is_ready(self) -> None:
        """See `Shift`."""

    async def serve(self, closing: anyio.Event) -> None:
        """See `Shift`."""


ALONE_AT_WORK: Final = AloneAtWork()
