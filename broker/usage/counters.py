"""What is counted of every level that has limits: its windows and its gate, for as long as they are of use."""

from collections import Counter as Tally
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import Final

from broker.clock import Clock
from broker.core.caller import Caller
from broker.core.limits import Applied, LimitRules
from broker.core.quota import NO_LIMITS, Limits
from broker.errors import LimitReached
from broker.usage.counting import OWN_COUNTING, AnyWindow, Counting
from broker.usage.gate import Gate
from broker.usage.gauges import Gauge
from broker.usage.terms import Terms

MAX_COUNTERS: Final = 100_000
"""Levels, and callers of servers, that are counted at a time. Without a bound, an issuer with any number of users would
fill the memory; beyond it, who is not counted yet is refused."""
MAX_KEPT: Final = 10_000
"""Callers at servers of whom it is kept which counters are theirs; then it is looked up anew."""
FEW: Final = 1000
"""Counters of which none need be forgotten."""
SWEEP_EVERY: Final = 10.0
"""Seconds in which all of them are looked at, at most once: it takes long, and strangers ask for it. In one second it
would be most of what there is to do."""
SWEEP: Final = 2000
"""Counters that are looked at in one go; every other call waits for that, and with all of them at once, of as many
callers as there may be, it would wait for most of a second."""
KINDS: Final = {"org": "organization", "team": "team", "key": "key", "server": "server"}
"""By how the name of a level begins: the word of metrics."""


class Counter:
    """Of one level, or of one caller at a server."""

    def __init__(self, counting: Counting, level: str, principal: str) -> None:
        self._counting = counting
        self._name = level, principal
        self.level = level
        self.limits = NO_LIMITS
        self.windows: tuple[AnyWindow, ...] = ()
        self.gate = counting.gate(level, level, principal)

    def allow(self, limits: Limits) -> None:
        """Other limits from now on. What was counted stays, where a window of the same length is left."""
        if limits == self.limits:
            return
        self.limits = limits
        windows = {window.rate.seconds: window for window in self.windows}
        self.windows = tuple(
            windows.get(rate.seconds) or self._counting.window(rate, *self._name) for rate in limits.rates
        )
        for window, rate in zip(self.windows, limits.rates, strict=True):
            window.limit(rate)
        self.gate.allow(limits)

    def is_idle(self, now: float) -> bool:
        """Whether it says the same as a new one."""
        return self.gate.is_idle and all(window.is_empty(now) for window in self.windows)


@dataclass(slots=True, eq=False)
class Applying:
    """The counters of one caller's calls at one server. Never changed."""

    windows: tuple[AnyWindow, ...]
    levels: tuple[str, ...]
    """Of each window."""
    gates: tuple[Gate, ...]


NOTHING: Final = Applying((), (), ())
"""Where nobody has limits."""


class Counters:
    """See the module. `terms`: with the limits in force; `counting`: where is counted."""

    def __init__(self, clock: Clock, terms: Terms, counting: Counting = OWN_COUNTING) -> None:
        self._counting = counting
        self.enter = counting.enter
        """Pass all of some gates; or none, if one is full: the first that is. Raises: LimitReached."""
        self._clock = clock
        self.terms = terms
        self._known = LimitRules()
        self._kept: dict[tuple[str, str, str, str], Applying] = {}
        self._counters: dict[tuple[str, str], Counter] = {}
        """By level, and by principal where each caller has its own."""
        self._sweep_at = FEW
        self._not_before = -inf
        self._unseen = 0
        """How many are left to look at, until all were."""

    def __len__(self) -> int:
        return len(self._counters)

    def applying(self, caller: Caller, server: str) -> Applying:
        """What a call of a caller at a server is counted with. Raises: LimitReached, if too many are counted."""
        rules = self.terms.limits
        if rules.is_empty:
            return NOTHING
        if rules is not self._known:
            self._known = rules
            self._kept.clear()
        place = (caller.principal, caller.organization, caller.team, server)
        found = self._kept.get(place)
        if found is None:
            applied = rules.applying(caller, server)
            if any(_key(one, caller) not in self._counters for one in applied):
                self._make_room(server)
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            counters = [self._counter(one, caller) for one in applied]
            found = self._kept[place] = Applying(
                tuple(window for one in counters for window in one.windows),
                tuple(one.level for one in counters for _ in one.windows),
                tuple(one.gate for one in counters if one.limits.concurrency is not None),
            )
        return found

    def take(self, applying: Applying) -> None:
        """One more call in all windows. Raises: LimitReached, with none taken."""
        now = self._clock.now()
        if self._counting.take(applying.windows, now) is not None:
            raise _over(applying, now)

    def refuse_if_over(self, applying: Applying) -> None:
        """Raises: LimitReached, if one call more is too much for any window."""
        now = self._clock.now()
        if self._counting.full_one(applying.windows, now) is not None:
            raise _over(applying, now)

    def gauges(self) -> list[Gauge]:
        """Who waits before gates, by the kind of level."""
        waiting: Tally[str] = Tally()
        for one in self._counters.values():
            waiting[one.level.partition(":")[0]] += one.gate.waiting
        meaning = "Calls that wait until there are fewer at a time."
        return [Gauge("calls_waiting", meaning, waiting[word], {"level": kind}) for word, kind in KINDS.items()]

    def _counter(self, applied: Applied, caller: Caller) -> Counter:
        key = _key(applied, caller)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = Counter(self._counting, *key)
        found.allow(applied.limits)
        return found

    def _make_room(self, server: str) -> None:
        """Forget what says nothing. Raises: LimitReached, if too much is left."""
        now = self._clock.now()
        if len(self._counters) >= self._sweep_at and now >= self._not_before:
            self._sweep(now)
        if len(self._counters) >= MAX_COUNTERS:
            raise LimitReached(f"server:{server}", f"{MAX_COUNTERS} callers that are counted", SWEEP_EVERY)

    def _sweep(self, now: float) -> None:
        """Look at those that were not looked at for longest. Raises: LimitReached, with none lost."""
        known = len(self._counters)
        if self._unseen <= 0:
            self._unseen = known
        keys = tuple(islice(self._counters, SWEEP))
        self._not_before = now + SWEEP_EVERY * len(keys) / max(1, known)
        for key in keys:
            is_idle = self._counters[key].is_idle(now)
            one = self._counters.pop(key)
            if is_idle:
                self._kept.clear()  # what is forgotten must not be counted with any more
            else:
                self._counters[key] = one
        self._unseen -= len(keys)
        if self._unseen <= 0:
            self._sweep_at = min(MAX_COUNTERS, max(FEW, 2 * len(self._counters)))


def _over(applying: Applying, now: float) -> LimitReached:
    """The window that takes longest."""
    pairs = zip(applying.windows, applying.levels, strict=True)
    missing, level, rate = max((window.missing(now), level, str(window.rate)) for window, level in pairs)
    return LimitReached(level, rate, missing)


def _key(applied: Applied, caller: Caller) -> tuple[str, str]:
    return applied.level, caller.principal if applied.is_per_caller else ""
