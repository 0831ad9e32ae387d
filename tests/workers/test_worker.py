"""One worker, as the supervisor starts it."""

import asyncio
import errno
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from broker.cli.exits import FAILED, Stop
from broker.cli.worker import WorkersShift
from broker.downstream import crew as crews
from broker.downstream.crew import Crew
from broker.workers.assignment import Assignment, Worker, socket_of
from broker.workers.board import make_board

TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Started:
    """The second of two workers, and what its supervisor has."""

    shift: WorkersShift
    leash: socket.socket
    place: Path
    """Where it is for the other one."""


@pytest.fixture
def started() -> Iterator[Started]:
    ours, theirs = socket.socketpair()
    bell = os.pipe()
    directory = Path(tempfile.mkdtemp())
    assignment = Assignment(Worker(2, 2), -1, theirs.detach(), make_board(2), (bell, bell), directory, {})
    with ours:
        shift = WorkersShift(assignment)
        yield Started(shift, ours, socket_of(directory, 2))
        shift._leash.close()  # pyright: ignore[reportPrivateUsage] - it goes with the process
    for end in bell:
        os.close(end)
    shutil.rmtree(directory, ignore_errors=True)


async def test_a_worker_is_there_for_the_others_once_it_serves_and_no_sooner(started: Started) -> None:
    """One that starts answers nobody: what its number had before is gone at once, not after a wait."""
    assert not started.place.exists()
    started.shift.is_ready()
    assert started.leash.recv(8) == b"\n" and started.place.exists()
    await _serve(started.shift.crew)
    assert not started.place.exists()


async def test_a_worker_that_ends_while_the_others_start_leaves_them_the_directory(started: Started) -> None:
    started.shift.is_ready()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(started.shift.serve, anyio.Event(), lambda: 0.0)
        await _serve(started.shift.crew)
        tasks.cancel_scope.cancel()
    other = Crew(Worker(1, 2), started.place.parent)
    other.listen()
    await _serve(other)


async def test_a_worker_whose_supervisor_is_gone_takes_the_directory_with_it(started: Started) -> None:
    started.shift.is_ready()
    started.leash.close()
    closing = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(started.shift.serve, closing, lambda: 0.0)
        with anyio.fail_after(TIMEOUT):
            await closing.wait()
        await _serve(started.shift.crew)
        assert started.place.parent.exists()
        tasks.cancel_scope.cancel()
    assert not started.place.parent.exists()


async def test_a_worker_that_cannot_be_there_for_the_others_says_what_where_and_what_helps(started: Started) -> None:
    started.place.parent.rmdir()
    with pytest.raises(Stop) as caught:
        started.shift.is_ready()
    said = str(caught.value)
    assert caught.value.code == FAILED and str(started.place.parent) in said
    assert "no such file or directory" in said and "TMPDIR" in said


async def _serve(crew: Crew) -> None:
    """It takes what comes, and ends."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crew.serve, cast(Any, None))
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


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
