"""How much may be asked, as values: calls in a time, and calls at a time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.core.budget import Budget
from broker.core.period import Period

QUEUE: Final = 100
"""Calls that wait for a place, unless it is said. Without a bound, whoever floods fills the memory."""
WAIT: Final = 10.0
"""Seconds that a call waits for a place, unless it is said: most callers have given up soon after."""
MAX_COUNT: Final = 1_000_000_000
MAX_SECONDS: Final = 31 * 86_400
"""Longer, and a restart, which forgets what was counted, would come first."""
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(r"([1-9][0-9]{0,9})/(?:(second|minute|hour|day)|([1-9][0-9]{0,6})([smhd]))")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` calls in any `seconds`: the window moves."""

    count: int
    seconds: int

    def __str__(self) -> str:
        """As it is written: `100/minute`, `20/90s`."""
        for word, seconds in _SECONDS.items():
            if seconds == self.seconds:
                return f"{self.count}/{word}"
        word, seconds = next((word, one) for word, one in reversed(_SECONDS.items()) if not self.seconds % one)
        return f"{self.count}/{self.seconds // seconds}{word[0]}"


def rate_of(text: str) -> Rate:
    """`100/minute`, `2000/day`, `20/90s`, `500/6h`. Raises: ValueError, if it is none, or is out of bounds."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError("not a rate")
    unit = found[2] or next(word for word in _SECONDS if word[0] == found[4])
    rate = Rate(int(found[1]), int(found[3] or 1) * _SECONDS[unit])
    if rate.count > MAX_COUNT or rate.seconds > MAX_SECONDS:
        raise ValueError("out of bounds")
    return rate


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one level. `concurrency`: calls at a time, None for any number; beyond it `queue` calls wait, each for `wait`
    seconds at most.
    """

    rates: tuple[Rate, ...] = ()
    concurrency: int | None = None
    queue: int = QUEUE
    wait: float = WAIT

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return not self.rates and self.concurrency is None


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class LevelLimits:
    """Of an organization, a team or a key: in all, and at single servers."""

    in_all: Limits = NO_LIMITS
    servers: Mapping[str, Limits] = field(default_factory=dict[str, Limits])
    budget: Budget = field(default_factory=dict[Period, int])
    """What calls may cost together. It is spent, not counted: `core/budget.py`."""

    @property
    def is_none(self) -> bool:
        """Whether no calls are counted."""
        return self.in_all.is_none and all(one.is_none for one in self.servers.values())


UNLIMITED: Final = LevelLimits()


def is_as_tight(level: LevelLimits, limit: LevelLimits) -> bool:
    """Whether `level` allows no more than `limit`, in all, at each server, and in its budget."""
    if any(level.budget.get(period, amount + 1) > amount for period, amount in limit.budget.items()):
        return False
    if not _is_as_tight((level.in_all,), limit.in_all):
        return False
    return all(
        _is_as_tight((level.in_all, level.servers.get(key, NO_LIMITS)), one) for key, one in limit.servers.items()
    )


def _is_as_tight(together: tuple[Limits, ...], limit: Limits) -> bool:
    """Whether limits that hold together allow no more than `limit`."""
    rates = [rate for one in together for rate in one.rates]
    if not all(any(one.seconds >= rate.seconds and one.count <= rate.count for one in rates) for rate in limit.rates):
        return False
    places = [one.concurrency for one in together if one.concurrency is not None]
    return limit.concurrency is None or any(one <= limit.concurrency for one in places)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Of a server: for all callers together, and for each of them."""

    in_all: Limits = NO_LIMITS
    per_caller: Limits = NO_LIMITS

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return self.in_all.is_none and self.per_caller.is_none
