"""A parsed file: its data, the line of every key, and what was found wrong so far; independent of YAML and JSON."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from broker.config.problem import Fault, Problem
from broker.config.secret import Secret

Data: TypeAlias = "dict[str, Data] | list[Data] | str | int | float | bool | Secret | None"
Path: TypeAlias = tuple[str | int, ...]

MAX_BYTES: int = 1 << 20
"""A larger file is refused unread: without a bound a mistaken path (a log, a disk image) would fill the memory."""

MAX_NODES: int = 10_000
"""Counted after aliases are expanded; without it ten lines of nested aliases would become gigabytes."""

MAX_DEPTH: int = 64
"""Everything that walks the data recurses; without this bound a file of brackets would exhaust the stack."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECRET_HOMES = frozenset({"env", "headers"})
_SHOWN_CHARS = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong (or worth a warning) at a path. line: only where the path's own line would mislead.

    in_file: the path is in the words of the file already, also if `adapt` moved what stands there.
    """

    path: Path
    message: str
    remedy: str = ""
    line: int | None = None
    in_file: bool = False

    @classmethod
    def from_fault(cls, path: Path, fault: Fault) -> "Finding":
        return cls(path, fault.message, fault.remedy)


class UnreadableError(Exception):
    """The text cannot be understood at all, so nothing else can be said about it than this one finding."""

    def __init__(self, message: str, remedy: str = "", line: int | None = None) -> None:
        self.finding = Finding((), message, remedy, line)
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Document:
    """lines: of each key and list item, by path. is_json: the syntax, whatever the file is called.

    origins: where a part of `data` stood in the file, if it was moved by `adapt` (the longest prefix counts).
    """

    data: Data
    lines: Mapping[Path, int]
    is_json: bool = False
    findings: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    origins: Mapping[Path, Path] = field(default_factory=dict[Path, Path])

    def problem(self, file: str, finding: Finding) -> Problem:
        """Ties a finding to its line and key, in the words of the file."""
        path = finding.path if finding.in_file else self._original(finding.path)
        line = finding.line or self._line(path)
        return Problem(file, line, dotted(path), finding.message, finding.remedy)

    def problems(self, file: str, findings: Iterable[Finding]) -> list[Problem]:
        """In the order of the file, each one once."""
        found = dict.fromkeys(self.problem(file, finding) for finding in findings)
        return sorted(found, key=lambda problem: problem.line or 0)

    def _original(self, path: Path) -> Path:
        for length in range(len(path), 0, -1):
            if (origin := self.origins.get(path[:length])) is not None:
                return origin + path[length:]
        return path

    def _line(self, path: Path) -> int:
        """The line of the path, or of the nearest thing around it: what is missing has no line of its own."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return line
        return 1


def dotted(path: Path) -> str:
    """`servers.docs.headers.Authorization`.

    Below env and headers, what does not look like a name is not shown: a header written as one string
    (`"Authorization: Bearer ...": `) would otherwise print its token.
    """
    return ".".join(_segment(path, index) for index in range(len(path)))


def _segment(path: Path, index: int) -> str:
    text = str(path[index])
    if index and path[index - 1] in _SECRET_HOMES and not _PLAIN_NAME.fullmatch(text):
        return "(name not shown)"
    return shown(text)


def shown(text: str) -> str:
    """A name from the file, fit for one line of a terminal: printable and short."""
    cut = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)
