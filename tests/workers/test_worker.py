"""One worker, as the supervisor starts it."""

import os
import socket
import tempfile
from pathlib import Path
from typing import Any, cast

import anyio

from broker.cli.worker import WorkersShift
from broker.workers.assignment import Assignment, Worker, socket_of
from broker.workers.board import make_board


async def test_a_worker_is_there_for_the_others_once_it_serves_and_no_sooner() -> None:
    """One that starts answers nobody: what its number had before is gone at once, not after a wait."""
    ours, theirs = socket.socketpair()
    bell = os.pipe()
    directory = Path(tempfile.mkdtemp())
    place = socket_of(directory, 2)
    assignment = Assignment(Worker(2, 2), -1, theirs.detach(), make_board(2), (bell, bell), directory, {})
    with ours:
        shift = WorkersShift(assignment)
        assert not place.exists()
        shift.is_ready()
        assert ours.recv(8) == b"\n" and place.exists()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shift.crew.serve, cast(Any, None))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert not place.parent.exists()
        shift._leash.close()  # pyright: ignore[reportPrivateUsage] - it goes with the process
    for end in bell:
        os.close(end)
