"""What can be asked of the records, and whether one of them is an answer. The words are those of `mcp-broker audit`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from broker.core.grants import full_name
from broker.core.match import Pattern
from broker.core.request import Kind
from broker.core.shape import is_array, is_object
from broker.usage.records import moment_text

Line = dict[str, Any]
_WHO: Final = ("principal", "organization", "team", "key", "view")


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
        asked = (
            (self.caller, (line.get("principal"), line.get("key"))),
            (self.organization, (line.get("organization"),)),
            (self.team, (line.get("team"), f"{line.get('organization', '')}/{line.get('team', '')}")),
            (self.tool, (line.get("public"), full_name_of(line))),
            (self.server, (line.get("server"),)),
            (self.outcome, (line.get("outcome"), str(line.get("code", "")))),
            (self.rule, (line.get("rule"),)),
        )
        return all(pattern is None or _is_any(pattern, values) for pattern, values in asked)

    def is_within(self, moment: float) -> bool:
        """Whether a time is one that is looked for."""
        return (self.since is None or moment >= self.since) and (self.until is None or moment < self.until)


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
        who = {name: getattr(self, name) for name in _WHO}
        times = {"first": moment_text(self.first), "last": moment_text(self.last), "times": self.times}
        return {**who, **times, "methods": sorted(self.methods)}


class Sightings:
    """Callers that were shown one thing: an entry for each of them, and for each view that it came through."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Seen] = {}

    def add(self, who: Mapping[str, Any], first: float, last: float, times: int) -> None:
        """`who`: the fields of a discovery that say so, and its method."""
        values = [str(who.get(name, "")) for name in _WHO]
        seen = self._found.setdefault((values[0], values[4]), Seen(*values, first=first, last=last))
        seen.first, seen.last, seen.times = min(seen.first, first), max(seen.last, last), seen.times + times
        seen.methods.add(str(who.get("method", "")))

    def all(self) -> list[Seen]:
        """In the order in which they were first shown it."""
        return sorted(self._found.values(), key=lambda one: (one.first, one.principal, one.view))


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


def full_name_of(line: Mapping[str, Any]) -> str | None:
    """The full name of what was asked for; None, if it was nothing."""
    server, kind, own = line.get("server"), line.get("kind"), line.get("own", "")
    if not isinstance(server, str) or kind not in _KINDS:
        return None
    return full_name(_KINDS[kind], server, str(own))


_KINDS: Final = {kind.value: kind for kind in Kind}


def shown_in(view: Line) -> set[str]:
    """The names that a record `view` says were shown: full ones, and public ones that differ."""
    names, public = view.get("names"), view.get("public")
    found: list[Any] = [*(names if is_array(names) else ()), *(public.values() if is_object(public) else ())]
    return {name for name in found if isinstance(name, str)}


def _is_any(pattern: str, values: tuple[object, ...]) -> bool:
    compiled = Pattern(pattern)
    return any(isinstance(value, str) and compiled.matches(value) for value in values)
