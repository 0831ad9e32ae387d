"""The tables of the index of the audit: where a record is, and the columns by which it is asked for.

The lines stay the truth: all of this can be thrown away, and made anew from them. Texts are of any length, and empty
where a record has none.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, String, Table, Text, UniqueConstraint

from broker.stores.audit_rows import TEXTS
from broker.stores.tables import metadata

audit_files = Table(
    "audit_files",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("origin", String(32), nullable=False),
    Column("name", String(64), nullable=False),
    Column("indexed", BigInteger, nullable=False),
    Column("newest", Double, nullable=False),
    UniqueConstraint("origin", "name"),
)
"""A file of records, of the state directory that calls itself `origin`; how many bytes of it are in the index, and the
time of the newest record in them."""

audit_records = Table(
    "audit_records",
    metadata,
    Column("file_id", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    *(Column(name, Text, nullable=False) for name in TEXTS),
)
"""A record, at a byte of its file."""

_of: Final = audit_records.c
Index("ix_audit_records_time", _of.time)
Index("ix_audit_records_principal_time", _of.principal, _of.time)
Index("ix_audit_records_full_name_time", _of.full_name, _of.time)
for _name, _where in (("public", _of.public != _of.full_name), ("hash", _of.hash != "")):
    _columns = (_of[_name], _of.time)
    Index(f"ix_audit_records_{_name}_time", *_columns, sqlite_where=_where, postgresql_where=_where)

audit_views = Table(
    "audit_views",
    metadata,
    Column("file_id", Integer, primary_key=True, autoincrement=False),
    Column("hash", String(64), primary_key=True),
    Column("name", Text, primary_key=True),
    Index("ix_audit_views_name", "name"),
)
"""What the hash of a view stands for in a file: each full name in it, and each public name that differs from it."""
