"""The assembly. Read top to bottom, it is the broker.

A `Broker` is one live configuration behind an `Engine`; a front, given the engine, is what callers reach.
"""

import logging
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
from anyio.abc import TaskStatus

from broker.allocation import give_back_at_times
from broker.clock import Clock, SystemClock
from broker.compiled import pins_directory, problems_of, state_directory
from broker.config import ConfigError, Loaded
from broker.core.amount import amount_text
from broker.core.budget import Limit
from broker.core.era import LATEST_LEGACY, declared_upstream
from broker.core.lifecycle import Phase
from broker.core.pins import Change
from broker.core.seal import Sealer
from broker.downstream.engine import Engine
from broker.errors import Unrecorded, printable
from broker.generation import Generation, OnlyCaller
from broker.guardrails.guards import Guards, NoGuards
from broker.outputs.checks import NO_CHECKS, Sampled
from broker.outputs.tally import RESULTS
from broker.relay.notify import Hub
from broker.relay.parking import Parking
from broker.relay.router import Router
from broker.upstream.fleet import Fleet
from broker.upstream.pins import INTERVAL, PinFiles, Pinning
from broker.upstream.pool import Swap
from broker.usage.assembly import audit_of, budgets_of, meter_of
from broker.usage.audit import NOBODY, LineAudit
from broker.usage.counting import OWN_COUNTING, Counting
from broker.usage.gauges import Gauge
from broker.usage.quotas import Quotas
from broker.workers.assignment import ALONE, Worker

log = logging.getLogger(__name__)

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


def nothing() -> None:
    """For who has nothing to put in force."""


class Broker:
    """Alive while `running` is entered: one configuration, and after a `reload` another one.

    A front that has one caller in all says so; one that `waits_for_caller` declares to its upstreams what that caller
    can be asked. `worker`: which of several processes it is; `counting`: where its limits are counted.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        clock: Clock | None = None,
        waits_for_caller: bool = False,
        has_one_caller: bool = False,
        worker: Worker = ALONE,
        counting: Counting = OWN_COUNTING,
    ) -> None:
        self.loaded = loaded
        self.clock = clock or SystemClock()
        self.caller = CallerCapabilities()
        hub = Hub()
        is_only = waits_for_caller or has_one_caller
        self._only = OnlyCaller(self.caller.declare if waits_for_caller else None) if is_only else None
        files = PinFiles(pins_directory(loaded.config))
        self.pinning = Pinning(files, self.clock, self._changed)
        """What servers said of themselves: it outlives a configuration."""
        self.generation = self._build(loaded, hub)
        self.fleet = Fleet()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._guards_left = anyio.Event()
        """Set when no generation has the guardrails that are in force now."""
        self.parking = Parking(self.clock, Sealer([secrets.token_bytes(32)]), worker)
        self.meter = meter_of(loaded.config)
        """What is counted of calls."""
        self.audit = audit_of(
            loaded.config, state_directory(loaded.config), self.clock, self.generation.guards.hashes, self.meter
        )
        self.budgets = budgets_of(
            loaded.config, state_directory(loaded.config), self.clock, self.generation, self._warned
        )
        """What calls cost: it outlives a configuration too."""
        self.quotas = Quotas(self.clock, self.generation, self.budgets, counting)
        """What is counted against limits: it outlives a configuration."""
        self.checks = Sampled(self.clock) if self.meter.is_on else NO_CHECKS
        """Who looks at what tools answer, if anybody looks at what is counted."""
        router = Router(self.generation, self.parking, hub.tasks, self.quotas, self.checks)
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
            for what in ("answer", "notification"):
                meaning, labels = "Messages that belonged to nobody.", {"upstream": key, "what": what}
                found.append(Gauge("upstream_strays", meaning, upstream.strays[what], labels, is_counter=True))
            for result in RESULTS:
                meaning, labels = "Results of tools with an outputSchema.", {"upstream": key, "result": result}
                number = upstream.outputs.counts[result]
                found.append(Gauge("upstream_output_checks", meaning, number, labels, is_counter=True))
        for word, number in (("hit", views.hits), ("miss", views.misses)):
            found.append(Gauge("list_pages", "Pages of lists.", number, {"cache": word}, is_counter=True))
        found += self.quotas.counters.gauges()
        found += self.budgets.gauges()
        if isinstance(self.audit, LineAudit):
            writer = self.audit.book.writer
            found.append(Gauge("audit_lost", "Audit records that were dropped.", writer.lost, is_counter=True))
            found.append(Gauge("audit_failing", "1: the audit cannot be written.", int(writer.is_failing)))
            index = self.audit.indexer
            found.append(Gauge("audit_unindexed_bytes", "Bytes of audit records beyond the index.", index.behind))
            found.append(Gauge("audit_index_failing", "1: the index cannot be written.", int(bool(index.trouble))))
        return found

    async def _warned(self, limit: Limit, used: int) -> None:
        """A budget is nearly used up."""
        self.budgets.warnings += 1
        said = f"{amount_text(used)} of {amount_text(limit.amount)} are spent"
        log.warning("the budget %s is nearly used up: %s", limit.rule, said)
        try:
            await self.audit.did(NOBODY, "budget.warning", limit.rule, "done", said)
        except Unrecorded:
            log.error("that could not be recorded")

    async def _changed(self, server: str, change: Change, is_held: bool) -> None:
        """A definition of a server is not what it was."""
        kind, own = change.place
        what = f"{kind} {own}" if own else kind
        outcome = "held" if is_held else "served"
        said = f"sha256 {change.was[:16]} is {change.is_now[:16]} now"
        log.warning("%s: %s has changed (%s), and is %s: mcp-broker pin list", server, printable(what), said, outcome)
        try:
            await self.audit.did(NOBODY, "definition.changed", f"{server} {what}", outcome, said)
        except Unrecorded:
            log.error("that could not be recorded")

    async def _watch_pins(self) -> None:
        """What somebody has accepted is served, and what is pinned in another way by a reload is judged again."""
        seen: dict[str, tuple[str, int]] = {}
        while True:
            for key, upstream in tuple(self.generation.pool.upstreams.items()):
                mode = self.generation.config.servers[key].pins
                now = mode, self.pinning.files.stamp(key) if mode == "hold" else 0
                if seen.setdefault(key, now) != now:
                    seen[key] = now
                    upstream.heard.rejudge()
            await self.clock.sleep(INTERVAL)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Broker", None]:
        """All upstreams are started at once; at the end all are stopped, with every process they started.

        Raises: ConfigError, before any is started, if a guardrail cannot be used (F-101).
        """
        async with (
            self.audit.running(),
            self.budgets.running(),
            self.checks.running(),
            anyio.create_task_group() as self._tasks,
        ):
            self._guards_left = await self._start_guards(self.generation, self.loaded)
            async with self.fleet.running(), self.parking.running():
                self.fleet.take(Swap.first(self.generation.pool), self.drain)
                self._tasks.start_soon(self._give_up_in_the_end)
                self._tasks.start_soon(self._watch_pins)
                yield self
            self._tasks.cancel_scope.cancel()

    async def reload(self, loaded: Loaded, commit: Callable[[], None] = nothing) -> None:
        """Put another configuration in force: built whole, then swapped in one step, in which `commit` is called too.

        Servers that are reached as before keep their links, with all that is in flight on them. The others finish what
        is in flight, for `broker.drain` seconds. One reload at a time.

        Raises: ConfigError, if a guardrail cannot be used: nothing has changed then.
        """
        generation = self._build(loaded, self.engine.hub, self.generation)
        left = self._guards_left
        if generation.guards is not self.generation.guards:
            left = await self._start_guards(generation, loaded)
        # From here to the end nothing waits: nobody sees a half of it.
        swap = generation.take_over()
        commit()
        if left is not self._guards_left:
            self._guards_left.set()
        self.loaded, self.generation, self._guards_left = loaded, generation, left
        self.engine.router.adopt(generation)
        self.quotas.adopt(generation)
        self.audit.guard(generation.guards.hashes)
        self.meter.serve(loaded.config.servers)
        self.parking.give_up(lambda server: server not in generation.pool.upstreams)
        self.fleet.take(swap, self.drain)

    def _build(self, loaded: Loaded, hub: Hub, before: Generation | None = None) -> Generation:
        return Generation.build(
            loaded,
            self.clock,
            hub,
            self._only,
            lambda judgement: self.audit.judged(judgement),
            before,
            self.pinning.judged,
        )

    async def _give_up_in_the_end(self) -> None:
        await self.engine.ending.wait()
        self.fleet.give_up("the broker is shutting down")

    @property
    def drain(self) -> float:
        """Seconds that calls get to finish, where what they are on goes away."""
        return self.loaded.config.broker.drain

    async def _start_guards(self, generation: Generation, loaded: Loaded) -> anyio.Event:
        """What is to be set once its guardrails are needed no more. Raises: ConfigError."""
        assert self._tasks is not None
        left = anyio.Event()
        await self._tasks.start(self._keep_guards, generation.guards, left)
        problems = problems_of(loaded, await generation.guards.load())
        if problems:
            left.set()
            raise ConfigError(problems)
        return left

    async def _keep_guards(
        self, guards: Guards | NoGuards, left: anyio.Event, *, task_status: TaskStatus[None]
    ) -> None:
        """Their processes run until they are left behind, and the calls that they judge have ended (F-102)."""
        async with guards.running():
            task_status.started()
            await left.wait()
            with anyio.move_on_after(self.drain):
                await guards.in_use.idle()


async def run(broker: Broker, front: Front) -> None:
    """Serve `front` until it ends, or a signal asks for the end: the first one kindly, the second one now.

    Signals are heeded before any process is started: none of them can be orphaned by an early one.
    """
    async with anyio.create_task_group() as tasks:
        await tasks.start(_heed_signals, broker.engine.closing, tasks.cancel_scope)
        async with broker.running():
            tasks.start_soon(give_back_at_times, broker.clock)
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
