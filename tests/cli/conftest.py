"""The real program in a process of its own, in an empty directory and with a clean environment."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests import nursery
from tests.patience import PATIENCE
from tests.peers import ROOT, SERVERS, is_alive, kill_group, server

LIMIT = PATIENCE
"""Seconds until a command must have ended."""


@dataclass
class Done:
    code: int
    out: str
    err: str


@dataclass
class Program:
    """`mcp-broker` in `directory`. What `start` started is killed at the end of the test."""

    directory: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    options: tuple[str, ...] = ()
    """Of the interpreter, for what `start` starts."""
    is_forked: bool = True
    """Whether `run` saves the imports (tests/nursery)."""

    def run(self, *args: str, stdin: str = "", env: dict[str, str] | None = None) -> Done:
        """Run a command to its end, in a fork; what `start` starts has an interpreter of its own."""
        done = subprocess.run(
            nursery.command("-m", "broker", *args) if self.is_forked else [sys.executable, "-m", "broker", *args],
            cwd=self.directory,
            env={**self.environment, **(env or {})},
            input=stdin.encode(),
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        """Start a command with pipes; stderr goes to `self.errors`."""
        with self.errors.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, *self.options, "-m", "broker", *args],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    @property
    def errors(self) -> Path:
        return self.directory / "stderr.txt"

    def configure(self, name: str = "servers.yaml", **servers: object) -> Path:
        """Write a configuration with these servers; lists wait for them also where Python starts slowly."""
        path = self.directory / name
        document = {"broker": {"first_wait": LIMIT / 2}, "servers": servers}
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        return path

    def plain(self, *args: str, **settings: object) -> dict[str, object]:
        """A server for `configure`: tests/servers/plain.py, which starts at once."""
        return {"command": sys.executable, "args": ["-S", str(SERVERS / "plain.py"), *args], **settings}

    def probe(self, *args: str, **settings: object) -> dict[str, object]:
        """A server for `configure`: tests/servers/probe.py over stdio, where it matters that it is the SDK's."""
        command, *rest = server("probe", *args)
        return {"command": command, "args": rest, **settings}


def wait_until(is_true: Callable[[], bool], what: str, seconds: float = LIMIT) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """Living children of a process (Linux)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text(encoding="ascii").split()]
    return [pid for pid in found if is_alive(pid)]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with running(tmp_path) as program:
        yield program


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Program]:
    """`Program` in an empty directory below that one."""
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "SYSTEMROOT")}
    environment |= {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(directory / "state"), "COLUMNS": "100"}
    here = directory / "here"
    here.mkdir()
    program = Program(here, environment)
    try:
        yield program
    finally:
        for process in program.started:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            kill_group(process)
