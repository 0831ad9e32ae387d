"""The seam where a permitted call is admitted: it gets its share of every limit that applies, or one refusal.

    hold = await quotas.admit(permit, method, is_retry=False)
    try:
        ...                       # hold.settle(result), once the upstream has answered
    finally:
        hold.release()

All or nothing: whoever is refused has taken nothing from anybody. What a call holds is given back exactly once, however
it ends: result, error, time-out, cancellation, or questions that park it. A call that waits for its caller holds
nothing: its retry is admitted again, and counts as one call with the first.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from broker.clock import Clock
from broker.core.policy import Permit
from broker.usage.counters import Counters
from broker.usage.counting import OWN_COUNTING, Counting
from broker.usage.gate import Gate, leave
from broker.usage.terms import Terms

TASKS: Final = "tasks/"
UNCOUNTED: Final = frozenset({"tasks/cancel"})
"""What is never too often."""


class Hold:
    """What one admitted call holds: places before gates. One of a call that has a price is a `budgets.Spending`.

    It is settled once, if the upstream answers, and released once, however the call ends; or it is forgone, if the call
    is refused before it has begun. None of these raises, and none waits.
    """

    __slots__ = ("gates", "is_settled", "is_short")

    def __init__(self, gates: tuple[Gate, ...] = ()) -> None:
        self.gates = gates
        """Before which it has places."""
        self.is_settled = True
        """Whether nothing is set aside for it (any more)."""
        self.is_short = False
        """Whether what it may cost is not at hand, and `fill` asks for more."""

    async def fill(self) -> None:
        """Set aside what is missing, once there is enough. Raises: LimitReached, with nothing set aside."""

    def settle(self, result: Mapping[str, Any] | None) -> None:
        """The upstream has answered: with a result (also `isError`), a task, or questions (`input_required`); None: the
        call has ended without an answer. The second time does nothing.

        `result` is the upstream's own words under public names, before any guardrail has judged them.
        """

    def release(self) -> None:
        """The call has ended, whichever way. The second time does nothing."""
        if not self.is_settled:
            self.settle(None)
        gates, self.gates = self.gates, ()
        if gates:
            leave(gates)

    def forgo(self) -> None:
        """The call was refused, and has not begun: what was set aside for it is free again."""


NO_HOLD: Final = Hold()
"""Of a call that holds nothing. It has no state: all of them share it."""


class Budgets(Protocol):
    """What calls may cost."""

    def adopt(self, terms: Terms) -> None:
        """Others are in force."""
        ...

    def take(self, permit: Permit, method: str, *, is_retry: bool) -> Hold:
        """What the call may cost is set aside, or it `is_short`; NO_HOLD, if it costs nothing. `is_retry`: it takes up
        a call that was answered with questions.
        """
        ...


class NoBudgets:
    """Nothing has a price."""

    def adopt(self, terms: Terms) -> None:
        """See `Budgets`."""

    def take(self, permit: Permit, method: str, *, is_retry: bool) -> Hold:
        """See `Budgets`."""
        return NO_HOLD


NO_BUDGETS: Final = NoBudgets()


class Quotas:
    """The limits of a broker, for as long as it runs: a reload changes them, and keeps what was counted.

    `terms`: those in force, until others are adopted. `counting`: where is counted.
    """

    def __init__(
        self,
        clock: Clock,
        terms: Terms,
        budgets: Budgets = NO_BUDGETS,
        counting: Counting = OWN_COUNTING,
    ) -> None:
        self.counters = Counters(clock, terms, counting)
        self.budgets = budgets
        """What calls may cost."""

    def adopt(self, terms: Terms) -> None:
        """Others are in force, for calls and for what they may cost."""
        self.counters.terms = terms
        self.budgets.adopt(terms)

    async def admit(self, permit: Permit, method: str, *, is_retry: bool = False) -> Hold:
        """Let a permitted call begin. `is_retry`: it takes up a call that was admitted before, and counts with it.

        Requests about tasks wait for no place and hold none: their work was admitted with the call that made the task.
        To give a task up is always allowed. Where nothing is full, and enough is at hand, nothing waits.

        Raises: LimitReached, naming the limit and when to come back, with nothing taken from any other.
        """
        counters, caller, server = self.counters, permit.caller, permit.entry.server
        is_counted = not is_retry and method not in UNCOUNTED
        applying = counters.applying(caller, server)
        gates = () if method.startswith(TASKS) else applying.gates
        full = counters.enter(gates) if gates else None
        if full is not None:
            if is_counted:  # who will be refused need not wait for it
                counters.refuse_if_over(applying)
            await full.wait(gates, caller.principal)
        hold = NO_HOLD
        try:
            if full is not None:
                applying = counters.applying(caller, server)  # a reload may have come
            hold = self.budgets.take(permit, method, is_retry=is_retry)
            if hold.is_short:
                if is_counted:  # who has called too often asks the database for nothing
                    counters.refuse_if_over(applying)
                await hold.fill()
                applying = counters.applying(caller, server)
            if is_counted and applying.windows:
                # Last, without a wait, and of the limits of this moment: what a window lets pass begins now.
                counters.take(applying)
        except BaseException:
            hold.forgo()
            leave(gates)
            raise
        if hold is NO_HOLD:
            return Hold(gates) if gates else NO_HOLD
        hold.gates = gates
        return hold

    def count(self, permit: Permit) -> None:
        """Of what goes to a server, and holds no place and costs nothing: a subscription. Raises: LimitReached."""
        self.counters.take(self.counters.applying(permit.caller, permit.entry.server))
