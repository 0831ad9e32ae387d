"""What a guardrail process gives up for good, and what it may use for one call. What differs by system is here.

Linux holds all of it. macOS has no bound on memory and no death signal; Windows has neither these nor the rest: there
the wall clock of the pool, the end of the pipe and the dialect are what holds.
"""

import contextlib
import ctypes
import math
import os
import signal
import sys
import time
from typing import Any, Final

try:
    import resource
except ImportError:  # Windows
    _resource: Any = None
else:
    _resource = resource

STACK: Final = 8 * 1024 * 1024
"""Bytes: enough for the interpreter's own bound on recursion, and no more than a usual process has."""
FIRST_ID: Final = 2_000_000_000
"""A worker that is started as root becomes the user with this number plus its process id: nobody else's, so that it
owns nothing, and can neither start a process nor signal another."""
NOBODY: Final = 65_534
"""Where that number is not mapped (user namespaces)."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


class Confinement:
    """The bounds of this process, from `enter` on."""

    def __init__(self) -> None:
        self._base = _size()
        self._memory = 0
        self._cpu = 0

    @classmethod
    def enter(cls, parent: int) -> "Confinement":
        """Give up all that serves nobody. `parent`: the process that must be alive for this one to live."""
        confinement = cls()
        with contextlib.suppress(OSError):
            os.chdir("/")
        os.environ.clear()
        _die_with(parent)
        if _resource is not None:
            _bound("RLIMIT_CORE", 0)
            _bound("RLIMIT_FSIZE", 0)
            _bound("RLIMIT_STACK", STACK)
        _become_nobody()
        if _resource is not None:
            _bound("RLIMIT_NPROC", 0)
            _bound("RLIMIT_NOFILE", 0)  # what is open stays open; nothing can be opened any more
        return confinement

    def allow(self, cpu: float, memory: int) -> None:
        """For one call from now on: seconds of CPU, and bytes beyond what the process began with."""
        if _resource is None:
            return
        limit = math.ceil(time.process_time() + cpu) + 1
        if limit != self._cpu:
            self._cpu = limit
            _soften("RLIMIT_CPU", limit)
        if memory != self._memory and self._base:
            self._memory = memory
            _soften("RLIMIT_AS", self._base + memory)


def _bound(name: str, value: int) -> None:
    """Both limits, or what of it this system can hold."""
    number = getattr(_resource, name, None)
    if number is not None:
        _, hard = _resource.getrlimit(number)
        value = value if hard < 0 else min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            _resource.setrlimit(number, (value, value))


def _soften(name: str, value: int) -> None:
    """The soft limit, which may be raised again: the code that this bounds has no way to."""
    number = getattr(_resource, name, None)
    if number is not None:
        _, hard = _resource.getrlimit(number)
        with contextlib.suppress(OSError, ValueError):
            _resource.setrlimit(number, (value if hard < 0 else min(value, hard), hard))


def _size() -> int:
    """Bytes of address space that the process has now; 0 if that cannot be known, and then it is not bounded."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _die_with(parent: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        prctl: Any = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we could ask to be told


def _become_nobody() -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    for number in (FIRST_ID + os.getpid(), NOBODY):
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            break
    # A change of user clears the death signal.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
