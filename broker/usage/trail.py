"""What becomes of one request, as it is told by who decides and who answers: a `Trail`; `NoTrail` for nobody.

A trail is told what was decided and how it ended, and makes exactly one record of that (with `audit.required` two: the
decision before the call, and its outcome).
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from broker.core.catalog import Entry
from broker.core.policy import Decision, Policy
from broker.errors import BrokerError
from broker.guardrails.chain import GuardrailRecord
from broker.usage.records import Mark
from broker.usage.traces import NO_SPAN, Span

REQUIRED_WITHIN: Final = 1.0
"""Seconds that a call waits for its decision to be written; then it is not made (F-92)."""


class Trail(Protocol):
    """What becomes of one request. Nothing here blocks, but `recorded`; nothing raises, but that."""

    @property
    def is_kept(self) -> bool:
        """Whether any of it is of use."""
        ...

    @property
    def span(self) -> Span:
        """Its span, if requests are traced."""
        ...

    @property
    def must_wait(self) -> bool:
        """Whether the call may be made only after `recorded`."""
        ...

    def decided(self, decision: Decision, entry: Entry | None, policy: Policy, public: str = "") -> None:
        """By the policy, for an entry that is there or not. `public`: the name that was asked for, if there was one."""
        ...

    def judged(self, judgement: GuardrailRecord) -> None:
        """By a guardrail, which let it pass or did not."""
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
    span: Span = NO_SPAN

    def decided(self, decision: Decision, entry: Entry | None, policy: Policy, public: str = "") -> None:
        """See `Trail`."""

    def judged(self, judgement: GuardrailRecord) -> None:
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
