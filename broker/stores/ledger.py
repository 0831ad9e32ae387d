"""Budgets in the database: how much of each is spent, and who may spend how much of the rest.

Every broker tells what it has spent and asks for what it needs, of all its budgets in one transaction. It tells the
state that it is in, never a difference, so that a transaction whose end is not known is simply told again. What a
broker has not spent is anybody's again when its lease ends: a broker that was killed loses nothing but time.
"""

from collections.abc import Collection, Mapping, Sequence
from math import ceil
from typing import Any, Final, NamedTuple

from sqlalchemy import case, func, select

from broker.core.amount import UNIT
from broker.core.budget import Account
from broker.core.period import Period
from broker.core.purse import Standing, Telling, block_of, is_nearly_used
from broker.stores.engine import Database
from broker.stores.script import Script, Statement, places
from broker.stores.tables import budget_leases
from broker.stores.usage_rows import Held

LEASE: Final = 30.0
"""Seconds that a lease is good for without a word of its holder. What one that was killed held is nobody's so long."""
BATCH: Final = 300
"""Accounts in one statement: with three parameters for each, as many as every SQLite takes."""
KEPT: Final = 70 * 86_400.0
"""Seconds that accounts are kept after they began: two months are seen beside each other."""


_KEY: Final = "place, period, began"
_OPEN: Final = f"INSERT INTO budget_accounts ({_KEY}, warned) VALUES ($1, $2, $3, NULL) ON CONFLICT DO NOTHING"
_HOLD: Final = (
    f"INSERT INTO budget_leases (holder, {_KEY}, amount, spent, expires) VALUES ($1, $2, $3, $4, $5, $6, $7) "
    f"ON CONFLICT (holder, {_KEY}) DO UPDATE "
    "SET amount = excluded.amount, spent = excluded.spent, expires = excluded.expires"
)
_SPEND: Final = (
    "UPDATE budget_leases SET spent = $1 WHERE holder = $2 AND place = $3 AND period = $4 AND began = $5 AND spent < $1"
)
_BURY: Final = "UPDATE budget_leases SET amount = spent WHERE holder = $1"
# Of those accounts that the parameters from some number on name.
_LOCK: Final = f"SELECT {_KEY}, warned FROM budget_accounts WHERE ({_KEY}) IN %s ORDER BY {_KEY}"
_END: Final = (
    "UPDATE budget_leases SET amount = spent "
    f"WHERE expires <= $1 AND amount > spent AND holder <> $2 AND ({_KEY}) IN %s"
)
_LEASED: Final = (
    f"SELECT {_KEY}, sum(CASE WHEN holder = $1 THEN amount ELSE 0 END), "
    "sum(CASE WHEN holder = $1 THEN 0 ELSE amount END), sum(CASE WHEN holder = $1 THEN 0 ELSE spent END) "
    f"FROM budget_leases WHERE ({_KEY}) IN %s GROUP BY {_KEY}"
)
_WARNED: Final = f"UPDATE budget_accounts SET warned = $1 WHERE ({_KEY}) IN %s"


class Ledger:
    """See the module. `holder` is this broker, and no other that ever was."""

    def __init__(self, database: Database, holder: str) -> None:
        self.database = database
        self.holder = holder

    async def tell(self, tellings: Sequence[Telling], now: float) -> list[Standing]:
        """One transaction for all, and a few statements for each `BATCH` of them. `now`: seconds since 1970. Raises:
        StoreError.
        """
        return await self.database.carry_out(self._tell(tellings, now))

    async def bury(self, holder: str, spent: Mapping[Account, int]) -> None:
        """Another broker is dead, and has spent that much in all. What it held beside it is nobody's any more: of all
        accounts, also of those of which nothing is said. Raises: StoreError.
        """
        await self.database.carry_out(self._bury(holder, spent))

    async def forget(self, now: float) -> None:
        """Remove accounts of long ago. Raises: StoreError."""
        await self.database.carry_out(_forget(now - KEPT))

    def _tell(self, tellings: Sequence[Telling], now: float) -> Script[list[Standing]]:
        # In one order everywhere: on PostgreSQL the accounts are locked one after the other.
        ordered = sorted(tellings, key=lambda telling: telling.account)
        yield from _open([one.account for one in ordered])
        standings: list[Standing] = []
        for begin in range(0, len(ordered), BATCH):
            standings += yield from self._told(ordered[begin : begin + BATCH], now)
        return standings

    def _bury(self, holder: str, spent: Mapping[Account, int]) -> Script[None]:
        yield from _open(sorted(spent))
        for account, amount in sorted(spent.items()):
            yield from self._lock([account])
            yield Statement(_SPEND, (amount, holder, *_key(account)))
        yield Statement(_BURY, (holder,))

    def _told(self, tellings: Sequence[Telling], now: float) -> Script[list[Standing]]:
        accounts = [one.account for one in tellings]
        warned = yield from self._lock(accounts)
        # What others hold whose leases have ended is nobody's. What they have spent stays, and they may tell more.
        yield self._of(_END, accounts, now, self.holder)
        leased = yield from self._leased(accounts)
        standings = [_standing(one, leased.get(one.account, NOTHING), one.account in warned) for one in tellings]
        rows = [
            (self.holder, *_key(one.account), standing.amount, one.spent, now + LEASE)
            for one, standing in zip(tellings, standings, strict=True)
        ]
        yield Statement(_HOLD, rows, is_many=True)
        warns = [one.account for one in standings if one.is_warning]
        if warns:
            yield self._of(_WARNED, warns, now)
        return standings

    def _lock(self, accounts: Sequence[Account]) -> Script[set[Account]]:
        """Let everybody else who tells of them wait, as SQLite does by itself. Those of which was warned."""
        asked = self._of(_LOCK if self.database.is_sqlite else f"{_LOCK} FOR UPDATE", accounts)
        rows = yield asked
        return {_account(*row) for row in rows if row[3] is not None}

    def _leased(self, accounts: Sequence[Account]) -> "Script[dict[Account, _Leased]]":
        """What this broker holds of them, and what all others hold, and have spent of it."""
        rows = yield self._of(_LEASED, accounts, self.holder)
        return {_account(*row): _Leased(int(row[3]), int(row[4]), int(row[5])) for row in rows}

    def _of(self, text: str, accounts: Sequence[Account], *values: Any) -> Statement:
        """A statement about some accounts."""
        asked = text % places(len(accounts), 3, len(values) + 1, is_sqlite=self.database.is_sqlite)
        return Statement(asked, [*values, *(part for one in accounts for part in _key(one))])


def _open(accounts: Sequence[Account]) -> Script[None]:
    """Have a row for each, before any is locked: whoever holds one and waits for a new one of another broker's may be
    waited for by that.
    """
    if accounts:
        yield Statement(_OPEN, [_key(account) for account in accounts], is_many=True)


def _forget(before: float) -> Script[None]:
    for table in ("budget_leases", "budget_accounts"):
        yield Statement(f"DELETE FROM {table} WHERE began < $1", (ceil(before),))


class _Leased(NamedTuple):
    """What is leased of an account, in micro-units."""

    mine: int
    others: int
    theirs: int
    """What of `others` is spent."""


NOTHING: Final = _Leased(0, 0, 0)


def _standing(one: Telling, leased: _Leased, has_warned: bool) -> Standing:
    """What becomes of a telling."""
    amount = max(one.spent + one.reserved, 0 if one.gives_back else leased.mine)
    block = block_of(one.limit - leased.others - amount, one.need, UNIT) if one.need else 0
    used = leased.theirs + one.spent
    is_warning = not has_warned and is_nearly_used(used, one.limit)
    return Standing(one.account, amount + block, block, used, leased.others - leased.theirs, is_warning)


async def read_accounts(database: Database, accounts: Collection[Account], now: float) -> dict[Account, Held]:
    """What is held of them, if anything is. Raises: StoreError."""
    leases = budget_leases.c
    living = case((leases.expires > now, leases.amount), else_=leases.spent)
    group = (leases.place, leases.period, leases.began)
    begins = {account.begin for account in accounts}
    asked = select(*group, func.sum(leases.spent), func.sum(living)).where(leases.began.in_(begins)).group_by(*group)
    async with database.reading() as connection:
        rows = (await connection.execute(asked)).all()
    found = {(row[0], row[1], row[2]): Held(int(row[3]), int(row[4]) - int(row[3])) for row in rows}
    held = {account: found.get((account.where, account.period.value, account.begin)) for account in accounts}
    return {account: one for account, one in held.items() if one is not None}


def _key(account: Account) -> tuple[str, str, int]:
    return account.where, account.period.value, account.begin


def _account(place: str, period: str, began: int, *_: Any) -> Account:
    return Account(place, Period(period), began)
