"""Conditions on the arguments of a tool: small and exact. Whatever needs logic is a guardrail."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None


class Op(StrEnum):
    """What a condition asks of an argument; the values are the words of the configuration."""

    EXISTS = "exists"
    EQUALS = "equals"
    IN = "in"
    NOT_IN = "not_in"
    PREFIX = "prefix"
    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one argument. Several are a conjunction, on one path or on many.

    `path`: the keys from `arguments` down, such as `("filter", "database")`. `value`: a bool for `exists`, a scalar for
    `equals`, a tuple of scalars for `in` and `not_in`, a text for `prefix`, a number for `min` and `max` (both ends
    belong to the range).
    """

    path: tuple[str, ...]
    op: Op
    value: Scalar | tuple[Scalar, ...]

    @property
    def argument(self) -> str:
        """The path as it is written behind `args.`."""
        return ".".join(self.path)
