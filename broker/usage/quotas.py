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

from broker.core.policy import Permit


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


class Budgets(Protocol):
    """What calls may cost."""

    @property
    def is_on(self) -> bool:
        """Whether any budget is configured. While there is none, calls do not even ask."""
        ...

    async def reserve(self, permit: Permit, method: str, *, is_retry: bool) -> Reservation:
        """Set aside what the call may cost. `is_retry`: it takes up a call that was answered with questions.

        Raises: LimitReached, with nothing set aside.
        """
        ...


class NoReservation:
    """Nothing was set aside."""

    def settle(self, result: Mapping[str, Any]) -> None:
        """See `Reservation`."""

    def release(self) -> None:
        """See `Reservation`."""


NO_RESERVATION: Final = NoReservation()


class NoBudgets:
    """Nothing has a price."""

    is_on: bool = False

    async def reserve(self, permit: Permit, method: str, *, is_retry: bool) -> Reservation:
        """See `Budgets`."""
        return NO_RESERVATION


NO_BUDGETS: Final = NoBudgets()


class Hold:
    """What one admitted call holds."""

    __slots__ = ("_reservation",)

    def __init__(self, reservation: Reservation = NO_RESERVATION) -> None:
        self._reservation = reservation

    def settle(self, result: Mapping[str, Any]) -> None:
        """The upstream has answered."""
        reservation, self._reservation = self._reservation, NO_RESERVATION
        reservation.settle(result)

    def release(self) -> None:
        """The call has ended, whichever way. The second time does nothing."""
        reservation, self._reservation = self._reservation, NO_RESERVATION
        reservation.release()


NO_HOLD: Final = Hold()
"""Of a call to which no limit applies. It has no state: all of them share it."""


class Quotas:
    """The limits of one process, for as long as it runs: a reload changes the limits, and keeps what was counted."""

    def __init__(self, budgets: Budgets = NO_BUDGETS) -> None:
        self.budgets = budgets
        """What calls may cost."""

    @property
    def is_on(self) -> bool:
        """Whether any limit is configured. While there is none, a call passes by without a wait or an object."""
        return self.budgets.is_on

    async def admit(self, permit: Permit, method: str, *, is_retry: bool = False) -> Hold:
        """Let a permitted call begin. `is_retry`: it takes up a call that was admitted before, and counts with it.

        Raises: LimitReached, naming the limit and when to come back, with nothing taken from any other.
        """
        return Hold(await self.budgets.reserve(permit, method, is_retry=is_retry))
