"""Reading the audit back: the records that answer a question, and who was shown what.

Reads the files of all brokers of a state directory, one line at a time. A line that is no record is passed over.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from broker.core.match import Pattern
from broker.core.shape import is_array, is_object
from broker.usage.files import paths
from broker.usage.records import moment_text

MAX_LINE: Final = 64 * 1024 * 1024
"""Bytes of one line that are read: that of a view has its names in it. A longer one is not ours."""

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for. Texts are patterns (`*`), None is anything; times are seconds since 1970."""

    event: str | None = None
    caller: str | None = None
    organization: str | None = None
    team: str | None = None
    tool: str | None = None
    server: str | None = None
    outcome: str | None = None
    rule: str | None = None
    since: float | None = None
    until: float | None = None

    def fits(self, line: Line) -> bool:
        """Whether a record is one that is looked for."""
        if line.get("event") == "view" or (self.event is not None and line.get("event") != self.event):
            return False
        if not self.is_within(moment_of(line)):
            return False
        names = _full_names(line)
        asked = (
            (self.caller, (line.get("principal"), line.get("key"))),
            (self.organization, (line.get("organization"),)),
            (self.team, (line.get("team"), f"{line.get('organization', '')}/{line.get('team', '')}")),
            (self.tool, (line.get("public"), *names)),
            (self.server, (line.get("server"),)),
            (self.outcome, (line.get("outcome"), str(line.get("code", "")))),
            (self.rule, (line.get("rule"),)),
        )
        return all(pattern is None or _is_any(pattern, values) for pattern, values in asked)

    def is_within(self, moment: float) -> bool:
        """Whether a time is one that is looked for."""
        return (self.since is None or moment >= self.since) and (self.until is None or moment < self.until)


def find(directory: Path, question: Question, limit: int) -> list[Line]:
    """The newest records that fit, in the order of time. Raises: OSError, if the directory cannot be read."""
    fitting = (line for path in _worth(directory, question) for line in lines_of(path) if question.fits(line))
    newest = heapq.nlargest(limit, enumerate(fitting), key=lambda item: (moment_of(item[1]), item[0]))
    return [line for _, line in reversed(newest)]


@dataclass(slots=True)
class Seen:
    """A caller that was shown something, through one view: when first and last, how often, and by which requests."""

    principal: str
    organization: str
    team: str
    key: str
    view: str
    first: float
    last: float
    times: int = 0
    methods: set[str] = field(default_factory=set[str])

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        who = {name: getattr(self, name) for name in ("principal", "organization", "team", "key", "view")}
        times = {"first": moment_text(self.first), "last": moment_text(self.last), "times": self.times}
        return {**who, **times, "methods": sorted(self.methods)}


def who_saw(directory: Path, name: str, question: Question) -> list[Seen]:
    """Whoever was shown a tool, prompt, resource or template of that full or public name, while `question` says.

    Raises: OSError, if the directory cannot be read.
    """
    found: dict[tuple[str, str], Seen] = {}
    for path in _worth(directory, question):
        showing: set[str] = set()
        for line in lines_of(path):
            if line.get("event") == "view" and _shows(line, name):
                showing.add(str(line.get("hash")))
            elif line.get("event") == "discovery" and line.get("hash") in showing and question.fits(line):
                _add(found, line)
    return sorted(found.values(), key=lambda one: (one.first, one.principal, one.view))


def lines_of(path: Path) -> Iterator[Line]:
    """The records of one file. It may go while it is read."""
    try:
        with path.open("rb") as file:
            while raw := file.readline(MAX_LINE):
                line = parsed(raw)
                if line is not None:
                    yield line
    except FileNotFoundError:
        return


def parsed(raw: bytes) -> Line | None:
    """One line, if it is a whole one and a record."""
    try:
        value = orjson.loads(raw) if raw.endswith(b"\n") else None
    except orjson.JSONDecodeError:
        return None
    return value if is_object(value) and isinstance(value.get("event"), str) else None


def moment_of(line: Mapping[str, Any]) -> float:
    """When it was, in seconds since 1970; 0 for a line that does not say."""
    try:
        return datetime.fromisoformat(str(line.get("time"))).timestamp()
    except ValueError:
        return 0.0


def _worth(directory: Path, question: Question) -> Iterator[Path]:
    """Files that may hold what is looked for: one ends when it was last written, and begins when its name says."""
    if not directory.is_dir():
        return
    for path in paths(directory):
        begun = datetime.strptime(path.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        try:
            ended = path.stat().st_mtime
        except FileNotFoundError:
            continue
        # A clock that was set, or a file that was copied, is off by less than this.
        is_early = question.since is not None and ended < question.since - _SLACK
        is_late = question.until is not None and begun > question.until + _SLACK
        if not is_early and not is_late:
            yield path


_SLACK: Final = 3600.0


def _add(found: dict[tuple[str, str], Seen], line: Line) -> None:
    who = [str(line.get(name, "")) for name in ("principal", "organization", "team", "key", "view")]
    moment = moment_of(line)
    seen = found.setdefault((who[0], who[4]), Seen(*who, first=moment, last=moment))
    seen.first, seen.last, seen.times = min(seen.first, moment), max(seen.last, moment), seen.times + 1
    seen.methods.add(str(line.get("method", "")))


def _shows(view: Line, name: str) -> bool:
    names, public = view.get("names"), view.get("public")
    if is_array(names) and name in names:
        return True
    return is_object(public) and name in public.values()


def _full_names(line: Line) -> tuple[str, ...]:
    if "server" not in line:
        return ()
    return f"{line['server']}__{line.get('own', '')}", f"{line['server']}+{line.get('own', '')}"


def _is_any(pattern: str, values: tuple[object, ...]) -> bool:
    compiled = Pattern(pattern)
    return any(isinstance(value, str) and compiled.matches(value) for value in values)
