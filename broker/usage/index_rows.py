"""Lines of a file -> a batch of the index."""

import time
from pathlib import Path
from typing import Any, Final

from broker.stores.audit_rows import TEXTS, Batch
from broker.usage.lookup import MAX_LINE
from broker.usage.question import Line, full_name_of, moment_of, parsed, shown_in

AT_ONCE: Final = 10
"""Lines that are read in one go, which takes a tenth of a millisecond. Meanwhile the loop cannot go on, and a call that
comes in that moment takes as much longer: a quarter of what it takes by itself."""
MOST_REST: Final = 0.1
"""Seconds between two such goes, at most: the end of a broker waits for the batch that is being read. Else a disk that
stalls for ten seconds, or a process that was stopped, would be followed by minutes in which nobody can end it."""
LINES: Final = 200
"""Lines of one batch: what others that write wait for takes two milliseconds."""
BYTES: Final = 1 << 20
"""Bytes after which a batch ends, however few lines they are."""
MAX_HASH: Final = 64
_FULL_NAME: Final = TEXTS.index("full_name")
_NUL: Final = b"\\u0000"


def batch_of(path: Path, begin: int, pace: float = 0.0) -> Batch | None:
    """What comes after byte `begin`; None, if that is not a whole line. Raises: OSError.

    In a thread, which leaves the interpreter to the loop after each go, for `pace` times as long as that took,
    and `MOST_REST` at most.
    """
    rows: list[tuple[Any, ...]] = []
    views: set[tuple[str, str]] = set()
    position = begin
    with path.open("rb") as file:
        file.seek(begin)
        began = time.monotonic()
        for number in range(LINES):
            if number and number % AT_ONCE == 0:
                time.sleep(min(pace * (time.monotonic() - began), MOST_REST))
                began = time.monotonic()
            raw = file.readline(MAX_LINE)
            if not raw.endswith(b"\n") and len(raw) < MAX_LINE:
                break  # somebody is writing it
            line = parsed(raw)
            if line is not None and _NUL in raw:
                line = {name: _without_nul(value) for name, value in line.items()}
            if line is not None and line["event"] == "view":
                views.update((_hash_of(line), _without_nul(name)) for name in shown_in(line))
            elif line is not None:
                rows.append((position, moment_of(line), *_texts(line)))
            position += len(raw)
            if position - begin > BYTES:
                break
    if position == begin:
        return None
    return Batch(begin, position, max((row[1] for row in rows), default=0.0), rows, frozenset(views))


def _texts(line: Line) -> list[str]:
    """What the index has of a record."""
    texts = [one if type(one) is str else "" if one is None else str(one) for one in map(line.get, TEXTS)]
    texts[_FULL_NAME] = full_name_of(line) or ""
    if len(texts[-1]) > MAX_HASH:
        texts[-1] = _hash_of(line)
    return texts


def _hash_of(line: Line) -> str:
    return str(line.get("hash", ""))[:MAX_HASH]


def _without_nul(value: Any) -> Any:
    """PostgreSQL takes none; our own lines have none either."""
    return value.replace("\0", "") if isinstance(value, str) else value
