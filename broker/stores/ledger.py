"""Budgets in the database: how much of each is spent, and who may spend how much of the rest.

Every broker tells what it has spent and asks for what it needs, of all its budgets in one transaction. It tells the
state that it is in, never a difference, so that a transaction whose end is not known is simply told again. What a
broker has not spent is anybody's again when its lease ends: a broker that was killed loses nothing but time.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, Table, and_, case, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.amount import UNIT
from broker.core.budget import Account
from broker.core.purse import Standing, Telling, block_of, is_nearly_used
from broker.stores.engine import Database
from broker.stores.tables import budget_accounts, budget_leases
from broker.stores.usage_rows import Held

LEASE: Final = 30.0
"""Seconds that a lease is good for without a word of its holder. What one that was killed held is nobody's so long."""
KEPT: Final = 70 * 86_400.0
"""Seconds that accounts are kept after they began: two months are seen beside each other."""


class Ledger:
    """See the module. `holder` is this broker, and no other that ever was."""

    def __init__(self, database: Database, holder: str) -> None:
        self.database = database
        self.holder = holder
        self._insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert

    async def tell(self, tellings: Sequence[Telling], now: float) -> list[Standing]:
        """One transaction for all. `now`: seconds since 1970. Raises: StoreError."""
        async with self.database.writing() as connection:
            # In one order everywhere: on PostgreSQL the accounts are locked one after the other.
            return [
                await self._told(connection, one, now) for one in sorted(tellings, key=lambda telling: telling.account)
            ]

    async def bury(self, holder: str, spent: Mapping[Account, int]) -> None:
        """Another broker is dead, and has spent that much in all. What it held beside it is nobody's any more: of all
        accounts, also of those of which nothing is said. Raises: StoreError.
        """
        leases = budget_leases.c
        async with self.database.writing() as connection:
            for account, amount in sorted(spent.items()):
                await self._lock(connection, account)
                mine = and_(_is_of(budget_leases, account), leases.holder == holder, leases.spent < amount)
                await connection.execute(update(budget_leases).where(mine).values(spent=amount))
            dead = update(budget_leases).where(leases.holder == holder).values(amount=leases.spent)
            await connection.execute(dead)

    async def forget(self, now: float) -> None:
        """Remove accounts of long ago. Raises: StoreError."""
        async with self.database.writing() as connection:
            for table in (budget_leases, budget_accounts):
                await connection.execute(delete(table).where(table.c.began < now - KEPT))

    async def _told(self, connection: AsyncConnection, one: Telling, now: float) -> Standing:
        has_warned = await self._lock(connection, one.account)
        await self._end_leases(connection, one.account, now)
        lease = await self._lease(connection, one.account)
        kept = 0 if lease is None or one.gives_back else int(lease["amount"])
        amount = max(one.spent + one.reserved, kept)
        others, theirs = await self._others(connection, one.account)
        block = block_of(one.limit - others - amount, one.need, UNIT) if one.need else 0
        amount += block
        values = {"amount": amount, "spent": one.spent, "expires": now + LEASE}
        key = {"holder": self.holder, **_columns(one.account)}
        upsert = self._insert(budget_leases).values({**key, **values})
        await connection.execute(upsert.on_conflict_do_update(index_elements=list(key), set_=values))
        used = theirs + one.spent
        is_warning = not has_warned and is_nearly_used(used, one.limit)
        if is_warning:
            mine = _is_of(budget_accounts, one.account)
            await connection.execute(update(budget_accounts).where(mine).values(warned=now))
        return Standing(one.account, amount, block, used, others - theirs, is_warning)

    async def _lock(self, connection: AsyncConnection, account: Account) -> bool:
        """Let everybody else who tells of the account wait, as SQLite does by itself. Whether it was warned of."""
        asked = select(budget_accounts.c.warned).where(_is_of(budget_accounts, account)).with_for_update()
        row = (await connection.execute(asked)).one_or_none()
        if row is None:
            empty = {**_columns(account), "warned": None}
            await connection.execute(self._insert(budget_accounts).values(empty).on_conflict_do_nothing())
            row = (await connection.execute(asked)).one()
        return row[0] is not None

    async def _end_leases(self, connection: AsyncConnection, account: Account, now: float) -> None:
        """What others hold whose leases have ended is nobody's. What they have spent stays, and they may tell more."""
        leases = budget_leases.c
        is_over = and_(leases.expires <= now, leases.amount > leases.spent, leases.holder != self.holder)
        ended = update(budget_leases).where(_is_of(budget_leases, account), is_over).values(amount=leases.spent)
        await connection.execute(ended)

    async def _lease(self, connection: AsyncConnection, account: Account) -> RowMapping | None:
        mine = and_(_is_of(budget_leases, account), budget_leases.c.holder == self.holder)
        return (await connection.execute(select(budget_leases).where(mine))).mappings().one_or_none()

    async def _others(self, connection: AsyncConnection, account: Account) -> tuple[int, int]:
        """What all others hold, and have spent of it."""
        leases = budget_leases.c
        sums = [func.coalesce(func.sum(column), 0) for column in (leases.amount, leases.spent)]
        theirs = and_(_is_of(budget_leases, account), leases.holder != self.holder)
        amount, spent = map(int, tuple[Any, ...]((await connection.execute(select(*sums).where(theirs))).one()))
        return amount, spent


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


def _is_of(table: Table, account: Account) -> ColumnElement[bool]:
    return and_(*(table.c[name] == value for name, value in _columns(account).items()))
