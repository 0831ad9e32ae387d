"""What is in force for calls: how much may be asked, and what it costs."""

from collections.abc import Mapping
from typing import Protocol

from broker.core.cost import Prices
from broker.core.limits import LimitRules


class Terms(Protocol):
    """Read at each call: each of the two is another object when it has changed."""

    @property
    def prices(self) -> Mapping[str, Prices]:
        """By server."""
        ...

    @property
    def limits(self) -> LimitRules:
        """With the budgets of places."""
        ...
