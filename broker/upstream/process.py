"""Child processes: started clean, and ended with everything they started. What differs by system is here.

A server may leave grandchildren, also in sessions of their own (F-06). On Linux each child carries a tag in its
environment, which its descendants inherit, and the broker is their sub-reaper: after a stop, whoever still carries
the tag, or is in the child's session, is killed and reaped. Elsewhere the process group is what can be reached.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import anyio

from broker.secrecy import foreign
from broker.threads import in_thread
from broker.upstream.child import Child, start_child
from broker.upstream.source import Source

log = logging.getLogger(__name__)

TAG: Final = "MCP_BROKER_PROCESS"
"""Environment variable that every process of one start of one server carries."""

INHERITED: Final = (
    *("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"),
    *("APPDATA", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATHEXT", "PROCESSOR_ARCHITECTURE", "PROGRAMFILES"),
    *("SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME", "USERPROFILE"),
)
"""All that a server gets of the broker's own environment: the rest may hold secrets of others (F-17)."""

EOF_GRACE: Final = 1.0
"""Seconds between closing a child's stdin and SIGTERM."""
TERM_GRACE: Final = 1.0
"""Seconds between SIGTERM and SIGKILL. With the rest, a stop takes less than 4 s, whatever the child does."""
KILL_GRACE: Final = 1.0
"""Seconds to wait for the kernel to finish what SIGKILL began."""

REAP_EVERY: Final = 15.0
"""Seconds between two looks for zombies that nobody waits for."""

_IS_LINUX = sys.platform.startswith("linux")
_STAT_PARENT, _STAT_SESSION, _STAT_START = 1, 3, 19
"""Where these stand in /proc/<pid>/stat, counted from behind the command's name."""


class CannotStart(OSError):
    """The command could not be started; the text says why and what to do."""


class Process:
    """One running server process and whatever it starts."""

    waited_for: ClassVar[set[int]] = set()
    """Process ids of all that run, or are being stopped: nobody else may reap them."""

    def __init__(self, child: Child, tag: str) -> None:
        self._child = child
        self._tag = tag
        self.stdin: asyncio.StreamWriter = child.stdin
        """Where the child reads."""
        self.pipe: asyncio.WriteTransport = child.stdin.transport
        """The same without its waiting."""
        self.waited_for.add(child.pid)

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> "Process":
        """Start `argv` in a session of its own, with `env` on top of `INHERITED`.

        Raises: CannotStart.
        """
        program = find_program(argv[0])
        if program is None:
            raise CannotStart(_why_not_found(argv[0]))
        tag = secrets.token_hex(8)
        inherited = child_environment(os.environ)
        try:
            with anyio.CancelScope(shield=True):  # given up half-way, it would leave a child that nobody knows
                return cls(await start_child([program, *argv[1:]], {**inherited, **env, TAG: tag}, cwd), tag)
            raise AssertionError("unreachable")  # pragma: no cover - a shielded scope swallows nothing
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise CannotStart(f"cannot start {foreign(argv[0])}: {why}") from None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def stdout(self) -> Source:
        """What the child says."""
        return self._child.stdout

    @property
    def stderr(self) -> Source:
        """What the child logs."""
        return self._child.stderr

    async def wait(self) -> int:
        """The exit code, once it has ended; negative is a signal."""
        await self._child.exited.wait()
        assert self._child.returncode is not None
        return self._child.returncode

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
        self._child.close()
        if self._child.exited.is_set():
            self.waited_for.discard(self.pid)

    async def _ended_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._child.exited.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.pid, number)
            elif self._child.returncode is None:
                os.kill(self.pid, number)

    async def _sweep(self) -> None:
        """Kill and reap what is left until nothing is, for at most a second: a fork bomb must not hold the stop, nor
        must a process that has no descriptor left to look with. Nothing is what two looks have not found: a process
        that is becoming another program has no environment for a moment.
        """
        left: set[int] = set()
        has_looked = False
        for _ in range(50):
            try:
                left.update(await in_thread(descendants, self.pid, self._tag))
            except OSError as error:
                log.warning("what process %d has left cannot be looked for: %s", self.pid, error.strerror)
                await asyncio.sleep(0.02)
                continue
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, _KILL)
            left = {pid for pid in left if not is_reaped(pid)}
            if not left and has_looked:
                return
            has_looked = not left
            await asyncio.sleep(0.02)


_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def find_program(command: str) -> str | None:
    """The path of a command: beside the broker's interpreter first, then on PATH, since hosts start us with a bare
    one. A command with a separator in it is a path already.
    """
    if os.sep in command or (os.altsep is not None and os.altsep in command):
        return shutil.which(command)
    return shutil.which(command, path=str(Path(sys.executable).parent)) or shutil.which(command)


def _why_not_found(command: str) -> str:
    if os.path.exists(command) and (os.sep in command or (os.altsep is not None and os.altsep in command)):
        return f"{foreign(command)} is not executable"
    return f"command not found: {foreign(command)} (install it, or write its full path)"


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a child may inherit. Exported shell functions are left out: old shells execute them."""
    return {name: environ[name] for name in INHERITED if name in environ and not environ[name].startswith("()")}


def descendants(session: int, tag: str) -> list[int]:
    """What the child with the process id `session` left: processes of its session, zombies included, and those that
    carry `tag`. Linux only; elsewhere nobody can be found this way. Raises: OSError, without a descriptor to look with.
    """
    if not _IS_LINUX:
        return []
    mark = f"{TAG}={tag}".encode()
    found: list[int] = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or entry.name == str(session):
            continue
        # Gone in the meantime, or not ours to read.
        with contextlib.suppress(OSError):
            stat = _read(entry.path + "/stat").rpartition(b")")[2].split()
            if int(stat[_STAT_SESSION]) == session or mark in _read(entry.path + "/environ").split(b"\0"):
                found.append(int(entry.name))
    return found


async def reap_orphans() -> None:
    """Reap, until cancelled, what servers left and what ended by itself: it was made our child when its parent ended.

    A zombie counts as left at the second look, if it is no process that is waited for here and in no session of ours:
    whoever else starts children in this process has waited for them by then.
    """
    before: set[tuple[int, bytes]] = set()
    while _IS_LINUX:
        await anyio.sleep(REAP_EVERY)
        try:
            found = await in_thread(zombies)
        except OSError as error:  # no descriptor left: the next look will do
            log.warning("ended processes cannot be looked for: %s", error.strerror)
            continue
        for pid, _ in found & before:
            if pid not in Process.waited_for:
                is_reaped(pid)
        before = found


def zombies() -> set[tuple[int, bytes]]:
    """Our ended children in sessions of others, by process id and the time of their start. Linux only."""
    ours = os.getsid(0)
    found: set[tuple[int, bytes]] = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = _read(entry.path + "/stat").rpartition(b")")[2].split()
                is_left = (
                    stat[0] == b"Z" and int(stat[_STAT_PARENT]) == os.getpid() and int(stat[_STAT_SESSION]) != ours
                )
                if is_left:
                    found.add((int(entry.name), stat[_STAT_START]))
    return found


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def is_reaped(pid: int) -> bool:
    """Whether a process is gone from the process table; reaps it, if it ended as a child that we inherited."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not Path(f"/proc/{pid}").exists()
