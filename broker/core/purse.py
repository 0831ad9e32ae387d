"""What one process may spend of one budget in one period: a block that is leased, and what becomes of it.

                     ┌──── settled, the rest ───────┐
                     ▼                              │
    granted ─► FREE ─┴─ reserved ─► RESERVED ───────┴─ settled ─► SPENT
                │                                                   │
                └─ given back, or lapsed                            └─ known to the database (`acked`)

The database keeps two numbers of a lease: `amount` (free, reserved and spent) and `spent`. Both are told to it as they
are, never as a difference: telling twice changes nothing, so an answer that is lost does not matter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from broker.core.budget import Account

WARN_AT: Final = 80
"""Per cent of a budget at which somebody should know."""


@dataclass(slots=True)
class Purse:
    """All in micro-units, none ever negative. `acked`: as much as the database knows of `spent`, which only grows."""

    free: int = 0
    reserved: int = 0
    spent: int = 0
    acked: int = 0

    @property
    def amount(self) -> int:
        """All of the lease."""
        return self.free + self.reserved + self.spent

    @property
    def is_dirty(self) -> bool:
        """Whether the database does not know of everything that was spent."""
        return self.spent != self.acked

    def reserve(self, amount: int) -> bool:
        """Whether there was room for it; if not, nothing has changed."""
        if amount > self.free:
            return False
        self.free -= amount
        self.reserved += amount
        return True

    def granted(self, amount: int, spent: int) -> None:
        """What the database answers to what it was told of `spent`: the lease is of `amount` now.

        What has happened since it was asked counts: `amount` covers it, because all of it came out of what was there.
        """
        self.acked = spent
        self.free = max(0, amount - self.reserved - self.spent)

    def give_back(self) -> int:
        """What is free is nobody's until another grant; how much it was."""
        free, self.free = self.free, 0
        return free


class HasPurse(Protocol):
    """Who keeps more of a purse than its numbers."""

    @property
    def purse(self) -> Purse:
        """The numbers."""
        ...


def settle(reservation: Iterable[HasPurse], reserved: int, spent: int) -> None:
    """What was reserved in each of them has cost `spent` of it; the rest is free again. Exactly one of this ends each
    reservation.
    """
    for one in reservation:
        purse = one.purse
        assert 0 <= spent <= reserved <= purse.reserved
        purse.reserved -= reserved
        purse.spent += spent
        purse.free += reserved - spent


def block_of(rest: int, need: int, least: int) -> int:
    """How much is leased at a time: `need` at least, else 1 % of what is left, but not less than `least`; nothing if
    the rest does not reach for what is needed. Small blocks leave something for other processes.
    """
    if need > rest or rest <= 0:
        return 0
    return min(rest, max(need, least, rest // 100))


def is_nearly_used(used: int, limit: int) -> bool:
    """Whether somebody should know. Of nothing, nothing can be used."""
    return 0 < limit * WARN_AT <= used * 100


@dataclass(frozen=True, slots=True)
class Telling:
    """What a database is told: the state of a purse, and the limit that its account has now. `need`: what it must get
    at least to go on, 0 for nothing; `gives_back`: it keeps only what is reserved.
    """

    account: Account
    limit: int
    spent: int
    reserved: int
    need: int = 0
    gives_back: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database has made of a telling. `amount`: of the lease now; `block`: what was
    added to it.

    `used`: what everybody has spent, as far as is known; `away`: what others hold and have not spent, which may come
    back. `is_warning`: this telling was the first to reach `WARN_AT` in its period.
    """

    account: Account
    amount: int
    block: int
    used: int
    away: int
    is_warning: bool
