"""The directory: organizations, teams, keys, memberships, and the count of their changes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SECONDS: "sa.Double[float]" = sa.Double()


def upgrade() -> None:
    """Forward. There is no way back: restore a copy."""
    op.create_table(
        "organizations",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("allow", sa.JSON()),
        sa.Column("deny", sa.JSON()),
        sa.Column("created", SECONDS, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_organizations"),
    )
    op.create_table(
        "teams",
        sa.Column("organization", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("allow", sa.JSON()),
        sa.Column("deny", sa.JSON()),
        sa.Column("created", SECONDS, nullable=False),
        sa.PrimaryKeyConstraint("organization", "name", name="pk_teams"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("organization", sa.String(64), nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("allow", sa.JSON()),
        sa.Column("deny", sa.JSON()),
        sa.Column("created", SECONDS, nullable=False),
        sa.Column("expires", SECONDS),
        sa.Column("rotated", SECONDS),
        sa.Column("revoked", SECONDS),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
    )
    op.create_index("uq_keys_organization_team_name", "keys", ["organization", "team", "name"], unique=True)
    op.create_table(
        "key_hashes",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("not_after", SECONDS),
        sa.PrimaryKeyConstraint("hash", name="pk_key_hashes"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_key_hashes_key_id", ondelete="CASCADE"),
    )
    op.create_index("ix_key_hashes_key_id", "key_hashes", ["key_id"])
    op.create_table(
        "memberships",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("organization", sa.String(64), nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created", SECONDS, nullable=False),
        sa.PrimaryKeyConstraint("principal", "organization", "team", name="pk_memberships"),
    )
    counted = op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revision"),
        sa.CheckConstraint("id = 1", name="ck_revision_one_row"),
    )
    op.bulk_insert(counted, [{"id": 1, "number": 0}])
