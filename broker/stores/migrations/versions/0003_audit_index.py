"""The index of the audit: its files, their records, and the names in views."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SECONDS: "sa.Double[float]" = sa.Double()
TEXTS = (
    *("event", "principal", "organization", "team", "key", "method", "view", "kind", "server", "public"),
    *("full_name", "outcome", "code", "rule", "hash"),
)


def upgrade() -> None:
    """Forward. There is no way back: restore a copy."""
    op.create_table(
        "audit_files",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("indexed", sa.BigInteger(), nullable=False),
        sa.Column("newest", SECONDS, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_files"),
        sa.UniqueConstraint("origin", "name", name="uq_audit_files_origin_name"),
    )
    op.create_table(
        "audit_records",
        sa.Column("file_id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("position", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("time", SECONDS, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in TEXTS),
        sa.PrimaryKeyConstraint("file_id", "position", name="pk_audit_records"),
    )
    op.create_index("ix_audit_records_time", "audit_records", ["time"])
    op.create_index("ix_audit_records_principal_time", "audit_records", ["principal", "time"])
    op.create_index("ix_audit_records_full_name_time", "audit_records", ["full_name", "time"])
    for name, where in (("public", "public != full_name"), ("hash", "hash != ''")):
        op.create_index(
            f"ix_audit_records_{name}_time",
            "audit_records",
            [name, "time"],
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
    op.create_table(
        "audit_views",
        sa.Column("file_id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("file_id", "hash", "name", name="pk_audit_views"),
    )
    op.create_index("ix_audit_views_name", "audit_views", ["name"])
