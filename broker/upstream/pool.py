"""All upstreams of one configuration, each in its own task."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import anyio

from broker.upstream.process import become_subreaper
from broker.upstream.supervise import Upstream

STOP_TIMEOUT: Final = 8.0
"""Seconds that stopping all of them may take; each bounds itself to half of that."""


class Pool:
    """The upstreams by key, in configuration order."""

    def __init__(self, upstreams: Iterable[Upstream]) -> None:
        self.upstreams: Mapping[str, Upstream] = {upstream.key: upstream for upstream in upstreams}
        self._patience: float | None = None

    def __repr__(self) -> str:
        return f"<Pool {', '.join(f'{key}: {one.state.phase}' for key, one in self.upstreams.items())}>"

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """All start at once, none delays another; at the end all are stopped at once."""
        become_subreaper()
        async with anyio.create_task_group() as tasks:
            for upstream in self.upstreams.values():
                tasks.start_soon(upstream.run, name=f"upstream {upstream.key}")
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def seen(self, keys: Iterable[str], timeout: float) -> None:
        """Wait until each of `keys` has been seen once or has failed once.

        At most until `timeout` seconds after anybody first had to wait: a server that hangs costs its broker one wait
        in all, not one for every list.
        """
        unseen = [self.upstreams[key] for key in keys if self.upstreams[key].listing is None]
        if not unseen:
            return
        self._patience = self._patience or anyio.current_time() + timeout
        with anyio.CancelScope(deadline=self._patience):
            for upstream in unseen:
                await upstream.first_try.wait()
