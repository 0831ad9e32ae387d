"""Pins: what definitions were when they were first seen, or accepted, so that a server cannot change them unnoticed.

Trust in a tool is trust in what it said of itself; a server that says something else tomorrow, under the same name, is
another one (I-38). A pin is a hash of all that a model or a person reads. What is new is pinned when it is first seen;
what has gone keeps its pin, since going and coming back must not make it new.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from broker.core.catalog import Cleaned, Dropped, Listing
from broker.core.request import LISTS, Kind

Mode = Literal["off", "warn", "hold"]
Place = tuple[str, str]
"""Kind, own name or URI."""
INSTRUCTIONS: Final[Place] = ("instructions", "")
PINNED: Final = frozenset(
    {
        *("name", "title", "description", "inputSchema", "outputSchema", "annotations", "arguments"),
        *("uri", "uriTemplate", "mimeType"),
    }
)
"""Members of a definition that are pinned: what is read, and what decides how it is called."""
MAX_HISTORY: Final = 10
"""Earlier hashes that are kept of one definition; the oldest go."""


@dataclass(frozen=True, slots=True)
class Was:
    """What a definition was: `since` in seconds since 1970, `how` it came to count."""

    hash: str
    since: float
    how: str = "first seen"


@dataclass(frozen=True, slots=True)
class Pin:
    """`pending`: what it is now, if that is something else and nobody has accepted it."""

    now: Was
    pending: Was | None = None
    history: tuple[Was, ...] = ()

    def accepted(self, at: float) -> "Pin":
        """What it is now counts from here on."""
        if self.pending is None:
            return self
        return Pin(Was(self.pending.hash, at, "accepted"), None, (*self.history, self.now)[-MAX_HISTORY:])


@dataclass(frozen=True, slots=True)
class Change:
    """A definition is not what it was. `is_new`: that had not been known before."""

    place: Place
    was: str
    is_now: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """The pins as they are now, and what has changed of those that are in force."""

    pins: Mapping[Place, Pin]
    changes: tuple[Change, ...]


def hash_of(definition: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of what is pinned of a definition; the order of its members does not count."""
    pinned = {name: value for name, value in definition.items() if name in PINNED}
    text = json.dumps(pinned, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def places_of(listing: Listing) -> set[Place]:
    """Everything that a server says of itself."""
    found = {(kind.value, str(item[LISTS[kind].name_key])) for kind, items in listing.items.items() for item in items}
    return found | {INSTRUCTIONS} if listing.instructions else found


def hashes_of(listing: Listing) -> dict[Place, str]:
    """The hashes of it. It takes long for a long list: not for the event loop."""
    found = {
        (kind.value, str(item[LISTS[kind].name_key])): hash_of(item)
        for kind, items in listing.items.items()
        for item in items
    }
    if listing.instructions:
        found[INSTRUCTIONS] = hashlib.sha256(listing.instructions.encode("utf-8", "surrogatepass")).hexdigest()
    return found


def compare(pins: Mapping[Place, Pin], hashes: Mapping[Place, str], at: float) -> Compared:
    """What is new is pinned; what is not as it was is a change; what is as it was again is none any more."""
    found = dict(pins)
    changes: list[Change] = []
    for place, value in hashes.items():
        pin = found.get(place)
        if pin is None:
            found[place] = Pin(Was(value, at))
        elif pin.now.hash == value:
            found[place] = pin if pin.pending is None else replace(pin, pending=None)
        else:
            is_new = pin.pending is None or pin.pending.hash != value
            changes.append(Change(place, pin.now.hash, value, is_new))
            if is_new:
                found[place] = replace(pin, pending=Was(value, at, "changed"))
    return Compared(found, tuple(changes))


def accept(pins: Mapping[Place, Pin], names: Collection[str], at: float) -> dict[Place, Pin]:
    """The pins with what has changed accepted: of these own names, or of all if none is given."""
    return {place: pin.accepted(at) if not names or place[1] in names else pin for place, pin in pins.items()}


def without(listing: Listing, places: Collection[Place], why: str) -> Listing:
    """The listing less what must not be served, and with why."""
    items: dict[Kind, tuple[dict[str, Any], ...]] = {}
    dropped = list(listing.dropped)
    for kind, found in listing.items.items():
        held = {own for item in found if (kind.value, own := item[LISTS[kind].name_key]) in places}
        items[kind] = tuple(item for item in found if item[LISTS[kind].name_key] not in held) if held else found
        dropped += [Dropped(kind, own, why) for item in found if (own := item[LISTS[kind].name_key]) in held]
    if INSTRUCTIONS not in places:
        return replace(listing, items=items, dropped=tuple(dropped))
    cleaned = (*listing.cleaned, Cleaned("instructions", "", f"left out: {why}"))
    return replace(listing, items=items, dropped=tuple(dropped), cleaned=cleaned, instructions=None)
