"""The trail of a request that becomes a line: what is told of it is kept in its record, and written when it is over."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from broker.clock import Clock
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.grants import full_name
from broker.core.policy import Decision, Denied, Policy
from broker.core.tracecontext import context_in
from broker.errors import Blocked, BrokerError, InternalError, LimitReached, Refused, Unrecorded, UpstreamTimedOut
from broker.guardrails.chain import GuardrailRecord
from broker.usage.excerpt import Excerpts
from broker.usage.meter import NO_METER, Meter
from broker.usage.records import CallRecord, DiscoveryRecord, JudgementRecord, Mark, Outcome
from broker.usage.revision import NO_REVISION, Revision
from broker.usage.traces import NO_TRACES, Traces
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


@dataclass
class Book:
    """What all trails of a broker share: where records go, and what of a call they have.

    `is_required`: a call waits for the record of its decision. `hashes`: name -> hash of the guardrails in force.
    """

    writer: Writer | NoWriter
    clock: Clock
    meter: Meter = NO_METER
    is_required: bool = False
    arguments: Excerpts | None = None
    results: Excerpts | None = None
    hashes: Callable[[], Mapping[str, str]] = dict
    traces: Traces = NO_TRACES
    _guardrails: tuple[Mapping[str, str], str] | None = field(default=None, init=False)
    _policy: tuple[Policy, Revision] | None = field(default=None, init=False)

    def policy_mark(self, policy: Policy) -> Revision:
        """Which policy it was: the same for the same rules, also in another broker."""
        if self._policy is None or self._policy[0] is not policy:
            self._policy = policy, Revision(policy) if self.writer.is_on else NO_REVISION
        return self._policy[1]

    def guardrails_mark(self) -> str:
        """Which guardrails were in force; "" for none."""
        hashes = self.hashes()
        if self._guardrails is None or self._guardrails[0] is not hashes:
            text = "\n".join(f"{name} {one}" for name, one in sorted(hashes.items()))
            self._guardrails = hashes, hashlib.sha256(text.encode()).hexdigest()[:16] if hashes else ""
        return self._guardrails[1]


class LineTrail:
    """See `Trail`. Every call makes one: what few of them need is set when it is needed."""

    _shown: Mark | None = None
    _is_over: bool = False
    _entry: Entry | None = None
    _asks_many: bool = False
    _writing: anyio.Event | None = None
    _is_written: bool = False

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
        book.meter.began()
        self._book = book
        self._params = params
        self._began = book.clock.now()
        parent = context_in(params) if "_meta" in params else None
        self.span = book.traces.begin(method, parent)
        trace = self.span.trace or ("" if parent is None else parent.trace)
        self._record = CallRecord(caller, front, era, method, view, request_bytes=size, trace=trace)

    @property
    def is_kept(self) -> bool:
        """See `Trail`."""
        return self._book.writer.is_on

    @property
    def must_wait(self) -> bool:
        """See `Trail`."""
        return self._book.is_required and not self._is_written

    def named(self, public: str) -> None:
        """See `Trail`."""
        self._record.public = public

    def decided(self, decision: Decision, entry: Entry | None, policy: Policy) -> None:
        """See `Trail`. A request that asks several servers at once names none."""
        record = self._record
        if entry is self._entry and record.rule == decision.rule:
            return  # of the same request, on its way
        record.policy = self._book.policy_mark(policy)
        record.rule = decision.rule
        if isinstance(decision, Denied):
            record.outcome = "denied"
        if entry is None or self._asks_many:
            return
        if self._entry is not None and self._entry.server != entry.server:
            self._asks_many = True
            record.public, record.server, record.own, record.kind = "", "", "", ""
            return
        self._entry = entry
        record.server, record.own, record.kind = entry.server, entry.own, entry.kind.value
        if not record.public and entry.listed:
            record.public = entry.public
        if self._book.arguments is not None:
            full = full_name(entry.kind, entry.server, entry.own)
            record.arguments = self._book.arguments.of(full, self._params.get("arguments"))

    def judged(self, judgement: GuardrailRecord) -> None:
        """See `Trail`. What is judged after the end, as a question of a call that goes on, has a record of its own."""
        record = self._record
        if self._is_over:
            self._book.writer.put(JudgementRecord.of(judgement, record.caller))
            return
        if record.judgements is None:
            record.judgements = []
        if len(record.judgements) < MAX_JUDGEMENTS:
            record.judgements.append(judgement)
        else:
            record.more_judgements += 1

    def refused(self, refusal: BrokerError) -> None:
        """See `Trail`."""
        record = self._record
        if isinstance(refusal, Blocked):
            record.outcome, record.rule = "blocked", f"guardrail:{refusal.data['guardrail']}"
        elif isinstance(refusal, Refused):
            record.outcome, record.rule = "denied", refusal.data["rule"]
        elif isinstance(refusal, LimitReached):
            record.outcome, record.rule = "limited", f"limit:{refusal.level}/{refusal.limit}"

    async def recorded(self) -> None:
        """See `Trail`. Requests that ask several servers wait for the one record."""
        if self._writing is not None:
            await self._writing.wait()
        else:
            self._writing = anyio.Event()
            try:
                self._record.call = self._book.clock.token()
                record = self._record.decision()
                self._fill(record, "permitted")
                self._is_written = await self._book.writer.written(record, REQUIRED_WITHIN)
            finally:
                self._writing.set()
        if not self._is_written:
            raise Unrecorded

    def showed(self, mark: Mark, policy: Policy) -> None:
        """See `Trail`."""
        self._shown = mark
        self._record.policy = self._book.policy_mark(policy)

    def ended(self, result: Mapping[str, Any], size: int) -> None:
        """See `Trail`."""
        record = self._record
        record.result_bytes = size
        if record.outcome != "done":
            self._end(record.outcome)
        elif result.get("isError") is True:
            self._end("failed")
        elif result.get("resultType") == "input_required":
            self._end("input-required")
        else:
            entry, results = self._entry, self._book.results
            if results is not None and entry is not None:
                full = full_name(entry.kind, entry.server, entry.own)
                record.results = results.of(full, result.get("structuredContent"))
            self._end("done")

    def failed(self, error: BrokerError) -> None:
        """See `Trail`."""
        self._record.code = error.code
        if isinstance(error, InternalError):
            self._record.error = error.data["errorId"]
        self.refused(error)
        if self._record.outcome != "done":
            self._end(self._record.outcome)
        else:
            self._end("timed-out" if isinstance(error, UpstreamTimedOut) else "error")

    def cancelled(self) -> None:
        """See `Trail`."""
        self._end("cancelled")

    def _end(self, outcome: Outcome) -> None:
        if self._is_over:
            return
        self._is_over = True
        record, book = self._record, self._book
        method, meter = record.method, book.meter
        meter.ended()
        if method in SILENT:
            if self._shown is not None or (method in DISCOVERIES and outcome == "done"):
                meter.discovered(method)
            if self._shown is not None:
                book.writer.put(DiscoveryRecord.of(record, self._shown))
            record.outcome = outcome
            self.span.ended(record)
            return
        self._fill(record, outcome)
        meter.called(record)
        book.writer.put(record)
        self.span.ended(record)

    def _fill(self, record: CallRecord, outcome: Outcome) -> None:
        book = self._book
        record.outcome = outcome
        record.ms = (book.clock.now() - self._began) * 1000
        record.guardrails = book.guardrails_mark()
