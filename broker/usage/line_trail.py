"""The trail of a request that becomes a line: what is told of it is kept in its record, and written when it is over."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from broker.clock import Clock
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.grants import full_name
from broker.core.policy import Decision, Denied, Policy
from broker.core.shape import is_object
from broker.core.tracecontext import PARENT, context_in
from broker.errors import Blocked, BrokerError, InternalError, LimitReached, Refused, Unrecorded, UpstreamTimedOut
from broker.guardrails.chain import GuardrailRecord
from broker.usage.excerpt import Excerpts
from broker.usage.meter import NO_METER, Meter
from broker.usage.records import CallRecord, DiscoveryRecord, JudgementRecord, Mark
from broker.usage.revision import NO_REVISION, Revision
from broker.usage.traces import NO_SPAN, NO_TRACES, Span, Traces
from broker.usage.trail import REQUIRED_WITHIN
from broker.usage.writer import NoWriter, Writer

MAX_JUDGEMENTS: Final = 100
"""Judgements in the record of one call; others are counted. A server may ask any number of questions in a call, and
each of them is judged."""
DISCOVERIES: Final = frozenset(
    {"initialize", "server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list"}
)
SILENT: Final = DISCOVERIES | {"ping", "logging/setLevel"}
"""Requests that are no use of an entry: those that showed a view have a record of that."""
NOTHING: Final[Mapping[str, Any]] = {}


@dataclass
class Book:
    """What all trails of a broker share: where records go, and what of a call they have.

    `is_required`: a call waits for the record of its decision.
    """

    writer: Writer | NoWriter
    clock: Clock
    meter: Meter = NO_METER
    is_required: bool = False
    arguments: Excerpts | None = None
    results: Excerpts | None = None
    traces: Traces = NO_TRACES
    policy: Policy | None = field(default=None, init=False)
    """The last one that was recorded, and its mark: the same for the same rules, also in another broker."""
    revision: Revision = field(default=NO_REVISION, init=False)
    guardrails: str = field(default="", init=False)
    """The mark of those in force; "" for none."""

    def adopt(self, policy: Policy) -> None:
        """Another policy is in force."""
        self.policy = policy
        self.revision = Revision(policy) if self.writer.is_on else NO_REVISION

    def guard(self, hashes: Mapping[str, str]) -> None:
        """Other guardrails are in force: `hashes`, by name."""
        text = "\n".join(f"{name} {one}" for name, one in sorted(hashes.items()))
        self.guardrails = hashlib.sha256(text.encode()).hexdigest()[:16] if hashes else ""


class LineTrail(CallRecord):
    """See `Trail`. It is its own record. Every request makes one: what few of them need is set when it is needed."""

    span: Span = NO_SPAN
    _shown: Mark | None = None
    _is_over: bool = False
    _entry: Entry | None = None
    _asks_many: bool = False
    _writing: anyio.Event | None = None

    def __init__(
        self,
        book: Book,
        caller: Caller,
        front: str,
        era: str,
        method: str,
        view: str,
        params: Mapping[str, Any],
        size: int,
    ) -> None:
        book.meter.in_flight += 1
        self.caller = caller
        self.front = front
        self.era = era
        self.method = method
        self.view = view
        self.request_bytes = size
        self.must_wait = book.is_required
        self._book = book
        self._params = params
        self._began = book.clock.now()
        meta = params.get("_meta")
        parent = context_in(params) if is_object(meta) and PARENT in meta else None
        if parent is not None:
            self.trace = parent.trace
        if book.traces.is_on:
            self.span = book.traces.begin(method, parent)
            self.trace = self.span.trace or self.trace

    @property
    def is_kept(self) -> bool:
        """See `Trail`."""
        return self._book.writer.is_on

    def decided(self, decision: Decision, entry: Entry | None, policy: Policy, public: str = "") -> None:
        """See `Trail`. A request that asks several servers at once names none."""
        if public:
            self.public = public
        if entry is self._entry and self.rule == decision.rule:
            return  # of the same request, on its way
        book = self._book
        if policy is not book.policy:
            book.adopt(policy)
        self.policy, self.rule, self.guardrails = book.revision, decision.rule, book.guardrails
        if isinstance(decision, Denied):
            self.outcome = "denied"
        if entry is None or self._asks_many:
            return
        if self._entry is not None and self._entry.server != entry.server:
            self._asks_many = True
            self.public, self.server, self.own, self.kind = "", "", "", ""
            return
        self._entry = entry
        self.server, self.own, self.kind = entry.server, entry.own, entry.kind
        if not self.public and entry.listed:
            self.public = entry.public
        if book.arguments is not None:
            full = full_name(entry.kind, entry.server, entry.own)
            self.arguments = book.arguments.of(full, self._params.get("arguments"))

    def judged(self, judgement: GuardrailRecord) -> None:
        """See `Trail`. What is judged after the end, as a question of a call that goes on, has a record of its own."""
        if self._is_over:
            self._book.writer.put(JudgementRecord.of(judgement, self.caller))
            return
        if self.judgements is None:
            self.judgements = []
        if len(self.judgements) < MAX_JUDGEMENTS:
            self.judgements.append(judgement)
        else:
            self.more_judgements += 1

    def refused(self, refusal: BrokerError) -> None:
        """See `Trail`."""
        if isinstance(refusal, Blocked):
            self.outcome, self.rule = "blocked", f"guardrail:{refusal.data['guardrail']}"
        elif isinstance(refusal, Refused):
            self.outcome, self.rule = "denied", refusal.data["rule"]
        elif isinstance(refusal, LimitReached):
            self.outcome, self.rule = "limited", f"limit:{refusal.level}/{refusal.limit}"

    async def recorded(self) -> None:
        """See `Trail`. Requests that ask several servers wait for the one record."""
        if self._writing is not None:
            await self._writing.wait()
        else:
            self._writing = anyio.Event()
            try:
                self.call = self._book.clock.token()
                record = self.decision((self._book.clock.now() - self._began) * 1000)
                record._params = NOTHING
                self.must_wait = not await self._book.writer.written(record, REQUIRED_WITHIN)
            finally:
                self._writing.set()
        if self.must_wait:
            raise Unrecorded

    def showed(self, mark: Mark, policy: Policy) -> None:
        """See `Trail`."""
        self._shown = mark
        if policy is not self._book.policy:
            self._book.adopt(policy)
        self.policy = self._book.revision

    def ended(self, result: Mapping[str, Any], size: int) -> None:
        """See `Trail`. What was refused before it was made, and told as a result, stays refused."""
        if self._is_over:
            return
        book = self._book
        book.meter.in_flight -= 1
        self._is_over = True
        self._params = NOTHING  # they need not wait for the disk too
        self.result_bytes = size
        if self.outcome == "done":
            if result.get("isError") is True:
                self.outcome = "failed"
            elif result.get("resultType") == "input_required":
                self.outcome = "input-required"
            elif book.results is not None and (entry := self._entry) is not None:
                full = full_name(entry.kind, entry.server, entry.own)
                self.results = book.results.of(full, result.get("structuredContent"))
        if self.method in SILENT:
            self._end_silently()
        else:
            self.ms = (book.clock.now() - self._began) * 1000
            if book.meter.is_on:
                book.meter.called(self)
            book.writer.put(self)
        if self.span is not NO_SPAN:
            self.span.ended(self)

    def failed(self, error: BrokerError) -> None:
        """See `Trail`."""
        if self._is_over:
            return
        self.code = error.code
        if isinstance(error, InternalError):
            self.error = error.data["errorId"]
        self.refused(error)
        if self.outcome == "done":
            self.outcome = "timed-out" if isinstance(error, UpstreamTimedOut) else "error"
        self.ended(NOTHING, 0)

    def cancelled(self) -> None:
        """See `Trail`."""
        if not self._is_over:
            self.outcome = "cancelled"
            self.ended(NOTHING, 0)

    def _end_silently(self) -> None:
        """Of no use of an entry, but perhaps of a view that was shown."""
        shown = self._shown
        if shown is not None or (self.method in DISCOVERIES and self.outcome == "done"):
            self._book.meter.discovered(self.method)
        if shown is not None:
            self._book.writer.put(DiscoveryRecord.of(self, shown))
