"""The broker as its users have it: a process of its own, reached over its pipe or its socket."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from tests import nursery
from tests.peers import POLL, READY_TIMEOUT, ROOT, kill_group

Json = dict[str, Any]
TIMEOUT: float = 30
"""Seconds for one step of a test: a bound, not an expectation."""

_LISTENING = re.compile(r"http://127\.0\.0\.1:(\d+)/mcp")


@dataclass
class Served:
    """A broker that listens."""

    process: subprocess.Popen[bytes]
    base: str
    stderr_file: Path

    @property
    def url(self) -> str:
        """Where all of it is served."""
        return f"{self.base}/mcp"

    @property
    def sse(self) -> str:
        return f"{self.base}/sse"

    def view(self, name: str) -> str:
        return f"{self.base}/mcp/{name}"

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text(encoding="utf-8", errors="replace")


@dataclass
class Brokers:
    """The brokers that one test, or one session, started. `close` kills all of them."""

    directory: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    is_forked: bool = True
    """Whether they save their imports (tests/nursery). Not where it matters whose child a process is."""
    _count: int = 0

    def configure(self, servers: Mapping[str, Json], *, state: Path | None = None, **more: Any) -> Path:
        """A configuration file. `state`: a directory of snapshots that an earlier broker wrote."""
        self._count += 1
        directory = state or self.directory / f"state-{self._count}"
        # A loaded machine starts Python slowly; tests of the wait itself say how long it is.
        broker = {"state_dir": str(directory), "first_wait": TIMEOUT, **more.pop("broker", {})}
        file = self.directory / f"servers-{self._count}.yaml"
        # JSON is YAML, and keeps the order of the servers.
        file.write_text(json.dumps({"broker": broker, "servers": dict(servers), **more}), encoding="utf-8")
        return file

    def stdio(self, config: Path) -> list[str]:
        """The command that a host would start."""
        return self._command("stdio", "--config", str(config))

    def serve(self, config: Path) -> Served:
        """Start a broker on a free port, and return when it listens."""
        argv = self._command("serve", "--config", str(config), "--host", "127.0.0.1", "--port", "0")
        errors = config.with_suffix(".stderr")
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment(),
                cwd=ROOT,
                start_new_session=True,
            )
        self.started.append(process)
        return Served(process, listening(process, errors), errors)

    def _command(self, *args: str) -> list[str]:
        argv = ("-m", "broker", *args)
        return nursery.command(*argv) if self.is_forked else [sys.executable, *argv]

    async def aserve(self, config: Path) -> Served:
        """`serve` for async tests: the event loop goes on."""
        return await to_thread.run_sync(lambda: self.serve(config))

    def close(self) -> None:
        """Ask first, so that the broker ends its own upstreams; ask again, so that it waits for no call; then kill."""
        for seconds in (1, 10):
            for process in self.started:
                process.terminate()
            for process in self.started:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
        for process in self.started:
            kill_group(process)


def listening(process: subprocess.Popen[bytes], log: Path) -> str:
    """The base of its URLs, as soon as a broker that writes to `log` has said where it listens.

    Raises: TimeoutError, with what it said, when it has ended or takes too long; it is killed.
    """
    deadline = time.monotonic() + READY_TIMEOUT
    while True:
        text = log.read_text(encoding="utf-8", errors="replace")
        found = _LISTENING.search(text)
        if found is not None:
            return f"http://127.0.0.1:{found[1]}"
        if process.poll() is not None or time.monotonic() > deadline:
            kill_group(process)
            raise TimeoutError(f"the broker does not listen (exit status {process.poll()}):\n{text[-4000:]}")
        time.sleep(POLL)


def environment() -> dict[str, str]:
    """Ours, so that `python -m broker` finds this tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def command(argv: Sequence[str], **more: Any) -> Json:
    """The configuration of a stdio server."""
    return {"command": argv[0], "args": list(argv[1:]), **more}


async def until(is_true: Any, what: str = "") -> None:
    """Wait for what another process does: there is no event that it could set."""
    with anyio.move_on_after(TIMEOUT) as patience:
        while not is_true():  # noqa: ASYNC110
            await anyio.sleep(0.01)
    if patience.cancelled_caught:
        pytest.fail(f"never came true: {what or is_true}")


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def children(pid: int) -> set[int]:
    """All live descendants of a process, by /proc; zombies are nobody."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in {pid, *found}} - found:
        found |= more
    return found
