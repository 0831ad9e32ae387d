"""No window of that length, wherever it begins, has more calls than its limit; what may pass is not refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.quota import Rate
from broker.usage.counting import AnyWindow
from broker.usage.window import MAX_ENTRIES, Window
from tests.usage.counted import PLACES, counting

GAPS = st.lists(st.integers(0, 40), max_size=120)
"""Seconds between calls."""


_place = PLACES[0]
_counting = counting(_place)


@pytest.fixture(scope="module", params=PLACES, autouse=True)
def place(request: pytest.FixtureRequest) -> None:
    """Both must pass every test."""
    global _place
    _place = request.param


def window_of(rate: Rate) -> AnyWindow:
    global _counting
    _counting = counting(_place)
    return _counting.window(rate, "one")


def full_one(windows: list[AnyWindow], now: float) -> AnyWindow | None:
    return _counting.full_one(windows, now)


def take(windows: list[AnyWindow], now: float) -> None:
    assert _counting.take(windows, now) is None


def passed(window: AnyWindow, times: list[float]) -> list[float]:
    taken: list[float] = []
    for now in times:
        if full_one([window], now) is None:
            take([window], now)
            taken.append(now)
    return taken


def times_of(gaps: list[int]) -> list[float]:
    return [float(sum(gaps[: index + 1])) for index in range(len(gaps))]


@given(GAPS, st.integers(1, 6), st.integers(1, 90))
def test_in_no_window_there_are_more_than_allowed_and_nothing_is_refused_that_fits(
    gaps: list[int], count: int, seconds: int
) -> None:
    times = times_of(gaps)
    taken = passed(window_of(Rate(count, seconds)), times)
    for now in times:
        recent = [one for one in taken if now - seconds < one <= now]
        assert len(recent) <= count
        if now not in taken:
            assert len(recent) == count


@given(GAPS, st.integers(1, 6), st.integers(1, 90))
def test_it_says_exactly_when_the_next_call_passes(gaps: list[int], count: int, seconds: int) -> None:
    window, now = window_of(Rate(count, seconds)), 0.0
    for gap in gaps:
        now += gap
        missing = window.missing(now)
        assert window.has_room(now) is not bool(missing)
        if missing:
            assert missing <= seconds
            assert window.missing(now + missing - 0.5) == 0.5
            now += missing
            assert window.has_room(now)
        take([window], now)


def test_a_large_limit_is_never_passed_and_costs_bounded_memory() -> None:
    seconds, count = 1000, MAX_ENTRIES * 3
    window = window_of(Rate(count, seconds))
    taken = passed(window, [step / 8 for step in range(8 * 3000)])
    if isinstance(window, Window):
        assert len(window._runs) <= MAX_ENTRIES + 2  # pyright: ignore[reportPrivateUsage]
    start = 0
    for index, now in enumerate(taken):
        while taken[start] <= now - seconds:
            start += 1
        assert index - start + 1 <= count
    # What is remembered together counts for a 256th of the window longer, no more.
    assert len(taken) >= count * 3 * 0.99


def test_a_lower_limit_that_comes_later_counts_what_has_been() -> None:
    window = window_of(Rate(5, 60))
    for now in (1.0, 2.0, 3.0, 4.0):
        take([window], now)
    assert window.missing(5.0) == 0.0
    window.limit(Rate(2, 60))
    assert window.missing(5.0) == 58.0  # all but one must be over


def test_it_is_empty_when_its_calls_are_over() -> None:
    window = window_of(Rate(1, 60))
    assert window.is_empty(0.0)
    take([window], 5.0)
    assert not window.is_empty(64.9) and window.is_empty(65.0)
