"""Where records go: an `Audit` begins a `Trail` for each request, and takes what belongs to none.

Where nothing is recorded `NoAudit` stands in its place, and costs nothing.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol

import anyio

from broker.core.caller import Caller
from broker.errors import Unrecorded
from broker.guardrails.chain import GuardrailRecord, Phase
from broker.threads import at_any_rate
from broker.usage.indexing import NO_INDEXER, Indexer, NoIndexer
from broker.usage.line_trail import Book, LineTrail
from broker.usage.records import AdminRecord, AuthRecord, JudgementRecord
from broker.usage.trail import NO_TRAIL, REQUIRED_WITHIN, Trail

AUTH_PER_MINUTE: Final = 60
"""Refused credentials that are recorded one by one; the others are counted. Guessing must not fill the disk."""
NOBODY: Final = Caller("")
"""Of whom no caller was made."""


class Audit(Protocol):
    """Where records go."""

    def begin(
        self, caller: Caller, front: str, era: str, method: str, view: str, params: Mapping[str, Any], size: int, /
    ) -> Trail:
        """The trail of a request of so many bytes. `front`: by which it came."""
        ...

    def guard(self, hashes: Mapping[str, str]) -> None:
        """Other guardrails are in force: their hashes, by name."""
        ...

    def admitted_not(self, peer: str, status: int, reason: str) -> None:
        """A credential was refused, or there was none."""
        ...

    def judged(self, judgement: GuardrailRecord) -> None:
        """A guardrail has judged what belongs to no request: a definition, or a question outside of any call."""
        ...

    async def did(self, actor: Caller, action: str, target: str, outcome: str, why: str) -> None:
        """Somebody has changed, or tried to change, who may do what. Raises: Unrecorded, where that is required."""
        ...

    def running(self) -> Any:
        """An asynchronous context in which records are written."""
        ...


class NoAudit:
    """Nothing is recorded, at no cost."""

    def begin(
        self, caller: Caller, front: str, era: str, method: str, view: str, params: Mapping[str, Any], size: int, /
    ) -> Trail:
        """See `Audit`."""
        return NO_TRAIL

    def guard(self, hashes: Mapping[str, str]) -> None:
        """See `Audit`."""

    def admitted_not(self, peer: str, status: int, reason: str) -> None:
        """See `Audit`."""

    def judged(self, judgement: GuardrailRecord) -> None:
        """See `Audit`."""

    async def did(self, actor: Caller, action: str, target: str, outcome: str, why: str) -> None:
        """See `Audit`."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """See `Audit`."""
        yield


NO_AUDIT: Final = NoAudit()


class LineAudit:
    """Lines in files, and counts. `book`: where they go, and by which rules; `indexer`: brings them into the store."""

    def __init__(self, book: Book, indexer: Indexer | NoIndexer = NO_INDEXER) -> None:
        self.book = book
        self.begin: Callable[[Caller, str, str, str, str, Mapping[str, Any], int], Trail] = partial(LineTrail, book)
        """See `Audit`."""
        self.indexer = indexer
        self._auth = (0.0, 0, 0)

    def guard(self, hashes: Mapping[str, str]) -> None:
        """See `Audit`."""
        self.book.guard(hashes)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """See `Audit`."""
        self.book.writer.start()
        self.book.traces.start()
        try:
            async with self.indexer.running():
                yield
        finally:
            with anyio.CancelScope(shield=True):
                await at_any_rate(self.book.writer.close)
                await self.book.traces.aclose()

    def admitted_not(self, peer: str, status: int, reason: str) -> None:
        """See `Audit`."""
        self.book.meter.refused(status)
        since, count, more = self._auth
        now = self.book.clock.now()
        if not count or now - since >= 60:
            since, count = now, 0
        if count >= AUTH_PER_MINUTE:
            self._auth = since, count, more + 1
            return
        self._auth = since, count + 1, 0
        self.book.writer.put(AuthRecord(NOBODY, peer, status, reason, more))

    def judged(self, judgement: GuardrailRecord) -> None:
        """See `Audit`. That a definition passes is no news: each is judged whenever a list is read."""
        if judgement.phase is Phase.DEFINITION and judgement.action == "pass":
            return
        self.book.writer.put(JudgementRecord.of(judgement, judgement.caller or NOBODY))

    async def did(self, actor: Caller, action: str, target: str, outcome: str, why: str) -> None:
        """See `Audit`."""
        record = AdminRecord(actor, action, target, outcome, why)
        if not self.book.is_required:
            self.book.writer.put(record)
        elif not await self.book.writer.written(record, REQUIRED_WITHIN):
            raise Unrecorded
