"""Counts of what happens, in plain numbers: adding one costs a look into a dictionary, and nothing where it is off.

How many series there can be is bounded: servers and kinds come from the configuration, and so do rules, of which no
more than `MAX_RULES` are told apart; what a caller makes up is `other`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

from broker.usage.records import CallRecord

MAX_RULES: Final = 1000
"""Rules with a series of their own. Without a bound every key that is made at run time adds some for ever."""
OTHER: Final = "other"
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper edges of durations, in seconds."""


@dataclass(slots=True)
class Durations:
    """How many took how long: `counts` has one more place than `BOUNDS`, for what took longer."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class Meter(Protocol):
    """Where is counted."""

    is_on: bool
    """Whether anything is."""
    in_flight: int
    """Requests: whoever begins or ends one says so here."""

    def called(self, record: CallRecord) -> None:
        """A request that names an entry has ended."""
        ...

    def discovered(self, method: str) -> None:
        """A view was shown."""
        ...

    def refused(self, status: int) -> None:
        """A credential was."""
        ...

    def serve(self, servers: Collection[str]) -> None:
        """Another configuration is in force, with these servers."""
        ...


class NoMeter:
    """Nothing is counted, or nobody looks at it."""

    is_on: bool = False
    in_flight: int = 0

    def called(self, record: CallRecord) -> None:
        """See `Meter`."""

    def discovered(self, method: str) -> None:
        """See `Meter`."""

    def refused(self, status: int) -> None:
        """See `Meter`."""

    def serve(self, servers: Collection[str]) -> None:
        """See `Meter`."""


NO_METER: Final = NoMeter()


class Counts:
    """See `Meter`. `servers`: the keys of those that are configured."""

    is_on: bool = True

    def __init__(self, servers: Collection[str]) -> None:
        self._servers = frozenset(servers)
        self._rules: set[str] = set()
        self.in_flight = 0
        self.calls: Counter[tuple[str, str, str, str]] = Counter()
        """By rule, upstream, kind and outcome."""
        self.durations: dict[tuple[str, str], Durations] = {}
        """By upstream and kind."""
        self.discoveries: Counter[str] = Counter()
        self.refusals: Counter[int] = Counter()

    def called(self, record: CallRecord) -> None:
        """See `Meter`."""
        server = record.server if record.server in self._servers else "" if not record.server else OTHER
        self.calls[self._rule(record.rule), server, record.kind, record.outcome] += 1
        place = (server, record.kind)
        if place not in self.durations:
            self.durations[place] = Durations()
        self.durations[place].add(record.ms / 1000)

    def discovered(self, method: str) -> None:
        """See `Meter`."""
        self.discoveries[method] += 1

    def refused(self, status: int) -> None:
        """See `Meter`."""
        self.refusals[status] += 1

    def serve(self, servers: Collection[str]) -> None:
        """See `Meter`."""
        self._servers = frozenset(servers)

    def _rule(self, rule: str) -> str:
        if rule in self._rules:
            return rule
        # A place that is not known is named by a token, that is, by anybody.
        if len(self._rules) >= MAX_RULES or rule.endswith("/unknown"):
            return OTHER
        self._rules.add(rule)
        return rule
