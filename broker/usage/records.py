"""What the audit says: values with allow-listed fields, and the one line of JSON that each becomes.

A field that is not named here is not recorded. Every text is chosen by somebody, so control characters are escaped and
no field is longer than 1 KiB (F-81, I-45); what a URI holds as user name and password is left out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal

from broker.core import wire
from broker.core.caller import Caller
from broker.logs import escaped

MAX_FIELD: Final = 1024
"""Bytes of one field. Without a bound, one caller's name for a tool fills the disk."""

Outcome = Literal[
    "permitted",
    "done",
    "failed",
    "input-required",
    "denied",
    "blocked",
    "error",
    "timed-out",
    "cancelled",
]
"""`permitted`: decided, not made yet (with `audit.required`). `failed`: the tool itself says `isError`."""

_CREDENTIALS: Final = re.compile(r"(?<=//)[^/?#\s]*@")


@dataclass(slots=True)
class Record:
    """What all have in common. `time`: seconds since 1970. `seq` counts the records of one broker: a gap is a loss."""

    event: str = field(init=False, default="")
    seq: int = field(init=False, default=0)
    time: float = field(init=False, default=0.0)
    caller: Caller

    def to_json(self) -> dict[str, Any]:
        """The line as a value: what is empty is left out."""
        moment = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {"seq": self.seq, "time": moment, "event": self.event}
        who = {name: getattr(self.caller, name) for name in ("principal", "organization", "team", "key")}
        for name, value in (*who.items(), *self._own()):
            if value not in ("", None, 0, ()):
                line[name] = _text(value) if isinstance(value, str) else value
        return line

    def _own(self) -> list[tuple[str, Any]]:
        return [(one.name, getattr(self, one.name)) for one in fields(self) if one.name not in _COMMON]


_COMMON: Final = frozenset({"event", "seq", "time", "caller"})


@dataclass(slots=True)
class CallRecord(Record):
    """A decision on a request that names an entry, and what became of it."""

    front: str
    era: str
    method: str
    view: str = ""
    call: str = ""
    """What the records of one call have in common, where there are two (`audit.required`)."""
    public: str = ""
    own: str = ""
    kind: str = ""
    server: str = ""
    rule: str = ""
    outcome: Outcome = "done"
    code: int = 0
    """Of an error."""
    request_bytes: int = 0
    result_bytes: int = 0
    ms: float = 0.0
    trace: str = ""
    policy: str = ""
    guardrails: str = ""
    arguments: Mapping[str, Any] | None = None
    results: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.event = "call"


@dataclass(slots=True)
class Mark:
    """What a view holds: its hash, and the full names, sorted. Two callers with one mark were shown the same."""

    hash: str
    names: tuple[str, ...]
    public: Mapping[str, str]
    """Full name -> public name, where they differ."""


@dataclass(slots=True)
class DiscoveryRecord(Record):
    """A caller was shown a view."""

    front: str
    era: str
    method: str
    mark: Mark
    view: str = ""
    policy: str = ""
    trace: str = ""

    def __post_init__(self) -> None:
        self.event = "discovery"

    def _own(self) -> list[tuple[str, Any]]:
        own = [(name, value) for name, value in Record._own(self) if name != "mark"]
        return [*own, ("hash", self.mark.hash), ("size", len(self.mark.names))]


@dataclass(slots=True)
class AdminRecord(Record):
    """A change of who may do what, or a refusal of one."""

    action: str
    target: str
    outcome: str
    why: str = ""

    def __post_init__(self) -> None:
        self.event = "admin"


@dataclass(slots=True)
class AuthRecord(Record):
    """Somebody was not admitted. `more`: others since the last record that were not recorded one by one."""

    peer: str
    code: int
    reason: str
    more: int = 0

    def __post_init__(self) -> None:
        self.event = "auth"


def line_of(record: Record) -> bytes:
    """One whole line."""
    return wire.encode(record.to_json()) + b"\n"


def view_line(mark: Mark) -> bytes:
    """What the hash of a view stands for: once in every file that names it."""
    names = [_text(name) for name in mark.names]
    line: dict[str, Any] = {"event": "view", "hash": mark.hash, "names": names}
    if mark.public:
        line["public"] = {_text(full): _text(public) for full, public in mark.public.items()}
    return wire.encode(line) + b"\n"


def gap_line(lost: int, time: float) -> bytes:
    """Records are missing here."""
    moment = datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return wire.encode({"time": moment, "event": "gap", "lost": lost}) + b"\n"


def _text(text: str) -> str:
    """A field: printable, without credentials, 1 KiB at most."""
    if "@" in text:
        text = _CREDENTIALS.sub("***@", text)
    if len(text) <= MAX_FIELD and text.isascii() and text.isprintable():
        return text
    shown = escaped(text, MAX_FIELD).encode("utf-8", "backslashreplace")
    return shown[:MAX_FIELD].decode("utf-8", "ignore")
