"""Times as people type them: `2027-01-01`, `2027-01-01T12:00:00Z`, `30d`; and as they are shown."""

import math
import re
from datetime import UTC, datetime
from typing import Final

from broker.cli.exits import BAD_INPUT, Stop
from broker.cli.words import line

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?")


def duration(text: str) -> float:
    """Seconds: `0`, `90s`, `30m`, `12h`, `30d`, `4w`. Raises: Stop."""
    if text == "0":
        return 0.0
    found = _DURATION.fullmatch(text)
    if found is None:
        raise Stop(f"{line(text)!r} is no duration: write it as in 30m, 12h, 30d or 4w", BAD_INPUT)
    return float(int(found[1]) * _UNITS[found[2]])


def moment(text: str, now: float) -> float:
    """Seconds since 1970: a date (its beginning, in UTC), a time, or a duration from now. Raises: Stop."""
    if _DURATION.fullmatch(text):
        return math.floor(now + duration(text))
    try:
        if _DATE.fullmatch(text):
            found = datetime.fromisoformat(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        pass
    raise Stop(f"{line(text)!r} is no date: write it as in 2027-01-01, 2027-01-01T12:00:00Z or 30d", BAD_INPUT)


def ago(text: str, now: float) -> float:
    """Seconds since 1970: a date, a time, or a duration before now: `7d`. Raises: Stop."""
    return now - duration(text) if _DURATION.fullmatch(text) else moment(text, now)


def shown(seconds: float | None) -> str | None:
    """`2027-01-01T12:00:00Z`; None for never."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
