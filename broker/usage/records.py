"""What the audit says: values with allow-listed fields, and the one line of JSON that each becomes.

A field that is not named here is not recorded. Every text is chosen by somebody, so control characters are escaped and
no field is longer than 1 KiB (F-81, I-45); what a URI holds as user name and password is left out.
"""

import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal, Self

from broker.core import wire
from broker.core.caller import Caller
from broker.guardrails.chain import GuardrailRecord
from broker.logs import escaped
from broker.usage.revision import NO_REVISION, Revision

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

_CREDENTIALS: Final = re.compile(r"(?<=//)[^/?#\s]*@")
_AT, _BACKSLASH, _DELETE = b"@\\\x7f"
_WHO: Final = ("principal", "organization", "team", "key")
_WHAT: Final = (*("front", "era", "method", "view", "public", "own", "kind", "server", "rule", "guardrails", "policy"),)
_COMMON: Final = frozenset({"seq", "time", "made", "caller", "mark", "policy"})
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass
class Record:
    """What all have in common. `time`: seconds since 1970. `seq` counts the records of one broker: a gap is a loss."""

    event: ClassVar[str]
    seq: int = field(init=False, default=0)
    time: float = field(init=False, default=0.0)
    made: bytes = field(init=False, default=b"", compare=False)
    """Its line, if that was made before the thread that writes has come to it."""
    caller: Caller

    def line(self, *, in_haste: bool = False) -> bytes:
        """One whole line: what is empty is left out. In haste none, unless that takes a few microseconds only."""
        if in_haste:
            return b""
        found: dict[str, Any] = {"seq": self.seq, "time": moment_text(self.time), "event": self.event}
        found |= {name: getattr(self.caller, name) for name in _WHO}
        found |= {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _COMMON}
        return _harmless({**{name: one for name, one in found.items() if one}, **self._more()}) + b"\n"

    def _more(self) -> Mapping[str, Any]:
        """What is not a field of its own, or not as it is written."""
        return _NOTHING


@dataclass(init=False)
class CallRecord(Record):
    """A decision on a request that names an entry, and what became of it: a `LineTrail` fills it in as it goes.

    Every request makes one, so only what it has is set, and what a line shares with others is not encoded anew.
    """

    event: ClassVar[str] = "call"
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
    error: str = ""
    """The id of a fault of the broker, as its caller was told it."""
    policy: Revision = NO_REVISION
    guardrails: str = ""
    arguments: Mapping[str, Any] | None = None
    results: Mapping[str, Any] | None = None
    judgements: list[GuardrailRecord] | None = None
    """Of guardrails, in their order."""
    more_judgements: int = 0
    """Others that are only counted."""

    def line(self, *, in_haste: bool = False) -> bytes:
        """See `Record`. In haste not if it has anything rare or long, or a policy whose hash is not made yet."""
        who, policy, has_rare = self.caller, self.policy, not _RARE.isdisjoint(vars(self))
        # The parts that it shares with others are kept. Names and methods may be anybody's: what is long is not.
        size = len(self.method) + len(self.public) + len(self.own) + len(self.rule)
        is_short = size <= MAX_FIELD and len(who.principal) <= MAX_FIELD
        if in_haste and (has_rare or not is_short or "text" not in vars(policy)):
            return b""
        line = f'{{"seq":{self.seq},"time":"{moment_text(self.time)}","event":"call","outcome":"{self.outcome}"'
        if self.request_bytes:
            line += f',"request_bytes":{self.request_bytes}'
        if self.result_bytes:
            line += f',"result_bytes":{self.result_bytes}'
        if self.ms:
            line += f',"ms":{self.ms:.3f}'
        if self.trace:  # hexadecimal digits
            line += f',"trace":"{self.trace}"'
        rare = _part(self._rare()) if has_rare else b""
        who_part, what_part = (_who, _what) if is_short else (_who.__wrapped__, _what.__wrapped__)
        what = what_part(
            *(self.front, self.era, self.method, self.view, self.public, self.own, self.kind, self.server),
            *(self.rule, self.guardrails, policy.text),
        )
        return b"".join(
            (line.encode(), rare, who_part(who.principal, who.organization, who.team, who.key), what, b"}\n")
        )

    def _rare(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("call", "code", "error", "arguments", "results")}
        if self.judgements is not None:
            found["judgements"] = [_judgement(one) for one in self.judgements]
        return found | {"more_judgements": self.more_judgements}

    def decision(self, ms: float) -> Self:
        """What is known of it before the call, so long after it was asked for, as a record of its own."""
        record = copy(self)
        record.outcome, record.ms, record.judgements = "permitted", ms, None
        return record


_RARE: Final = frozenset({"call", "code", "error", "arguments", "results", "judgements", "more_judgements"})
"""What most records of calls have not."""


@lru_cache(maxsize=2048)
def _who(*values: str) -> bytes:
    """The part of a line that says who it was."""
    return _part(dict(zip(_WHO, values, strict=True)))


@lru_cache(maxsize=2048)
def _what(*values: str) -> bytes:
    """The part of a line that says what it was, and by which rules."""
    return _part(dict(zip(_WHAT, values, strict=True)))


@dataclass(slots=True)
class Mark:
    """What a view holds: its hash, and the full names, sorted. Two callers with one mark were shown the same."""

    hash: str
    names: tuple[str, ...]
    public: Mapping[str, str]
    """Full name -> public name, where they differ."""


@dataclass
class DiscoveryRecord(Record):
    """A caller was shown a view."""

    event: ClassVar[str] = "discovery"
    front: str
    era: str
    method: str
    mark: Mark
    view: str = ""
    policy: Revision = NO_REVISION
    trace: str = ""

    @classmethod
    def of(cls, asked: CallRecord, mark: Mark) -> "DiscoveryRecord":
        """Of a request that showed a view."""
        return cls(asked.caller, asked.front, asked.era, asked.method, mark, asked.view, asked.policy, asked.trace)

    def _more(self) -> Mapping[str, Any]:
        return {"hash": self.mark.hash, "size": len(self.mark.names), "policy": self.policy.text}


@dataclass
class JudgementRecord(Record):
    """What a guardrail has said of something that is part of no call: a definition, or a question outside of any."""

    event: ClassVar[str] = "guardrail"
    server: str
    kind: str
    name: str
    """The full one, or the server's where nothing of it is meant."""
    guardrail: str
    phase: str
    verdict: str
    reason: str
    ms: float

    @classmethod
    def of(cls, one: GuardrailRecord, caller: Caller) -> "JudgementRecord":
        """`caller`: of whom it was."""
        ms = round(one.seconds * 1000, 3)
        return cls(caller, one.server, one.kind, one.name, one.guardrail, one.phase, one.action, one.reason, ms)


@dataclass
class AdminRecord(Record):
    """A change of who may do what, or a refusal of one."""

    event: ClassVar[str] = "admin"
    action: str
    target: str
    outcome: str
    why: str = ""


@dataclass
class AuthRecord(Record):
    """Somebody was not admitted. `more`: others since the last record that were not recorded one by one."""

    event: ClassVar[str] = "auth"
    peer: str
    code: int
    reason: str
    more: int = 0


def _harmless(value: dict[str, Any]) -> bytes:
    """An object in JSON. Most are harmless, which is seen at a glance; of the others each text is made so."""
    try:
        line = wire.encode(value)
    except wire.Malformed:  # a text that is no Unicode
        line = b"@"
    if len(line) <= MAX_FIELD and line.isascii() and not _is_suspect(line):
        return line
    return wire.encode({name: _text(one) if isinstance(one, str) else one for name, one in value.items()})


def _part(value: Mapping[str, Any]) -> bytes:
    """`,"a":1,"b":2`: a part of a line, of what is not empty."""
    found = {name: one for name, one in value.items() if one}
    return b"," + _harmless(found)[1:-1] if found else b""


def _is_suspect(line: bytes) -> bool:
    """Whether something in it had to be escaped, or should be, or may be credentials of a URI."""
    return _AT in line or _BACKSLASH in line or _DELETE in line  # numbers: for bytes Python makes an error first


def _judgement(one: GuardrailRecord) -> dict[str, Any]:
    """As it stands in the record of a call."""
    found = {"guardrail": one.guardrail, "phase": one.phase.value, "verdict": one.action, "reason": _text(one.reason)}
    return {name: text for name, text in found.items() if text} | {"ms": round(one.seconds * 1000, 3)}


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
