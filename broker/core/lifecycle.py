"""The life of a link to one upstream, as one table.

                 ┌──────────── RetryDue ───────────┐
                 ▼                                 │
    IDLE ─► CONNECTING ── Opened ─► READY          │
     Started     │                    │            │
                 └─ Failed ─► WAITING ◄── Lost ────┘        any state ── Stopped ─► STOPPED
                              WAITING, READY ── Rested ─► IDLE

It is the breaker too: while it is WAITING nobody's call reaches the upstream, and CONNECTING is the one probe that may.

`step` answers an event with the next state and what to do; whoever runs it (`upstream/supervise.py`) does the I/O.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Where a link stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"


class Event(StrEnum):
    """What happened to it."""

    STARTED = "started"
    OPENED = "opened"
    FAILED = "failed"
    LOST = "lost"
    RETRY_DUE = "retry_due"
    RESTED = "rested"
    STOPPED = "stopped"


NEXT: Final[dict[Phase, dict[Event, Phase]]] = {
    Phase.IDLE: {Event.STARTED: Phase.CONNECTING, Event.STOPPED: Phase.STOPPED},
    Phase.CONNECTING: {
        Event.OPENED: Phase.READY,
        Event.FAILED: Phase.WAITING,
        Event.STOPPED: Phase.STOPPED,
    },
    Phase.READY: {Event.LOST: Phase.WAITING, Event.RESTED: Phase.IDLE, Event.STOPPED: Phase.STOPPED},
    Phase.WAITING: {Event.RETRY_DUE: Phase.CONNECTING, Event.RESTED: Phase.IDLE, Event.STOPPED: Phase.STOPPED},
    Phase.STOPPED: {Event.STOPPED: Phase.STOPPED},
}
"""A pair that is not here cannot happen; `step` refuses it."""

FIRST_DELAY: Final = 0.5
"""Seconds before the first retry; each further one doubles it."""
MAX_DELAY: Final = 60.0
"""Seconds at most between retries, so that an upstream that comes back is found within a minute."""
STEADY_AFTER: Final = 30.0
"""Seconds a link must have lived for its loss to count as a first failure again: else one that opens and dies at
once would be restarted twice a second for ever."""


class Impossible(RuntimeError):
    """An event that the phase does not know: a fault of the broker."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """`failures` in a row; `since` is when the phase began; `delay` (seconds) is how long WAITING lasts."""

    phase: Phase = Phase.IDLE
    failures: int = 0
    since: float = 0.0
    delay: float = 0.0


def step(state: LinkState, event: Event, now: float, chance: float) -> LinkState:
    """The state after `event`. `chance` in [0, 1) spreads the retries of many upstreams that died together.

    Raises: Impossible.
    """
    phase = NEXT[state.phase].get(event)
    if phase is None:
        raise Impossible(f"{event} while {state.phase}")
    after = replace(state, phase=phase, since=now, delay=0.0)
    if event is Event.LOST and now - state.since >= STEADY_AFTER:
        after = replace(after, failures=0)
    if phase is Phase.WAITING:
        return replace(after, failures=after.failures + 1, delay=_delay(after.failures, chance))
    return after


def _delay(failures: int, chance: float) -> float:
    """Exponential, with jitter over its upper half."""
    full = min(MAX_DELAY, FIRST_DELAY * 2 ** min(failures, 16))
    return full * (0.5 + chance / 2)
