"""What a worker has to do with the others, while it serves."""

import asyncio
import contextlib
import logging
import socket
from typing import Final

import anyio

from broker.downstream.crew import NO_CREW, Crew
from broker.workers.assignment import Assignment

log = logging.getLogger(__name__)


class Shift:
    """See the module."""

    def __init__(self, assignment: Assignment) -> None:
        self.crew = Crew(assignment.worker, assignment.directory)
        self.crew.listen()
        self._leash = socket.socket(fileno=assignment.leash)

    def is_ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        with contextlib.suppress(OSError):
            self._leash.send(b"\n")

    async def serve(self, closing: anyio.Event) -> None:
        """Until cancelled. A supervisor that is gone takes its workers with it, kindly: `closing` is set."""
        self._leash.setblocking(False)
        with contextlib.suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(self._leash, 64):
                pass
        if not closing.is_set():
            log.error("the supervisor is gone: this worker ends")
            closing.set()


class AloneAtWork:
    """For a broker of one process."""

    crew: Crew = NO_CREW

    def is_ready(self) -> None:
        """See `Shift`."""

    async def serve(self, closing: anyio.Event) -> None:
        """See `Shift`."""


ALONE_AT_WORK: Final = AloneAtWork()
