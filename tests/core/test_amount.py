"""Amounts: exact, whole micro-units, whatever somebody writes or a server says."""

from decimal import Decimal
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.amount import MAX_UNITS, UNIT, NoAmount, amount_text, reported_amount, written_amount

DECIMALS = st.decimals(0, MAX_UNITS, places=6, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "amount"),
    [(0, 0), (3, 3 * UNIT), (0.1, 100_000), ("0.25", 250_000), (1e-6, 1), ("1e2", 100 * UNIT), (0.0, 0), ("-0", 0)],
)
def test_what_is_written_is_taken_exactly(value: object, amount: int) -> None:
    assert written_amount(value) == reported_amount(value) == amount


@pytest.mark.parametrize(
    "value",
    [-1, -0.5, "-1", True, None, [], {}, "", "1_0", "x", "0x1", "\u0661", nan, inf, -inf, "nan", "inf", "1" * 41],
)
def test_what_is_no_amount_is_refused(value: object) -> None:
    for read in (written_amount, reported_amount):
        with pytest.raises(NoAmount):
            read(value)


@pytest.mark.parametrize("value", [MAX_UNITS + 1, 10**400, -(10**400), 1e300, "1e999999999", f"{MAX_UNITS}.1"])
def test_what_is_beyond_every_bound_is_refused_at_once(value: object) -> None:
    with pytest.raises(NoAmount):
        reported_amount(value)


def test_only_what_is_written_must_be_whole_micro_units() -> None:
    assert reported_amount(0.0000001) == 1
    assert reported_amount("1e-99999999") == 1
    assert reported_amount("0e-99999999") == 0
    assert reported_amount(0.1 + 0.2) == 300_001
    for value in (0.0000001, "1e-99999999"):
        with pytest.raises(NoAmount, match="6 decimals"):
            written_amount(value)


def test_amounts_are_shown_as_they_are_written() -> None:
    assert [amount_text(one) for one in (0, 5 * UNIT, 250_000, 1, -3 * UNIT)] == ["0", "5", "0.25", "0.000001", "-3"]


@given(DECIMALS)
def test_every_amount_survives_its_text(value: Decimal) -> None:
    amount = written_amount(str(value)) if len(str(value)) <= 40 else 0
    assert 0 <= amount <= MAX_UNITS * UNIT
    assert written_amount(amount_text(amount)) == amount


@given(st.lists(st.integers(0, 10**15)))
def test_sums_are_exact(amounts: list[int]) -> None:
    assert sum(written_amount(amount_text(one)) for one in amounts) == sum(amounts)
