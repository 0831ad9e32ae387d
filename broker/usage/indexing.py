"""The records find their way into the database, some seconds after they are written, and never while a call waits.

The files are the truth. What of them is in the index is known there, by file and byte: a broker that was killed goes on
where it was, brokers that share files or a database do nothing twice, and an index that is lost is made anew.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from broker.clock import Clock
from broker.stores.errors import StoreError
from broker.threads import in_thread
from broker.usage.files import DAY, paths
from broker.usage.index_rows import batch_of
from broker.usage.origin import make_origin
from broker.usage.trouble import Trouble

if TYPE_CHECKING:
    from broker.stores.audit_index import AuditIndex

log = logging.getLogger(__name__)

EVERY: Final = 5.0
"""Seconds between two looks at the files."""
RETRY: Final = 30.0
"""Seconds until the next look, while the index cannot be written."""
PACE: Final = 45.0
"""How many times as long as a part of it took nothing is done after it: indexing has a fiftieth of the time,
enough for a thousand records a second, and calls have the rest. `EVERY` seconds at most: what has waited for a database
is not what the calls here have waited for."""

OpenIndex = Callable[[], Awaitable["AuditIndex"]]


class Indexer:
    """See the module. `keep_days`: after which what the files of other machines have said is forgotten too."""

    def __init__(self, directory: Path, open_index: OpenIndex, clock: Clock, keep_days: int) -> None:
        self._directory = directory
        self._open = open_index
        self._clock = clock
        self._keep = keep_days * DAY
        self._seen: dict[str, int] = {}
        self._index: AuditIndex | None = None
        """Open from one look to the next: to open it takes more than to write what is new."""
        self._origin = ""
        self.behind = 0
        """Bytes that are not in the index yet, as of the last look."""
        self._trouble = Trouble(
            log,
            "the index of the audit is not written: %s; records are, and are found without it",
            "the index of the audit is written again",
        )

    @property
    def trouble(self) -> str:
        """Why the index cannot be written; "" while it can."""
        return self._trouble.why

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Look again and again while entered. What is not done at the end is done at the next start."""
        task = asyncio.create_task(self._serve())
        task.add_done_callback(_say_fault)
        try:
            yield
        finally:
            task.cancel()
            with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
                await task

    async def _serve(self) -> None:
        try:
            while True:
                await self._clock.sleep(RETRY if self.trouble else EVERY)
                try:
                    await self._look(PACE)
                except (StoreError, OSError) as error:
                    why = f"{error.strerror or error} ({self._directory})" if isinstance(error, OSError) else str(error)
                    self._trouble.begin(why)
                    await self._close()  # a server that comes back may be another one
                else:
                    self._trouble.end()
        finally:
            await self._close()

    async def look(self, pace: float = 0.0) -> int:
        """Index what is new, and forget what is gone; how many records it were. A database is opened only if there is
        something to do, and closed afterwards. Raises: StoreError, OSError.
        """
        try:
            return await self._look(pace)
        finally:
            await self._close()

    async def rebuild(self) -> int:
        """Forget all of the index that is of these files, and make it anew; how many records it were."""
        try:
            index = await self._opened()
            await self._tidied(index, self._origin, {})
            self._seen = {}
            return await self._look(0.0)
        finally:
            await self._close()

    async def _look(self, pace: float) -> int:
        sizes = await in_thread(self._sizes)
        if sizes == self._seen:
            return 0
        index = await self._opened()
        known = await self._tidied(index, self._origin, sizes)
        count = 0
        self.behind = sum(size - known.get(name, 0) for name, size in sizes.items())
        for name in sizes:
            count += await self._add(index, self._origin, name, known.get(name, 0), pace)
        self._seen = sizes
        return count

    async def _opened(self) -> "AuditIndex":
        if self._index is None:
            self._index = await self._open()
            token = self._clock.random_bytes(16).hex()
            self._origin = await in_thread(make_origin, self._directory, token)
        return self._index

    async def _close(self) -> None:
        index, self._index = self._index, None
        if index is not None:
            await index.aclose()

    def _sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for path in paths(self._directory) if self._directory.is_dir() else ():
            with suppress(FileNotFoundError):
                found[path.name] = path.stat().st_size
        return found

    async def _tidied(self, index: "AuditIndex", origin: str, sizes: dict[str, int]) -> dict[str, int]:
        """Forget files that are gone, or were cut; how many bytes of the others are indexed."""
        async with index.reading() as reading:
            files = await reading.files()
        known: dict[str, int] = {}
        too_old = self._clock.wall() - self._keep - DAY
        for file in files:
            is_mine = file.origin == origin
            if file.newest < too_old if not is_mine else sizes.get(file.name, -1) < file.size:
                while not await index.forget(file.id):
                    pass
            elif is_mine:
                known[file.name] = file.size
        return known

    async def _add(self, index: "AuditIndex", origin: str, name: str, begin: int, pace: float) -> int:
        """What one file has beyond byte `begin`; how many records."""
        count = 0
        while True:
            try:
                batch = await in_thread(batch_of, self._directory / name, begin, pace)
            except FileNotFoundError:
                return count
            began = self._clock.now()
            if batch is None or not await index.take(origin, name, batch):
                return count  # all is there, or somebody else is at it
            count += len(batch.rows)
            begin = batch.end
            self.behind -= batch.end - batch.begin
            if pace:
                await self._clock.sleep(min(pace * (self._clock.now() - began), EVERY))


def _say_fault(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("nothing is indexed any more: a fault of the broker", exc_info=fault)


class NoIndexer:
    """For who records nothing, or nothing for long."""

    behind: int = 0
    trouble: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """See `Indexer`."""
        yield


NO_INDEXER: Final = NoIndexer()
