"""Lines of a file -> a batch of the index."""

from pathlib import Path
from typing import Final

from broker.stores.audit_rows import Batch, Row
from broker.usage.lookup import MAX_LINE
from broker.usage.question import Line, full_name_of, moment_of, parsed, shown_in

LINES: Final = 250
"""Lines of one batch: what is read, and what others that write wait for, takes a few milliseconds."""
BYTES: Final = 1 << 20
"""Bytes after which a batch ends, however few lines they are."""
MAX_HASH: Final = 64
_TEXTS: Final = (
    *("event", "principal", "organization", "team", "key", "method", "view", "kind", "server", "public"),
    *("outcome", "code", "rule", "hash"),
)


def batch_of(path: Path, begin: int) -> Batch | None:
    """What comes after byte `begin`; None, if that is not a whole line. Raises: OSError."""
    rows: list[tuple[int, Row]] = []
    views: set[tuple[str, str]] = set()
    position = begin
    with path.open("rb") as file:
        file.seek(begin)
        for _ in range(LINES):
            raw = file.readline(MAX_LINE)
            if not raw.endswith(b"\n") and len(raw) < MAX_LINE:
                break  # somebody is writing it
            line = parsed(raw)
            if line is not None and line["event"] == "view":
                digest = _text(line.get("hash"))[:MAX_HASH]
                views.update((digest, _text(name)) for name in shown_in(line))
            elif line is not None:
                rows.append((position, row_of(line)))
            position += len(raw)
            if position - begin > BYTES:
                break
    if position == begin:
        return None
    return Batch(begin, position, max((row["time"] for _, row in rows), default=0.0), rows, frozenset(views))


def row_of(line: Line) -> Row:
    """What the index has of a record."""
    row: Row = {name: _text(line.get(name)) for name in _TEXTS}
    row["hash"] = row["hash"][:MAX_HASH]
    row["full_name"] = _text(full_name_of(line))
    row["time"] = moment_of(line)
    return row


def _text(value: object) -> str:
    # PostgreSQL takes no NUL; our own lines have none either.
    return "" if value is None else str(value).replace("\0", "")
