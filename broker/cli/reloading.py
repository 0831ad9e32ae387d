"""What asks for a reload: SIGHUP, and a change of the files; where there is no such signal (Windows), that alone."""

import signal

import anyio

from broker.reload import Reloads


async def serve_reloads(reloads: Reloads) -> None:
    """Until cancelled."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reloads.serve)
        tasks.start_soon(reloads.watch)
        tasks.start_soon(_heed_hangup, reloads)


async def _heed_hangup(reloads: Reloads) -> None:
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None:
        return
    with anyio.open_signal_receiver(hangup) as received:
        async for _ in received:
            reloads.want()
