"""What was used since the last batch, in memory, and the task that writes batches of it.

A batch that may or may not have been written is sent again as it is, under its number, until it is known to be in: the
database counts it once. What a broker that is killed had not written is lost: `EVERY` seconds of it.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING, Final

import anyio

from broker.clock import Clock
from broker.core.period import Period, begin_of, end_of
from broker.core.tally import Sums, Use
from broker.stores.errors import StoreError
from broker.usage.trouble import Trouble

if TYPE_CHECKING:
    from broker.stores.usage import UsageStore

log = logging.getLogger(__name__)

EVERY: Final = 5.0
"""Seconds between two batches."""
MAX_USES: Final = 20_000
"""Callers and entries that are told apart in one batch. Without it, a database that is down for a day and an issuer
with any number of users would fill the memory; what is beyond is counted as that of `OTHERS`."""
OTHERS: Final = Use("", "", "(others)", "", "", "")
MAX_BATCH: Final = 500
"""Rows of one transaction: nobody else can write meanwhile."""
FORGETS_EVERY: Final = 3600.0
"""Seconds between two looks at what is too old."""
CLOSES_WITHIN: Final = 3.0
"""Seconds for the last batch."""


@dataclass(slots=True)
class Tally(Sums):
    """What is counted from `since` until `until`, in seconds since 1970, or until it is taken away to be written:
    whoever adds to it looks at the time first.
    """

    since: float = -inf
    until: float = inf


NO_TALLY: Final = Tally(until=-inf)
"""To which nothing is ever added."""
Batch = dict[tuple[int, Use], Tally]


class Tallies:
    """See the module. `open_store`: called when first needed, and again after each failure; raises StoreError."""

    def __init__(self, clock: Clock, open_store: Callable[[], Awaitable["UsageStore"]], keep_days: int) -> None:
        self._clock = clock
        self._open = open_store
        self._keep = keep_days * 86_400.0
        self._store: UsageStore | None = None
        self._counted: Batch = {}
        self._batch: Batch = {}
        """What is under way."""
        self._number = 0
        self._forgotten = -FORGETS_EVERY
        self._trouble = Trouble(log, "%s; what is used is kept in memory", "what was used is written again")

    @property
    def trouble(self) -> str:
        """Why nothing can be written; "" while it can."""
        return self._trouble.why

    def of(self, use: Use) -> Tally:
        """Where it is counted now."""
        begin = begin_of(Period.HOUR, self._clock.wall())
        found = self._counted.get((begin, use))
        if found is None:
            kept = OTHERS if len(self._counted) >= MAX_USES else use
            found = self._counted.setdefault((begin, kept), Tally(since=begin, until=end_of(Period.HOUR, begin)))
        return found

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Around all use. At the end the last batch is written."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
        with anyio.move_on_after(CLOSES_WITHIN, shield=True):
            await self.flush()
            while self._counted and not self.trouble:  # by calls that have ended meanwhile
                await self.flush()
        await self._leave()

    async def _serve(self) -> None:
        while True:
            await self._clock.sleep(EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Write what there is; what cannot be written is kept. What is counted from here on waits for the next time:
        while calls go on there is always more, and one transaction after the other would take a good part of a core.
        """
        try:
            for _ in range(bool(self._batch) + ceil(len(self._counted) / MAX_BATCH)):
                await self._write()
            if self._store is not None and self._clock.now() - self._forgotten >= FORGETS_EVERY:
                self._forgotten = self._clock.now()
                await self._store.forget(self._clock.wall() - self._keep)
            self._trouble.end()
        except StoreError as error:
            await self._lost(str(error))
        except Exception as fault:  # what is counted is kept, and nobody's call ends with it
            log.error("internal error", exc_info=fault)
            await self._lost("usage cannot be written: a fault of the broker")

    async def _write(self) -> None:
        """One batch. Raises: StoreError; then it is still the one under way."""
        if not self._batch:
            keys = list(self._counted)[:MAX_BATCH]
            self._batch = {key: self._counted.pop(key) for key in keys}
            for tally in self._batch.values():
                tally.until = -inf
            self._number += 1
        if self._store is None:
            self._store = await self._open()
        # In one order everywhere: brokers that add to the same rows must not wait for each other in a circle.
        batch = {key: self._batch[key] for key in sorted(self._batch, key=repr)}
        await self._store.add(self._number, batch, self._clock.wall())
        self._batch = {}

    async def _lost(self, why: str) -> None:
        self._trouble.begin(why)
        await self._leave()

    async def _leave(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            await store.database.aclose()
