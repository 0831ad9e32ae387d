"""Which traces are joined, and in which form they travel."""

from typing import Any

import pytest

from broker.core.tracecontext import MAX_PARENT, PARENT, STATE, TraceContext, context_in, context_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_what_a_request_says_of_its_trace_is_read_from_its_meta() -> None:
    found = context_in({"_meta": {PARENT: GOOD, STATE: "vendor=1", "baggage": "x=y"}})
    assert found is not None and (found, found.trace) == (TraceContext(GOOD, "vendor=1"), TRACE)
    assert found.headers() == {PARENT: GOOD, STATE: "vendor=1"}
    assert TraceContext(GOOD).headers() == {PARENT: GOOD}


@pytest.mark.parametrize("params", [{}, {"_meta": None}, {"_meta": []}, {"_meta": {}}, {"_meta": {STATE: "a=b"}}])
def test_a_request_that_says_nothing_of_a_trace_belongs_to_none(params: dict[str, Any]) -> None:
    assert context_in(params) is None


@pytest.mark.parametrize(
    "parent",
    [
        *(None, 1, "", "x", GOOD.upper(), GOOD + "-more", GOOD[:-1], " " + GOOD, GOOD + "\n"),
        *(f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"),
        f"01-{TRACE}-{SPAN}-01-" + "x" * MAX_PARENT,
    ],
)
def test_a_parent_that_is_not_of_the_form_of_w3c_is_joined_by_nobody(parent: Any) -> None:
    assert context_of({PARENT: parent}.get) is None


def test_a_later_version_may_have_more_to_say() -> None:
    later = f"01-{TRACE}-{SPAN}-01-more"
    assert context_of({PARENT: later}.get) == TraceContext(later)


@pytest.mark.parametrize("state", [None, 1, "", "a=b\r\nX: y", "ä=1", "x" * 513])
def test_a_state_that_could_be_no_header_is_left_out(state: Any) -> None:
    assert context_of({PARENT: GOOD, STATE: state}.get) == TraceContext(GOOD)


def test_parameters_carry_it_in_place_of_what_they_carried() -> None:
    params = {"name": "x", "_meta": {PARENT: "old", STATE: "old=1", "baggage": "kept"}}
    assert TraceContext(GOOD).on(params) == {"name": "x", "_meta": {PARENT: GOOD, "baggage": "kept"}}
    assert TraceContext(GOOD, "new=1").on({}) == {"_meta": {PARENT: GOOD, STATE: "new=1"}}
    assert params["_meta"] == {PARENT: "old", STATE: "old=1", "baggage": "kept"}
