"""Periods of budgets and of usage: hours, days and months of UTC, by the seconds since 1970 at which they begin."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final


class Period(StrEnum):
    """How often a budget begins anew."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


_SECONDS: Final = {Period.HOUR: 3600, Period.DAY: 86_400}


def begin_of(period: Period, at: float) -> int:
    """When the period began in which `at` is. Leap seconds do not exist in this count."""
    seconds = _SECONDS.get(period)
    if seconds is not None:
        return int(at // seconds) * seconds
    return int(datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())


def end_of(period: Period, begin: int) -> int:
    """When the period ends that began at `begin`, and the next one begins."""
    seconds = _SECONDS.get(period)
    if seconds is not None:
        return begin + seconds
    # From the first of any month, 31 days lead into the next one, and never past it.
    return begin_of(period, (datetime.fromtimestamp(begin, UTC) + timedelta(days=31)).timestamp())


def moment_of(seconds: float) -> str:
    """`2026-12-01T00:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
