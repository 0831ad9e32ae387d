"""What the audit says: values with allow-listed fields, and the one line of JSON that each becomes.

A field that is not named here is not recorded. Every text is chosen by somebody, so control characters are escaped and
no field is longer than 1 KiB (F-81, I-45); what a URI holds as user name and password is left out.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
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
    "limited",
    "error",
    "timed-out",
    "cancelled",
]
"""`permitted`: decided, not made yet (with `audit.required`). `failed`: the tool itself says `isError`."""

_SUSPECT: Final = (b"@", b"\\", b"\x7f")
"""In an encoded line: something that had to be escaped, or should be, or what may be credentials of a URI."""
_CREDENTIALS: Final = re.compile(r"(?<=//)[^/?#\s]*@")


@dataclass(slots=True)
class Record:
    """What all have in common. `time`: seconds since 1970. `seq` counts the records of one broker: a gap is a loss."""

    event: str = field(init=False, default="")
    seq: int = field(init=False, default=0)
    time: float = field(init=False, default=0.0)
    caller: Caller

    def to_json(self) -> dict[str, Any]:
        """The line as a value, its texts as they came: what is empty is left out."""
        line: dict[str, Any] = {"seq": self.seq, "time": moment_text(self.time), "event": self.event}
        names, values = _own_names(type(self))
        line.update({name: value for name, value in zip(_WHO, _who(self.caller), strict=True) if value})
        line.update({name: value for name, value in zip(names, values(self), strict=True) if value})
        line.update(self._more())
        return line

    def _more(self) -> Mapping[str, Any]:
        """What is not a field of its own."""
        return _NOTHING


_COMMON: Final = frozenset({"event", "seq", "time", "caller", "mark"})
_NOTHING: Final[Mapping[str, Any]] = {}


_WHO: Final = ("principal", "organization", "team", "key")
_who: Final[Callable[[Caller], tuple[str, ...]]] = attrgetter(*_WHO)


@lru_cache
def _own_names(kind: type[Record]) -> tuple[tuple[str, ...], Callable[[Record], tuple[Any, ...]]]:
    """The fields of a kind of record, and what reads them all at once: a line is made of every call."""
    names = tuple(one.name for one in fields(kind) if one.name not in _COMMON)
    return names, attrgetter(*names)


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

    def _more(self) -> Mapping[str, Any]:
        return {"hash": self.mark.hash, "size": len(self.mark.names)}


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
    """One whole line. Most are harmless as they are, which is seen at a glance; of the others each text is made so."""
    value = record.to_json()
    try:
        line = wire.encode(value)
    except wire.Malformed:  # a text that is no Unicode
        line = b"@"
    if len(line) <= MAX_FIELD and line.isascii() and not any(one in line for one in _SUSPECT):
        return line + b"\n"
    harmless = {name: _text(one) if isinstance(one, str) else one for name, one in value.items()}
    return wire.encode(harmless) + b"\n"


def view_line(mark: Mark) -> bytes:
    """What the hash of a view stands for: once in every file that names it."""
    names = [_text(name) for name in mark.names]
    line: dict[str, Any] = {"event": "view", "hash": mark.hash, "names": names}
    if mark.public:
        line["public"] = {_text(full): _text(public) for full, public in mark.public.items()}
    return wire.encode(line) + b"\n"


def gap_line(lost: int, time: float) -> bytes:
    """Records are missing here."""
    return wire.encode({"time": moment_text(time), "event": "gap", "lost": lost}) + b"\n"


def moment_text(seconds: float) -> str:
    """A time as records have it: UTC, to the microsecond."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1_000_000):06}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    """Made once for all records of a second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _text(text: str) -> str:
    """A field: printable, without credentials, 1 KiB at most."""
    if "@" in text:
        text = _CREDENTIALS.sub("***@", text)
    if len(text) <= MAX_FIELD and text.isascii() and text.isprintable():
        return text
    shown = escaped(text, MAX_FIELD).encode("utf-8", "backslashreplace")
    return shown[:MAX_FIELD].decode("utf-8", "ignore")
