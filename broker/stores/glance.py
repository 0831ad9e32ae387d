"""Names in a SQLite store, read without the database's driver: for completion, where a second is too long to wait."""

import sqlite3
from contextlib import closing
from typing import Final

from broker.stores.location import Location

_QUERIES: Final = {
    "organizations": "SELECT name FROM organizations",
    "teams": "SELECT organization || '/' || name FROM teams",
    "keys": "SELECT id FROM keys WHERE revoked IS NULL",
}
_PATIENCE: Final = 0.5
"""Seconds. A person has pressed a key."""


def glance(location: Location, what: str) -> list[str]:
    """Names, sorted; none of a store on a server. Raises: sqlite3.Error."""
    if location.url is not None or not location.path.exists():
        return []
    with closing(
        sqlite3.connect(f"{location.path.absolute().as_uri()}?mode=ro", timeout=_PATIENCE, uri=True)
    ) as database:
        return sorted(row[0] for row in database.execute(_QUERIES[what]))
