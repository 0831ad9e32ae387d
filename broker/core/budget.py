"""Budgets of places: so much per hour, day or month (UTC), at each level that has one; every one of them must reach."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.core.period import Period, begin_of, end_of

Budget = Mapping[Period, int]
"""Micro-units by period."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One budget of one place. `where`: see `Level`."""

    where: str
    period: Period
    amount: int

    @property
    def rule(self) -> str:
        """`team:acme/data/budget/day`: what denials, records and metrics call it."""
        return f"{self.where}/budget/{self.period}"

    def account(self, at: float) -> "Account":
        """In the period in which `at` (seconds since 1970) is."""
        return Account(self.where, self.period, begin_of(self.period, at))


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """What is counted of one budget in one period, which began at `begin`."""

    where: str
    period: Period
    begin: int

    @property
    def end(self) -> int:
        """When it begins anew."""
        return end_of(self.period, self.begin)
