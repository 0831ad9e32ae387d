"""Limits of organizations, teams and keys."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward. What was there has no limits."""
    for table in ("organizations", "teams", "keys"):
        op.add_column(table, sa.Column("limits", sa.JSON()))
