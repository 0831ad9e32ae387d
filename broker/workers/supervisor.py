"""The supervisor: it starts workers, starts again those that die, passes signals on, and ends with the last of them.

It has the listening socket, so that no connection is lost with a worker, and knows nothing of MCP: the standard library
and `broker.workers` are all that it loads. `mcp-broker serve` becomes it, once the configuration has been read and the
port is bound; a mistake that only a broker finds is found by the first worker, which starts alone, and says it once.
"""

import contextlib
import errno
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from broker.workers.assignment import Assignment, Worker, socket_of
from broker.workers.board import Board, BoardStuck, make_board
from broker.workers.launch import command
from broker.workers.lines import Log
from broker.workers.orphans import become_subreaper, end_others, has_others

FAILED: Final = 1
"""Exit code where a worker was killed by a signal."""
FIRST_PAUSE: Final = 0.25
"""Seconds before a worker that has died is started again; doubled each time, up to `LAST_PAUSE`."""
LAST_PAUSE: Final = 30.0
"""Seconds likewise, at most: a worker that cannot live must not take the machine with starting."""
STEADY: Final = 60.0
"""Seconds that a worker must have lived for its next death to count as the first."""
GRACE: Final = 15.0
"""Seconds beyond `broker.drain` after which a worker that was told to end is killed: one that hangs ends nothing."""
ORPHANS_LIVE: Final = 1.0
"""Seconds that servers of a worker that was killed get to see that their stdin is closed."""
ORPHANS_DIE: Final = 5.0
"""Seconds after that in which they must be dead: what cannot be killed (it is another user's) must not hold the end."""
_AGAIN: Final = 0.05
"""Seconds between two tries to kill what is left: what the first ones have started comes to us when they die."""
ROOM: Final = "Allow it more open files (`ulimit -n`) and memory, or start it with fewer `--workers`."
"""What to do where the system gives no more of what workers share."""
MAX_PATH: Final = 90
"""Bytes of the directory of the sockets; the kernel takes no path of one with more than about 100."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. `listener`: the descriptor of the listening socket; `drain`: seconds, unless a worker says more;
    `level`: of log lines.
    """

    workers: int
    listener: int
    drain: float
    level: str
    logs_json: bool
    serve: Mapping[str, Any]

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Member:
    """One worker, over all its lives."""

    number: int
    process: "subprocess.Popen[bytes] | None" = None
    leash: socket.socket | None = None
    is_ready: bool = False
    is_stale: bool = False
    """Whether SIGHUP came when it could not heed it yet, and may have read the file already."""
    began: float = 0.0
    deaths: int = 0
    """In a row."""
    due: float = 0.0
    """When it is to be started, while it does not run."""


class Supervisor:
    """See the module."""

    def __init__(self, plan: Plan, directory: Path, log: Log, now: Callable[[], float] = time.monotonic) -> None:
        self._plan = plan
        self._directory = directory
        self._log = log
        self._now = now
        self._board_handle = make_board(plan.workers)
        self._board = Board(self._board_handle, Worker(1, plan.workers))
        self._bells = tuple(_bell() for _ in range(plan.workers))
        self._members = [Member(number) for number in range(1, plan.workers + 1)]
        self._selector = selectors.DefaultSelector()
        self._signals, self._signalled = _signal_pipe()
        self._selector.register(self._signals, selectors.EVENT_READ)
        self._was_ready = False
        """Whether the first worker was: from then on a worker that dies is started again."""
        self._killed_at = 0.0
        """When what is left is killed; 0 while nothing is to end."""
        self._drain = plan.drain
        """The longest of which is known."""
        self._is_urgent = False
        """Whether the end was asked for twice."""
        self._code = 0
        self._orphans_end = 0.0
        """When what dead workers have left is killed next; 0 while they have left nothing."""
        self._orphans_stay = 0.0
        """When what is left then is left alone."""

    def run(self) -> int:
        """The exit code, once all have ended."""
        self._start(self._members[0])
        while self._has_workers or not self._is_ending or self._orphans_end:
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is self._signals:
                    self._heed_signals()
                else:
                    self._hear(key.data)
            for member in self._members:
                self._look_after(member)
            self._end_orphans()
        return self._code

    @property
    def _is_ending(self) -> bool:
        return self._killed_at > 0

    @property
    def _has_workers(self) -> bool:
        return any(member.process is not None for member in self._members)

    def _patience(self) -> float | None:
        """Seconds until something is due."""
        due = [one.due for one in self._members if one.process is None and self._was_ready and not self._is_ending]
        due += [self._killed_at] if self._is_ending and self._has_workers else []
        due += [self._orphans_end] if self._orphans_end else []
        return max(0.0, min(due) - self._now()) if due else None

    # -- one worker -----------------------------------------------------------------------------------------------

    def _start(self, member: Member) -> None:
        member.is_ready, member.is_stale, member.began = False, False, self._now()
        try:
            member.process, member.leash = self._begin(member.number)
        except OSError as error:
            self._log.warning(f"worker {member.number} cannot be started: {error.strerror}")
            self._bury(member, FAILED)
            return
        self._selector.register(member.leash, selectors.EVENT_READ, member)

    def _begin(self, number: int) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        """Its process, and our end of its leash. Raises: OSError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        plan, leash = self._plan, theirs.fileno()
        assignment = Assignment(
            Worker(number, plan.workers),
            plan.listener,
            leash,
            self._board_handle,
            self._bells,
            self._directory,
            plan.serve,
        )
        handles = [plan.listener, leash, self._board_handle, *(end for bell in self._bells for end in bell)]
        argv = command("broker.cli.worker", assignment.text())
        with theirs:
            try:
                # A group of its own: Ctrl-C in a terminal must reach it once, through us.
                return subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=handles, process_group=0), ours
            except OSError:
                ours.close()
                raise

    def _hear(self, member: Member) -> None:
        assert member.leash is not None
        try:
            said = member.leash.recv(64)
        except OSError:
            said = b""
        for line in said.splitlines():
            if line.isdigit():
                self._allow(int(line))
            elif not member.is_ready:
                self._welcome(member)
        if not said:
            self._selector.unregister(member.leash)
            member.leash.close()
            member.leash = None

    def _welcome(self, member: Member) -> None:
        """It serves."""
        member.is_ready = True
        if member.is_stale and member.process is not None:
            member.process.send_signal(signal.SIGHUP)
        member.is_stale = False
        self._was_ready = True
        if all(one.is_ready for one in self._members):
            self._log.info(f"{len(self._members)} workers serve")

    def _allow(self, drain: int) -> None:
        """A worker ends, within so many seconds: a reload may have changed them."""
        if drain <= self._drain:
            return
        self._drain = drain
        if self._is_ending and not self._is_urgent:
            self._killed_at = max(self._killed_at, self._now() + GRACE + drain)
            self._log.info(f"calls in flight have {drain} s to end")

    def _look_after(self, member: Member) -> None:
        if member.process is not None and member.process.poll() is not None:
            code = member.process.returncode
            member.process = None
            if member.leash is not None:
                self._hear(member)  # it may have been ready before
            self._bury(member, code)
            if has_others(self._own()):
                self._orphans_end = self._now() + ORPHANS_LIVE
                self._orphans_stay = self._orphans_end + ORPHANS_DIE
        elif member.process is None and self._was_ready and not self._is_ending and member.due <= self._now():
            self._start(member)
        elif member.process is not None and self._is_ending and self._killed_at <= self._now():
            self._log.warning(f"worker {member.number} does not end: it is killed")
            member.process.kill()
            member.process.wait()

    def _bury(self, member: Member, code: int) -> None:
        """What it held is nobody's any more."""
        if member.leash is not None:
            self._selector.unregister(member.leash)
            member.leash.close()
            member.leash = None
        with contextlib.suppress(OSError):
            socket_of(self._directory, member.number).unlink()
        with contextlib.suppress(BoardStuck):  # then it clears its columns itself, when it starts again
            self._board.clear(member.number)
        self._ring()
        if self._is_ending or not self._was_ready:
            self._code = self._code or (FAILED if code < 0 else code)
            if not self._is_ending:  # it could not start at all, and has said why
                self._killed_at = self._now() + GRACE
            return
        now = self._now()
        member.deaths = 1 if now - member.began >= STEADY else member.deaths + 1
        pause = min(LAST_PAUSE, FIRST_PAUSE * 2 ** min(member.deaths - 1, 16))
        member.due = now + pause
        how = f"was ended by signal {-code}" if code < 0 else f"has ended with code {code}"
        self._log.warning(f"worker {member.number} {how}: it is started again in {pause:g} s; its sessions are lost")

    def _ring(self) -> None:
        """Whoever waits for a place looks again."""
        for _, bell in self._bells:
            with contextlib.suppress(BlockingIOError):
                os.write(bell, b"!")

    # -- all of them ----------------------------------------------------------------------------------------------

    def _own(self) -> set[int]:
        return {one.process.pid for one in self._members if one.process is not None}

    def _end_orphans(self) -> None:
        """Servers of a worker that was killed, which did not end with it."""
        now = self._now()
        if not self._orphans_end or now < self._orphans_end:
            return
        is_left = end_others(self._own())
        self._orphans_end = now + _AGAIN if is_left and now < self._orphans_stay else 0.0
        if is_left and not self._orphans_end:
            self._log.warning("what a dead worker has left cannot be killed, and is left alone")

    def _heed_signals(self) -> None:
        try:
            received = self._signals.recv(64)
        except BlockingIOError:
            return
        for number in received:
            if number == signal.SIGHUP:
                self._pass_on(signal.SIGHUP)
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._is_urgent = self._is_ending
                self._killed_at = self._now() + GRACE + (0.0 if self._is_urgent else self._drain)
                self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for member in self._members:
            if member.process is None:
                continue
            if number == signal.SIGHUP and not member.is_ready:
                member.is_stale = True  # it would end by it
            else:
                member.process.send_signal(number)

    def close(self) -> None:
        """Give back what it has."""
        self._board.close()
        self._selector.close()
        for ends in self._bells:
            for end in ends:
                os.close(end)
        self._signals.close()
        self._signalled.close()


def _bell() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


def _note(number: int, frame: object) -> None:
    """It is in the pipe."""


def _signal_pipe() -> tuple[socket.socket, socket.socket]:
    """Where the numbers of signals can be read, and what must be kept for that."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, _note)
    return ours, theirs


def main(text: str) -> int:
    """The exit code."""
    plan = Plan(**json.loads(text))
    os.set_inheritable(plan.listener, False)
    become_subreaper()
    log = Log(as_json=plan.logs_json, level=plan.level)
    try:
        directory = _private_directory()
    except OSError as error:
        where = f" in {Path(error.filename).parent}" if error.filename else ""
        remedy = "Make room there, or start the broker again, with TMPDIR set to another directory."
        said = f"cannot make a directory for the sockets of the workers{where}: {_reason(error)}. {remedy}\n"
        sys.stderr.write(said)
        return FAILED
    try:
        try:
            supervisor = Supervisor(plan, directory, log)
        except OSError as error:
            sys.stderr.write(f"cannot prepare {plan.workers} workers: {_reason(error)}. {ROOM}\n")
            return FAILED
        try:
            return supervisor.run()
        finally:
            supervisor.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _reason(error: OSError) -> str:
    """Within a sentence; there may be paths in it, so that only its beginning is changed."""
    why = error.strerror or str(error)
    return why[:1].lower() + why[1:]


def _private_directory() -> Path:
    """A directory that only its owner may enter, for sockets, whose paths must be short."""
    made = tempfile.mkdtemp(prefix="mcp-broker-")
    if len(os.fsencode(made)) <= MAX_PATH:
        return Path(made)
    os.rmdir(made)
    return Path(tempfile.mkdtemp(prefix="mcp-broker-", dir="/tmp"))


def become_supervisor(plan: Plan) -> NoReturn:
    """Replace this process: whoever watches it keeps its process id. Raises: OSError."""
    if not hasattr(os, "fork"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    os.set_inheritable(plan.listener, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command("broker.workers.supervisor", plan.text()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
