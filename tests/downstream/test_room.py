"""How many connections there may be: the bounds hold whatever comes and goes, and nothing is remembered of who left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.caller import LOCAL
from broker.downstream.room import IN_ALL, OF_ADDRESS, OF_CALLER, Bounds, OwnHeld, Place, Room
from broker.workers.assignment import Worker
from broker.workers.board import Board, make_board
from broker.workers.held import SharedHeld

PEERS = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "")
PRINCIPALS = ("key:a", "key:b", LOCAL.principal)
PLACES = ["in this process", "in memory of several"]
_handle = make_board(2)
_place = PLACES[0]


@pytest.fixture(scope="module", params=PLACES, autouse=True)
def place(request: pytest.FixtureRequest) -> None:
    """Both must pass every test."""
    global _place
    _place = request.param


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from(PEERS)),
        st.tuples(st.just("settle"), st.integers(0, 20), st.sampled_from(PRINCIPALS)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
def test_F78_no_bound_is_ever_passed_and_who_left_is_forgotten(
    steps: list[tuple[str, int | str, str]], total: int, per_caller: int, per_address: int
) -> None:
    held = OwnHeld() if _place == PLACES[0] else SharedHeld(Board(_handle, Worker(1, 2)))
    room = Room(Bounds(total, per_caller, per_address), held)
    inside: list[Place] = []
    for step in steps:
        match step:
            case ("enter", str(peer)):
                place = room.enter(peer)
                inside += [place] if place is not None else []
            case ("settle", int(index), str(principal)) if inside:
                place = inside[index % len(inside)]
                assert room.settle(place, principal) == (place.principal == principal)
            case ("leave", int(index)) if inside:
                room.leave(inside.pop(index % len(inside)))
            case _:
                pass
        assert room.taken == len(inside) <= total
        for principal in ("key:a", "key:b"):
            assert sum(place.principal == principal for place in inside) <= min(per_caller, max(1, total // 2))
        for network in {place.network for place in inside}:
            strangers = sum(not place.principal and place.network == network for place in inside)
            assert strangers <= min(per_address, max(1, total // 2))
    for place in inside:
        room.leave(place)
    assert room.taken == 0
    if isinstance(held, OwnHeld):
        assert not held._numbers


def test_F78_one_machine_with_many_addresses_of_IPv6_is_one_stranger() -> None:
    room = Room(Bounds(100, per_address=2))
    assert [room.enter(f"2001:db8::{n}") is not None for n in range(3)] == [True, True, False]
    assert room.enter("2001:db8:0:1::1") is not None
    assert room.refused == {IN_ALL: 0, OF_ADDRESS: 1, OF_CALLER: 0}


def test_F78_where_no_credentials_are_the_one_caller_may_have_all_connections() -> None:
    room = Room(Bounds(4, per_caller=1))
    for _ in range(4):
        place = room.enter("127.0.0.1")
        assert place is not None and room.settle(place, LOCAL.principal)
    assert room.enter("127.0.0.1") is None
    assert room.refused[IN_ALL] == 1
