"""A spy on everything that starts a process, whoever calls it and however (I-01).

The interpreter tells of `subprocess`, `os.fork`, `os.exec*`, `os.posix_spawn`, `os.spawn*` and `os.system` itself; an
event loop of C (uvloop) may not, so its doors are watched, and so is the one that the broker's own children come from.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from broker.upstream import child, process

EVENTS = frozenset(
    {
        *("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"),
        *("os.startfile", "pty.spawn"),
    }
)
DOORS: tuple[tuple[Any, str], ...] = (
    (process, "start_child"),
    (child, "start_child"),
    (child.LoopChild, "start"),
    (anyio, "open_process"),
    (anyio, "run_process"),
    (asyncio, "create_subprocess_exec"),
    (asyncio, "create_subprocess_shell"),
)
_watching: list[list[str]] = []


def _hook(event: str, _: object) -> None:
    if event in EVENTS:
        for seen in _watching:
            seen.append(event)


sys.addaudithook(_hook)  # for good: none can be taken back


@contextmanager
def watching_processes() -> Iterator[list[str]]:
    """What has started a process while this is entered, by name."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in DOORS:
            patch.setattr(owner, name, _noting(getattr(owner, name), name, seen))
        _watching.append(seen)
        try:
            yield seen
        finally:
            _watching.remove(seen)


def _noting(real: Callable[..., Any], name: str, seen: list[str]) -> Callable[..., Any]:
    def noting(*args: Any, **more: Any) -> Any:
        seen.append(name)
        return real(*args, **more)

    return noting
