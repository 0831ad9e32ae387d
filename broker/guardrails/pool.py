"""The guardrail processes of the broker: warm, few, each doing one thing, replaced when it dies.

A job waits for a process in a bounded queue; one that cannot be done (no room, no process in time, a guardrail that
keeps killing its processes) is answered with a `Broke`, which denies. So nothing that a guardrail does costs another
one more than a wait, and nothing it does costs the broker anything.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.abc

from broker.clock import Clock
from broker.guardrails.process import Broke, Job, Process
from broker.guardrails.source import MAX_SOURCE, Source, Step

log = logging.getLogger(__name__)

MAX_PROCESSES: Final = 4
"""Processes at once. Each holds about 20 MB, and a machine has only so many cores."""
WARM: Final = 2
"""Processes that are kept ready from the start: when one dies, the other goes on while it is replaced."""
MAX_WAITING: Final = 256
"""Jobs that wait for a process: beyond that, callers are told at once."""
WAIT_TIMEOUT: Final = 5.0
"""Seconds that a job waits for a process, after that time its caller is told."""
SHARE: Final = MAX_PROCESSES - 1
"""Processes that one guardrail may hold at once: one that hangs on every call must leave some to the others."""
MAX_DEATHS: Final = 3
"""Processes that a guardrail may end in a row before it is not run for `REST` seconds."""
REST: Final = 30.0
RETRY: Final = 1.0
"""Seconds between attempts to start a process when that fails."""
STOP_TIMEOUT: Final = 5.0
"""Seconds to wait for the kernel to end what was killed."""


@dataclass(slots=True)
class _Breaker:
    """How often a guardrail has ended its process since it last answered, and until when it rests."""

    deaths: int = 0
    until: float = 0.0


class Pool:
    """See the module. `running` must be entered around its use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._processes: set[Process] = set()
        self._idle: list[Process] = []
        self._starting = 0
        self._waiting: deque[Job] = deque()
        self._held: Counter[str] = Counter()
        """Processes that each source holds."""
        self._breakers: dict[str, _Breaker] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<Pool {len(self._processes)} processes, {len(self._idle)} idle, {len(self._waiting)} waiting>"

    def pids(self) -> list[int]:
        """Of the processes that live."""
        return [process.pid for process in self._processes]

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Processes are started; at the end none is left."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks, self._is_stopping = tasks, False
                for _ in range(WARM):
                    self._grow()
                try:
                    yield
                finally:
                    self._is_stopping = True
                    tasks.cancel_scope.cancel()
        finally:  # whatever was being started is known by now
            with anyio.CancelScope(shield=True):
                await self._stop()

    async def compile(self, source: Source) -> Mapping[str, Any] | Broke:
        """Read a source and run its module once, as a load does: what the process says of it."""
        return await self._do(Step.COMPILE, source, b"")

    async def run(self, source: Source, body: bytes) -> Mapping[str, Any] | Broke:
        """Run `check` on the JSON text `body`: what the process says."""
        if len(body) > source.size:
            return Broke(f"there is more to judge than {source.size} bytes")
        return await self._do(Step.RUN, source, body)

    async def _do(self, step: Step, source: Source, body: bytes) -> Mapping[str, Any] | Broke:
        if len(source.text) > MAX_SOURCE:
            return Broke(f"its text is longer than {MAX_SOURCE} bytes")
        breaker = self._breakers.get(source.sha256)
        if breaker is not None and self._clock.now() < breaker.until:
            return Broke(f"it has ended {MAX_DEATHS} processes in a row, and rests for {REST:g} s")
        if self._tasks is None or self._is_stopping:
            return Broke("no guardrail processes are running")
        loop = asyncio.get_running_loop()
        job = Job(step, source, body, loop.create_future())
        if self._idle and not self._waiting and self._held[source.sha256] < SHARE:
            self._give(self._idle.pop(), job)
            return await job.answer
        if len(self._waiting) >= MAX_WAITING:
            return Broke("too many calls wait for guardrail processes")
        self._waiting.append(job)
        patience = loop.call_later(WAIT_TIMEOUT, self._give_up, job)
        self._dispatch()
        try:
            return await job.answer
        finally:
            patience.cancel()
            if job in self._waiting:
                self._waiting.remove(job)

    def _give(self, process: Process, job: Job) -> None:
        self._held[job.source.sha256] += 1
        process.take(job)

    def _give_up(self, job: Job) -> None:
        if job in self._waiting and not job.answer.done():
            job.answer.set_result(Broke(f"no guardrail process was free within {WAIT_TIMEOUT:g} s"))

    def _dispatch(self) -> None:
        """Give idle processes to whoever waits longest and may have one; start more if that is not enough."""
        for job in tuple(self._waiting):
            if not self._idle:
                break
            if job.answer.done():
                self._waiting.remove(job)
            elif self._held[job.source.sha256] < SHARE:
                self._waiting.remove(job)
                self._give(self._idle.pop(), job)
        coming = self._starting + sum(not process.is_ready for process in self._processes)
        if len(self._waiting) > coming:
            self._grow()

    def _grow(self) -> None:
        if self._tasks is not None and not self._is_stopping and self._count() < MAX_PROCESSES:
            self._starting += 1
            self._tasks.start_soon(self._start)

    def _count(self) -> int:
        return len(self._processes) + self._starting

    async def _start(self) -> None:
        try:
            process = await Process.start(self._on_idle, self._on_end)
        except OSError as error:
            log.error("a guardrail process cannot be started: %s", error.strerror or type(error).__name__)
            await self._clock.sleep(RETRY)
        else:
            self._processes.add(process)
            if process.exited.is_set():
                self._processes.discard(process)
            return
        finally:
            self._starting -= 1
        if self._count() < WARM:
            self._grow()

    def _on_idle(self, process: Process, job: Job | None) -> None:
        if job is not None:
            self._release(job.source.sha256)
            self._breakers.pop(job.source.sha256, None)
        if process.is_worn:
            process.kill("it has done enough")
            return
        self._idle.append(process)
        if self._waiting:
            self._dispatch()

    def _on_end(self, process: Process, job: Job | None, why: str) -> None:
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        if job is not None:
            self._release(job.source.sha256)
            if not self._is_stopping:
                self._count_death(job.source, why)
            if not job.answer.done():
                job.answer.set_result(Broke(why))
        if not self._is_stopping:
            if self._count() < WARM:
                self._grow()
            self._dispatch()

    def _release(self, key: str) -> None:
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]

    def _count_death(self, source: Source, why: str) -> None:
        breaker = self._breakers.setdefault(source.sha256, _Breaker())
        breaker.deaths += 1
        if breaker.deaths >= MAX_DEATHS:
            breaker.until = self._clock.now() + REST
            log.error(
                "guardrail %s: its processes ended %d times in a row (%s); what it judges is denied, and it is tried "
                "again in %g s",
                *(source.name, breaker.deaths, why, REST),
            )

    async def _stop(self) -> None:
        for job in tuple(self._waiting):
            if not job.answer.done():
                job.answer.set_result(Broke("the broker is stopping"))
        left = tuple(self._processes)
        for process in left:
            process.kill("the broker is stopping")
        with anyio.move_on_after(STOP_TIMEOUT):
            for process in left:
                await process.exited.wait()
        self._processes.clear()
        self._idle.clear()
