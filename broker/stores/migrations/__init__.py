"""Alembic's scripts. A new one is a file in `versions` with the next number; `tables.SCHEMA` names the newest."""
