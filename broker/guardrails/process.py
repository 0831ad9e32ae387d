"""One confined process, as the broker sees it: started clean, spoken to in frames, killed without asking.

It does one thing at a time and is watched by the wall clock. Whatever it does that was not asked for (a frame out of
turn, one too long, its end) is the end of it; the answer that somebody waits for is then a `Broke`.
"""

import asyncio
import contextlib
import importlib.util
import os
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import anyio

from broker.core import wire
from broker.core.shape import is_object
from broker.guardrails.source import Source, Step

COMPILE_TIMEOUT: Final = 5.0
"""Seconds that reading one source may take: it is bounded to 64 KiB, and a process may just have started."""
START_TIMEOUT: Final = 20.0
"""Seconds until a new process must have said that it is ready: on a loaded machine Python starts slowly."""
GRACE: Final = 0.002
"""Seconds after its time within which an answer still counts that was there in time, but not yet read."""
ENVELOPE: Final = 4096
"""Bytes of an answer beside the value that it carries."""
MAX_RUNS: Final = 10_000
"""Jobs of one process: what little each may leave behind ends with it."""
MAX_COMPILED: Final = 200
"""Sources that one process keeps compiled: more are those of configurations that are gone."""


@dataclass(frozen=True, slots=True)
class Program:
    """What runs in a process: `main` of the module `worker` in a package, and the packages that it needs."""

    package: str
    needed: tuple[str, ...]


GUARDRAILS: Final = Program("broker.guardrails", ("broker", "RestrictedPython", "re2", "orjson"))


@dataclass(frozen=True, slots=True)
class Broke:
    """The process did not answer. `why` is for a person."""

    why: str


@dataclass(slots=True, eq=False)
class Job:
    """One thing to ask, and where its answer goes: what the process said, or that it broke."""

    step: Step
    source: Source
    body: bytes
    answer: "asyncio.Future[Mapping[str, Any] | Broke]"


OnIdle = Callable[["Process", Job | None], None]
"""Told that a process can take a job, and which one it has just done."""
OnEnd = Callable[["Process", Job | None, str], None]
"""Told that a process is gone, with the job that it had, and why."""


class Process(asyncio.SubprocessProtocol):
    """See the module."""

    def __init__(self, on_idle: "OnIdle", on_end: "OnEnd") -> None:
        self._on_idle, self._on_end = on_idle, on_end
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._job: Job | None = None
        self._steps: list[Step] = []
        """What is left to do for the job, the current step first."""
        self._timer: asyncio.TimerHandle | None = None
        self._compiled: set[str] = set()
        self.is_ready = False
        """Whether it has ever been idle."""
        self._why = ""
        """Why it was killed, if we did it."""
        self._runs = 0
        self.exited = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Process {self.pid} {'busy' if self._job else 'idle' if self.is_ready else 'starting'}>"

    @classmethod
    async def start(cls, on_idle: "OnIdle", on_end: "OnEnd", program: Program = GUARDRAILS) -> "Process":
        """A new one, which tells `on_idle` when it is ready. Raises: OSError."""
        loop = asyncio.get_running_loop()
        is_windows = sys.platform.startswith("win")
        with anyio.CancelScope(shield=True):  # given up half-way, it would leave a child that nobody knows
            _, process = await loop.subprocess_exec(
                lambda: cls(on_idle, on_end),
                *(sys.executable, "-I", "-S", "-B", "-c", _boot(program), str(os.getpid()), *_search_path(program)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={"SYSTEMROOT": os.environ["SYSTEMROOT"]} if is_windows else {},
                start_new_session=not is_windows,
            )
            return process
        raise AssertionError("unreachable")  # pragma: no cover - a shielded scope swallows nothing

    @property
    def pid(self) -> int:
        """Its process id, 0 before it has one."""
        return 0 if self._transport is None else self._transport.get_pid() or 0

    @property
    def job(self) -> Job | None:
        """What it is doing."""
        return self._job

    @property
    def is_worn(self) -> bool:
        """Whether it has done enough."""
        return self._runs >= MAX_RUNS or len(self._compiled) >= MAX_COMPILED

    def take(self, job: Job) -> None:
        """Begin a job; only an idle process may be given one."""
        self._job = job
        if job.step is Step.RUN:
            self._steps = [Step.RUN] if job.source.sha256 in self._compiled else [Step.COMPILE, Step.RUN]
        else:
            self._steps = [Step.COMPILE, Step.ENTER]
        self._ask()

    def kill(self, why: str) -> None:
        """The end, now; `exited` is set when it is there."""
        self._why = self._why or why
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        self._timer = self._loop.call_later(START_TIMEOUT, self._out_of_time, START_TIMEOUT)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            (size,) = struct.unpack_from(">I", self._buffer)
            if size > self._most():
                self.kill("it said more than it may")
                self._buffer.clear()
                return
            if len(self._buffer) < 4 + size:
                return
            frame = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            self._said(frame)

    def process_exited(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        job, self._job = self._job, None
        code = None if self._transport is None else self._transport.get_returncode()
        self.exited.set()
        self._on_end(self, job, self._why or _ended(code))
        if self._transport is not None:
            self._transport.close()

    # What becomes of it.

    def _most(self) -> int:
        return ENVELOPE + (self._job.source.size if self._job is not None else 0)

    def _ask(self) -> None:
        job, step = self._job, self._steps[0]
        assert job is not None and self._stdin is not None
        body = job.source.text if step is Step.COMPILE else job.body
        head = job.source.orders[step]
        timeout = COMPILE_TIMEOUT if step is Step.COMPILE else job.source.timeout
        self._timer = self._loop.call_later(timeout, self._out_of_time, timeout)
        # One that ends at this moment takes nothing any more: `process_exited` says so to whoever waits.
        with contextlib.suppress(OSError, RuntimeError):
            self._stdin.write(b"".join((struct.pack(">I", len(head) + len(body)), head, body)))

    def _out_of_time(self, timeout: float) -> None:
        """Once more around the loop: an answer that came in time may lie unread, if it was the loop that was late."""
        self._timer = self._loop.call_later(GRACE, self.kill, f"it took longer than {timeout:g} s")

    def _said(self, frame: bytes) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._why:
            return  # killed: whatever it still says is nobody's
        job = self._job
        try:
            answer = wire.decode_object(frame, wire.Limits(self._most(), depth=wire.FROM_CALLER.depth + 8))
        except wire.Malformed:
            return self.kill("it answered with something that is not JSON")
        if job is None:
            return self._greeted(answer)
        step = self._steps.pop(0)
        if step is Step.COMPILE and answer == {"ok": None}:
            self._compiled.add(job.source.sha256)
        error = answer.get("error")
        if is_object(error) and error.get("kind") == "MemoryError":
            # What it let go of may still be held: the next one begins in a new process.
            return self.kill(f"it needed more memory than {job.source.memory // 1024 // 1024} MiB")
        if self._steps and answer == {"ok": None}:
            return self._ask()
        self._steps = []
        self._job = None
        self._runs += 1
        if not job.answer.done():
            job.answer.set_result(answer)
        self._on_idle(self, job)

    def _greeted(self, answer: dict[str, Any]) -> None:
        if self.is_ready or answer != {"ok": None}:
            return self.kill("it spoke out of turn")
        self.is_ready = True
        self._on_idle(self, None)


def _boot(program: Program) -> str:
    return f"import sys; sys.path.extend(sys.argv[2:]); from {program.package} import worker; worker.main()"


def _search_path(program: Program) -> list[str]:
    """Where a bare interpreter finds what a worker imports, and nothing that `site` would add."""
    places: list[str] = []
    for name in program.needed:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise OSError(f"{name} is not installed")
        file = Path(found.origin)
        places.append(str(file.parent.parent if file.name.startswith("__init__.") else file.parent))
    return list(dict.fromkeys(places))


def _ended(code: int | None) -> str:
    if code is None:
        return "its process is gone"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process exited with code {code}"
