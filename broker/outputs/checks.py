"""Results of tools are looked at now and then: by one process, one at a time, in nobody's way.

A call hands over what its tool answered and goes on; whether it is looked at is decided at once, by what was looked at
before. One that is not is `unchecked`: nothing waits in a queue. A process begins with the first result, and ends when
there was none for a while. What ends it (a schema that takes for ever, or all memory) costs its server `REST` seconds
without a look.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final, Protocol

import anyio
import anyio.abc

from broker.clock import Clock
from broker.core import wire
from broker.core.weight import VALUE, is_light
from broker.errors import printable
from broker.guardrails.process import Broke, Job, Process, Program
from broker.guardrails.source import Source, Step
from broker.logs import internal_error
from broker.outputs.tally import Tally

log = logging.getLogger(__name__)

SPACING: Final = 1.0
"""Seconds between two results of one server that are looked at: on average, since a rhythm would meet every second
result of one that errs every second time, or none."""
SPACING_OF_ALL: Final = 0.1
"""Seconds between two results of any server: each takes about 1 ms of the broker's own time."""
REST: Final = 300.0
"""Seconds without a look at a server that has ended the process: each time may have cost seconds of CPU."""
PATIENCE: Final = 20.0
"""How often the time of a look its server is left alone afterwards: at most a twentieth of a core is spent on one."""
TIMEOUT: Final = 5.0
"""Seconds that a content may take, by the wall clock. What is usual takes a thousandth of that, but others go first."""
MEMORY: Final = 128 * 1024 * 1024
"""Bytes that the process may use beyond what it begins with."""
MAX_CONTENT: Final = 64 * 1024
"""Bytes of a content: a larger one takes seconds, and to write it down for the process would hold the event loop."""
MAX_SCHEMA: Final = 64 * 1024
"""Bytes of a schema, likewise."""
IDLE: Final = 300.0
"""Seconds after the last look in which the process stays: it holds some 25 MB."""
STOP_TIMEOUT: Final = 5.0
"""Seconds to wait for the kernel to end what was killed."""

_PROGRAM: Final = Program(
    "broker.outputs",
    (
        *("broker", "orjson", "re2", "jsonschema", "jsonschema_specifications", "referencing", "rpds", "attr", "attrs"),
        "typing_extensions",
    ),
)


class Checks(Protocol):
    """Who takes what tools answered."""

    def offer(self, server: str, tally: Tally, tool: str, schema: object, result: Mapping[str, Any]) -> None:
        """A result as it came, of a tool that has an `outputSchema`: never raises, never waits, changes nothing."""
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """At the end no process is left."""
        ...


class NoChecks:
    """Nobody would see what was counted."""

    def offer(self, server: str, tally: Tally, tool: str, schema: object, result: Mapping[str, Any]) -> None:
        """See `Checks`."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """See `Checks`."""
        return nullcontext()


NO_CHECKS: Final = NoChecks()


class Look:
    """One result to look at: what is said of it, where."""

    __slots__ = ("digest", "server", "tally", "tool")

    def __init__(self, server: str, tally: Tally, tool: str, schema: bytes) -> None:
        self.server, self.tally, self.tool = server, tally, tool
        self.digest = hashlib.sha256(schema).hexdigest()

    def found(self, result: str, said: str = "", level: int = logging.WARNING) -> None:
        """Count it, and say so if that is new."""
        self.tally.counts[result] += 1
        if said and self.tally.is_new(self.tool, self.digest, result):
            log.log(level, "%s: tool %s: %s", self.server, printable(self.tool), said)


class Sampled:
    """See the module. `running` must be entered around its use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = 0.0
        self._is_busy = False
        self._tasks: anyio.abc.TaskGroup | None = None
        self._process: Process | None = None
        """Ready, and without a job, while nothing is looked at."""
        self._living: set[Process] = set()
        self._started: asyncio.Future[bool] | None = None
        """Whether the one that is starting has become ready."""
        self._idle: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Sampled {self._process} {'busy' if self._is_busy else 'idle'}>"

    def pids(self) -> list[int]:
        """Of the processes that live."""
        return [process.pid for process in self._living]

    def offer(self, server: str, tally: Tally, tool: str, schema: object, result: Mapping[str, Any]) -> None:
        """See `Checks`."""
        now = self._clock.now()
        if self._is_busy or now < tally.due or now < self._due or self._tasks is None:
            tally.counts["unchecked"] += 1
            return
        tally.due, self._due = now + SPACING * (0.5 + self._clock.chance()), now + SPACING_OF_ALL
        try:
            self._take(self._tasks, server, tally, tool, schema, result)
        except wire.Malformed:
            tally.counts["unchecked"] += 1

    def _take(
        self,
        tasks: anyio.abc.TaskGroup,
        server: str,
        tally: Tally,
        tool: str,
        schema: object,
        result: Mapping[str, Any],
    ) -> None:
        """Raises: wire.Malformed."""
        if not is_light(schema, MAX_SCHEMA * VALUE // 2):  # a value takes two bytes at least
            raise wire.Malformed("more than can be written down at once")
        text = wire.encode(schema)
        look = Look(server, tally, tool, text)
        if "structuredContent" not in result:
            return look.found("mismatched", "it has an outputSchema, and answered without structuredContent")
        content = result["structuredContent"]
        if len(text) > MAX_SCHEMA or not is_light(content, MAX_CONTENT):
            return look.found("unchecked")
        # Written down now: what becomes of the result on its way is not what the server said.
        body = wire.encode(content)
        source = Source(server, text, look.digest, TIMEOUT, MEMORY, MAX_CONTENT)
        self._is_busy = True
        tasks.start_soon(self._look, look, source, body)
        return None

    async def _look(self, look: Look, source: Source, body: bytes) -> None:
        try:
            await self._judge(look, source, body)
        except Exception as fault:
            internal_error(log, self._clock.token(), fault, look.server)
        finally:
            self._is_busy = False

    async def _judge(self, look: Look, source: Source, body: bytes) -> None:
        process = self._process or await self._start()
        if process is None:
            return look.found("unchecked")
        if self._idle is not None:
            self._idle.cancel()
        job = Job(Step.RUN, source, body, asyncio.get_running_loop().create_future())
        began = self._clock.now()
        process.take(job)
        answer = await job.answer
        now = self._clock.now()
        look.tally.due = max(look.tally.due, now + PATIENCE * (now - began))
        self._idle = asyncio.get_running_loop().call_later(IDLE, self._let_go)
        if isinstance(answer, Broke):
            look.tally.due = now + REST
            why = f"its results are not compared with its outputSchema for {REST:g} s: {answer.why}"
            return look.found("unchecked", why)
        return _read(look, answer)

    async def _start(self) -> Process | None:
        """A new process, once it is ready; None if it cannot be."""
        self._started = asyncio.get_running_loop().create_future()
        try:
            process = await Process.start(self._on_idle, self._on_end, _PROGRAM)
        except OSError as error:
            self._due = self._clock.now() + REST
            why = error.strerror or str(error) or type(error).__name__
            log.error("results of tools are not looked at for %g s: no process can be started: %s", REST, why)
            return None
        if not process.exited.is_set():
            self._living.add(process)
        if await self._started:
            self._process = process
            return process
        self._due = self._clock.now() + REST
        log.error("results of tools are not looked at for %g s: the process that does it ended at once", REST)
        return None

    def _let_go(self) -> None:
        """Nobody has needed it for a while."""
        if self._process is not None and not self._is_busy:
            process, self._process = self._process, None
            process.kill("nobody needs it")

    def _on_idle(self, process: Process, job: Job | None) -> None:
        if job is None and self._started is not None and not self._started.done():
            self._started.set_result(True)
        elif process.is_worn:
            self._process = None
            process.kill("it has done enough")

    def _on_end(self, process: Process, job: Job | None, why: str) -> None:
        self._living.discard(process)
        if self._process is process:
            self._process = None
        if job is not None:
            if not job.answer.done():
                job.answer.set_result(Broke(why))
        elif self._started is not None and not self._started.done() and not process.is_ready:
            self._started.set_result(False)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """See `Checks`."""
        try:
            async with anyio.create_task_group() as self._tasks:
                try:
                    yield
                finally:
                    self._tasks.cancel_scope.cancel()
                    self._tasks = None
        finally:
            if self._idle is not None:
                self._idle.cancel()
            for process in tuple(self._living):
                process.kill("the broker is stopping")
            with anyio.move_on_after(STOP_TIMEOUT, shield=True):
                for process in tuple(self._living):
                    await process.exited.wait()


def _read(look: Look, answer: Mapping[str, Any]) -> None:
    match answer:
        case {"misfit": None}:
            look.found("matched")
        case {"misfit": str() as where}:
            look.found("mismatched", f"what it answered does not fit its outputSchema, at {printable(where)}")
        case {"unusable": str() as why}:
            look.found("bad_schema", f"its outputSchema cannot be used: {printable(why)}", logging.INFO)
        case _:
            look.found("unchecked", "the process that compares its results with its outputSchema answered nonsense")
