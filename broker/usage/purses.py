"""The purses of one process, and the one task that talks of them with the database.

A call takes from memory. It waits, for `WITHIN` at most, only where a purse is too small for it; what is needed, spent
and not needed any more by then goes to the database in one transaction. A database that does not answer leaves what is
leased: who needs more is refused meanwhile, for nobody knows what is left.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

import anyio

from broker.clock import Clock
from broker.core.amount import amount_text
from broker.core.budget import Account, Limit
from broker.core.period import moment_of
from broker.core.purse import Purse, Standing, Telling
from broker.errors import BudgetReached, BudgetUnknown
from broker.stores.errors import StoreError

if TYPE_CHECKING:
    from broker.stores.ledger import Ledger

log = logging.getLogger(__name__)

WITHIN: Final = 2.0
"""Seconds that a call waits for a block; then it is refused. No call may hang with the database."""
IDLE: Final = 5.0
"""Seconds without a call after which a block is given back: other brokers may need it."""
TICK: Final = 1.0
"""Seconds until the database knows what was spent, and between two tries to reach one that is down."""
TRUSTED: Final = 20.0
"""Seconds that a block is spent from without a word of the database. A lease is longer (`ledger.LEASE`), so that no
other broker gets what this one still spends, also if their clocks differ by a few seconds."""
RENEWED: Final = 10.0
"""Seconds after which a lease that is in use is renewed."""
CLOSES_WITHIN: Final = 3.0
"""Seconds for the last word to the database; without it, leases end by themselves."""
LOW: Final = 4
"""A purse that is down to this part of its block is filled up before anybody has to wait."""

Warned = Callable[[Limit, int], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Pocket:
    """A purse, and when what was done with it. Times by the clock that never steps back."""

    limit: Limit
    account: Account
    used: float
    purse: Purse = field(default_factory=Purse)
    block: int = 0
    """The size of the last one."""
    trusted_until: float = -inf
    told: float = -inf
    needs: list[int] = field(default_factory=list[int])
    """What waiting calls must have, each."""
    is_low: bool = False
    refused: int = 0
    """As much as this, or more, is refused without asking until `asks_again`."""
    asks_again: float = -inf
    away: int = 0
    """What other brokers hold and have not spent."""
    answered: anyio.Event = field(default_factory=anyio.Event)
    """Set by the answer to the next question that is put."""

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to be told."""
        return not (self.purse.free or self.purse.reserved or self.purse.is_dirty or self.needs)

    def room(self, now: float) -> int:
        """How much can be taken. What was leased and not confirmed for long may be somebody else's by now."""
        return self.purse.free if now < self.trusted_until else 0

    def refuses(self, amount: int, now: float) -> bool:
        """Whether it is known that the amount cannot be had."""
        return now < self.asks_again and amount - self.room(now) >= self.refused

    def take(self, amount: int, now: float) -> bool:
        """Take what it has room for. Whether it should be filled up before anybody has to wait."""
        self.purse.reserve(amount)
        self.used = now
        self.is_low = self.purse.free * LOW < self.block and now >= self.asks_again
        return self.is_low

    def is_due(self, now: float) -> bool:
        """Whether the database must be told something."""
        return bool(
            self.needs
            or self.is_low
            or self.purse.is_dirty
            or ((self.purse.free or self.purse.reserved) and now - self.told >= RENEWED)
            or self.is_idle(now)
        )

    def is_idle(self, now: float) -> bool:
        """Whether what is free should be left to others."""
        return bool(self.purse.free) and now - self.used >= IDLE

    def telling(self, now: float) -> Telling:
        """What the database must know now."""
        purse = self.purse
        gives_back = self.is_idle(now) and not self.needs
        if gives_back or now >= self.trusted_until:
            purse.give_back()  # of the latter, the answer says what is still there
        need = max(0, min(self.needs) - purse.free) if self.needs else int(self.is_low)
        return Telling(self.account, self.limit.amount, purse.spent, purse.reserved, need, gives_back)

    def hear(self, standing: Standing, telling: Telling, now: float) -> None:
        """What the database answers to what it was told at `now`."""
        self.purse.granted(standing.amount, telling.spent)
        self.told, self.trusted_until = now, now + TRUSTED
        self.away, self.is_low = standing.away, False
        self.block = standing.block or self.block
        if telling.need and not standing.block:
            self.refused, self.asks_again = telling.need, now + TICK


class Purses:
    """See the module. `open_ledger`: called when first needed, and again after each failure; raises StoreError.
    `on_warning`: a budget has come to `WARN_AT` per cent; it must not raise.
    """

    def __init__(self, clock: Clock, open_ledger: Callable[[], Awaitable["Ledger"]], on_warning: Warned) -> None:
        self._clock = clock
        self._open = open_ledger
        self._on_warning = on_warning
        self._pockets: dict[Account, Pocket] = {}
        self._ledger: Ledger | None = None
        self._wake = anyio.Event()
        self.trouble = ""
        """Why the database cannot be asked; "" while it can."""

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

    async def reserve(self, limits: Sequence[Limit], amount: int) -> tuple[Pocket, ...]:
        """Take the amount from every one of them, or from none.

        Raises: BudgetReached, naming the one that has too little; BudgetUnknown.
        """
        wall = self._clock.wall()
        pockets = tuple([self._pocket(limit, wall) for limit in limits])
        while True:
            now = self._clock.now()
            lacking = [one for one in pockets if one.room(now) < amount]
            if not lacking:
                for one in pockets:
                    if one.take(amount, now):
                        self._wake.set()
                return pockets
            for one in lacking:
                if one.refuses(amount, now):
                    raise self._refusal(one, wall)
            if self.trouble:
                raise BudgetUnknown(lacking[0].limit.where, TICK)
            await self._ask(lacking, amount)

    def settle(self, pockets: Iterable[Pocket], reserved: int, spent: int) -> None:
        """What was reserved has cost `spent`, in the period in which it was reserved. Once for each `reserve`."""
        for one in pockets:
            one.purse.settle(reserved, spent)

    async def _ask(self, lacking: Sequence[Pocket], amount: int) -> None:
        """Wait for the answer to a question that includes this need. Raises: BudgetUnknown."""
        answers = [one.answered for one in lacking]
        for one in lacking:
            one.needs.append(amount)
        self._wake.set()
        try:
            with anyio.move_on_after(WITHIN) as patience:
                for answered in answers:
                    await answered.wait()
        finally:
            for one in lacking:
                one.needs.remove(amount)
        if patience.cancelled_caught:
            raise BudgetUnknown(lacking[0].limit.where, TICK)

    def _refusal(self, one: Pocket, wall: float) -> BudgetReached:
        limit, end = one.limit, one.account.end
        # What others hold and do not use comes back before the period ends.
        again = min(end - wall, IDLE) if one.away else end - wall
        return BudgetReached(limit.where, f"{amount_text(limit.amount)}/{limit.period}", moment_of(end), again)

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
        if due:
            await self._tell(due)
        if not self.trouble:
            for account in [one.account for one in self._pockets.values() if one.is_over and now - one.used > IDLE]:
                del self._pockets[account]

    async def _tell(self, due: Sequence[Pocket]) -> None:
        now, told = self._clock.now(), {one.account: one for one in due}
        tellings = {one.account: one.telling(now) for one in due}
        answers = [one.answered for one in due]
        for one in due:
            one.answered = anyio.Event()  # who needs something from here on is in the next question
        try:
            if self._ledger is None:
                self._ledger = await self._open()
            standings = await self._ledger.tell(list(tellings.values()), self._clock.wall())
            for one in standings:
                told[one.account].hear(one, tellings[one.account], now)
            self._say("")
        except StoreError as error:
            self._say(str(error))
            await self._leave()
            return
        finally:
            for answered in answers:
                answered.set()
        for one in standings:
            if one.is_warning:
                await self._on_warning(told[one.account].limit, one.used)

    async def _close(self) -> None:
        """Give back what is free, and tell what was spent."""
        for one in self._pockets.values():
            one.used = -inf
        await self._round()
        await self._leave()

    async def _leave(self) -> None:
        """The next question is put over a new connection: a server that comes back may be another one."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            await ledger.database.aclose()

    def _say(self, trouble: str) -> None:
        if trouble and not self.trouble:
            log.error("%s; calls go on as far as the leased part of their budgets reaches", trouble)
        if self.trouble and not trouble:
            log.info("the database of the budgets answers again")
        self.trouble = trouble
