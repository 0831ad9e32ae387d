"""What identity is given by the rest of a broker."""

from collections.abc import Callable
from dataclasses import dataclass

from broker.clock import Clock
from broker.config import Secret
from broker.core.directory import Directory


def never_silent() -> float:
    """For a broker without a store."""
    return 0.0


@dataclass(frozen=True, slots=True)
class Supplies:
    """All of them are asked again and again, must not block, and may answer differently each time."""

    clock: Clock
    directory: Callable[[], Directory]
    """The one in force: a change of it is another object."""
    key_secret: Callable[[], Secret | None]
    """None while there is none."""
    silence: Callable[[], float] = never_silent
    """Seconds for which the store has not answered; 0 while it is well, or there is none."""
