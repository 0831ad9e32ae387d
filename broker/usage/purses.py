"""The purses of one process, and the one task that talks of them with the database.

A call takes from memory. It waits, for `WITHIN` at most, only where a purse is too small for it; what is needed, spent
and not needed any more by then goes to the database in one transaction. A database that does not answer leaves what is
leased: who needs more is refused meanwhile, for nobody knows what is left.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Final

import anyio

from broker.clock import Clock
from broker.core.amount import amount_text
from broker.core.budget import Account, Limit
from broker.core.period import moment_of
from broker.core.purse import settle
from broker.errors import BudgetReached, BudgetUnknown
from broker.stores.errors import StoreError
from broker.threads import NoThreads, in_thread
from broker.usage.journal import NO_SLOT, Journal
from broker.usage.pocket import IDLE, TICK, Pocket, Wallet
from broker.usage.trouble import Trouble

if TYPE_CHECKING:
    from broker.stores.ledger import Ledger

log = logging.getLogger(__name__)

WITHIN: Final = 2.0
"""Seconds that a call waits for a block; then it is refused. No call may hang with the database."""
OPENS_WITHIN: Final = 10.0
"""The same for the first one: its drivers are loaded, and perhaps its tables are made."""
BURIED: Final = 5.0
"""Seconds between two looks for brokers that have died: sooner than their leases end."""
FORGETS_EVERY: Final = 3600.0
"""Seconds between two looks at what is too old."""
CLOSES_WITHIN: Final = 3.0
"""Seconds for the last word to the database; without it, leases end by themselves."""

Warned = Callable[[Limit, int], Awaitable[None]]


class Purses:
    """See the module. `open_ledger`: called when first needed, and again after each failure; raises StoreError.
    `on_warning`: a budget has come to `WARN_AT` per cent; it must not raise.
    """

    def __init__(
        self, clock: Clock, open_ledger: Callable[[], Awaitable["Ledger"]], journal: Journal, on_warning: Warned
    ) -> None:
        self._clock = clock
        self._open = open_ledger
        self._on_warning = on_warning
        self._journal = journal
        self._pockets: dict[Account, Pocket] = {}
        self._ledger: Ledger | None = None
        self._wake = anyio.Event()
        self._buried = -inf
        self._forgotten = clock.now()
        self._was_open = False
        self._is_wanted = False
        self._thrown = 0
        """Purses that were thrown away: whoever knows one looks again."""
        self._trouble = Trouble(
            log,
            "%s; calls go on as far as the leased part of their budgets reaches",
            "the database of the budgets answers again",
        )

    @property
    def trouble(self) -> str:
        """Why the database cannot be asked; "" while it can."""
        return self._trouble.why

    def __len__(self) -> int:
        return len(self._pockets)

    def __iter__(self) -> Iterator[Pocket]:
        return iter(self._pockets.values())

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Around all use. At the end what is left goes back."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tick)
            tasks.start_soon(self._serve)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
        with anyio.move_on_after(CLOSES_WITHIN, shield=True):
            await self._close()

    def prepare(self) -> None:
        """Open the database before somebody waits for it."""
        self._is_wanted = True
        self._wake.set()

    def take(self, wallet: Wallet, amount: int) -> tuple[Pocket, ...] | None:
        """Take the amount from every one of them, if all have room for it; None, with nothing taken, if not."""
        wall, now = self._clock.wall(), self._clock.now()
        if wallet.thrown != self._thrown or not wallet.since <= wall < wallet.until:
            self._fill(wallet, wall)
        for one in wallet.pockets:
            if one.purse.free < amount or now >= one.trusted_until:
                return None
        for one in wallet.pockets:
            purse = one.purse
            purse.free -= amount  # `Purse.reserve`, of what was seen to be there: one function less for each level
            purse.reserved += amount
            one.used = now
            if purse.free < one.low_at and now >= one.asks_again:
                one.is_low = True
                self._wake.set()  # it is filled up before anybody has to wait
        return wallet.pockets

    async def reserve(self, wallet: Wallet, amount: int) -> tuple[Pocket, ...]:
        """The same, once all have room for it.

        Raises: BudgetReached, naming the one that has too little; BudgetUnknown.
        """
        with anyio.move_on_after(WITHIN if self._was_open else OPENS_WITHIN):
            return await self._take_when_filled(wallet, amount)
        lacking = self._lacking(wallet.pockets, amount) or wallet.pockets
        raise BudgetUnknown(lacking[0].limit.where, TICK)

    def settle(self, pockets: Iterable[Pocket], reserved: int, spent: int) -> None:
        """What was reserved has cost `spent`, in the period in which it was reserved. Once for each `reserve`."""
        settle(pockets, reserved, spent)
        for one in pockets if spent else ():
            one.slot.cells[one.slot.cell] = one.purse.spent

    def _lacking(self, pockets: Sequence[Pocket], amount: int) -> list[Pocket]:
        now = self._clock.now()
        return [one for one in pockets if one.room(now) < amount]

    async def _take_when_filled(self, wallet: Wallet, amount: int) -> tuple[Pocket, ...]:
        """Ask, and take; again where others were quicker. Who asks bounds it in time. Raises: LimitReached."""
        while (taken := self.take(wallet, amount)) is None:
            lacking, now = self._lacking(wallet.pockets, amount), self._clock.now()
            for one in lacking:
                if one.refuses(amount, now):
                    raise self._refusal(one, self._clock.wall())
            if self.trouble:
                raise BudgetUnknown(lacking[0].limit.where, TICK)
            await self._ask(lacking, amount)
        return taken

    async def _ask(self, lacking: Sequence[Pocket], amount: int) -> None:
        """Wait for the answer to a question that includes this need."""
        answers = [one.answered for one in lacking]
        for one in lacking:
            one.needs.append(amount)
        self._wake.set()
        try:
            for answered in answers:
                await answered.wait()
        finally:
            for one in lacking:
                one.needs.remove(amount)

    def _refusal(self, one: Pocket, wall: float) -> BudgetReached:
        limit, end = one.limit, one.account.end
        # What others hold and do not use comes back before the period ends.
        again = min(end - wall, IDLE) if one.away else end - wall
        return BudgetReached(limit.where, f"{amount_text(limit.amount)}/{limit.period}", moment_of(end), again)

    def _fill(self, wallet: Wallet, wall: float) -> None:
        wallet.pockets = tuple([self._pocket(limit, wall) for limit in wallet.limits])
        wallet.since = max(one.account.begin for one in wallet.pockets)
        wallet.until = min(one.account.end for one in wallet.pockets)
        wallet.thrown = self._thrown

    def _pocket(self, limit: Limit, wall: float) -> Pocket:
        account = limit.account(wall)
        found = self._pockets.get(account)
        if found is None:
            found = self._pockets[account] = Pocket(limit, account, self._clock.now())
        elif found.limit is not limit and found.limit != limit:
            found.limit, found.asks_again = limit, -inf  # it was changed: what was refused may be there now
        return found

    # What is told to the database.

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK)
            self._wake.set()

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            await self._round()
            if self.trouble:
                await self._clock.sleep(TICK)

    async def _round(self) -> None:
        """Tell what there is to tell, once, and forget the purses of which there is nothing more."""
        now = self._clock.now()
        due = [one for one in self._pockets.values() if self.trouble or one.is_due(now)]
        if due or self.trouble or self._is_wanted:
            await self._tell(due)
        if not self.trouble:
            for account in [one.account for one in self._pockets.values() if one.is_over and now - one.used > IDLE]:
                self._journal.leave(self._pockets.pop(account).slot)
                self._thrown += 1

    async def _tell(self, due: Sequence[Pocket]) -> None:
        now, told = self._clock.now(), {one.account: one for one in due}
        tellings = {one.account: one.telling(now) for one in due}
        answers = [one.answered for one in due]
        for one in due:
            one.answered = anyio.Event()  # who needs something from here on is in the next question
        try:
            if self._ledger is None:
                self._ledger = await self._open()
                self._was_open, self._is_wanted = True, False
                await in_thread(self._open_journal)
            await self._bury(self._ledger, now)
            await self._forget(self._ledger, now)
            standings = await self._ledger.tell(list(tellings.values()), self._clock.wall())
            for one in standings:
                pocket = told[one.account]
                pocket.hear(one, tellings[one.account], now)
                if pocket.slot is NO_SLOT:
                    pocket.slot = self._journal.slot(one.account)
                    pocket.slot.cells[pocket.slot.cell] = pocket.purse.spent
            self._trouble.end()
        except StoreError as error:
            return await self._lost(str(error))
        except NoThreads as error:
            return await self._lost(f"the budgets cannot be kept: {error}")
        except Exception as fault:  # whoever needs a budget is refused meanwhile; nobody else notices
            log.error("internal error", exc_info=fault)
            return await self._lost("the budgets cannot be kept: a fault of the broker")
        finally:
            for answered in answers:
                answered.set()
        for one in standings:
            if one.is_warning:
                await self._on_warning(told[one.account].limit, one.used)

    async def _lost(self, why: str) -> None:
        self._trouble.begin(why)
        await self._leave()

    def _open_journal(self) -> None:
        try:
            self._journal.open()
        except OSError as error:
            log.warning(
                "what is spent cannot be kept in a file (%s): a crash loses up to a second of it", error.strerror
            )

    async def _bury(self, ledger: "Ledger", now: float) -> None:
        """Tell what dead brokers of this machine have spent, before anybody gets what they had leased."""
        if now - self._buried < BURIED:
            return
        self._buried = now
        try:
            for one in await in_thread(lambda: list(self._journal.left_behind())):
                await ledger.bury(one.holder, one.spent)
                await in_thread(one.remove)
        except OSError as error:  # told again at the next look: telling twice changes nothing
            log.warning("what dead brokers have spent cannot be read or removed: %s", error.strerror)

    async def _forget(self, ledger: "Ledger", now: float) -> None:
        """Let the database forget periods of long ago, now and then."""
        if now - self._forgotten >= FORGETS_EVERY:
            self._forgotten = now
            await ledger.forget(self._clock.wall())

    async def _close(self) -> None:
        """Give back what is free, and tell what was spent."""
        for one in self._pockets.values():
            one.used = -inf
        await self._round()
        await self._leave()
        self._journal.close(is_told=not any(one.purse.is_dirty for one in self._pockets.values()))

    async def _leave(self) -> None:
        """The next question is put over a new connection: a server that comes back may be another one."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            await ledger.database.aclose()
