"""Sets of JSON values, as far as conditions can tell values apart: exact under intersection and "is it empty?".

A value is compared as JSON: `true` is not 1, and 1 is 1.0. An argument can also be absent. What a rule speaks of is
always one of these sets, so that the judgement on a call (`has`) and the question whether any call could pass
(`is_empty` of what is left) come from one and the same definition.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias, TypeGuard

Number: TypeAlias = int | float

GREATEST: Final = 1.7976931348623157e308
"""The largest number that JSON can bring here: infinities are refused (`core/wire.py`)."""
_INTEGERS: Final = 10**64
"""Integers are kept exactly up to 64 digits (`core/wire.py`), beyond the doubles between them."""


class Plain(StrEnum):
    """Values that are nothing but themselves, and the two kinds whose inside is somebody else's question."""

    ABSENT = "absent"
    NULL = "null"
    TRUE = "true"
    FALSE = "false"
    OBJECT = "object"
    ARRAY = "array"


PLAIN_OF: Final = {None: Plain.NULL, True: Plain.TRUE, False: Plain.FALSE}


def is_number(value: object) -> TypeGuard[Number]:
    """A JSON number; Python's bools are ints, JSON's are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Texts:
    """Strings: just `only`, or all that begin with `prefix`, less those of `but` and those that begin with one of
    `but_prefixes`.
    """

    only: frozenset[str] | None = None
    prefix: str = ""
    but: frozenset[str] = frozenset()
    but_prefixes: frozenset[str] = frozenset()

    def has(self, text: str) -> bool:
        """Whether `text` is one of them."""
        if self.only is not None:
            return text in self.only
        if not text.startswith(self.prefix) or text in self.but:
            return False
        return not (self.but_prefixes and text.startswith(tuple(self.but_prefixes)))

    def __and__(self, other: "Texts") -> "Texts":
        if self.only is not None:
            return Texts(frozenset(filter(other.has, self.only)))
        if other.only is not None:
            return other & self
        longer, shorter = sorted((self.prefix, other.prefix), key=len, reverse=True)
        if not longer.startswith(shorter):
            return NO_TEXTS
        return Texts(None, longer, self.but | other.but, self.but_prefixes | other.but_prefixes)

    @property
    def is_empty(self) -> bool:
        """Whether there is none. Beyond a prefix there are endlessly many, whatever finitely many others exclude:
        unless one of those is a beginning of the prefix itself.
        """
        if self.only is not None:
            return not self.only
        return any(self.prefix.startswith(prefix) for prefix in self.but_prefixes)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers: just `only`, or all from `low` to `high`, both included, less those of `but`."""

    only: frozenset[Number] | None = None
    low: Number = -GREATEST
    high: Number = GREATEST
    but: frozenset[Number] = frozenset()

    def has(self, number: Number) -> bool:
        """Whether `number` is one of them. It must not be a bool."""
        if self.only is not None:
            return number in self.only
        return self.low <= number <= self.high and number not in self.but

    def __and__(self, other: "Numbers") -> "Numbers":
        if self.only is not None:
            return Numbers(frozenset(filter(other.has, self.only)))
        if other.only is not None:
            return other & self
        return Numbers(None, max(self.low, other.low), min(self.high, other.high), self.but | other.but)

    @property
    def is_empty(self) -> bool:
        """Whether there is none: looks at one number more than are excluded, from the lowest up."""
        if self.only is not None:
            return not self.only
        number = self.low
        while number <= self.high:
            if number not in self.but:
                return False
            number = _next(number)
        return True


def _next(number: Number) -> Number:
    """The least number above `number` that JSON can bring: a double, or an integer of up to 64 digits."""
    double = float(number)
    if double <= number:
        double = math.nextafter(double, math.inf)
    integer = math.floor(number) + 1
    return min(integer, double) if abs(integer) < _INTEGERS else double


NO_TEXTS: Final = Texts(frozenset())
NO_NUMBERS: Final = Numbers(frozenset())


@dataclass(frozen=True, slots=True)
class Domain:
    """A set of values an argument may have."""

    plain: frozenset[Plain] = frozenset()
    texts: Texts = field(default=NO_TEXTS)
    numbers: Numbers = field(default=NO_NUMBERS)

    def has(self, value: object) -> bool:
        """Whether a JSON value, or `Plain.ABSENT`, is one of them."""
        if type(value) is str:  # most are, and `Plain` is a `str` too
            return self.texts.has(value)
        if isinstance(value, Plain):
            return value in self.plain
        if value is None or isinstance(value, bool):
            return PLAIN_OF[value] in self.plain
        if is_number(value):
            return self.numbers.has(value)
        return (Plain.OBJECT if isinstance(value, dict) else Plain.ARRAY) in self.plain

    def __and__(self, other: "Domain") -> "Domain":
        return Domain(self.plain & other.plain, self.texts & other.texts, self.numbers & other.numbers)

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self.plain and self.texts.is_empty and self.numbers.is_empty
