"""Which links there may be: the rungs of `take`, and what holds whatever happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.upstream.slots import Full, Slot, Slots, SlotState

IDLE = 10.0


def slots(bound: int, held: set[str] | None = None) -> Slots[str]:
    return Slots[str](bound, IDLE, lambda slot: slot.owner in (held or set()))


def opened(room: Slots[str], owner: str, now: float = 0.0) -> Slot[str]:
    """A slot whose link is open and in use."""
    slot = room.take(owner, now).slot
    room.opened(slot)
    return slot


def test_two_calls_of_one_owner_share_what_is_reserved() -> None:
    room = slots(1)
    first, second = room.take("ada", 0), room.take("ada", 0)
    assert first.open and not second.open and first.slot is second.slot
    assert first.slot.leases == 2 and repr(room) == "<Slots ada: reserved x2>"


def test_the_idlest_open_link_that_nobody_uses_makes_room() -> None:
    room = slots(3, held={"held"})
    for now, owner in enumerate(["held", "old", "new"]):
        room.give_back(opened(room, owner), now)
    taken = room.take("bob", 5)
    assert taken.open and taken.close and taken.after is not None and taken.after.owner == "old"
    assert room.places == 3, "the new one waits for the place"
    room.gone(taken.after)
    assert room.places == 3 and room.of("old") is None


def test_a_link_that_is_closing_anyway_makes_room_for_one_and_the_next_waits_for_another() -> None:
    room = slots(2)
    going, idle = opened(room, "going"), opened(room, "idle")
    room.closing(going)
    room.give_back(idle, 1)
    first = room.take("ada", 2)
    assert first.after is going and not first.close
    assert room.take("bob", 2).after is idle


def test_what_is_reserved_or_in_use_makes_no_room() -> None:
    room = slots(2)
    opened(room, "busy")
    room.take("opening", 0)
    with pytest.raises(Full):
        room.take("bob", 1)


def test_who_waited_for_a_place_and_gave_up_leaves_it_free() -> None:
    room = slots(1)
    going = opened(room, "going")
    room.closing(going)
    room.gone(room.take("ada", 0).slot)
    assert room.take("bob", 0).after is going
    room.gone(going)
    assert room.places == 1


def test_a_link_that_died_is_replaced_by_the_owners_next_call() -> None:
    room = slots(2)
    dead = opened(room, "ada")
    room.closing(dead)
    assert room.of("ada") is None
    again = room.take("ada", 0)
    assert again.open and again.slot is not dead
    room.give_back(dead, 3)
    assert again.slot.leases == 1


def test_idle_is_counted_from_the_last_use_and_never_in_use() -> None:
    room = slots(3, held={"held"})
    assert room.due(0) == IDLE
    for owner in ("held", "ada", "busy"):
        opened(room, owner)
    for owner in ("held", "ada"):
        room.give_back(slot_of(room, owner), 4)
    assert room.due(5) == 9 and room.idle(13.9) == []
    assert [slot.owner for slot in room.idle(14)] == ["ada"]


def test_a_link_whose_hold_ends_long_after_its_last_use_is_due_at_once_and_never_in_the_past() -> None:
    held = {"ada"}
    room = slots(1, held)
    room.give_back(opened(room, "ada"), 0)
    assert room.idle(5 * IDLE) == [] and room.due(5 * IDLE) == IDLE
    held.clear()
    assert room.due(5 * IDLE) == 0
    assert [slot.owner for slot in room.idle(5 * IDLE)] == ["ada"]


def slot_of(room: Slots[str], owner: str) -> Slot[str]:
    slot = room.of(owner)
    assert slot is not None
    return slot


def test_whoever_waits_for_one_that_never_had_a_place_waits_for_the_one_that_it_waited_for() -> None:
    room = slots(1)
    first = opened(room, "ada")
    room.give_back(first, 1)
    second = room.take("bob", 2).slot
    room.closing(second)
    third = room.take("eve", 3).slot
    assert room.before(second) is first and room.before(third) is second
    room.gone(second)
    assert room.before(third) is first and room.places == 1
    room.gone(first)
    assert room.before(third) is None and room.places == 1


STEPS = st.lists(st.tuples(st.sampled_from(["take", "open", "back", "close", "gone"]), st.integers(0, 5)), max_size=80)


@given(bound=st.integers(1, 3), steps=STEPS)
def test_the_bound_holds_and_no_owner_has_two_whatever_happens(bound: int, steps: list[tuple[str, int]]) -> None:
    room, now = slots(bound), 0.0
    for step, number in steps:
        now += 1
        there = list(room)
        slot = there[number % len(there)] if there else None
        match step:
            case "take":
                try:
                    room.take(str(number), now)
                except Full:
                    assert all(one.state is SlotState.RESERVED or one.leases for one in room if one.heir is None)
            case "open" if slot is not None and slot.state is SlotState.RESERVED:
                if not any(one.heir is slot for one in room):
                    room.opened(slot)
            case "back" if slot is not None and slot.leases:
                room.give_back(slot, now)
            case "close" if slot is not None:
                room.closing(slot)
            case "gone" if slot is not None:
                room.gone(slot)
            case _:
                pass
        assert room.places <= bound
        heirs = [one.heir for one in room if one.heir is not None]
        running = [one for one in room if one not in heirs]
        assert len(running) <= bound, "links that are there, closing ones included"
        live = [one.owner for one in room if one.state is not SlotState.CLOSING]
        assert len(live) == len(set(live))
