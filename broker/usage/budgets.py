"""What a call costs, to whom: reserved before it, settled with its result, and counted as usage either way.

Requests that use an entry have a price: calls of tools, prompts, resources, and methods of extensions. Lists,
completions and questions about a task have none. A call that is answered with questions has cost its flat price, and
its retry only what its result names: together they cost one call.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Protocol

from broker.clock import Clock
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.cost import Charge, Cost, Prices
from broker.core.directory import Directory
from broker.core.limits import all_budgets, budgets_of
from broker.core.policy import Permit
from broker.core.tally import MAX_NAME, Sums, Use
from broker.errors import BudgetReached, LimitReached
from broker.logs import escaped
from broker.usage.gauges import Gauge
from broker.usage.pocket import Pocket, Wallet
from broker.usage.purses import Purses
from broker.usage.quotas import NO_RESERVATION, Reservation
from broker.usage.tallies import Tallies

log = logging.getLogger(__name__)

MAX_PLACES: Final = 10_000
"""Places of which it is known which budgets they have; then it is looked up anew."""
MAX_DOUBTS: Final = 1000
"""Tools of which it is said in the log, once each, that their results name no good cost."""


class Terms(Protocol):
    """What is in force."""

    @property
    def prices(self) -> Mapping[str, Prices]:
        """By server."""
        ...

    @property
    def directory(self) -> Directory:
        """The budgets of places."""
        ...


class Spending:
    """What one call may cost and has reserved. See `Reservation`."""

    __slots__ = ("_began", "_budgets", "_cost", "_is_retry", "_pockets", "_use")

    def __init__(self, budgets: "Budgets", use: Use, cost: Cost, pockets: tuple[Pocket, ...], is_retry: bool) -> None:
        self._budgets = budgets
        self._use = use
        self._cost = cost
        self._pockets = pockets
        self._is_retry = is_retry
        self._began = budgets.clock.now()

    def settle(self, result: Mapping[str, Any]) -> None:
        """See `Reservation`. Questions are no result yet: they cost what does not depend on it."""
        is_question = result.get("resultType") == "input_required"
        charge = Charge(self._cost.flat) if is_question else self._cost.of(result)
        if charge.doubt:
            self._budgets.doubted(self._use, charge)
        self._end(charge.amount, is_failed=result.get("isError") is True)

    def release(self) -> None:
        """See `Reservation`."""
        self._end(0, is_failed=True)

    def _end(self, amount: int, *, is_failed: bool) -> None:
        budgets = self._budgets
        if self._pockets:
            budgets.purses.settle(self._pockets, self._cost.reserved, amount)
        sums = budgets.sums_of(self._use)
        micros = int((budgets.clock.now() - self._began) * 1_000_000)
        sums.calls += not self._is_retry
        sums.failed += is_failed
        sums.cost += amount
        sums.micros += micros
        if micros > sums.slowest:
            sums.slowest = micros


class Budgets:
    """See the module, and `quotas.Budgets`.

    `terms`: those in force now. `tallies`: None if usage is not recorded. `counts_local`: also that of the user of this
    machine, for whom a command would have to open the database.
    """

    def __init__(
        self,
        clock: Clock,
        terms: Callable[[], Terms],
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
        self._prices: Mapping[str, Prices] | None = None
        self._has_prices = False
        self._directory: Directory | None = None
        self._wallets: dict[tuple[str, str, str], Wallet] = {}
        self._told: set[tuple[str, str]] = set()
        self._refusals: Counter[tuple[str, str]] = Counter()
        self.doubts = 0
        """Results that were not believed about their cost."""
        self.warnings = 0
        """Budgets that have come to `WARN_AT` per cent."""

    @property
    def is_on(self) -> bool:
        """See `quotas.Budgets`."""
        prices = self._terms().prices
        if prices is not self._prices:
            self._prices = prices
            self._has_prices = any(one != FREE_SERVER for one in prices.values())
        return self._has_prices or self.tallies is not None

    async def reserve(self, permit: Permit, method: str, *, is_retry: bool) -> Reservation:
        """See `quotas.Budgets`. Raises: BudgetReached, BudgetUnknown."""
        if method == "completion/complete" or method.startswith("tasks/"):
            return NO_RESERVATION
        terms, caller, entry = self._terms(), permit.caller, permit.entry
        cost = _cost(terms.prices.get(entry.server, FREE_SERVER), method, entry)
        if is_retry and cost.flat:
            cost = replace(cost, flat=0)
        use, pockets = Use.of(caller, entry), ()
        if cost.reserved:
            wallet = self._wallet_of(caller, terms.directory)
            if wallet.limits:
                try:
                    pockets = await self.purses.reserve(wallet, cost.reserved)
                except LimitReached as refusal:
                    self._refused(use, refusal)
                    raise
        return Spending(self, use, cost, pockets, is_retry)

    def prepare(self) -> None:
        """Callers are expected: what the first of them needs of the database is made ready now, if anybody has a budget
        to spend."""
        terms = self._terms()
        if self.is_on and all_budgets(terms.directory):
            self.purses.prepare()

    def sums_of(self, use: Use) -> Sums:
        """Where it is counted now."""
        if self.tallies is not None and (use.organization or self._counts_local):
            return self.tallies.of(use)
        return Sums()

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

    def _wallet_of(self, caller: Caller, directory: Directory) -> Wallet:
        if directory is not self._directory or len(self._wallets) >= MAX_PLACES:
            self._directory = directory
            self._wallets.clear()
        place = (caller.organization, caller.team, caller.key)
        found = self._wallets.get(place)
        if found is None:
            found = self._wallets[place] = Wallet(budgets_of(directory, caller))
        return found

    def _refused(self, use: Use, refusal: LimitReached) -> None:
        reason = "spent" if isinstance(refusal, BudgetReached) else "unknown"
        self._refusals[refusal.level.partition(":")[0], reason] += 1
        self.sums_of(use).refused += 1


FREE_SERVER: Final = Prices()


def _cost(prices: Prices, method: str, entry: Entry) -> Cost:
    return prices.of_tool(entry.own) if method == "tools/call" else prices.usual
