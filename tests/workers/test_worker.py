"""One worker, as the supervisor starts it."""

import asyncio
import errno
import logging
import os
import socket
import tempfile
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from broker.cli.worker import WorkersShift
from broker.downstream import crew as crews
from broker.downstream.crew import Crew
from broker.workers.assignment import Assignment, Worker, socket_of
from broker.workers.board import make_board

TIMEOUT = 20.0


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


async def test_F100_a_worker_without_descriptors_says_once_that_it_takes_nothing_of_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop, tries, many = asyncio.get_running_loop(), 0, anyio.Event()

    async def accept(_: socket.socket) -> Any:
        nonlocal tries
        tries += 1
        if tries == 50:
            many.set()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(crews, "PAUSE", 0)
    monkeypatch.setattr(loop, "sock_accept", accept)
    crew = Crew(Worker(1, 2), Path(tempfile.mkdtemp()))
    crew.listen()
    with anyio.fail_after(TIMEOUT), caplog.at_level(logging.WARNING):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crew.serve, cast(Any, None))
            await many.wait()
            tasks.cancel_scope.cancel()
    assert [one.message.partition(":")[0] for one in caplog.records] == ["connections of other workers cannot be taken"]
