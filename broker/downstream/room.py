"""How many connections there may be: in all, of one caller, and of one address while nobody was let in on them (F-78).

A connection that is open counts, and so does one that is gone while a session still works for it: each holds at most
one request that is answered, so what is bounded here bounds those too. Nothing waits: there is room, or there is none.
"""

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol

from broker.core.caller import LOCAL
from broker.identity.failures import network_of

MAX_CONNECTIONS: Final = 10_000
"""In all, unless the configuration says another number: one holds about 10 kB while it is idle."""
IN_ALL, OF_CALLER, OF_ADDRESS = "all", "caller", "address"
"""Which bound was reached, as metrics have it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many at a time. One caller, or one address, takes at most half of all, whatever is written for it."""

    total: int = MAX_CONNECTIONS
    per_caller: int = 1000
    """Not of `local`, which is everybody where no credentials are."""
    per_address: int = 1000
    """On which nobody was let in yet. A proxy, behind which all callers have one address, is no stranger for long."""

    @property
    def half(self) -> int:
        """The most that one caller, or one address, can have."""
        return max(1, self.total // 2)


@dataclass(slots=True)
class Place:
    """One connection. `network` is where it came from, `principal` who was let in on it last; "" while nobody was."""

    network: str
    principal: str = ""


class Held(Protocol):
    """How many connections there are, by kind (one of the bounds) and name: in this process alone, or over several."""

    lock: AbstractContextManager[None]
    """Held from a look to what follows from it."""

    def number(self, kind: str, name: str) -> int:
        """So many there are."""
        ...

    def add(self, kind: str, name: str, number: int) -> bool:
        """So many more; whether they could be counted. Fewer always can."""
        ...

    def is_ahead(self, kind: str, name: str) -> bool:
        """Whether this process has clearly more of them than another one."""
        ...


class OwnHeld:
    """In this process alone. Nobody who has none is kept: names and addresses are as many as others like."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[None] = nullcontext()
        self._numbers: Counter[tuple[str, str]] = Counter()

    def number(self, kind: str, name: str) -> int:
        """See `Held`."""
        return self._numbers[kind, name]

    def add(self, kind: str, name: str, number: int) -> bool:
        """See `Held`."""
        self._numbers[kind, name] += number
        if not self._numbers[kind, name]:
            del self._numbers[kind, name]
        return True

    def is_ahead(self, kind: str, name: str) -> bool:
        """See `Held`."""
        return False


class Room:
    """See the module. `held`: where is counted. Of several processes each has no more than the bound of all, since its
    descriptors are its own.
    """

    def __init__(self, bounds: Bounds | None = None, held: Held | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._held = held or OwnHeld()
        self.taken = 0
        """How many there are in this process."""
        self.refused: Counter[str] = Counter({IN_ALL: 0, OF_CALLER: 0, OF_ADDRESS: 0})
        """How many found no room since the start, by the bound."""

    def __repr__(self) -> str:
        return f"<Room {self.taken} of {self.bounds.total} taken>"

    def enter(self, peer: str) -> Place | None:
        """The place of a new connection from that address; None if there is none."""
        network = network_of(peer)
        with self._held.lock:
            if max(self.taken, self._held.number(IN_ALL, "")) >= self.bounds.total:
                return self._refuse(IN_ALL)
            if self._held.number(OF_ADDRESS, network) >= min(self.bounds.per_address, self.bounds.half):
                return self._refuse(OF_ADDRESS)
            if not self._held.add(IN_ALL, "", 1):
                return self._refuse(IN_ALL)
            if not self._held.add(OF_ADDRESS, network, 1):
                self._held.add(IN_ALL, "", -1)
                return self._refuse(OF_ADDRESS)
        self.taken += 1
        return Place(network)

    @property
    def is_ahead(self) -> bool:
        """Whether it is the turn of another process to take a connection."""
        return self._held.is_ahead(IN_ALL, "")

    def settle(self, place: Place, principal: str) -> bool:
        """Whether somebody who was let in on it may have one more connection; if so, it is theirs from now on."""
        if place.principal == principal:
            return True
        most = min(self.bounds.per_caller, self.bounds.half)
        with self._held.lock:
            is_over = principal != LOCAL.principal and self._held.number(OF_CALLER, principal) >= most
            if is_over or not self._held.add(OF_CALLER, principal, 1):
                self._refuse(OF_CALLER)
                return False
            self._forget(place)
        place.principal = principal
        return True

    def leave(self, place: Place) -> None:
        """It is gone. Once for each."""
        self.taken -= 1
        with self._held.lock:
            self._held.add(IN_ALL, "", -1)
            self._forget(place)

    def _refuse(self, bound: str) -> None:
        self.refused[bound] += 1

    def _forget(self, place: Place) -> None:
        kind, name = (OF_CALLER, place.principal) if place.principal else (OF_ADDRESS, place.network)
        self._held.add(kind, name, -1)
