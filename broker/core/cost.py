"""What a call costs: an amount of its own, one that its result names, or both. See `amount.py` for the unit."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker.core.amount import NoAmount, reported_amount
from broker.core.shape import is_object


@dataclass(frozen=True, slots=True)
class Cost:
    """`flat`: of every call that gives a result. `path`: where its result names more, () for nowhere; `most`: of that,
    at most. What is reserved before a call is all that it could cost, so that a result can never overspend.
    """

    flat: int = 0
    path: tuple[str, ...] = ()
    most: int = 0
    reserved: int = field(init=False)
    """Before the call."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reserved", self.flat + self.most)

    def of(self, result: Mapping[str, Any]) -> "Charge":
        """After the call. When in doubt it costs what was reserved: an upstream that names no amount, a negative one,
        or more than it may, must not be cheaper than one that says the truth.
        """
        if not self.path:
            return Charge(self.flat)
        try:
            named = reported_amount(_found(result, self.path))
        except NoAmount as why:
            return Charge(self.reserved, str(why))
        if named > self.most:
            return Charge(self.reserved, "it is more than the configured maximum")
        return Charge(self.flat + named)


@dataclass(frozen=True, slots=True)
class Charge:
    """`amount`: of one call. `doubt`: why the result was not believed, "" if it was."""

    amount: int
    doubt: str = ""


FREE: Final = Cost()


@dataclass(frozen=True, slots=True)
class Prices:
    """Of one server: `usual`, and of single tools, by their own names."""

    usual: Cost = FREE
    tools: Mapping[str, Cost] = field(default_factory=dict[str, Cost])

    def of_tool(self, own: str) -> Cost:
        """A tool without a price of its own costs what is usual."""
        return self.tools.get(own, self.usual)

    def unserved(self, own_names: Collection[str]) -> tuple[str, ...]:
        """Tools that have a price, and are not among those that the server serves: a name that was mistyped."""
        return tuple(own for own in self.tools if own not in own_names)


def _found(result: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: object = result
    for key in path:
        if not is_object(value) or key not in value:
            raise NoAmount("the result does not name it")
        value = value[key]
    return value
