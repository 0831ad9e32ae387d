"""Functions that something calls, counted: how a test holds what something costs."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["calls_of", "watched"]


@contextmanager
def watched(hear: Callable[[FrameType, str, Any], object]) -> Iterator[None]:
    """`hear` is told of every call meanwhile, as `sys.setprofile` says. The collector waits: it would call the
    finalizers of what other tests have left.
    """
    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()
    sys.setprofile(hear)
    try:
        yield
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called by it, those that are written in C too."""
    called: list[str] = []

    def hear(_frame: FrameType, event: str, _argument: Any) -> None:
        if event.endswith("call"):
            called.append(event)

    with watched(hear):
        work()
    return len(called)
