"""The processes that a comparison needs: the reference server, and the broker in front of it."""

import json
import os
import re
import subprocess
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
from anyio import to_thread

from tests import nursery
from tests.conformance.suite import ROOT

Kind = Literal["direct", "http", "stdio"]
"""Where the suite connects: to the reference, or to a broker whose upstream the reference is, over HTTP or a pipe."""
KINDS: tuple[Kind, ...] = ("direct", "http", "stdio")
LABELS: dict[Kind, str] = {"direct": "direct", "http": "broker → HTTP", "stdio": "broker → stdio"}

START_TIMEOUT: float = 30
"""Seconds until a process must listen."""
STOP_TIMEOUT: float = 10
"""Seconds between asking a process to end and killing it."""
FIRST_WAIT: float = 20
"""Seconds for the first answer of the upstream: on a loaded machine a start takes more than the broker's own five."""
POLL: float = 0.02

_REFERENCE = ("-m", "tests.conformance.reference")
_LISTENING = re.compile(r"http://127\.0\.0\.1:\d+/mcp")


class NotStarted(Exception):
    """A process does not listen; the text has the end of its log."""


@asynccontextmanager
async def serving(kind: Kind, directory: Path, protocol: str = "auto") -> AsyncGenerator[str]:
    """The URL for the suite. `protocol`: the version that the broker is told to speak upstream."""
    if kind == "direct":
        async with reference(directory) as url:
            yield url
    elif kind == "http":
        async with reference(directory) as url, broker(directory, {"url": url, "protocol": protocol}) as front:
            yield front
    else:
        command, *args = nursery.command(*_REFERENCE)
        upstream = {"command": command, "args": args, "cwd": str(ROOT), "protocol": protocol}
        async with broker(directory, upstream) as front:
            yield front


@asynccontextmanager
async def reference(directory: Path) -> AsyncGenerator[str]:
    """The reference server over streamable HTTP."""
    port_file = directory / "reference.url"
    argv = nursery.command(*_REFERENCE, "--transport", "http", "--port-file", str(port_file))
    async with _running(argv, directory / "reference.log") as until:
        await until(port_file.exists)
        yield port_file.read_text(encoding="utf-8")


@asynccontextmanager
async def broker(directory: Path, upstream: dict[str, Any]) -> AsyncGenerator[str]:
    """A broker with one upstream, whose names stay as they are."""
    config, log = directory / "broker.yaml", directory / "broker.log"
    config.write_text(configuration(upstream, directory / "state"), encoding="utf-8")
    argv = nursery.command("-m", "broker", "serve", "--config", str(config), "--host", "127.0.0.1", "--port", "0")
    async with _running(argv, log) as until:
        await until(lambda: _LISTENING.search(_read(log)) is not None)
        found = _LISTENING.search(_read(log))
        assert found is not None
        yield found[0]


def configuration(upstream: dict[str, Any], state: Path) -> str:
    """JSON, which is YAML."""
    broker = {"state_dir": str(state), "first_wait": FIRST_WAIT}
    return json.dumps({"broker": broker, "servers": {"ref": {"prefix": "", **upstream}}})


@asynccontextmanager
async def _running(argv: Sequence[str], log: Path) -> AsyncGenerator[Callable[[Callable[[], bool]], Any]]:
    """A process that writes to `log`; gives a function that waits until something holds while the process runs."""
    process = _start(argv, log)

    async def until(holds: Callable[[], bool]) -> None:
        with anyio.move_on_after(START_TIMEOUT):
            while process.poll() is None:
                if holds():
                    return
                await anyio.sleep(POLL)
        raise NotStarted(f"{' '.join(argv)}: exit status {process.poll()}\n{_read(log)[-2000:]}")

    try:
        yield until
    finally:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_collect, process)


def _start(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        )


def _collect(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")
