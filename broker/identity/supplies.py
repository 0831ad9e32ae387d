"""What identity is given by the rest of a broker."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broker.clock import Clock
from broker.config import Secret
from broker.core.policy import Policy


def never_silent() -> float:
    """For a broker without a store."""
    return 0.0


class HasPolicy(Protocol):
    """A live configuration."""

    @property
    def policy(self) -> Policy:
        """With the directory. A change is another object."""
        ...


class InForce(Protocol):
    """Where it is found who may come in: `served.policy.directory`, read anew for each request."""

    @property
    def served(self) -> HasPolicy:
        """A reload is another object."""
        ...


@dataclass(frozen=True, slots=True)
class Supplies:
    """All of them are asked again and again, must not block, and may answer differently each time."""

    clock: Clock
    in_force: InForce
    key_secret: Callable[[], Secret | None]
    """None while there is none."""
    silence: Callable[[], float] = never_silent
    """Seconds for which the store has not answered; 0 while it is well, or there is none."""
