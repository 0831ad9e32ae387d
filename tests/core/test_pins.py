"""What counts as a change of a definition, and what an operator's word makes of it."""

from typing import Any

import pytest

from broker.core.catalog import Cleaned, Dropped, Listing
from broker.core.pins import (
    INSTRUCTIONS,
    MAX_HISTORY,
    PINNED,
    Change,
    Pin,
    Place,
    Was,
    accept,
    compare,
    hash_of,
    hashes_of,
    places_of,
    without,
)
from broker.core.request import Kind
from tests.calls import measured

TOOL: dict[str, Any] = {"name": "a", "description": "Reads.", "inputSchema": {"type": "object"}, "_meta": {"x": 1}}
PLACE: Place = ("tools", "a")


def test_a_hash_is_of_what_is_read_and_of_nothing_else() -> None:
    value = hash_of(TOOL)
    assert hash_of(dict(reversed(TOOL.items()))) == value
    assert hash_of({**TOOL, "_meta": {"x": 2}, "icons": []}) == value
    for member in PINNED:
        assert hash_of({**TOOL, member: "another"}) != value


def test_all_that_a_server_says_of_itself_has_a_hash() -> None:
    items = {Kind.TOOL: (TOOL,), Kind.RESOURCE: ({"uri": "a:b", "name": "r"},)}
    found = hashes_of(Listing(items=items, instructions="Use a."))
    assert set(found) == {PLACE, ("resources", "a:b"), INSTRUCTIONS}
    assert found[PLACE] == hash_of(TOOL)
    assert INSTRUCTIONS not in hashes_of(Listing(items=items)) and INSTRUCTIONS not in hashes_of(
        Listing(instructions="")
    )


def test_what_is_new_is_pinned_and_what_is_the_same_is_no_change() -> None:
    first = compare({}, {PLACE: "1"}, 5.0)
    assert first.pins == {PLACE: Pin(Was("1", 5.0))} and first.changes == ()
    assert compare(first.pins, {PLACE: "1"}, 6.0) == first
    assert compare(first.pins, {}, 6.0).pins == first.pins, "what has gone keeps its pin"


def test_a_change_is_new_once_and_is_none_any_more_when_it_is_taken_back() -> None:
    known = {PLACE: Pin(Was("1", 5.0))}
    changed = compare(known, {PLACE: "2"}, 6.0)
    assert changed.changes == (Change(PLACE, "1", "2", is_new=True),)
    assert changed.pins[PLACE].pending == Was("2", 6.0, "changed")
    again = compare(changed.pins, {PLACE: "2"}, 7.0)
    assert again.changes == (Change(PLACE, "1", "2", is_new=False),) and again.pins == changed.pins
    other = compare(changed.pins, {PLACE: "3"}, 8.0)
    assert other.changes[0].is_new and other.pins[PLACE].pending == Was("3", 8.0, "changed")
    assert compare(changed.pins, {PLACE: "1"}, 9.0) == compare(known, {PLACE: "1"}, 9.0)


@pytest.mark.parametrize(("names", "accepted"), [((), True), (("a",), True), (("b",), False)])
def test_what_is_accepted_counts_and_what_it_was_is_kept(names: tuple[str, ...], accepted: bool) -> None:
    changed = compare({PLACE: Pin(Was("1", 5.0))}, {PLACE: "2"}, 6.0).pins
    pin = accept(changed, names, 7.0)[PLACE]
    assert (pin == Pin(Was("2", 7.0, "accepted"), None, (Was("1", 5.0),))) is accepted
    assert compare({PLACE: pin}, {PLACE: "2"}, 8.0).changes == () or not accepted
    assert accept({PLACE: pin}, names, 9.0)[PLACE] == pin, "there is nothing to accept"


def test_the_history_is_bounded() -> None:
    pins = {PLACE: Pin(Was("0", 0.0))}
    for number in range(1, MAX_HISTORY + 5):
        pins = accept(compare(pins, {PLACE: str(number)}, number).pins, (), number)
    assert [one.hash for one in pins[PLACE].history] == [str(number) for number in range(4, MAX_HISTORY + 4)]


def test_what_is_held_is_left_out_of_a_listing_with_the_reason() -> None:
    items = {Kind.TOOL: (TOOL, {**TOOL, "name": "b"}), Kind.PROMPT: ({"name": "a"},)}
    listing = Listing(items=items, instructions="Use a.")
    found = without(listing, {PLACE}, "why")
    assert found.items == {Kind.TOOL: ({**TOOL, "name": "b"},), Kind.PROMPT: ({"name": "a"},)}
    assert found.dropped == (Dropped(Kind.TOOL, "a", "why"),) and found.instructions == "Use a."
    silent = without(listing, {INSTRUCTIONS}, "why")
    assert silent.instructions is None and silent.items == items
    assert silent.cleaned == (Cleaned("instructions", "", "left out: why"),)


def test_a_long_list_in_which_everything_has_changed_is_left_out_in_linear_time() -> None:
    many = tuple({"name": f"t{number}", "description": "x"} for number in range(10_000))
    listing = Listing(items={Kind.TOOL: many, Kind.RESOURCE: ({"uri": "a:b", "name": "r"},)}, instructions="Use it.")
    places = places_of(listing)
    assert places == set(hashes_of(listing))
    with measured() as spent:
        left = without(listing, places - {("tools", "t7")}, "held")
    assert spent.seconds < 1
    assert left.items[Kind.TOOL] == (many[7],) and len(left.dropped) == 10_000 and left.instructions is None
