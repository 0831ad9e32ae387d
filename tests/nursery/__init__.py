"""Python processes that need not import first: they are forked from one that has imported what they need.

What is tested has its own process as before: its own arguments, environment, directory, pipes, signals and end. Only
the second or two that an import of the SDK or of the broker takes is spent once in a run, and not some thousand times.

`command` gives a command line for whoever starts processes. It runs doorman.py, which is small: it asks the nursery
(nursery.py) for a fork that gets its pipes, hands signals on, and ends as the fork does; if it is killed, so is the
fork. The process id that others see is the doorman's. Where an interpreter of its own is the point (what is imported,
which descriptors are open, whose child it is), a test starts Python itself.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
DOORMAN = Path(__file__).with_name("doorman.py")
POLL: float = 0.01
_OPENING = threading.Lock()
"""Tests start things in threads."""


def command(*argv: str) -> list[str]:
    """What runs `python ARGV`, a script or `-m` and a module, in a fork; in a new interpreter where there is none."""
    if not hasattr(os, "fork"):
        return [sys.executable, *argv]
    with _OPENING:
        door = _nursery()
    return [sys.executable, "-I", "-S", str(DOORMAN), str(door), *argv]


@cache
def _nursery() -> Path:
    """The socket of the one of this process, which ends with it."""
    directory = Path(tempfile.mkdtemp(prefix="nursery-"))
    door = directory / "door"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.nursery.nursery", str(door)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE)
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(end)
    deadline = time.monotonic() + 2 * PATIENCE
    while not door.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the nursery does not open (exit status {process.poll()})")
        time.sleep(POLL)
    return door
