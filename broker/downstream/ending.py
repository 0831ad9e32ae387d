"""How a broker ends: nothing new begins, what is in flight is finished for a while, and what is left is told (F-90)."""

from typing import Final

DRAIN: Final = 20.0
"""Seconds that calls in flight get to finish, by default."""
LAST_WORDS: Final = 1.0
"""Seconds that answers get to be written after that, when their calls have been given up; and that calls in flight get
when the host has closed the pipe: `echo ... | mcp-broker stdio` is a conversation too."""


def usual_drain() -> float:
    """For who has no configuration."""
    return DRAIN


def nobody_to_tell() -> None:
    """For who has nothing to give up."""
