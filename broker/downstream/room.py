"""How many connections there may be: in all, of one caller, and of one address while nobody was let in on them (F-78).

A connection that is open counts, and so does one that is gone while a session still works for it: each holds at most
one request that is answered, so what is bounded here bounds those too. Nothing waits: there is room, or there is none.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

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


class Room:
    """See the module."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.taken = 0
        """How many there are."""
        self.refused: Counter[str] = Counter({IN_ALL: 0, OF_CALLER: 0, OF_ADDRESS: 0})
        """How many found no room since the start, by the bound."""
        self._strangers: Counter[str] = Counter()
        """On which nobody was let in, by network."""
        self._callers: Counter[str] = Counter()
        """The others, by principal."""

    def __repr__(self) -> str:
        return f"<Room {self.taken} of {self.bounds.total} taken>"

    def enter(self, peer: str) -> Place | None:
        """The place of a new connection from that address; None if there is none."""
        network = network_of(peer)
        if self.taken >= self.bounds.total:
            return self._refuse(IN_ALL)
        if self._strangers[network] >= min(self.bounds.per_address, self.bounds.half):
            return self._refuse(OF_ADDRESS)
        self.taken += 1
        self._strangers[network] += 1
        return Place(network)

    def settle(self, place: Place, principal: str) -> bool:
        """Whether somebody who was let in on it may have one more connection; if so, it is theirs from now on."""
        if place.principal == principal:
            return True
        if principal != LOCAL.principal and self._callers[principal] >= min(self.bounds.per_caller, self.bounds.half):
            self._refuse(OF_CALLER)
            return False
        self._forget(place)
        place.principal = principal
        self._callers[principal] += 1
        return True

    def leave(self, place: Place) -> None:
        """It is gone. Once for each."""
        self.taken -= 1
        self._forget(place)

    def _refuse(self, bound: str) -> None:
        self.refused[bound] += 1

    def _forget(self, place: Place) -> None:
        """Nobody who has none is kept: names and addresses are as many as others like."""
        counts, key = (self._callers, place.principal) if place.principal else (self._strangers, place.network)
        counts[key] -= 1
        if not counts[key]:
            del counts[key]
