"""The compiled load (`load.c`), where there is a C compiler."""

import array
import asyncio
import atexit
import contextlib
import functools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.ask import PATIENCE, Needle, Sample, WrongAnswer

SOURCE: Final = Path(__file__).parent / "load.c"
COMPILE_TIMEOUT: Final = 60.0
"""Seconds; without a bound a compiler that hangs would hang the benchmark."""


@functools.cache
def program() -> Path | None:
    """The load, compiled once for this process; None without a compiler, or where `epoll` is not."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    directory = Path(tempfile.mkdtemp(prefix="bench-load-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    made = directory / "load"
    try:
        subprocess.run([compiler, "-O2", "-o", str(made), str(SOURCE)], check=True, timeout=COMPILE_TIMEOUT)
    except (OSError, subprocess.SubprocessError):
        return None  # a compiler without headers, say: the load in Python does it
    return made


async def connect(path: Path, port: int, requests: Sequence[bytes], needle: Needle) -> "Native":
    """A caller for each request. Raises: WrongAnswer, if they cannot connect."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(str(path), str(port), stdin=pipe, stdout=pipe)
    native = Native(process)
    parts = [b"%d\n" % len(requests)]
    for request in requests:
        parts += [b"%d\n" % len(request), request]
    parts += [b"%d %d\n" % (needle.times, len(needle.text)), needle.text]
    try:
        await native.told(b"".join(parts), PATIENCE)
    except BaseException:
        await native.close()
        raise
    return native


class Native:
    """Callers in a process of their own, which inherits the core of this one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self, data: bytes, patience: float) -> list[bytes]:
        """Say something to it; the words of the line that it answers. Raises: WrongAnswer, TimeoutError."""
        assert self._process.stdin is not None and self._process.stdout is not None
        async with asyncio.timeout(patience):
            with contextlib.suppress(ConnectionError):  # then it has said why
                self._process.stdin.write(data)
                await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line or line.startswith(b"wrong "):
            raise WrongAnswer(line.decode(errors="replace").strip() or "the load has ended")
        return line.split()

    async def measure(self, seconds: float) -> Sample:
        """See `Load`."""
        assert self._process.stdout is not None
        cpu = time.process_time()
        took, count = await self.told(b"%d\n" % (seconds * 1e6), seconds + PATIENCE)
        latencies = array.array("d")
        async with asyncio.timeout(PATIENCE):
            latencies.frombytes(await self._process.stdout.readexactly(int(count) * latencies.itemsize))
        return Sample(float(took), latencies.tolist(), time.process_time() - cpu)

    async def close(self) -> None:
        """See `Load`."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
