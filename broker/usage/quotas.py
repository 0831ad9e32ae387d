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


class Reservation(Protocol):
    """What is set aside for one call. It ends once, in one of these ways; neither raises, and neither waits."""

    def settle(self, result: Mapping[str, Any]) -> None:
        """The upstream has answered: with a result (also `isError`), a task, or questions (`input_required`).

        `result` is the upstream's own words under public names, before any guardrail has judged them.
        """
        ...

    def release(self) -> None:
        """The call has ended without an answer."""
        ...

    def forgo(self) -> None:
        """The call was refused, and has not begun."""
        ...


class Budgets(Protocol):
    """What calls may cost."""

    def adopt(self, terms: Terms) -> None:
        """Others are in force."""
        ...

    def take(self, permit: Permit, method: str, *, is_retry: bool) -> Reservation | None:
        """Set aside what the call may cost, of what is at hand; None: that is not enough, and `reserve` asks for more.
        `is_retry`: it takes up a call that was answered with questions.
        """
        ...

    async def reserve(self, permit: Permit, method: str, *, is_retry: bool) -> Reservation:
        """The same, once there is enough. Raises: LimitReached, with nothing set aside."""
        ...


class NoReservation:
    """Nothing was set aside."""

    def settle(self, result: Mapping[str, Any]) -> None:
        """See `Reservation`."""

    def release(self) -> None:
        """See `Reservation`."""

    def forgo(self) -> None:
        """See `Reservation`."""


NO_RESERVATION: Final = NoReservation()


class NoBudgets:
    """Nothing has a price."""

    def adopt(self, terms: Terms) -> None:
        """See `Budgets`."""

    def take(self, permit: Permit, method: str, *, is_retry: bool) -> Reservation:
        """See `Budgets`."""
        return NO_RESERVATION

    async def reserve(self, permit: Permit, method: str, *, is_retry: bool) -> Reservation:
        """See `Budgets`."""
        return NO_RESERVATION


NO_BUDGETS: Final = NoBudgets()


class Hold:
    """What one admitted call holds: places before gates, and what was set aside for it."""

    __slots__ = ("_gates", "_reservation")

    def __init__(self, gates: tuple[Gate, ...] = (), reservation: Reservation = NO_RESERVATION) -> None:
        self._gates = gates
        self._reservation = reservation

    def settle(self, result: Mapping[str, Any]) -> None:
        """The upstream has answered."""
        reservation, self._reservation = self._reservation, NO_RESERVATION
        reservation.settle(result)

    def release(self) -> None:
        """The call has ended, whichever way. The second time does nothing."""
        gates, self._gates = self._gates, ()
        reservation, self._reservation = self._reservation, NO_RESERVATION
        if reservation is not NO_RESERVATION:
            reservation.release()
        leave(gates)


NO_HOLD: Final = Hold()
"""Of a call that holds nothing. It has no state: all of them share it."""


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
        full = counters.enter(gates)
        if full is not None:
            if is_counted:  # who will be refused need not wait for it
                counters.refuse_if_over(applying)
            await full.wait(gates, caller.principal)
        reservation: Reservation = NO_RESERVATION
        try:
            if full is not None:
                applying = counters.applying(caller, server)  # a reload may have come
            at_hand = self.budgets.take(permit, method, is_retry=is_retry)
            if at_hand is not None:
                reservation = at_hand
            else:
                if is_counted:  # who has called too often asks the database for nothing
                    counters.refuse_if_over(applying)
                reservation = await self.budgets.reserve(permit, method, is_retry=is_retry)
                applying = counters.applying(caller, server)
            if is_counted:
                # Last, without a wait, and of the limits of this moment: what a window lets pass begins now.
                counters.take(applying)
        except BaseException:
            reservation.forgo()
            leave(gates)
            raise
        return Hold(gates, reservation) if gates or reservation is not NO_RESERVATION else NO_HOLD

    def count(self, permit: Permit) -> None:
        """Of what goes to a server, and holds no place and costs nothing: a subscription. Raises: LimitReached."""
        self.counters.take(self.counters.applying(permit.caller, permit.entry.server))
