"""Levels of log messages, and how many pass."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.logs import BURST, EVERYTHING, LEVELS, RATE, LogGate, is_at_least, is_level, more_verbose


def test_the_levels_are_those_of_RFC_5424_from_the_least_severe() -> None:
    assert LEVELS == ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
    assert EVERYTHING == "debug"
    assert all(is_level(level) for level in LEVELS)


@pytest.mark.parametrize("value", ["", "DEBUG", "warn", None, 3, [], {}, ["info"], True], ids=repr)
def test_nothing_else_is_a_level_and_no_message_of_it_passes(value: Any) -> None:
    assert not is_level(value)
    assert not is_at_least(value, EVERYTHING)


@pytest.mark.parametrize("least", LEVELS)
def test_a_message_passes_from_the_level_that_was_asked_for(least: str) -> None:
    passing = [level for level in LEVELS if is_at_least(level, least)]
    assert passing == list(LEVELS[LEVELS.index(least) :])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (None, "emergency", "emergency"),
        ("info", "debug", "debug"),
        ("debug", "info", "debug"),
        ("error", "error", "error"),
        ("alert", "notice", "notice"),
    ],
)
def test_the_more_verbose_of_two_levels(one: str | None, other: str, expected: str) -> None:
    assert more_verbose(one, other) == expected


def test_SP37_a_flood_is_a_burst_and_then_a_rate() -> None:
    gate = LogGate(0.0)
    assert sum(gate.admits(0.0) for _ in range(10_000)) == BURST
    assert sum(gate.admits(1.0) for _ in range(10_000)) == RATE
    assert sum(gate.admits(1.0 + 1 / RATE / 2) for _ in range(10)) == 0
    assert sum(gate.admits(1e6) for _ in range(10_000)) == BURST, "a long silence is worth one burst, not more"


@given(st.lists(st.floats(0, 5), max_size=300))
def test_SP37_no_more_than_burst_and_rate_pass_however_they_come(pauses: list[float]) -> None:
    gate, now, passed = LogGate(0.0), 0.0, 0
    for pause in pauses:
        now += pause
        passed += gate.admits(now)
    assert passed <= BURST + now * RATE + 1e-6
