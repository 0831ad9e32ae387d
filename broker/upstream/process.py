"""Child processes: started clean, and ended with everything they started. What differs by system is here.

A server may leave grandchildren, also in sessions of their own (F-06). On Linux each child carries a tag in its
environment, which its descendants inherit, and the broker is their sub-reaper: after a stop, whoever still carries
the tag is killed and reaped. Elsewhere the process group is what can be reached.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from broker.errors import printable

TAG: Final = "MCP_BROKER_PROCESS"
"""Environment variable that every process of one start of one server carries."""

INHERITED: Final = (
    *("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"),
    *("APPDATA", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATHEXT", "PROCESSOR_ARCHITECTURE", "PROGRAMFILES"),
    *("SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME", "USERPROFILE"),
)
"""All that a server gets of the broker's own environment: the rest may hold secrets of others (F-17)."""

READ_SIZE: Final = 256 * 1024
"""Bytes that the pipe's reader holds before it makes the child wait."""

EOF_GRACE: Final = 1.0
"""Seconds between closing a child's stdin and SIGTERM."""
TERM_GRACE: Final = 1.0
"""Seconds between SIGTERM and SIGKILL. With the rest, a stop takes less than 4 s, whatever the child does."""
KILL_GRACE: Final = 1.0
"""Seconds to wait for the kernel to finish what SIGKILL began."""

_IS_LINUX = sys.platform.startswith("linux")
_PR_SET_CHILD_SUBREAPER = 36


class CannotStart(OSError):
    """The command could not be started; the text says why and what to do."""


class Process:
    """One running server process and whatever it starts."""

    def __init__(self, process: asyncio.subprocess.Process, tag: str) -> None:
        self._process = process
        self._tag = tag

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> "Process":
        """Start `argv` in a session of its own, with `env` on top of `INHERITED`.

        Raises: CannotStart.
        """
        program = find_program(argv[0])
        if program is None:
            raise CannotStart(f"command not found: {printable(argv[0])} (install it, or write its full path)")
        tag = secrets.token_hex(8)
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *argv[1:],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**child_environment(os.environ), **env, TAG: tag},
                cwd=cwd,
                limit=READ_SIZE,
                start_new_session=not sys.platform.startswith("win"),
            )
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise CannotStart(f"cannot start {printable(argv[0])}: {why}") from None
        return cls(process, tag)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """Where the child reads."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        """What the child says."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr(self) -> asyncio.StreamReader:
        """What the child logs."""
        assert self._process.stderr is not None
        return self._process.stderr

    async def wait(self) -> int:
        """The exit code, once it has ended; negative is a signal."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End the child and its descendants: stdin closed, then SIGTERM, then SIGKILL. Takes less than 4 s.

        The group is signalled even after a clean exit: what the child left behind is not its parent's to keep.
        """
        with contextlib.suppress(OSError, RuntimeError):
            self.stdin.close()
        if not await self._ended_within(EOF_GRACE):
            self._signal_group(signal.SIGTERM)
            await self._ended_within(TERM_GRACE)
        self._signal_group(_KILL)
        await self._ended_within(KILL_GRACE)
        await self._sweep()
        transport = getattr(self._process, "_transport", None)
        if transport is not None:
            transport.close()

    async def _ended_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.pid, number)
            elif self._process.returncode is None:
                self._process.send_signal(number)

    async def _sweep(self) -> None:
        """Kill what carries our tag until nothing does, for at most a second: a fork bomb must not hold the stop."""
        for _ in range(20):
            left = tagged_processes(self._tag)
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, _KILL)
            await asyncio.sleep(0.05)
            reap_adopted(left)


_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def find_program(command: str) -> str | None:
    """The path of a command: beside the broker's interpreter first, then on PATH, since hosts start us with a bare
    one. A command with a separator in it is a path already.
    """
    if os.sep in command or (os.altsep is not None and os.altsep in command):
        return shutil.which(command)
    return shutil.which(command, path=str(Path(sys.executable).parent)) or shutil.which(command)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a child may inherit. Exported shell functions are left out: old shells execute them."""
    return {name: environ[name] for name in INHERITED if name in environ and not environ[name].startswith("()")}


def become_subreaper() -> None:
    """On Linux, orphaned descendants become children of this process, where they can be found and reaped."""
    if _IS_LINUX:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def tagged_processes(tag: str) -> list[int]:
    """Living processes that carry `tag`. Linux only; elsewhere nobody can be found this way."""
    if not _IS_LINUX:
        return []
    mark = f"{TAG}={tag}".encode()
    found: list[int] = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        # Gone in the meantime, a zombie (no environment), or not ours to read.
        with contextlib.suppress(OSError):
            if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def reap_adopted(pids: Sequence[int]) -> None:
    """Reap those of `pids` that the sub-reaper inherited and that have ended."""
    if not _IS_LINUX:
        return
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
