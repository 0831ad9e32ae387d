"""Whose is it: the table of `upstream/home.py`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.questions import Question
from broker.errors import CannotAsk
from broker.upstream.home import NO_HOME, session_of


class Own:
    """A home that is one."""

    remedy = "set isolation: session for it"

    def __init__(self, *opened: str) -> None:
        self.opened = opened

    def is_open(self, session: str) -> bool:
        return session in self.opened

    async def ask(self, session: str, question: Question) -> dict[str, Any]:
        raise NotImplementedError

    def notice(self, session: str, method: str, params: dict[str, Any]) -> None:
        raise NotImplementedError


OWN = Own()
THE_CALL = None
REFUSED = "refused"

TABLE = [
    ([], [], "", ""),
    (["a"], [], THE_CALL, THE_CALL),
    ([""], [], THE_CALL, THE_CALL),
    (["a"], ["a"], THE_CALL, THE_CALL),
    (["a"], ["b"], REFUSED, REFUSED),
    ([""], [""], REFUSED, REFUSED),
    ([], ["a"], REFUSED, "a"),
    ([], [""], REFUSED, REFUSED),
    (["a", "a"], [], REFUSED, "a"),
    (["a", "a"], ["a"], REFUSED, "a"),
    (["a", "a"], ["b"], REFUSED, REFUSED),
    (["a", "b"], [], REFUSED, REFUSED),
    (["", ""], [], REFUSED, REFUSED),
    (["a", ""], [], REFUSED, REFUSED),
]


def verdict(in_flight: list[str], given_up: list[str], home: Any, stands_alone: bool = False) -> str | None:
    try:
        return session_of(in_flight, given_up, home, stands_alone=stands_alone)
    except CannotAsk:
        return REFUSED


@pytest.mark.parametrize(("in_flight", "given_up", "shared", "own"), TABLE)
def test_whose_it_is(in_flight: list[str], given_up: list[str], shared: str | None, own: str | None) -> None:
    assert verdict(in_flight, given_up, NO_HOME) == shared
    assert verdict(in_flight, given_up, OWN) == own


@pytest.mark.parametrize(("in_flight", "given_up", "shared", "own"), TABLE)
def test_what_stands_alone_goes_to_the_open_stream_of_the_session_and_else_where_it_went(
    in_flight: list[str], given_up: list[str], shared: str | None, own: str | None
) -> None:
    assert verdict(in_flight, given_up, NO_HOME, True) == shared
    assert verdict(in_flight, given_up, Own("b"), True) == own
    is_of_a = {*in_flight, *given_up} == {"a"}
    assert verdict(in_flight, given_up, Own("a"), True) == ("a" if is_of_a else own)


SESSIONS = st.lists(st.sampled_from(["", "a", "b"]), max_size=4)


@given(
    in_flight=SESSIONS,
    given_up=SESSIONS,
    home=st.sampled_from([NO_HOME, OWN, Own("a", "b")]),
    stands_alone=st.booleans(),
)
def test_I31_nothing_reaches_a_session_that_it_may_not_belong_to(
    in_flight: list[str], given_up: list[str], home: Any, stands_alone: bool
) -> None:
    found = verdict(in_flight, given_up, home, stands_alone)
    if found is THE_CALL:
        assert len(in_flight) == 1 and set(given_up) <= {in_flight[0]} - {""}
    elif found not in ("", REFUSED):
        assert {found} == {*in_flight, *given_up} and home is not NO_HOME
    elif found == "":
        assert not in_flight and not given_up


def test_a_refusal_names_the_remedy() -> None:
    with pytest.raises(CannotAsk, match="set isolation: caller or session for this server"):
        session_of(["a", "b"], [], NO_HOME)
    with pytest.raises(CannotAsk, match="set isolation: session for it"):
        session_of(["a", "b"], [], OWN)
