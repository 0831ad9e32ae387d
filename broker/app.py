"""The assembly. Read top to bottom, it is the broker.

A `Broker` is one live configuration behind an `Engine`; a front, given the engine, is what callers reach.
"""

import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskStatus

from broker.clock import Clock, SystemClock
from broker.config import ConfigError, Loaded
from broker.core.era import LATEST_LEGACY, declared_upstream
from broker.core.lifecycle import Phase
from broker.core.seal import Sealer
from broker.downstream.engine import Engine
from broker.generation import Generation, OnlyCaller, problems_of, state_directory
from broker.relay.notify import Hub
from broker.relay.parking import Parking
from broker.relay.router import Router
from broker.usage.assembly import audit_of, meter_of
from broker.usage.audit import LineAudit
from broker.usage.gauges import Gauge
from broker.usage.quotas import Quotas

Front = Callable[["Broker"], Awaitable[None]]
"""Serves callers until it is done: the host has closed the pipe, or `broker.engine.closing` is set."""


class CallerCapabilities:
    """What the one caller of a stdio front can be asked: known with its first message, waited for until then.

    A legacy upstream is told in its handshake what its host can do, and cannot be told again; so on the stdio front
    its handshake waits for the caller's.
    """

    def __init__(self) -> None:
        self._known = anyio.Event()
        self._capabilities: Mapping[str, Any] = {}

    def learn(self, capabilities: Mapping[str, Any]) -> None:
        """The caller's first message has come."""
        self._capabilities = capabilities
        self._known.set()

    async def declare(self) -> Mapping[str, Any]:
        """What of it may be declared upstream."""
        await self._known.wait()
        return declared_upstream(self._capabilities, LATEST_LEGACY)


class Broker:
    """One configuration, alive while `running` is entered. A front that has one caller in all says so; one that
    `waits_for_caller` declares to its upstreams what that caller can be asked.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        clock: Clock | None = None,
        waits_for_caller: bool = False,
        has_one_caller: bool = False,
    ) -> None:
        self.loaded = loaded
        self.clock = clock or SystemClock()
        self.caller = CallerCapabilities()
        hub = Hub()
        only = OnlyCaller(self.caller.declare if waits_for_caller else None)
        is_only = waits_for_caller or has_one_caller
        self.generation = Generation.build(
            loaded, self.clock, hub, only if is_only else None, lambda judgement: self.audit.judged(judgement)
        )
        self.parking = Parking(self.clock, Sealer([secrets.token_bytes(32)]))
        self.meter = meter_of(loaded.config)
        """What is counted of calls."""
        self.audit = audit_of(
            loaded.config, state_directory(loaded.config), self.clock, lambda: self.generation.guards.hashes, self.meter
        )
        self.quotas = Quotas(self.clock, lambda: self.generation.limits)
        """What is counted against limits: it outlives a configuration."""
        router = Router(self.generation, self.parking, hub.tasks, self.quotas)
        self.engine = Engine(router, hub, self.clock, self.audit)

    def gauges(self) -> list[Gauge]:
        """How it is doing at this moment."""
        pool, views = self.generation.pool, self.generation.views
        found = [Gauge("streams", "Open streams that are told of changes.", len(self.engine.hub))]
        for key, upstream in pool.upstreams.items():
            links = len(pool.isolated[key]) if key in pool.isolated else int(upstream.is_ready)
            found += [
                Gauge("upstream_up", "1: it is ready.", int(upstream.is_ready), {"upstream": key}),
                Gauge("links", "Links that carry calls.", links, {"upstream": key}),
                *(
                    Gauge(
                        "upstream_state",
                        "1: it is in this state.",
                        int(upstream.state.phase is phase),
                        {"upstream": key, "state": phase.value},
                    )
                    for phase in Phase
                ),
            ]
        for word, number in (("hit", views.hits), ("miss", views.misses)):
            found.append(Gauge("list_pages", "Pages of lists.", number, {"cache": word}, is_counter=True))
        found += self.quotas.counters.gauges()
        if isinstance(self.audit, LineAudit):
            writer = self.audit.book.writer
            found.append(Gauge("audit_lost", "Audit records that were dropped.", writer.lost, is_counter=True))
            found.append(Gauge("audit_failing", "1: the audit cannot be written.", int(writer.is_failing)))
        return found

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Broker", None]:
        """All upstreams are started at once; at the end all are stopped, with every process they started.

        Raises: ConfigError, before any is started, if a guardrail cannot be used (F-101).
        """
        async with self.audit.running(), self.generation.guards.running():
            problems = problems_of(self.loaded, await self.generation.guards.load())
            if problems:
                raise ConfigError(problems)
            async with self.generation.pool.running(), self.parking.running():
                yield self


async def run(broker: Broker, front: Front) -> None:
    """Serve `front` until it ends, or a signal asks for the end: the first one kindly, the second one now.

    Signals are heeded before any process is started: none of them can be orphaned by an early one.
    """
    async with anyio.create_task_group() as tasks:
        await tasks.start(_heed_signals, broker.engine.closing, tasks.cancel_scope)
        async with broker.running():
            await front(broker)
        tasks.cancel_scope.cancel()


async def _heed_signals(closing: anyio.Event, scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    try:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for _ in received:
                if closing.is_set():
                    scope.cancel()
                closing.set()
    except NotImplementedError:
        # Windows event loops cannot wait for signals: there Ctrl-C interrupts, and a closed pipe ends us.
        task_status.started()


def run_async(main: Callable[[], Awaitable[None]]) -> None:
    """Run an event loop, the faster one where there is one."""
    anyio.run(main, backend="asyncio", backend_options={"use_uvloop": not sys.platform.startswith("win")})
