"""What goes into the index of the audit, and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

TEXTS: Final = (
    *("event", "principal", "organization", "team", "key", "method", "view", "kind", "server", "public"),
    *("full_name", "outcome", "code", "rule", "hash"),
)
"""What the index has of a record, beside its time; "" for what a record has not."""

Row = dict[str, Any]
Narrowing = Sequence[tuple[tuple[str, ...], str]]
"""Columns, and the pattern (`*`) that one of them must fit. On SQLite the case of letters may be ignored where there is
a `*`: who asks looks again."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """A file, and how many of its bytes are in the index."""

    id: int
    origin: str
    name: str
    size: int
    newest: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines of one file, from byte `begin` to byte `end`. `rows`: position, time, and `TEXTS`. `views`: hash, name."""

    begin: int
    end: int
    newest: float
    rows: Sequence[tuple[Any, ...]]
    views: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Found:
    """A record: in which file, at which byte, and what the index has of it."""

    origin: str
    name: str
    position: int
    row: Row

    @property
    def place(self) -> tuple[float, str, int]:
        """Where it stands among all of them: the order of time, then of the files."""
        return self.row["time"], self.name, self.position


@dataclass(frozen=True, slots=True)
class Showing:
    """What one caller was shown by one request through one view: how often, when first and when last."""

    row: Row
    first: float
    last: float
    times: int
