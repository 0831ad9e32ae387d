"""The gate that progress of one call passes: a burst, then a steady rate, always rising (F-25, SP-35)."""

from typing import Any, Final

BURST: Final = 20
"""Notifications that pass at once: a short call shows all its steps."""
RATE: Final = 10.0
"""A second, after the burst: an upstream that reports 20 000 steps a second costs a caller ten."""
_ROUNDING: Final = 1e-6
"""Of a token: else who waits for exactly `due` seconds may come a rounding error too early, again and again."""


class ProgressGate:
    """Which progress notifications of one call pass, and when. Time (seconds) is given, never read.

    `offer` answers with what to send now; what it withholds is kept, the last value only, until `due` has come, or
    until `flush` at the end of the call.
    """

    def __init__(self, now: float) -> None:
        self._tokens = float(BURST)
        self._refilled = now
        self._highest: float | None = None
        self._pending: dict[str, Any] | None = None

    def offer(self, params: dict[str, Any], now: float) -> dict[str, Any] | None:
        """`params` if it may be sent now; None if it is kept for later, or does not rise."""
        value = params.get("progress")
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        # Spec: 2026-07-28 basic/patterns/progress: "The progress value MUST increase with each notification".
        if self._highest is not None and value <= self._highest:
            return None
        self._highest = value
        self._pending = params
        return self.release(now)

    def release(self, now: float) -> dict[str, Any] | None:
        """What was kept, if it may be sent now."""
        self._tokens = min(float(BURST), self._tokens + (now - self._refilled) * RATE)
        self._refilled = now
        if self._pending is None or self._tokens < 1.0 - _ROUNDING:
            return None
        self._tokens -= 1.0
        return self.flush()

    def due(self) -> float | None:
        """Seconds until `release` has something, or None if nothing is kept."""
        return None if self._pending is None else max(0.0, (1.0 - self._tokens) / RATE)

    def flush(self) -> dict[str, Any] | None:
        """What was kept, whatever the rate: the call ends, and its last value must not be lost."""
        pending, self._pending = self._pending, None
        return pending
