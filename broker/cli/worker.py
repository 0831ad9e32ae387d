"""One of the workers of `serve --workers N`: `broker.workers.supervisor` starts it, with an `Assignment`."""

import asyncio
import contextlib
import logging
import math
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from broker.cli.begin import begin_to_serve, read_config
from broker.cli.callers import with_advice
from broker.cli.exits import FAILED, Stop, told
from broker.cli.serving import serve_loaded
from broker.clock import SystemClock
from broker.downstream.crew import Crew
from broker.downstream.room import Held
from broker.usage.counting import Counting
from broker.usage.shared import SharedCounting
from broker.workers.assignment import Assignment
from broker.workers.board import Board
from broker.workers.held import SharedHeld

log = logging.getLogger(__name__)


class WorkersShift:
    """See `Shift`."""

    def __init__(self, assignment: Assignment) -> None:
        self.crew = Crew(assignment.worker, assignment.directory)
        self._directory = assignment.directory
        board = Board(assignment.board, assignment.worker)
        board.clear(assignment.worker.number)  # of the one before, if that died while nobody could take it out
        self._shared = SharedCounting(board, SystemClock(), assignment.bells)
        self.counting: Counting = self._shared
        self.held: Held | None = SharedHeld(board)
        self._leash = socket.socket(fileno=assignment.leash)

    def is_ready(self) -> None:
        """See `Shift`: the others find it, and the supervisor is told. Raises: Stop."""
        try:
            self.crew.listen()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise Stop(
                f"cannot make the socket of a worker in {self._directory}: {why}. Make room there, or start the "
                "broker again, with TMPDIR set to another directory.",
                FAILED,
            ) from None
        self._tell(b"\n")

    async def serve(self, closing: anyio.Event, drain: Callable[[], float]) -> None:
        """See `Shift`. A supervisor that is gone takes its workers with it, kindly."""
        self._leash.setblocking(False)
        async with self._shared.listening(), anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell_end, closing, drain)
            with contextlib.suppress(OSError):
                while await asyncio.get_running_loop().sock_recv(self._leash, 64):
                    pass
            if not closing.is_set():
                log.error("the supervisor is gone: this worker ends")
                closing.set()
            try:
                await anyio.sleep_forever()
            finally:
                # Nobody else removes it now, nor makes a worker that would need it. Who is not the last cannot.
                with contextlib.suppress(OSError):
                    self._directory.rmdir()

    async def _tell_end(self, closing: anyio.Event, drain: Callable[[], float]) -> None:
        """The supervisor kills who takes longer, and knows only what was in force when it started."""
        await closing.wait()
        self._tell(b"%d\n" % math.ceil(drain()))

    def _tell(self, said: bytes) -> None:
        with contextlib.suppress(OSError):
            self._leash.send(said)


def serve(assignment: Assignment) -> int:
    """The exit code. Raises: Stop."""
    given = assignment.serve
    begin_to_serve(given["level"], as_json=given["logs_json"], worker=assignment.worker.number)
    loaded = with_advice(read_config(Path(given["config"]) if given["config"] else None))
    listener = socket.socket(fileno=assignment.listener)
    listener.setblocking(False)
    return serve_loaded(loaded, given["host"], lambda: listener, WorkersShift(assignment))


if __name__ == "__main__":
    told(lambda: sys.exit(serve(Assignment.read(sys.argv[1]))))
