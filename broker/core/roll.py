"""Values under their names that never change, with what is made of all of them: made once, and kept as long as they.

There may be a hundred thousand keys. A change concerns one place, and every other place keeps its roll: so what is
known of that (its hashes, its limits, its digest) is not made again, and a change costs what has changed.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

V = TypeVar("V")
T = TypeVar("T")


class Roll(dict[str, V]):
    """See the module. A mapping like any other, which nobody changes."""

    __slots__ = ("_derived",)

    def __init__(self, values: Mapping[str, V]) -> None:
        super().__init__(values)
        self._derived: dict[Callable[..., Any], Any] = {}

    def derived(self, make: Callable[["Roll[V]"], T]) -> T:
        """What `make` makes of it: a function of a module, which is asked once. Two threads that ask at one time may
        both make it, and it is the same."""
        try:
            return self._derived[make]
        except KeyError:
            return self._derived.setdefault(make, make(self))

    def know(self, make: Callable[["Roll[V]"], T], made: T) -> None:
        """What `make` would make of it, if that is at hand."""
        self._derived[make] = made


def rolled(values: Mapping[str, V]) -> Roll[V]:
    """As a roll: itself, if it is one."""
    return values if isinstance(values, Roll) else Roll(values)
