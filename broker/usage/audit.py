"""The seam between who decides and what is recorded: `Audit` begins a `Trail` for each request.

A trail is told what was decided and how it ended, and makes exactly one record of that (with `audit.required` two: the
decision before the call, and its outcome). Where nothing is recorded `NoAudit` stands in its place, and costs nothing.
"""

import hashlib
import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio.to_thread

from broker.clock import Clock
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.grants import full_name
from broker.core.policy import Decision, Denied, Policy
from broker.core.shape import is_object
from broker.errors import Blocked, BrokerError, LimitReached, Refused, Unrecorded, UpstreamTimedOut
from broker.usage.excerpt import Excerpts
from broker.usage.meter import NO_METER, Meter
from broker.usage.records import AdminRecord, AuthRecord, CallRecord, DiscoveryRecord, Mark, Outcome, Record
from broker.usage.revision import revision_of
from broker.usage.writer import NoWriter, Writer

log = logging.getLogger(__name__)

REQUIRED_WITHIN: Final = 1.0
"""Seconds that a call waits for its decision to be written; then it is not made (F-92)."""
AUTH_PER_MINUTE: Final = 60
"""Refused credentials that are recorded one by one; the others are counted. Guessing must not fill the disk."""
NOBODY: Final = Caller("")
"""Of whom no caller was made."""
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


@dataclass(slots=True)
class Asked:
    """What is known of a request before anything is decided; never changed (a frozen one takes longer to make)."""

    caller: Caller
    front: str
    era: str
    method: str
    view: str
    params: Mapping[str, Any]
    size: int


class Trail(Protocol):
    """What becomes of one request. Nothing here blocks, but `recorded`; nothing raises, but that."""

    @property
    def is_kept(self) -> bool:
        """Whether any of it is of use."""
        ...

    @property
    def must_wait(self) -> bool:
        """Whether the call may be made only after `recorded`."""
        ...

    def named(self, public: str) -> None:
        """The public name that was asked for."""
        ...

    def decided(self, decision: Decision, entry: Entry | None, policy: Policy) -> None:
        """By the policy, for an entry that is there or not."""
        ...

    def refused(self, refusal: BrokerError) -> None:
        """By a guardrail, a limit, or a rule on what a guardrail has made of it, where that is told as a result."""
        ...

    async def recorded(self) -> None:
        """The decision is written. Raises: Unrecorded, if it cannot be, within `REQUIRED_WITHIN`."""
        ...

    def showed(self, mark: Mark, policy: Policy) -> None:
        """A view was shown."""
        ...

    def ended(self, result: Mapping[str, Any], size: int) -> None:
        """With a result of that many bytes."""
        ...

    def failed(self, error: BrokerError) -> None:
        """With an error."""
        ...

    def cancelled(self) -> None:
        """Its caller does not want it any more, or is gone."""
        ...


class NoTrail:
    """Nothing is recorded."""

    is_kept: bool = False
    must_wait: bool = False

    def named(self, public: str) -> None:
        """See `Trail`."""

    def decided(self, decision: Decision, entry: Entry | None, policy: Policy) -> None:
        """See `Trail`."""

    def refused(self, refusal: BrokerError) -> None:
        """See `Trail`."""

    async def recorded(self) -> None:
        """See `Trail`."""

    def showed(self, mark: Mark, policy: Policy) -> None:
        """See `Trail`."""

    def ended(self, result: Mapping[str, Any], size: int) -> None:
        """See `Trail`."""

    def failed(self, error: BrokerError) -> None:
        """See `Trail`."""

    def cancelled(self) -> None:
        """See `Trail`."""


NO_TRAIL: Final = NoTrail()


class Audit(Protocol):
    """Where records go."""

    def begin(self, asked: Callable[[], Asked]) -> Trail:
        """The trail of a request; it is asked what that is only if somebody wants to know."""
        ...

    def admitted_not(self, peer: str, status: int, reason: str) -> None:
        """A credential was refused, or there was none."""
        ...

    async def did(self, actor: Caller, action: str, target: str, outcome: str, why: str) -> None:
        """Somebody has changed, or tried to change, who may do what. Raises: Unrecorded, where that is required."""
        ...

    def running(self) -> Any:
        """An asynchronous context in which records are written."""
        ...


class NoAudit:
    """Nothing is recorded, at no cost."""

    def begin(self, asked: Callable[[], Asked]) -> Trail:
        """See `Audit`."""
        return NO_TRAIL

    def admitted_not(self, peer: str, status: int, reason: str) -> None:
        """See `Audit`."""

    async def did(self, actor: Caller, action: str, target: str, outcome: str, why: str) -> None:
        """See `Audit`."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """See `Audit`."""
        yield


NO_AUDIT: Final = NoAudit()


class LineAudit:
    """Lines in files, and counts. `hashes`: name -> hash of the guardrails in force."""

    def __init__(
        self,
        writer: Writer | NoWriter,
        clock: Clock,
        *,
        meter: Meter = NO_METER,
        is_required: bool = False,
        arguments: Excerpts | None = None,
        results: Excerpts | None = None,
        hashes: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.writer = writer
        self.meter = meter
        self.clock = clock
        self.is_required = is_required
        self.arguments = arguments
        self.results = results
        self._hashes = hashes
        self._guardrails: tuple[Mapping[str, str], str] | None = None
        self._policy: tuple[Policy, str] | None = None
        self._auth = (0.0, 0, 0)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """See `Audit`."""
        self.writer.start()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.writer.close)

    def begin(self, asked: Callable[[], Asked]) -> Trail:
        """See `Audit`."""
        return LineTrail(self, asked())

    def admitted_not(self, peer: str, status: int, reason: str) -> None:
        """See `Audit`."""
        self.meter.refused(status)
        since, count, more = self._auth
        now = self.clock.now()
        if not count or now - since >= 60:
            since, count = now, 0
        if count >= AUTH_PER_MINUTE:
            self._auth = since, count, more + 1
            return
        self._auth = since, count + 1, 0
        self.writer.put(AuthRecord(NOBODY, peer, status, reason, more))

    async def did(self, actor: Caller, action: str, target: str, outcome: str, why: str) -> None:
        """See `Audit`."""
        record = AdminRecord(actor, action, target, outcome, why)
        if not self.is_required:
            self.writer.put(record)
        elif not await self.writer.written(record, REQUIRED_WITHIN):
            raise Unrecorded

    def policy_mark(self, policy: Policy) -> str:
        """Which policy it was: the same for the same rules, also in another broker."""
        if not self.writer.is_on:
            return ""
        if self._policy is None or self._policy[0] is not policy:
            self._policy = policy, revision_of(policy)
        return self._policy[1]

    def guardrails_mark(self) -> str:
        """Which guardrails were in force; "" for none."""
        hashes = self._hashes()
        if self._guardrails is None or self._guardrails[0] is not hashes:
            text = "\n".join(f"{name} {one}" for name, one in sorted(hashes.items()))
            self._guardrails = hashes, hashlib.sha256(text.encode()).hexdigest()[:16] if hashes else ""
        return self._guardrails[1]


class LineTrail:
    """See `Trail`."""

    def __init__(self, audit: LineAudit, asked: Asked) -> None:
        audit.meter.began()
        self._audit = audit
        self._asked = asked
        self._began = audit.clock.now()
        self._shown: Mark | None = None
        self._is_over = False
        self._entry: Entry | None = None
        self._asks_many = False
        self._writing: anyio.Event | None = None
        self._is_written = False
        self._record = CallRecord(
            asked.caller,
            asked.front,
            asked.era,
            asked.method,
            asked.view,
            request_bytes=asked.size,
            trace=trace_of(asked.params),
        )

    @property
    def is_kept(self) -> bool:
        """See `Trail`."""
        return self._audit.writer.is_on

    @property
    def must_wait(self) -> bool:
        """See `Trail`."""
        return self._audit.is_required and not self._is_written

    def named(self, public: str) -> None:
        """See `Trail`."""
        self._record.public = public

    def decided(self, decision: Decision, entry: Entry | None, policy: Policy) -> None:
        """See `Trail`. A request that asks several servers at once names none."""
        record = self._record
        if entry is self._entry and record.rule == decision.rule:
            return  # of the same request, on its way
        record.policy = self._audit.policy_mark(policy)
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
        if self._audit.arguments is not None:
            full = full_name(entry.kind, entry.server, entry.own)
            record.arguments = self._audit.arguments.of(full, self._asked.params.get("arguments"))

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
                self._record.call = self._audit.clock.token()
                record = self._filled(self._copy(), "permitted")
                self._is_written = await self._audit.writer.written(record, REQUIRED_WITHIN)
            finally:
                self._writing.set()
        if not self._is_written:
            raise Unrecorded

    def showed(self, mark: Mark, policy: Policy) -> None:
        """See `Trail`."""
        self._shown = mark
        self._record.policy = self._audit.policy_mark(policy)

    def ended(self, result: Mapping[str, Any], size: int) -> None:
        """See `Trail`."""
        self._record.result_bytes = size
        if self._record.outcome != "done":
            self._end(self._record.outcome)
        elif result.get("isError") is True:
            self._end("failed")
        elif result.get("resultType") == "input_required":
            self._end("input-required")
        else:
            entry, results = self._entry, self._audit.results
            if results is not None and entry is not None:
                full = full_name(entry.kind, entry.server, entry.own)
                self._record.results = results.of(full, result.get("structuredContent"))
            self._end("done")

    def failed(self, error: BrokerError) -> None:
        """See `Trail`."""
        self._record.code = error.code
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
        asked, record, meter = self._asked, self._record, self._audit.meter
        meter.ended()
        if self._shown is not None or (asked.method in DISCOVERIES and outcome == "done"):
            meter.discovered(asked.method)
        if self._shown is not None:
            shown = DiscoveryRecord(
                asked.caller, asked.front, asked.era, asked.method, self._shown, asked.view, record.policy, record.trace
            )
            self._audit.writer.put(shown)
        elif asked.method not in SILENT:
            self._filled(record, outcome)
            meter.called(record)
            self._audit.writer.put(record)

    def _filled(self, record: CallRecord, outcome: Outcome) -> Record:
        record.outcome = outcome
        record.ms = round((self._audit.clock.now() - self._began) * 1000, 3)
        record.guardrails = self._audit.guardrails_mark()
        return record

    def _copy(self) -> CallRecord:
        one = self._record
        return CallRecord(
            one.caller,
            one.front,
            one.era,
            one.method,
            one.view,
            one.call,
            one.public,
            one.own,
            one.kind,
            one.server,
            one.rule,
            request_bytes=one.request_bytes,
            trace=one.trace,
            policy=one.policy,
            arguments=one.arguments,
        )


DISCOVERIES: Final = frozenset(
    {"initialize", "server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list"}
)
SILENT: Final = DISCOVERIES | {"ping", "logging/setLevel"}
"""Requests that are no use of an entry: those that showed a view have a record of that."""


def trace_of(params: Mapping[str, Any]) -> str:
    """The trace that a caller's request belongs to, by its `traceparent`; "" for none."""
    meta = params.get("_meta")
    parent = meta.get("traceparent") if is_object(meta) else None
    found = _TRACEPARENT.fullmatch(parent) if isinstance(parent, str) and len(parent) <= 512 else None
    return found[1] if found else ""
