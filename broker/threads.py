"""Work that would hold the event loop, done by a thread."""

import errno
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Thread
from typing import TypeVar, TypeVarTuple

import anyio.to_thread

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")
_NONE_LEFT = "can't start new thread"
"""Python's words for it, since its class says nothing."""
_SAID = "the system gives no more threads"


class NoThreads(OSError):
    """The system gives no more threads: it is at a bound, its own or a container's. That may be over in a moment."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, _SAID)

    def __str__(self) -> str:
        return _SAID


async def in_thread(work: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
    """What `work` returns. Whoever is cancelled meanwhile waits for its end.

    Raises: NoThreads; what `work` raises.
    """
    with _told():
        return await anyio.to_thread.run_sync(work, *arguments)


async def at_any_rate(work: Callable[[], object]) -> None:
    """What must be done at an end: here, if no thread can be had for it."""
    try:
        await in_thread(work)
    except NoThreads:
        work()


def begin(thread: Thread) -> None:
    """Start one of one's own. Raises: NoThreads."""
    with _told():
        thread.start()


@contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        if str(error) != _NONE_LEFT:
            raise
        raise NoThreads from None
