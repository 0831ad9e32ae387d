"""The tables of the directory, for SQLAlchemy Core. Alembic's scripts in `migrations/versions` make them.

Other tables of the same database (usage, the index of the audit) join `metadata` and bring their own scripts.

Organizations and teams are named by text and not by a foreign key: a key that is made at run time may belong to a team
that only the file defines. Times are seconds since 1970; rules and limits are JSON, in the words of the file.
"""

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA: Final = "0005"
"""The newest script of `migrations/versions`, which are one chain. A database that says so is not migrated: Alembic is
not even loaded."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

organizations = Table(
    "organizations",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("allow", JSON(none_as_null=True)),
    Column("deny", JSON(none_as_null=True)),
    Column("limits", JSON(none_as_null=True)),
    Column("created", Double, nullable=False),
)

teams = Table(
    "teams",
    metadata,
    Column("organization", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("allow", JSON(none_as_null=True)),
    Column("deny", JSON(none_as_null=True)),
    Column("limits", JSON(none_as_null=True)),
    Column("created", Double, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("organization", String(64), nullable=False),
    Column("team", String(64), nullable=False),  # "": directly in the organization
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("allow", JSON(none_as_null=True)),
    Column("deny", JSON(none_as_null=True)),
    Column("limits", JSON(none_as_null=True)),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("rotated", Double),
    Column("revoked", Double),
    # A name is part of the names of the key's rules: two keys of one place must not share it.
    Index("uq_keys_organization_team_name", "organization", "team", "name", unique=True),
)

key_hashes = Table(
    "key_hashes",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("key_id", String(16), ForeignKey("keys.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("not_after", Double),
)

memberships = Table(
    "memberships",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("organization", String(64), primary_key=True),
    Column("team", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("created", Double, nullable=False),
)

revision = Table(
    "revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
"""One row: counts every change of the directory, in the transaction of the change."""

key_changes = Table(
    "key_changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", String(16), primary_key=True),
)
"""Which keys the last changes of the directory were about, in the transaction of the change. There is a row for each
change, also where there is no key."""

budget_accounts = Table(
    "budget_accounts",
    metadata,
    Column("place", String(256), primary_key=True),
    Column("period", String(16), primary_key=True),
    Column("began", BigInteger, primary_key=True, autoincrement=False),
    Column("warned", Double),
)
"""One budget in one period: the row at which brokers queue that tell of it, and whether somebody was told that it is
nearly used. `place`: see `core.Level`.
"""

budget_leases = Table(
    "budget_leases",
    metadata,
    Column("holder", String(64), primary_key=True),
    Column("place", String(256), primary_key=True),
    Column("period", String(16), primary_key=True),
    Column("began", BigInteger, primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("expires", Double, nullable=False),
    Index("ix_budget_leases_place_period_began", "place", "period", "began"),
)
"""What a broker (`holder`) may spend of an account, `amount`, and what of that it has said that it spent; micro-units.
Of one that has ended, both are the same. The sum over all holders is what is spent of the budget.
"""

usage_hours = Table(
    "usage_hours",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("organization", String(64), primary_key=True),
    Column("team", String(64), primary_key=True),
    Column("principal", String(640), primary_key=True),
    Column("server", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("micros", BigInteger, nullable=False),
    Column("slowest", BigInteger, nullable=False),
)
"""What was used, per hour (seconds since 1970). `cost` in micro-units, durations in microseconds."""

usage_writers = Table(
    "usage_writers",
    metadata,
    Column("writer", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("seen", Double, nullable=False),
)
"""The last batch of each broker that is in `usage_hours`: one that is sent again is not counted twice."""
