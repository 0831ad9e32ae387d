"""A link for one call of a caller: who needs one, whose it is, and that it is given back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.upstream.link import Link
from broker.upstream.slots import Slot


@dataclass(frozen=True, slots=True)
class Asker:
    """Who needs a link: `session` is "" for a modern request; `capabilities` are what a new link declares."""

    principal: str
    session: str = ""
    capabilities: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a link is: a session's, or a principal's (`session` is "")."""

    principal: str
    session: str = ""

    def __str__(self) -> str:
        return f"a session of {self.principal}" if self.session else self.principal


def keep(slot: Slot[Owner]) -> None:
    """A link that nobody waits for is not given back."""


@dataclass(slots=True)
class Lease:
    """A link for one call. `give_back` must follow, once; without a `slot` the link is the one that all share."""

    link: Link
    slot: Slot[Owner] | None = None
    on_return: Callable[[Slot[Owner]], None] = keep

    def again(self) -> "Lease":
        """A second lease of the same link, for work that outlives the first."""
        if self.slot is not None:
            self.slot.leases += 1
        return Lease(self.link, self.slot, self.on_return)

    def give_back(self) -> None:
        """The call has ended."""
        if self.slot is not None:
            self.on_return(self.slot)
