"""How old the known lists of a server are, and what makes one be fetched again."""

from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from broker.core.request import Kind
from broker.upstream.peer import Peer

MIN_TTL: Final = 5.0
DEFAULT_TTL: Final = 300.0
"""Seconds for which a list counts as fresh: at least the former, the latter if its upstream gives none."""
_ANNOUNCED: Final[dict[str, tuple[Kind, ...]]] = {
    "notifications/tools/list_changed": (Kind.TOOL,),
    "notifications/prompts/list_changed": (Kind.PROMPT,),
    "notifications/resources/list_changed": (Kind.RESOURCE, Kind.TEMPLATE),
}
_LISTEN_FLAGS: Final = {
    "tools": "toolsListChanged",
    "prompts": "promptsListChanged",
    "resources": "resourcesListChanged",
}


@dataclass(slots=True)
class Freshness:
    """When one list was fetched, whether it is to be fetched again, and whether its upstream said that it changed."""

    wanted: anyio.Event = field(default_factory=anyio.Event)
    fetched: float = 0.0
    announced: bool = False

    def remaining(self, ttl: float | None, now: float) -> float:
        """Seconds for which it still counts as fresh. `ttl`: what its upstream gave."""
        return max(0.0, self.fetched + lifetime(ttl) - now)

    def announce(self) -> None:
        """Its upstream says that it has changed."""
        self.announced = True
        self.wanted.set()

    def begin(self) -> None:
        """A connection begins: all lists are fetched anyway."""
        self.wanted, self.announced = anyio.Event(), False

    def renew(self, now: float) -> None:
        """It was fetched; what was announced meanwhile is still to be followed."""
        self.fetched = now
        if not self.announced:
            self.wanted = anyio.Event()

    def take(self) -> bool:
        """It is being fetched again; whether because its upstream said so."""
        announced, self.wanted, self.announced = self.announced, anyio.Event(), False
        return announced


def lifetime(ttl: float | None) -> float:
    """Seconds for which a list counts as fresh."""
    return max(MIN_TTL, min(DEFAULT_TTL, DEFAULT_TTL if ttl is None else ttl))


def announced_by(method: str) -> tuple[Kind, ...]:
    """The lists that a notification says have changed."""
    return _ANNOUNCED.get(method, ())


def announcements_of(peer: Peer) -> dict[str, Any]:
    """What to ask a modern upstream to announce."""
    return {flag: True for capability, flag in _LISTEN_FLAGS.items() if peer.announces(capability)}
