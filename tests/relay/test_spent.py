"""A used state is known until it would have expired, and no longer."""

from dataclasses import replace

import pytest

from broker.core.seal import Claims, Unsealable
from broker.errors import BrokerError
from broker.relay import spent
from broker.relay.spent import SpentStates

STATE = Claims("alice", "one", "tools/call", "echo", "digest", "digest", expires=10.0, serial="a")


def test_a_state_is_used_once_and_again_after_it_was_taken_back() -> None:
    states = SpentStates()
    states.add(STATE)
    with pytest.raises(Unsealable):
        states.add(STATE)
    assert states.has(STATE) and not states.has(replace(STATE, serial="b"))
    assert not states.has(replace(STATE, principal="bob"))
    states.take_back(STATE)
    states.add(STATE)


def test_what_has_expired_is_forgotten_also_when_it_was_used_before_another() -> None:
    states = SpentStates()
    for serial, expires in (("late", 12.0), ("early", 10.0)):
        states.add(replace(STATE, serial=serial, expires=expires))
    states.forget(9.0)
    assert len(states) == 2
    states.forget(12.0)
    assert len(states) == 0
    states.take_back(STATE)
    states.forget(12.0)
    assert not states.has(STATE)


def test_one_principal_that_has_used_too_many_is_told_so_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spent, "MAX_SPENT", 2)
    states = SpentStates()
    for serial in "ab":
        states.add(replace(STATE, serial=serial))
    with pytest.raises(BrokerError, match="more than 2"):
        states.add(replace(STATE, serial="c"))
    states.add(replace(STATE, principal="bob"))
    states.forget(10.0)
    states.add(replace(STATE, serial="c", expires=20.0))


def test_a_state_from_before_the_clock_was_set_back_keeps_none_behind_it_where_there_is_no_more_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spent, "MAX_SPENT", 3)
    states = SpentStates()
    for serial, expires in (("before", 1000.0), ("b", 10.0), ("c", 11.0)):
        states.add(replace(STATE, serial=serial, expires=expires))
    states.forget(10.0)
    states.add(replace(STATE, serial="d", expires=12.0))
    assert states.has(replace(STATE, serial="before")) and states.has(replace(STATE, serial="c"))
    with pytest.raises(BrokerError, match="more than 3"):
        states.add(replace(STATE, serial="e"))
