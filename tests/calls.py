"""What something costs: the functions that it calls, counted, or its CPU. What other tests have left is not counted."""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["Spent", "calls_of", "measured", "uncollected", "watched"]


@contextmanager
def uncollected() -> Iterator[None]:
    """The collector waits: it would walk all that lives, and call the finalizers of what other tests have left."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@dataclass
class Spent:
    """CPU seconds of this thread: a busy machine is no fault."""

    seconds: float = 0.0


@contextmanager
def measured() -> Iterator[Spent]:
    """What is done meanwhile, once it is done."""
    spent = Spent()
    with uncollected():
        begun = time.thread_time()
        yield spent
        spent.seconds = time.thread_time() - begun


@contextmanager
def watched(hear: Callable[[FrameType, str, Any], object]) -> Iterator[None]:
    """`hear` is told of every call meanwhile, as `sys.setprofile` says."""
    before = sys.getprofile()
    with uncollected():
        sys.setprofile(hear)
        try:
            yield
        finally:
            sys.setprofile(before)


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called by it, those that are written in C too."""
    called: list[str] = []

    def hear(_frame: FrameType, event: str, _argument: Any) -> None:
        if event.endswith("call"):
            called.append(event)

    with watched(hear):
        work()
    return len(called)
