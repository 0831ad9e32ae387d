"""What asks for a reload: SIGHUP, and a change of the files; where there is no such signal (Windows), that alone."""

import signal

import anyio
from anyio.abc import TaskStatus

from broker.reload import Reloads


async def serve_reloads(reloads: Reloads, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    """Until cancelled. Once it has started, SIGHUP ends nobody any more."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reloads.serve)
        tasks.start_soon(reloads.watch)
        await tasks.start(_heed_hangup, reloads)
        task_status.started()


async def _heed_hangup(reloads: Reloads, *, task_status: TaskStatus[None]) -> None:
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None:
        return task_status.started()
    with anyio.open_signal_receiver(hangup) as received:
        task_status.started()
        async for _ in received:
            reloads.want()
