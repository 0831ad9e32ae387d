"""What a process leaves behind when it dies: on Linux it can be found, and ended."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

_IS_LINUX: Final = sys.platform.startswith("linux")
_PR_SET_CHILD_SUBREAPER: Final = 36


def become_subreaper() -> None:
    """On Linux, orphaned descendants become children of this process, where they can be found and reaped."""
    if _IS_LINUX:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """Process ids of the children of this process, zombies included. Linux only; elsewhere none are found.

    Raises: OSError, where the system lets nobody look now: no descriptor is left.
    """
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children") if _IS_LINUX else ():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found.update(int(word) for word in task.read_text(encoding="ascii").split())
    return found


def has_others(own: Collection[int]) -> bool:
    """Whether there are children that are not `own`, or may be."""
    try:
        return bool(children() - set(own))
    except OSError:
        return True


def end_others(own: Collection[int]) -> bool:
    """Kill and reap the children that are not `own`; whether there were any, or may be. What those leave comes to us
    next.
    """
    try:
        left = children() - set(own)
    except OSError:
        return True
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return bool(left)
