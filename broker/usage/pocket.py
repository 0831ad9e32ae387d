"""A purse of this process, with what is known of it here: what it waits for, and how far it may be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

import anyio

from broker.core.budget import Account, Limit
from broker.core.purse import Purse, Standing, Telling
from broker.usage.journal import NO_SLOT, Slot

IDLE: Final = 5.0
"""Seconds without a call after which a block is given back: other brokers may need it."""
TICK: Final = 1.0
"""Seconds until the database knows what was spent, and between two tries to reach one that is down."""
TRUSTED: Final = 20.0
"""Seconds that a block is spent from without a word of the database. A lease is longer (`ledger.LEASE`), so that no
other broker gets what this one still spends, also if their clocks differ by a few seconds."""
RENEWED: Final = 10.0
"""Seconds after which a lease that is in use is renewed."""
LOW: Final = 4
"""A purse that is down to this part of its block is filled up before anybody has to wait."""


@dataclass(slots=True, eq=False)
class Wallet:
    """Budgets that are spent from together, and their purses as last looked up: good from `since` until `until`, in
    seconds since 1970, unless a purse was thrown away meanwhile (`thrown`).
    """

    limits: Sequence[Limit]
    pockets: "tuple[Pocket, ...]" = ()
    since: float = inf
    until: float = -inf
    thrown: int = -1


@dataclass(slots=True, eq=False)
class Pocket:
    """A purse, and when what was done with it. Times by the clock that never steps back."""

    limit: Limit
    account: Account
    used: float
    purse: Purse = field(default_factory=Purse)
    block: int = 0
    """The size of the last one."""
    low_at: float = 0.0
    """With less than this it is filled up."""
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
    slot: Slot = NO_SLOT
    """Where it is kept what was spent, until the database knows."""

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
        # Who gives back wants nothing, however little it had.
        need = max(0, min(self.needs) - purse.free) if self.needs else int(self.is_low and not gives_back)
        return Telling(self.account, self.limit.amount, purse.spent, purse.reserved, need, gives_back)

    def hear(self, standing: Standing, telling: Telling, now: float) -> None:
        """What the database answers to what it was told at `now`."""
        self.purse.granted(standing.amount, telling.spent)
        self.told, self.trusted_until = now, now + TRUSTED
        self.away, self.is_low = standing.away, False
        self.block = standing.block or self.block
        self.low_at = self.block / LOW
        if telling.need and not standing.block:
            self.refused, self.asks_again = telling.need, now + TICK
