"""Amounts of whatever a budget counts (calls, cents, tokens): whole micro-units, so that sums are exact.

1 unit is `UNIT`. Nothing here is a float: one that comes from YAML or JSON is taken by its shortest decimal text.
"""

from decimal import Context, Decimal, InvalidOperation
from typing import Final

UNIT: Final = 1_000_000
"""Micro-units of one unit."""
MAX_UNITS: Final = 1_000_000_000
"""A greater amount is a typing error. Thousands of them still fit into the 64 bits of a database."""
MAX_TEXT: Final = 40
"""Characters of an amount that is written as text."""

_EXACT: Final = Context(prec=80)
"""More digits than any text or float within the bounds has: no rounding but the one that is asked for."""
_DECIMALS: Final = 6


class NoAmount(ValueError):
    """It is none; the text says why, without the value."""


def written_amount(value: object) -> int:
    """What somebody configures: exactly what is written. Raises: NoAmount."""
    number = _decimal(value)
    scaled = number.scaleb(_DECIMALS, _EXACT)
    if scaled != scaled.to_integral_value():
        raise NoAmount(f"an amount has at most {_DECIMALS} decimals")
    return int(scaled)


def reported_amount(value: object) -> int:
    """What a server says that it has used, rounded up to a whole micro-unit. Raises: NoAmount."""
    return int(_decimal(value).scaleb(_DECIMALS, _EXACT).to_integral_value("ROUND_CEILING"))


def amount_text(amount: int) -> str:
    """As people write it: `12`, `0.5`, `-3`."""
    sign, size = "-" if amount < 0 else "", abs(amount)
    whole, rest = divmod(size, UNIT)
    decimals = f"{rest:0{_DECIMALS}}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def _decimal(value: object) -> Decimal:
    """A number that is not negative and not beyond `MAX_UNITS`, whatever its exponent."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise NoAmount("an amount is a number")
    if isinstance(value, str) and (len(value) > MAX_TEXT or not value.isascii() or "_" in value):
        raise NoAmount("an amount is a number")
    if isinstance(value, int) and not -MAX_UNITS <= value <= MAX_UNITS:
        raise NoAmount(f"an amount is at most {MAX_UNITS}" if value > 0 else "an amount is not negative")
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise NoAmount("an amount is a number") from None
    if not number.is_finite():
        raise NoAmount("an amount is a finite number")
    if number < 0:
        raise NoAmount("an amount is not negative")
    if number > MAX_UNITS:
        raise NoAmount(f"an amount is at most {MAX_UNITS}")
    return number if number.adjusted() >= -MAX_TEXT else Decimal("1e-40") if number else Decimal(0)
