"""Which links of one server there are, and which may be opened or must go: decided at once, without I/O.

Each owner has one slot at most. A slot is

    RESERVED ── opened ─► OPEN ── closing ─► CLOSING ── gone ─► (nowhere)
        └───────────────── closing ───────────┘

and RESERVED is a state like the others, so that two calls at once never open two links. Who asks for its link gets, the
first that applies:

1. the owner's own slot, reserved or open;
2. a new one, at once, while fewer than `bound` are there, those that are closing included: a process that still runs
   counts;
3. a new one, once a link that is closing anyway is gone;
4. a new one, once the idlest open link that nobody uses is closed and gone;
5. `Full`.

`upstream/isolated.py` does what is decided here. Time (seconds) is given, never read.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)


class SlotState(StrEnum):
    """Where the link of a slot stands."""

    RESERVED = "reserved"
    OPEN = "open"
    CLOSING = "closing"


class Full(Exception):
    """All links are there, and all are in use."""


@dataclass(slots=True, eq=False)
class Slot(Generic[Owner]):
    """The place of one owner's link."""

    owner: Owner
    used: float
    """When it was last given back."""
    state: SlotState = SlotState.RESERVED
    leases: int = 0
    """Calls that use it, or wait for it."""
    heir: "Slot[Owner] | None" = None
    """Who gets the place once this one is gone."""


@dataclass(frozen=True, slots=True)
class Taken(Generic[Owner]):
    """What to do for who asked: `open` its link, if it is new, `after` that one is gone, which may have to `close`."""

    slot: Slot[Owner]
    open: bool = False
    after: Slot[Owner] | None = None
    close: bool = False


class Slots(Generic[Owner]):
    """See the module. `is_held` tells of a link that is in use without a lease, as when a resource is watched on it."""

    def __init__(self, bound: int, idle: float, is_held: Callable[[Slot[Owner]], bool]) -> None:
        self._bound = bound
        self._idle = idle
        self._is_held = is_held
        self._owned: dict[Owner, Slot[Owner]] = {}
        self._closing: set[Slot[Owner]] = set()

    def __repr__(self) -> str:
        states = ", ".join(f"{slot.owner}: {slot.state} x{slot.leases}" for slot in self)
        return f"<Slots {states or 'none'}>"

    def resize(self, bound: int, idle: float) -> None:
        """Other bounds, from now on: what is there stays until it is idle."""
        self._bound, self._idle = bound, idle

    def __iter__(self) -> Iterator[Slot[Owner]]:
        yield from tuple(self._owned.values())
        yield from tuple(self._closing)

    @property
    def places(self) -> int:
        """How many are taken: a slot that waits for another's place has none of its own yet."""
        return len(self._owned) + len(self._closing) - sum(slot.heir is not None for slot in self._closing)

    def of(self, owner: Owner) -> Slot[Owner] | None:
        """The slot of an owner, reserved or open."""
        return self._owned.get(owner)

    def take(self, owner: Owner, now: float) -> Taken[Owner]:
        """A lease of the owner's slot. Raises: Full."""
        slot = self._owned.get(owner)
        if slot is not None:
            slot.leases += 1
            return Taken(slot)
        after, close = self._room()
        slot = Slot(owner, now, leases=1)
        self._owned[owner] = slot
        if after is not None:
            if close:
                self.closing(after)
            after.heir = slot
        return Taken(slot, True, after, close)

    def _room(self) -> tuple[Slot[Owner] | None, bool]:
        if self.places < self._bound:
            return None, False
        leaving = next((slot for slot in self._closing if slot.heir is None), None)
        if leaving is not None:
            return leaving, False
        idlest = min((slot for slot in self._owned.values() if self._is_idle(slot)), key=_used, default=None)
        if idlest is None:
            raise Full
        return idlest, True

    def opened(self, slot: Slot[Owner]) -> None:
        """Its link is there."""
        assert slot.state is SlotState.RESERVED
        slot.state = SlotState.OPEN

    def give_back(self, slot: Slot[Owner], now: float) -> None:
        """A lease ends."""
        assert slot.leases > 0
        slot.leases -= 1
        slot.used = now

    def closing(self, slot: Slot[Owner]) -> None:
        """Its link is lost, failed, or to be closed: the owner's next call gets another. Twice is once."""
        if slot.state is SlotState.CLOSING or self._owned.get(slot.owner) is not slot:
            return
        slot.state = SlotState.CLOSING
        del self._owned[slot.owner]
        self._closing.add(slot)

    def gone(self, slot: Slot[Owner]) -> None:
        """Nothing is left of its link: the place is free. If it waited for another's, whoever waited for its own waits
        for that now.
        """
        self.closing(slot)
        self._closing.discard(slot)
        heir, slot.heir = slot.heir, None
        for other in self._closing:
            if other.heir is slot:
                other.heir = heir

    def before(self, slot: Slot[Owner]) -> Slot[Owner] | None:
        """The one whose place a slot waits for, if it has none yet."""
        return next((other for other in self._closing if other.heir is slot), None)

    def idle(self, now: float) -> list[Slot[Owner]]:
        """Those that nobody has used for long."""
        return [slot for slot in self._owned.values() if self._is_idle(slot) and now - slot.used >= self._idle]

    def due(self, now: float) -> float:
        """Seconds, never negative, until one may be idle for long enough, and not before. One that is in use now is not
        for `idle` s; one that was held until this moment may have been for long already.
        """
        waits = (slot.used + self._idle - now for slot in self._owned.values() if self._is_idle(slot))
        return max(0.0, min(waits, default=self._idle))

    def _is_idle(self, slot: Slot[Owner]) -> bool:
        return slot.state is SlotState.OPEN and slot.leases == 0 and not self._is_held(slot)


def _used(slot: Slot[Owner]) -> float:
    return slot.used
