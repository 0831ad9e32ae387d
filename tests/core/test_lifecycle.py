"""The life of a link: its table is whole, its delays are bounded, and its picture is true."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import lifecycle
from broker.core.lifecycle import (
    FIRST_DELAY,
    MAX_DELAY,
    NEXT,
    STEADY_AFTER,
    Event,
    Impossible,
    LinkState,
    Phase,
    step,
)

CHANCES = st.floats(min_value=0, max_value=1, exclude_max=True)


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, Event)))
def test_every_pair_is_in_the_table_or_refused(phase: Phase, event: Event) -> None:
    before = LinkState(phase, failures=3, since=10.0, delay=1.0)
    if event not in NEXT[phase]:
        with pytest.raises(Impossible, match=rf"\A{event} while {phase}\Z"):
            step(before, event, 12.0, 0.5)
        return
    after = step(before, event, 12.0, 0.5)
    assert after.phase is NEXT[phase][event] and after.since == 12.0
    assert (after.delay > 0) is (after.phase is Phase.WAITING)


def test_every_phase_has_its_row_and_every_link_can_be_stopped_for_good() -> None:
    assert set(NEXT) == set(Phase)
    assert all(row[Event.STOPPED] is Phase.STOPPED for row in NEXT.values())
    assert NEXT[Phase.STOPPED] == {Event.STOPPED: Phase.STOPPED}


def test_every_phase_can_be_reached() -> None:
    reached = {Phase.IDLE}
    for _ in Phase:
        reached |= {after for phase in reached for after in NEXT[phase].values()}
    assert reached == set(Phase)


@given(st.lists(st.tuples(st.sampled_from(Event), st.floats(0, 100), CHANCES), max_size=40))
def test_delays_stay_within_their_bounds_whatever_happens(events: list[tuple[Event, float, float]]) -> None:
    state, now = LinkState(), 0.0
    for event, passed, chance in events:
        now += passed
        if event in NEXT[state.phase]:
            state = step(state, event, now, chance)
        assert 0 <= state.delay <= MAX_DELAY
        if state.phase is Phase.WAITING:
            assert state.failures >= 1 and state.delay >= FIRST_DELAY / 2
        else:
            assert state.delay == 0


@given(st.integers(0, 10_000), CHANCES)
def test_each_failure_doubles_the_delay_up_to_a_minute(failures: int, chance: float) -> None:
    state = step(LinkState(Phase.CONNECTING, failures), Event.FAILED, 0.0, chance)
    full = MAX_DELAY if failures > 16 else min(MAX_DELAY, FIRST_DELAY * 2**failures)
    assert state.failures == failures + 1
    assert full / 2 <= state.delay <= full


def test_opening_and_dying_at_once_counts_as_a_failure_and_a_steady_life_does_not() -> None:
    state = step(LinkState(Phase.CONNECTING, failures=5), Event.OPENED, 100.0, 0.0)
    assert state.failures == 5
    assert step(state, Event.LOST, 100.0 + STEADY_AFTER - 1, 0.0).failures == 6
    fresh = step(state, Event.LOST, 100.0 + STEADY_AFTER, 0.0)
    assert (fresh.failures, fresh.delay) == (1, FIRST_DELAY / 2)


def test_the_picture_names_every_transition() -> None:
    picture = lifecycle.__doc__ or ""
    words = set(re.findall(r"\w+", picture))
    for phase, row in NEXT.items():
        assert phase.name in words
        for event, after in row.items():
            assert event.name.title().replace("_", "") in words, f"{phase} -{event}-> {after}"
    drawn = {"STARTED": 1, "OPENED": 1, "FAILED": 1, "LOST": 1, "RETRY_DUE": 1, "RESTED": 2, "STOPPED": len(Phase)}
    assert drawn == {event.name: sum(event in row for row in NEXT.values()) for event in Event}
    assert "any state ── Stopped ─► STOPPED" in picture
