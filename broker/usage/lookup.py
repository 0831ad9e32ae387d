"""Reading the audit back, line by line: the records that answer a question, and who was shown what.

Reads the files of all brokers of a state directory, each from a byte on. A line that is no record is passed over.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.usage.files import paths
from broker.usage.question import Line, Question, Seen, Sightings, moment_of, parsed, shown_in

MAX_LINE: Final = 64 * 1024 * 1024
"""Bytes of one line that are read: that of a view has its names in it. A longer one is not ours."""
_SLACK: Final = 3600.0
"""Seconds by which the times of a file may be off: a clock that was set, or a file that was copied."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A record, and where it stands among all: by its time, then by its file, then by its place there."""

    place: tuple[float, str, int]
    line: Line


def find(directory: Path, question: Question, limit: int) -> list[Line]:
    """The newest records that fit, in the order of time. Raises: OSError, if the directory cannot be read."""
    return newest((hit for path in worth(directory, question) for hit in hits(path, question)), limit)


def newest(found: Iterable[Hit], limit: int) -> list[Line]:
    """The last ones, in the order of time."""
    return [hit.line for hit in reversed(heapq.nlargest(limit, found, key=lambda hit: hit.place))]


def hits(path: Path, question: Question, begin: int = 0) -> Iterator[Hit]:
    """The records of one file that fit, from a byte on."""
    for position, _, line in lines_of(path, begin):
        if question.fits(line):
            yield Hit((moment_of(line), path.name, position), line)


def who_saw(directory: Path, name: str, question: Question) -> list[Seen]:
    """Whoever was shown a tool, prompt, resource or template of that full or public name, while `question` says.

    Raises: OSError, if the directory cannot be read.
    """
    sightings = Sightings()
    for path in worth(directory, question):
        sight(path, name, question, sightings)
    return sightings.all()


def sight(
    path: Path, name: str, question: Question, sightings: Sightings, begin: int = 0, known: set[str] | None = None
) -> None:
    """Add those whom one file names, from a byte on. `known`: hashes of views with that name that stand before it."""
    showing = set(known or ())
    for _, _, line in lines_of(path, begin):
        if line.get("event") == "view" and name in shown_in(line):
            showing.add(str(line.get("hash")))
        elif line.get("event") == "discovery" and line.get("hash") in showing and question.fits(line):
            moment = moment_of(line)
            sightings.add(line, moment, moment, 1)


def lines_of(path: Path, begin: int = 0) -> Iterator[tuple[int, int, Line]]:
    """The records of one file, each after the byte where it begins and that where it ends. A last line that has no end
    yet is none. The file may go while it is read.
    """
    try:
        with path.open("rb") as file:
            position = file.seek(begin)
            while raw := file.readline(MAX_LINE):
                line = parsed(raw)
                end = position + len(raw)
                if line is not None:
                    yield position, end, line
                position = end
    except FileNotFoundError:
        return


def worth(directory: Path, question: Question) -> Iterator[Path]:
    """Files that may hold what is looked for: one ends when it was last written, and begins when its name says."""
    if not directory.is_dir():
        return
    for path in paths(directory):
        begun = datetime.strptime(path.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        try:
            ended = path.stat().st_mtime
        except FileNotFoundError:
            continue
        is_early = question.since is not None and ended < question.since - _SLACK
        is_late = question.until is not None and begun > question.until + _SLACK
        if not is_early and not is_late:
            yield path
