"""Levels of log messages, and how many of them pass.

Spec: 2025-11-25 server/utilities/logging, "Log Levels" (RFC 5424); 2026-07-28 likewise, asked for by each request.
"""

from typing import Final

LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""From the least to the most severe."""
EVERYTHING: Final = LEVELS[0]

BURST: Final = 100
"""Messages of one call that pass at once."""
RATE: Final = 20.0
"""A second, after the burst (SP-37): what is more is dropped."""


def is_level(value: object) -> bool:
    """Whether a value names a level."""
    return value in LEVELS


def is_at_least(level: object, least: str) -> bool:
    """Whether a message of `level` passes where `least` was asked for. One of an unknown level does not."""
    return level in LEVELS and LEVELS.index(str(level)) >= LEVELS.index(least)


def more_verbose(one: str | None, other: str) -> str:
    """The level that lets more through; None lets nothing through."""
    return other if one is None or LEVELS.index(other) < LEVELS.index(one) else one


class LogGate:
    """How many log messages of one call pass. Time (seconds) is given, never read."""

    def __init__(self, now: float) -> None:
        self._tokens = float(BURST)
        self._refilled = now

    def admits(self, now: float) -> bool:
        """Whether one more may pass now."""
        self._tokens = min(float(BURST), self._tokens + (now - self._refilled) * RATE)
        self._refilled = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
