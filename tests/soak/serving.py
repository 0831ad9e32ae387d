"""A broker of the soak: tests/soak/served.py as a process, which says where it listens and what it holds."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.brokers import environment, listening
from tests.patience import PATIENCE
from tests.peers import POLL, READY_TIMEOUT, ROOT


@dataclass
class Serving:
    """A broker that listens. What it says goes to `log`; the files of its figures lie beside that."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str
    _asked: int = 0

    @classmethod
    def start(cls, config: Path, log: Path) -> "Serving":
        """Start it on a free port, and return when it listens."""
        argv = ["serve", "--config", str(config), "--host", "127.0.0.1", "--port", "0"]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.served", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment(),
                cwd=ROOT,
                start_new_session=True,
            )
        return cls(process, log, f"{listening(process, log)}/mcp")

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    async def figures(self) -> dict[str, int]:
        """What the broker holds."""
        self._asked += 1
        file = self.log.parent / f"figures-{self._asked}.json"
        assert self.process.stdin is not None
        self.process.stdin.write(f"{file}\n".encode())
        self.process.stdin.flush()
        async with asyncio.timeout(PATIENCE):
            while not file.exists():  # noqa: ASYNC110 - written by another process
                await asyncio.sleep(POLL)
        return json.loads(file.read_text(encoding="utf-8"))


def wait_until(is_true: Callable[[], bool]) -> None:
    """For what another process does at its start."""
    deadline = time.monotonic() + READY_TIMEOUT
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError("a peer of the soak did not start")
        time.sleep(POLL)
