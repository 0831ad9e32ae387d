"""Where the store is, and a look at whether anything is in it, without the database's driver."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.config import Secret, StoreSettings
from broker.stores.errors import StoreReadOnly

FILE: Final = "broker.db"
_LOOK: Final = 1.0
"""Seconds that the look waits for a file that is locked; then it counts as one that holds something."""
_HELD: Final = ("keys", "organizations", "teams", "memberships")


@dataclass(frozen=True, slots=True)
class Location:
    """A file (`path`), or a database server (`url`, with a password in it perhaps)."""

    directory: Path
    """The state directory, for the lock of migrations."""
    path: Path
    url: Secret | None = None
    pool_size: int = 5

    @classmethod
    def of(cls, settings: StoreSettings, state_directory: Path) -> "Location":
        """Of a configuration."""
        return cls(state_directory, state_directory / FILE, settings.url, settings.pool_size)

    def holds_something(self) -> bool:
        """Whether there may be organizations, keys or members in the store. A server may have some; so does a file that
        cannot be read: whoever opens it will say why."""
        if self.url is not None:
            return True
        if not self.path.exists():
            return False
        asked = " UNION ALL ".join(f"SELECT 1 FROM {table}" for table in _HELD)
        try:
            with closing(sqlite3.connect(self._uri(), timeout=_LOOK, uri=True)) as connection:
                return connection.execute(f"SELECT EXISTS ({asked})").fetchone()[0] == 1
        except sqlite3.OperationalError as error:
            return "no such table" not in str(error)
        except sqlite3.Error:
            return True

    def _uri(self) -> str:
        return f"{self.path.absolute().as_uri()}?mode=ro"

    def is_read_only(self) -> bool:
        """Whether the file is there, and this process may only read it: a volume that is mounted so, say."""
        return self.path.exists() and not (os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK))

    def make_room(self) -> None:
        """The directory, and an empty file in it that only its owner can read. Raises: StoreReadOnly.

        A file that is there is never opened but by SQLite: whoever closes a descriptor of a file lets go of all locks
        that his process has on it (POSIX), those of SQLite too. Another process then takes itself for the only one,
        and removes the log that this one still writes.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as error:
            if not self.path.exists():
                remedy = "Set broker.state_dir to a directory that can be written, or store.url."
                raise StoreReadOnly(f"the database {self.path} cannot be made ({error.strerror}). {remedy}") from None
