"""The tasks of all upstreams, over all configurations of a broker: each lives from the first configuration that has it
to the last, and a reload starts and stops no other.

One that a configuration has left behind goes on for those whose calls are on it, for a bounded time.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from broker.upstream.isolated import Isolated
from broker.upstream.pool import Swap
from broker.upstream.process import reap_orphans
from broker.upstream.supervise import Upstream
from broker.workers.orphans import become_subreaper

log = logging.getLogger(__name__)


class Fleet:
    """See the module. `running` must be entered around its use."""

    def __init__(self) -> None:
        self._tasks: anyio.abc.TaskGroup | None = None
        self._scopes: dict[Upstream, anyio.CancelScope] = {}
        self._isolated: dict[Upstream, Isolated] = {}

    def __len__(self) -> int:
        """How many live, those included that have been left behind and finish their calls."""
        return len(self._scopes)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """At its end all are stopped at once, with every process that they started."""
        become_subreaper()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(reap_orphans)
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    def take(self, swap: Swap, drain: float) -> None:
        """Start what is new, and leave behind what is not there any more: it ends with the last call on it, or in
        `drain` seconds.
        """
        for upstream, isolated in swap.started:
            self._start(upstream, isolated)
        for upstream, isolated in swap.left:
            self._retire(upstream, isolated, drain)

    def _start(self, upstream: Upstream, isolated: Isolated | None) -> None:
        assert self._tasks is not None
        scope = self._scopes[upstream] = anyio.CancelScope()
        if isolated is not None:
            self._isolated[upstream] = isolated
            isolated.start(self._tasks)
        self._tasks.start_soon(self._run, upstream, scope, name=f"upstream {upstream.key}")

    def _retire(self, upstream: Upstream, isolated: Isolated | None, drain: float) -> None:
        assert self._tasks is not None
        upstream.retire()
        if isolated is not None:
            isolated.retire()
        self._tasks.start_soon(self._stop, upstream, isolated, drain, name=f"end of upstream {upstream.key}")

    def give_up(self, why: str) -> None:
        """Every call that is in flight fails now, and none of them comes back."""
        for upstream in tuple(self._scopes):
            upstream.retire(why)
            upstream.lose(why)
            if (isolated := self._isolated.get(upstream)) is not None:
                isolated.lose(why)

    async def _run(self, upstream: Upstream, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await upstream.run()
        finally:
            del self._scopes[upstream]
            self._isolated.pop(upstream, None)

    async def _stop(self, upstream: Upstream, isolated: Isolated | None, drain: float) -> None:
        with anyio.move_on_after(drain):
            await upstream.in_use.idle()
        if upstream.in_use.count:
            log.warning("%s: %d calls were cut: they took longer than %g s", upstream.key, upstream.in_use.count, drain)
        if isolated is not None:
            await isolated.stop()
        scope = self._scopes.get(upstream)
        if scope is not None:
            scope.cancel()
        log.info("%s: stopped", upstream.key)
