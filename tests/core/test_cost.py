"""What a call costs, also where its result does not say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.amount import UNIT
from broker.core.cost import FREE, Cost, Prices

NAMED = Cost(UNIT, ("structuredContent", "usage", "cost"), 5 * UNIT)


def result(cost: object) -> dict[str, Any]:
    return {"content": [], "structuredContent": {"usage": {"cost": cost}}}


def test_a_flat_price_is_reserved_and_charged_whatever_the_result_says() -> None:
    assert Cost(UNIT).reserved == UNIT
    assert Cost(UNIT).of(result(100)).amount == UNIT
    assert FREE.of({}).amount == FREE.reserved == 0


@pytest.mark.parametrize(("cost", "amount"), [(0, UNIT), (2, 3 * UNIT), (0.25, 1_250_000), ("1.5", 2_500_000)])
def test_what_a_result_names_is_added_to_the_flat_price(cost: object, amount: int) -> None:
    charge = NAMED.of(result(cost))
    assert (charge.amount, charge.doubt) == (amount, "")


@pytest.mark.parametrize("cost", [-1, "much", None, True, [1], {"value": 1}, 5.000001, 10**30, float("inf")])
def test_a_cost_that_cannot_be_believed_is_all_that_was_reserved(cost: object) -> None:
    charge = NAMED.of(result(cost))
    assert charge.amount == NAMED.reserved == 6 * UNIT
    assert charge.doubt and str(cost) not in charge.doubt


@pytest.mark.parametrize("missing", [{}, {"structuredContent": None}, {"structuredContent": {"usage": []}}])
def test_a_result_that_names_no_cost_costs_all_that_was_reserved(missing: dict[str, Any]) -> None:
    assert NAMED.of(missing).amount == NAMED.reserved
    assert NAMED.of(missing).doubt == "the result does not name it"


def test_a_tool_has_its_own_price_or_the_usual_one() -> None:
    prices = Prices(Cost(UNIT), {"query": Cost(2 * UNIT), "free": FREE})
    assert [prices.of_tool(own).reserved for own in ("query", "free", "other")] == [2 * UNIT, 0, UNIT]
    assert prices.unserved({"free", "other"}) == ("query",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.integers(0, 10**9), st.integers(0, 10**9))
def test_no_result_can_cost_more_than_was_reserved_or_less_than_nothing(value: Any, flat: int, most: int) -> None:
    cost = Cost(flat, ("structuredContent", "usage", "cost"), most)
    assert flat <= cost.of(result(value)).amount <= cost.reserved
