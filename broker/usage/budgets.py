"""What a call costs, to whom: reserved before it, settled with its result, and counted as usage either way.

Requests that use an entry have a price: calls of tools, prompts, resources, and methods of extensions. Lists,
completions and questions about a task have none. A call that is answered with questions has cost its flat price, and
its retry only what its result names: together they cost one call.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from broker.clock import Clock
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.cost import Charge, Cost, Prices
from broker.core.limits import LimitRules, all_budgets, budgets_of
from broker.core.policy import Permit
from broker.core.request import Kind
from broker.core.tally import MAX_NAME, Use
from broker.errors import BudgetReached, LimitReached
from broker.logs import escaped
from broker.usage.gauges import Gauge
from broker.usage.pocket import Pocket, Wallet
from broker.usage.purses import Purses
from broker.usage.quotas import NO_HOLD, Hold
from broker.usage.tallies import NO_TALLY, Tallies, Tally
from broker.usage.terms import Terms

log = logging.getLogger(__name__)

MAX_TABS: Final = 10_000
"""Callers and entries of which it is kept what a call costs, and to whom; then it is looked up anew."""
_NAMED: Final = (Kind.TOOL, Kind.PROMPT)
MAX_DOUBTS: Final = 1000
"""Tools of which it is said in the log, once each, that their results name no good cost."""


@dataclass(slots=True, eq=False)
class Tab:
    """What calls of one caller of one entry cost, of which budgets that is paid, and where it is counted. Good as long
    as the terms are.
    """

    use: Use
    cost: Cost
    retry: Cost
    """Of a call that takes up another one."""
    wallet: Wallet
    tally: Tally


class Spending(Hold):
    """What one call may cost and has reserved, beside its places. `pockets`: None if that is not at hand."""

    __slots__ = ("_began", "_budgets", "_cost", "_is_retry", "_pockets", "_tab")

    def __init__(
        self, budgets: "Budgets", tab: Tab, cost: Cost, pockets: tuple[Pocket, ...] | None, is_retry: bool
    ) -> None:
        self.gates = ()
        self.is_settled = False
        self.is_short = pockets is None
        self._budgets = budgets
        self._tab = tab
        self._cost = cost
        self._pockets = pockets
        self._is_retry = is_retry
        self._began = budgets.clock.now()

    async def fill(self) -> None:
        """See `Hold`. Raises: BudgetReached, BudgetUnknown."""
        budgets = self._budgets
        try:
            self._pockets = await budgets.purses.reserve(self._tab.wallet, self._cost.reserved)
        except LimitReached as refusal:
            budgets.refused(self._tab.use, refusal)
            raise
        self._began = budgets.clock.now()

    def settle(self, result: Mapping[str, Any] | None) -> None:
        """See `Hold`. Questions are no result yet: they cost what does not depend on it."""
        if self.is_settled:
            return
        self.is_settled = True
        budgets, tab, cost = self._budgets, self._tab, self._cost
        amount = 0 if result is None else cost.flat
        if cost.path and result is not None and result.get("resultType") != "input_required":
            charge = cost.of(result)
            amount = charge.amount
            if charge.doubt:
                budgets.doubted(tab.use, charge)
        if self._pockets:
            budgets.purses.settle(self._pockets, cost.reserved, amount)
        tally = tab.tally
        if not tally.since <= budgets.clock.wall() < tally.until:
            tally = tab.tally = budgets.tally_of(tab.use)
        micros = int((budgets.clock.now() - self._began) * 1_000_000)
        tally.calls += not self._is_retry
        tally.failed += result is None or result.get("isError") is True
        tally.cost += amount
        tally.micros += micros
        if micros > tally.slowest:
            tally.slowest = micros

    def forgo(self) -> None:
        """See `Hold`. It is no call, so it has not failed either."""
        self.is_settled = True
        if self._pockets:
            self._budgets.purses.settle(self._pockets, self._cost.reserved, 0)


class Budgets:
    """See the module, and `quotas.Budgets`.

    `terms`: those in force, until others are adopted. `tallies`: None if usage is not recorded. `counts_local`: also
    that of the user of this machine, for whom a command would have to open the database.
    """

    def __init__(
        self,
        clock: Clock,
        terms: Terms,
        purses: Purses,
        tallies: Tallies | None,
        *,
        counts_local: bool = True,
    ) -> None:
        self.clock = clock
        self.purses = purses
        self.tallies = tallies
        self._terms = terms
        self._counts_local = counts_local
        self._limits: LimitRules | None = None
        self._prices: Mapping[str, Prices] = {}
        self._is_on = False
        self._wallets: dict[tuple[str, str, str], Wallet] = {}
        self._tabs: dict[tuple[str | bool, ...], Tab] = {}
        self._told: set[tuple[str, str]] = set()
        self._refusals: Counter[tuple[str, str]] = Counter()
        self.doubts = 0
        """Results that were not believed about their cost."""
        self.warnings = 0
        """Budgets that have come to `WARN_AT` per cent."""

    def adopt(self, terms: Terms) -> None:
        """Others are in force. What was taken under those before is settled as it was taken."""
        self._terms = terms

    def take(self, permit: Permit, method: str, *, is_retry: bool) -> Hold:
        """See `quotas.Budgets`."""
        terms = self._terms
        if terms.limits is not self._limits or terms.prices is not self._prices:
            self._begin_anew(terms)
        is_call = method == "tools/call"
        if not self._is_on or (not is_call and is_free(method)):
            return NO_HOLD
        caller, entry = permit.caller, permit.entry
        # All that budgets, price and use depend on. There is no end of URIs, and they cost the same.
        name = entry.own if is_call or entry.kind in _NAMED else ""
        key = (
            *(caller.principal, caller.organization, caller.team, caller.key),
            *(entry.server, entry.kind, name, is_call),
        )
        tab = self._tabs.get(key)
        if tab is None:
            if len(self._tabs) >= MAX_TABS:
                self._tabs.clear()
            tab = self._tabs[key] = self._open(terms, caller, entry, method)
        cost, pockets = tab.retry if is_retry else tab.cost, ()
        if cost.reserved and tab.wallet.limits:
            pockets = self.purses.take(tab.wallet, cost.reserved)
        return Spending(self, tab, cost, pockets, is_retry)

    def prepare(self) -> None:
        """Callers are expected: what the first of them needs of the database is made ready now, if anybody has a budget
        to spend."""
        terms = self._terms
        if (has_prices(terms.prices) or self.tallies is not None) and all_budgets(terms.limits.directory):
            self.purses.prepare()

    def tally_of(self, use: Use) -> Tally:
        """Where it is counted now."""
        if self.tallies is not None and (use.organization or self._counts_local):
            return self.tallies.of(use)
        return Tally()

    def refused(self, use: Use, refusal: LimitReached) -> None:
        """There was not enough for a call."""
        reason = "spent" if isinstance(refusal, BudgetReached) else "unknown"
        self._refusals[refusal.level.partition(":")[0], reason] += 1
        self.tally_of(use).refused += 1

    def doubted(self, use: Use, charge: Charge) -> None:
        """A result was not believed. It is said in the log once for each tool."""
        self.doubts += 1
        told = (use.server, use.name)
        if told not in self._told and len(self._told) < MAX_DOUBTS:
            self._told.add(told)
            said = "a result of %s of server %s was not believed about its cost: %s; what was reserved is charged"
            log.warning(said, escaped(use.name or use.kind, MAX_NAME), use.server, charge.doubt)

    def gauges(self) -> list[Gauge]:
        """For `/metrics`."""
        found = [
            Gauge(
                "budget_refusals",
                "Calls that a budget refused.",
                number,
                {"level": level, "reason": reason},
                is_counter=True,
            )
            for (level, reason), number in self._refusals.items()
        ]
        found += [
            Gauge("budget_warnings", "Budgets that have come to 80 per cent.", self.warnings, is_counter=True),
            Gauge("budget_doubts", "Results that name no good cost.", self.doubts, is_counter=True),
            Gauge("budgets_failing", "1: the database does not say what is left.", int(bool(self.purses.trouble))),
        ]
        if self.tallies is not None:
            meaning = "1: what is used cannot be written."
            found.append(Gauge("usage_failing", meaning, int(bool(self.tallies.trouble))))
        return found

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Around all use: at the end, what is leased is given back, and what was used is written."""
        async with AsyncExitStack() as stack:
            if self.tallies is not None:
                await stack.enter_async_context(self.tallies.running())
            await stack.enter_async_context(self.purses.running())
            yield

    def _begin_anew(self, terms: Terms) -> None:
        """Nothing that is kept is good any more."""
        self._limits, self._prices = terms.limits, terms.prices
        self._is_on = self.tallies is not None or has_prices(terms.prices)
        self._wallets.clear()
        self._tabs.clear()

    def _open(self, terms: Terms, caller: Caller, entry: Entry, method: str) -> Tab:
        prices = terms.prices.get(entry.server, FREE_SERVER)
        cost = prices.of_tool(entry.own) if method == "tools/call" else prices.usual
        place = (caller.organization, caller.team, caller.key)
        wallet = self._wallets.get(place)
        if wallet is None:
            if len(self._wallets) >= MAX_TABS:
                self._wallets.clear()
            wallet = self._wallets[place] = Wallet(budgets_of(terms.limits.directory, caller))
        return Tab(Use.of(caller, entry), cost, replace(cost, flat=0), wallet, NO_TALLY)


FREE_SERVER: Final = Prices()


def has_prices(prices: Mapping[str, Prices]) -> bool:
    """Whether anything costs anything."""
    return any(one != FREE_SERVER for one in prices.values())


def is_free(method: str) -> bool:
    """Whether it uses no entry. Questions about a task are part of the call that made it."""
    return method == "completion/complete" or method.startswith("tasks/")
