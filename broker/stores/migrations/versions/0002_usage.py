"""Budgets and what was used of them: accounts and leases, usage by the hour, and which batches of it are in."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SECONDS: "sa.Double[float]" = sa.Double()


def upgrade() -> None:
    """Forward. There is no way back: restore a copy."""
    op.create_table(
        "budget_accounts",
        sa.Column("place", sa.String(256), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("began", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("warned", SECONDS),
        sa.PrimaryKeyConstraint("place", "period", "began", name="pk_budget_accounts"),
    )
    op.create_table(
        "budget_leases",
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("place", sa.String(256), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("began", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("expires", SECONDS, nullable=False),
        sa.PrimaryKeyConstraint("holder", "place", "period", "began", name="pk_budget_leases"),
    )
    op.create_index("ix_budget_leases_place_period_began", "budget_leases", ["place", "period", "began"])
    op.create_table(
        "usage_hours",
        sa.Column("hour", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("organization", sa.String(64), nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("principal", sa.String(640), nullable=False),
        sa.Column("server", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("calls", "failed", "refused", "cost", "micros", "slowest")
        ),
        sa.PrimaryKeyConstraint(
            "hour", "organization", "team", "principal", "server", "kind", "name", name="pk_usage_hours"
        ),
    )
    op.create_table(
        "usage_writers",
        sa.Column("writer", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("seen", SECONDS, nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_usage_writers"),
    )
