"""Work in steps, of which each has a turn of the event loop: a message of 16 MiB must hold nobody else (promise b)."""

from collections.abc import Generator
from typing import TypeVar

import anyio.lowlevel

T = TypeVar("T")


async def in_turns(steps: Generator[None, None, T]) -> T:
    """What they lead to; others have their turn between them, and before the first."""
    while True:
        await anyio.lowlevel.checkpoint()
        try:
            next(steps)
        except StopIteration as end:
            return end.value
