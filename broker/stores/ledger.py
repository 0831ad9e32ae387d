"""Budgets in the database: how much of each is spent, and who may spend how much of the rest.

Every broker tells what it has spent and asks for what it needs, of all its budgets in one transaction. It tells the
state that it is in, never a difference, so that a transaction whose end is not known is simply told again. What a
broker has not spent is anybody's again when its lease ends: a broker that was killed loses nothing but time.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Table, and_, case, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.amount import UNIT
from broker.core.budget import Account
from broker.core.period import Period
from broker.core.purse import Standing, Telling, block_of, is_nearly_used
from broker.stores.engine import Database
from broker.stores.tables import budget_accounts, budget_leases
from broker.stores.usage_rows import Held

LEASE: Final = 30.0
"""Seconds that a lease is good for without a word of its holder. What one that was killed held is nobody's so long."""
BATCH: Final = 300
"""Accounts in one statement: with three parameters for each, as many as every SQLite takes."""
KEPT: Final = 70 * 86_400.0
"""Seconds that accounts are kept after they began: two months are seen beside each other."""


class Ledger:
    """See the module. `holder` is this broker, and no other that ever was."""

    def __init__(self, database: Database, holder: str) -> None:
        self.database = database
        self.holder = holder
        self._insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert

    async def tell(self, tellings: Sequence[Telling], now: float) -> list[Standing]:
        """One transaction for all, and a few statements for each `BATCH` of them. `now`: seconds since 1970. Raises:
        StoreError.
        """
        # In one order everywhere: on PostgreSQL the accounts are locked one after the other.
        ordered = sorted(tellings, key=lambda telling: telling.account)
        async with self.database.writing() as connection:
            await self._open(connection, [one.account for one in ordered])
            return [
                standing
                for begin in range(0, len(ordered), BATCH)
                for standing in await self._told(connection, ordered[begin : begin + BATCH], now)
            ]

    async def bury(self, holder: str, spent: Mapping[Account, int]) -> None:
        """Another broker is dead, and has spent that much in all. What it held beside it is nobody's any more: of all
        accounts, also of those of which nothing is said. Raises: StoreError.
        """
        leases = budget_leases.c
        async with self.database.writing() as connection:
            await self._open(connection, sorted(spent))
            for account, amount in sorted(spent.items()):
                await self._lock(connection, [account])
                mine = and_(_are(budget_leases, [account]), leases.holder == holder, leases.spent < amount)
                await connection.execute(update(budget_leases).where(mine).values(spent=amount))
            dead = update(budget_leases).where(leases.holder == holder).values(amount=leases.spent)
            await connection.execute(dead)

    async def forget(self, now: float) -> None:
        """Remove accounts of long ago. Raises: StoreError."""
        async with self.database.writing() as connection:
            for table in (budget_leases, budget_accounts):
                await connection.execute(delete(table).where(table.c.began < now - KEPT))

    async def _told(self, connection: AsyncConnection, tellings: Sequence[Telling], now: float) -> list[Standing]:
        accounts = [one.account for one in tellings]
        warned = await self._lock(connection, accounts)
        await self._end_leases(connection, accounts, now)
        leased = await self._leased(connection, accounts)
        standings = [_standing(one, leased.get(one.account, NOTHING), one.account in warned) for one in tellings]
        upsert = self._insert(budget_leases)
        set_ = {name: upsert.excluded[name] for name in ("amount", "spent", "expires")}
        key = ("holder", "place", "period", "began")
        await connection.execute(
            upsert.on_conflict_do_update(index_elements=key, set_=set_),
            [
                {"holder": self.holder, **_columns(one.account)}
                | {"amount": standing.amount, "spent": one.spent, "expires": now + LEASE}
                for one, standing in zip(tellings, standings, strict=True)
            ],
        )
        warns = [one.account for one in standings if one.is_warning]
        if warns:
            await connection.execute(update(budget_accounts).where(_are(budget_accounts, warns)).values(warned=now))
        return standings

    async def _open(self, connection: AsyncConnection, accounts: Sequence[Account]) -> None:
        """Have a row for each, before any is locked: whoever holds one and waits for a new one of another broker's may
        be waited for by that.
        """
        columns = budget_accounts.c
        asked = select(columns.place, columns.period, columns.began)
        for begin in range(0, len(accounts), BATCH):
            batch = accounts[begin : begin + BATCH]
            there = {_account(*row) for row in await connection.execute(asked.where(_are(budget_accounts, batch)))}
            new = [{**_columns(account), "warned": None} for account in batch if account not in there]
            if new:
                await connection.execute(self._insert(budget_accounts).on_conflict_do_nothing(), new)

    async def _lock(self, connection: AsyncConnection, accounts: Sequence[Account]) -> set[Account]:
        """Let everybody else who tells of them wait, as SQLite does by itself. Those of which was warned."""
        columns = budget_accounts.c
        key = (columns.place, columns.period, columns.began)
        asked = select(*key, columns.warned).where(_are(budget_accounts, accounts)).order_by(*key).with_for_update()
        return {_account(*row) for row in await connection.execute(asked) if row.warned is not None}

    async def _end_leases(self, connection: AsyncConnection, accounts: Sequence[Account], now: float) -> None:
        """What others hold whose leases have ended is nobody's. What they have spent stays, and they may tell more."""
        leases = budget_leases.c
        is_over = and_(leases.expires <= now, leases.amount > leases.spent, leases.holder != self.holder)
        await connection.execute(
            update(budget_leases).where(_are(budget_leases, accounts), is_over).values(amount=leases.spent)
        )

    async def _leased(self, connection: AsyncConnection, accounts: Sequence[Account]) -> "dict[Account, _Leased]":
        """What this broker holds of them, and what all others hold, and have spent of it."""
        leases = budget_leases.c
        is_mine = leases.holder == self.holder
        mine = func.sum(case((is_mine, leases.amount), else_=0)).label("mine")
        others = func.sum(case((is_mine, 0), else_=leases.amount)).label("others")
        theirs = func.sum(case((is_mine, 0), else_=leases.spent)).label("theirs")
        key = (leases.place, leases.period, leases.began)
        asked = select(*key, mine, others, theirs).where(_are(budget_leases, accounts)).group_by(*key)
        rows = (await connection.execute(asked)).all()
        return {_account(*row): _Leased(int(row.mine), int(row.others), int(row.theirs)) for row in rows}


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


def _columns(account: Account) -> dict[str, Any]:
    return {"place": account.where, "period": account.period.value, "began": account.begin}


def _account(place: str, period: str, began: int, *_: Any) -> Account:
    return Account(place, Period(period), began)


def _are(table: Table, accounts: Sequence[Account]) -> ColumnElement[bool]:
    columns = table.c
    return tuple_(columns.place, columns.period, columns.began).in_([tuple(_columns(one).values()) for one in accounts])
