"""Conditions on the arguments of a tool: small and exact. Whatever needs logic is a guardrail.

Doubt counts against the caller. An argument that is not there, or is of another type than the condition speaks of,
makes a condition of an allow rule fail, and one of a deny rule hold; but `exists: false` holds for what is not there,
and a deny with `equals`, `in`, `prefix`, `min` or `max` does not hold for it. `null` is neither there nor not there:
servers take it for both, so `exists` never counts it in the caller's favour. What lies below something that is no
object (a text that a server might parse, say) is in doubt too.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, cast

from broker.core.domain import GREATEST, PLAIN_OF, Domain, Number, Numbers, Plain, Texts, is_number
from broker.core.shape import is_object

Scalar: TypeAlias = str | int | float | bool | None
Path: TypeAlias = tuple[str, ...]


class Op(StrEnum):
    """What a condition asks of an argument; the values are the words of the configuration."""

    EXISTS = "exists"
    EQUALS = "equals"
    IN = "in"
    NOT_IN = "not_in"
    PREFIX = "prefix"
    MIN = "min"
    MAX = "max"


_BOOLS: Final = frozenset({Plain.TRUE, Plain.FALSE})
_ABSENT: Final = Domain(frozenset({Plain.ABSENT}))
_THERE: Final = Domain(_BOOLS | {Plain.OBJECT, Plain.ARRAY}, Texts(), Numbers())


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one argument. Several are a conjunction, on one path or on many.

    `path`: the keys from `arguments` down, such as `("filter", "database")`. `value`: a bool for `exists`, a scalar for
    `equals`, a tuple of scalars for `in` and `not_in`, a text for `prefix`, a number for `min` and `max` (both ends
    belong to the range).

    Raises: ValueError, for a value that does not fit.
    """

    path: Path
    op: Op
    value: Scalar | tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not self.path or not _fits(self.op, self.value):
            raise ValueError(f"{self.op} cannot ask that of an argument")

    @property
    def argument(self) -> str:
        """The path as it is written behind `args.`."""
        return ".".join(self.path)

    @property
    def allowed(self) -> Domain:
        """The values for which it surely holds, as part of an allow rule."""
        match self.op:
            case Op.EXISTS:
                return _THERE if self.value else _ABSENT
            case Op.EQUALS | Op.IN:
                return _among(self._values)
            case Op.NOT_IN:
                return _besides(self._values)
            case Op.PREFIX:
                return Domain(texts=Texts(prefix=str(self.value)))
            case Op.MIN:
                return Domain(numbers=Numbers(low=_number(self.value)))
            case _:
                return Domain(numbers=Numbers(high=_number(self.value)))

    @property
    def spared(self) -> Domain:
        """The values for which it surely does not hold, as part of a deny rule."""
        match self.op:
            case Op.EXISTS:
                return _ABSENT if self.value else _THERE
            case Op.EQUALS | Op.IN:
                return _or_absent(_besides(self._values))
            case Op.NOT_IN:
                return _among(self._values)
            case Op.PREFIX:
                return _or_absent(Domain(texts=Texts(but_prefixes=frozenset({str(self.value)}))))
            case Op.MIN:
                low = _number(self.value)
                return _or_absent(Domain(numbers=Numbers(high=low, but=frozenset({low}))))
            case _:
                high = _number(self.value)
                return _or_absent(Domain(numbers=Numbers(low=high, but=frozenset({high}))))

    @property
    def _values(self) -> tuple[Scalar, ...]:
        return self.value if isinstance(self.value, tuple) else (self.value,)


def is_in(domain: Domain, arguments: object, path: Path) -> bool:
    """Whether the argument at `path` surely is one of `domain`; what lies below something else than an object is not,
    whatever the domain.
    """
    value = arguments
    for key in path:
        if not is_object(value):
            return False
        if key not in value:
            value = Plain.ABSENT
            break
        value = value[key]
    return domain.has(value)


def _fits(op: Op, value: object) -> bool:
    match op:
        case Op.EXISTS:
            return isinstance(value, bool)
        case Op.EQUALS:
            return _is_scalar(value)
        case Op.IN | Op.NOT_IN:
            return isinstance(value, tuple) and all(_is_scalar(one) for one in cast(tuple[object, ...], value))
        case Op.PREFIX:
            return isinstance(value, str)
        case _:
            return is_number(value) and _is_scalar(value)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | bool) or (is_number(value) and abs(value) <= GREATEST)


def _number(value: object) -> Number:
    assert is_number(value)
    return value


def _among(values: tuple[Scalar, ...]) -> Domain:
    """Just these."""
    return Domain(
        frozenset(PLAIN_OF[value] for value in values if value is None or isinstance(value, bool)),
        Texts(frozenset(value for value in values if isinstance(value, str))),
        Numbers(frozenset(value for value in values if is_number(value))),
    )


def _besides(values: tuple[Scalar, ...]) -> Domain:
    """The others of the same types: what is of another type is not surely anything else."""
    among = _among(values)
    texts, numbers = among.texts.only, among.numbers.only
    return Domain(
        _BOOLS - among.plain if among.plain & _BOOLS else frozenset(),
        Texts(but=texts) if texts else among.texts,
        Numbers(but=numbers) if numbers else among.numbers,
    )


def _or_absent(domain: Domain) -> Domain:
    return Domain(domain.plain | {Plain.ABSENT}, domain.texts, domain.numbers)
