"""Real peers for tests: processes that are started, awaited for a bounded time, and killed with their whole group.

A test takes the `peers` fixture. HTTP and SSE servers are started here (`peers.start`); stdio servers are started by
whoever speaks to them, from the command that `peers.command` gives.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from anyio import to_thread

from tests import nursery

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ROOT / "tests" / "servers"
EVERYTHING = ROOT / "tests/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
SDK1_CLIENT = ROOT / "tests" / "sdk1" / "client.py"

READY_TIMEOUT: float = 30
"""Seconds until a peer must listen; a loaded machine starts Python and Node.js slowly, a broken peer exits at once."""
KILL_TIMEOUT: float = 10
"""Seconds until a killed peer must be gone."""
POLL: float = 0.01


@dataclass
class Peer:
    """One server process that listens."""

    process: subprocess.Popen[bytes]
    url: str
    stderr_file: Path

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        kill_group(self.process)


@dataclass
class Peers:
    """What one test started. `close` kills all of it."""

    directory: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    pid_files: list[Path] = field(default_factory=list)
    is_forked: bool = True
    """Whether what is on the SDK saves its import (tests/nursery). Not where it matters whose child a process is."""

    def command(self, script: str, *args: str | int | float | Path) -> list[str]:
        """The command line of `tests/servers/<script>.py`, for whoever starts it over stdio."""
        return server(script, *map(str, args), is_forked=self.is_forked)

    def start(self, script: str, *args: str | int | float | Path) -> Peer:
        """Start `tests/servers/<script>.py`, which takes --port-file, and return when it listens."""
        port_file = self.directory / f"{Path(script).name}-{len(self.processes)}.url"
        process, errors = self.spawn(self.command(script, *args, "--port-file", port_file))
        self._await(process, errors, port_file.exists)
        return Peer(process, port_file.read_text(encoding="utf-8"), errors)

    async def astart(self, script: str, *args: str | int | float | Path) -> Peer:
        """`start` for async tests: the event loop goes on."""
        return await to_thread.run_sync(lambda: self.start(script, *args))

    def start_everything(self, transport: str = "streamableHttp") -> Peer:
        """Start the reference server of the Node.js SDK; `transport`: streamableHttp or sse. See `everything`."""
        port = free_port()
        argv = [require_node(), str(require_everything()), transport]
        process, errors = self.spawn(argv, env={"PORT": str(port)})
        self._await(process, errors, lambda: accepts(port))
        return Peer(process, f"http://127.0.0.1:{port}/{'mcp' if transport == 'streamableHttp' else 'sse'}", errors)

    def spawn(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[subprocess.Popen[bytes], Path]:
        """Start any command in its own process group; its stdout is dropped, its stderr kept in a file."""
        errors = self.directory / f"peer-{len(self.processes)}.stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.processes.append(process)
        return process, errors

    def kill_pids_of(self, file: Path) -> Path:
        """Kill, at the end of the test, the processes whose ids stand in `file` (raw.py --pids)."""
        self.pid_files.append(file)
        return file

    def close(self) -> None:
        for process in self.processes:
            kill_group(process)
        for file in self.pid_files:
            for pid in file.read_text(encoding="ascii").split() if file.exists() else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)

    def _await(self, process: subprocess.Popen[bytes], errors: Path, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                state = f"exited with {process.returncode}" if process.returncode is not None else "is not ready"
                kill_group(process)
                text = errors.read_text(encoding="utf-8", errors="replace")
                pytest.fail(f"{process.args!r} {state}\n{text[-4000:]}")
            time.sleep(POLL)


def server(script: str, *args: str, is_forked: bool = True) -> list[str]:
    """The command line of `tests/servers/<script>.py`. What is on the SDK is forked, the others start at once."""
    argv = [str(SERVERS / f"{script}.py"), *args]
    return nursery.command(*argv) if is_forked and script == "probe" else [sys.executable, *argv]


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its group, and collect it. Harmless when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait(KILL_TIMEOUT)


def is_alive(pid: int) -> bool:
    """Whether a process runs: a zombie, which only waits to be collected, does not."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return fields[0] != "Z"
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def missing(what: str) -> NoReturn:
    """Skip for want of an optional peer; fail where BROKER_REQUIRE_NODE=1 says that nothing optional may be wanting."""
    if os.environ.get("BROKER_REQUIRE_NODE") == "1":
        pytest.fail(f"{what} (and BROKER_REQUIRE_NODE=1)")
    pytest.skip(what)


def require_node() -> str:
    found = shutil.which("node")
    if found is None:
        missing("node is not on PATH")
    return found


def require_everything() -> Path:
    if not EVERYTHING.exists():
        missing("server-everything is not installed: `make test` installs it under tests/node")
    return EVERYTHING


def require_sdk1() -> Path:
    bin_dir = ROOT / ".venv-sdk1" / ("Scripts" if sys.platform == "win32" else "bin")
    python = bin_dir / ("python.exe" if sys.platform == "win32" else "python")
    if not python.exists():
        missing("the SDK 1 environment .venv-sdk1 is not installed: `make test` installs it")
    return python
