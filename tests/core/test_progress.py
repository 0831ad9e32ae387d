"""The gate of progress: bounded in every window, rising, and the last value is never lost (F-25, SP-35)."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.progress import BURST, RATE, ProgressGate

START = 1_000_000.0
"""A clock that has run for long has coarse steps."""

STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.01, 0.1, 0.5, 3.0, 100.0]),
        st.integers(-5, 50) | st.floats(allow_nan=False, allow_infinity=False, width=16),
    ),
    max_size=120,
)


def played(steps: list[tuple[float, Any]]) -> tuple[list[tuple[float, Any]], list[Any]]:
    """What passed and when, with the timers that `due` asks for; then what `flush` gave."""
    now = START
    gate = ProgressGate(now)
    passed: list[tuple[float, Any]] = []
    for wait, value in steps:
        target = now + wait
        while (due := gate.due()) is not None and now + due <= target:
            now += due
            kept = gate.release(now)
            assert kept is not None, "what is due is there"
            passed.append((now, kept["progress"]))
        now = target
        if (sent := gate.offer({"progress": value}, now)) is not None:
            passed.append((now, sent["progress"]))
    last = gate.flush()
    return passed, [] if last is None else [last["progress"]]


@given(STEPS)
def test_no_window_holds_more_than_the_burst_and_the_rate(steps: list[tuple[float, Any]]) -> None:
    passed, _ = played(steps)
    times = [time for time, _ in passed]
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= BURST + RATE * (times[last] - begin) + 0.001
    for count, time in enumerate(times, 1):
        assert count <= BURST + RATE * (time - START) + 0.001


@given(STEPS)
def test_what_passes_rises_and_ends_with_the_highest(steps: list[tuple[float, Any]]) -> None:
    passed, flushed = played(steps)
    values = [value for _, value in passed] + flushed
    assert all(one < next for one, next in pairwise(values))
    assert values[-1:] == ([max(value for _, value in steps)] if steps else [])


def test_a_flood_passes_as_a_burst_then_at_the_rate_then_the_last() -> None:
    passed, flushed = played([(0.0005, value) for value in range(20_000)])
    assert len([time for time, _ in passed if time <= START + 0.05]) == BURST
    assert BURST + 95 <= len(passed) <= BURST + 100
    assert flushed == [19_999]


def test_a_burst_passes_at_once_and_comes_back_with_time() -> None:
    gate = ProgressGate(0.0)
    sent = [gate.offer({"progress": value}, 0.0) for value in range(BURST + 1)]
    assert [params is not None for params in sent] == [True] * BURST + [False]
    assert gate.due() == pytest.approx(0.1)
    assert gate.release(0.05) is None
    assert gate.release(0.1) == {"progress": BURST}
    assert gate.due() is None and gate.release(0.2) is None and gate.flush() is None
    again = [gate.offer({"progress": 100 + value}, 3600.0) for value in range(BURST + 1)]
    assert [params is not None for params in again] == [True] * BURST + [False]


def test_what_is_kept_is_the_last_whole_notification() -> None:
    gate = ProgressGate(0.0)
    for value in range(BURST):
        gate.offer({"progress": value}, 0.0)
    assert gate.offer({"progress": 50, "message": "half"}, 0.0) is None
    assert gate.offer({"progress": 60, "message": "more", "total": 100}, 0.0) is None
    assert gate.offer({"progress": 55, "message": "back"}, 0.0) is None
    assert gate.flush() == {"progress": 60, "message": "more", "total": 100}
    assert gate.flush() is None


@pytest.mark.parametrize("value", [None, "1", True, [1], {}])
def test_what_is_no_number_does_not_pass(value: object) -> None:
    gate = ProgressGate(0.0)
    assert gate.offer({"progress": value}, 0.0) is None
    assert gate.offer({}, 0.0) is None
    assert gate.flush() is None


@given(st.lists(st.integers(), min_size=2))
def test_equal_and_falling_values_never_pass(values: list[int]) -> None:
    gate = ProgressGate(0.0)
    gate.offer({"progress": max(values)}, 0.0)
    assert [gate.offer({"progress": value}, 0.0) for value in values] == [None] * len(values)
    assert gate.due() is None
