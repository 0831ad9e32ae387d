"""Which guardrails judge what, in which order; and what one judgement leaves behind for log and audit."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from broker.core.caller import Caller
from broker.core.grants import full_name
from broker.core.match import Pattern
from broker.core.request import Kind
from broker.errors import printable
from broker.guardrails.source import Source

log = logging.getLogger(__name__)

MAX_KEPT: Final = 4096
"""Chains that are remembered; then all are found anew, so that strangers cannot fill the memory."""
INSTRUCTIONS: Final = "instructions"
"""The kind of a server's instructions, which are judged with its definitions."""


class Phase(StrEnum):
    """When a guardrail judges; the values are the words of the configuration and of `ctx["phase"]`."""

    REQUEST = "request"
    RESULT = "result"
    DEFINITION = "definition"
    QUESTION = "question"


MEMBER: Final[Mapping[Phase, str]] = {
    Phase.REQUEST: "args",
    Phase.RESULT: "result",
    Phase.DEFINITION: "definition",
    Phase.QUESTION: "question",
}
"""What of `ctx` is judged in a phase, and what a rewrite carries."""

OF_CALLS: Final = (Phase.REQUEST, Phase.RESULT, Phase.QUESTION)
"""The phases of a call."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is judged, beside its value: an entry of a server, the method that is used on it, and who uses it.

    kind: `tools`, `prompts`, `resources`, `templates`, `instructions`; "" for what belongs to no entry (a question
    outside of any call, a method of an extension). own: the name that its server gives it, "" for the last two.
    caller: None for definitions, which are judged before anybody asks.
    """

    server: str
    kind: str
    own: str
    method: str = ""
    caller: Caller | None = None

    @property
    def name(self) -> str:
        """In full, and before any prefix or shortening: what rules match too."""
        if self.kind in ("", INSTRUCTIONS):
            return self.server
        return full_name(Kind(self.kind), self.server, self.own)

    def context(self, phase: Phase, value: Any) -> dict[str, Any]:
        """The `ctx` of a guardrail."""
        context: dict[str, Any] = {
            "phase": phase.value,
            "server": self.server,
            "kind": self.kind,
            "name": self.name,
            MEMBER[phase]: value,
        }
        if self.method:
            context["method"] = self.method
        if self.kind == "tools":
            context["tool"] = self.name
        if self.caller is not None:
            who = self.caller
            context["caller"] = {
                "principal": who.principal,
                "organization": who.organization,
                "team": who.team,
                "key": who.key,
            }
        return context


@dataclass(frozen=True, slots=True)
class Selector:
    """Whom and what a guardrail is for. None: everything. All that is given must fit."""

    servers: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    names: tuple[Pattern, ...] | None = None
    organizations: tuple[Pattern, ...] | None = None
    teams: tuple[Pattern, ...] | None = None
    keys: tuple[Pattern, ...] | None = None

    def fits(self, subject: Subject) -> bool:
        """Whether a subject is meant. A definition has no caller: it is meant whoever a guardrail is for; and what has
        no entry is meant whatever entries it is for, so that it is no way around.
        """
        if self.servers is not None and subject.server not in self.servers:
            return False
        if subject.kind and not self._fits_entry(subject):
            return False
        caller = subject.caller
        if caller is None:
            return True
        place = f"{caller.organization}/{caller.team}"
        return (
            _fits(self.organizations, caller.organization)
            and _fits(self.teams, place)
            and (_fits(self.keys, caller.key) or _fits(self.keys, f"{place}/{caller.key}"))
        )

    def _fits_entry(self, subject: Subject) -> bool:
        return (self.kinds is None or subject.kind in self.kinds) and _fits(self.names, subject.name)


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One configured check. `source.sha256` names the text that decides; it is fixed for a whole generation (F-102)."""

    source: Source
    phases: frozenset[Phase]
    selector: Selector

    @property
    def name(self) -> str:
        """Of the configuration."""
        return self.source.name


class Chains:
    """The guardrails of a configuration in its order, and which of them judge what."""

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        self.guardrails = tuple(guardrails)
        self._kept: dict[tuple[object, ...], tuple[Guardrail, ...]] = {}
        self._judging: dict[tuple[object, ...], bool] = {}

    def of(self, phase: Phase, subject: Subject) -> tuple[Guardrail, ...]:
        """Those that judge a subject in a phase, in order."""
        caller = subject.caller
        who = None if caller is None else (caller.organization, caller.team, caller.key)
        key = (phase, subject.server, subject.kind, subject.own, who)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            found = self._kept[key] = tuple(
                one for one in self.guardrails if phase in one.phases and one.selector.fits(subject)
            )
        return found

    def judge_calls(self, server: str, kind: str, own: str, caller: Caller) -> bool:
        """Whether any of them judges anything of a call; of an entry, or of what belongs to none (`Subject`)."""
        key = (server, kind, own, caller.organization, caller.team, caller.key)
        found = self._judging.get(key)
        if found is None:
            if len(self._judging) >= MAX_KEPT:
                self._judging.clear()
            subject = Subject(server, kind, own, caller=caller)
            found = self._judging[key] = any(self.of(phase, subject) for phase in OF_CALLS)
        return found


@dataclass(frozen=True, slots=True)
class GuardrailRecord:
    """One judgement. caller: None for definitions. action: `pass`, `rewrite`, `reject` or `fault`. reason: of the
    guardrail, or what went wrong; nothing that was judged. seconds: how long it took.
    """

    guardrail: str
    sha256: str
    phase: Phase
    server: str
    kind: str
    name: str
    caller: Caller | None
    action: str
    reason: str
    seconds: float


Record = Callable[[GuardrailRecord], None]
"""Takes a record: the log, and the audit. Must neither block nor raise."""


def record_nothing(record: GuardrailRecord) -> None:
    """For who has no audit."""


_LEVELS: Final = {"pass": logging.DEBUG, "rewrite": logging.INFO}


def log_record(record: GuardrailRecord) -> None:
    """A record as a line of the log."""
    level = _LEVELS.get(record.action, logging.WARNING)
    if log.isEnabledFor(level):
        log.log(
            level,
            "guardrail %s (%.8s): %s: %s of %s for %s in %.1f ms%s",
            *(record.guardrail, record.sha256, record.action, record.phase, printable(record.name)),
            *(printable(record.caller.principal if record.caller else "nobody yet"), record.seconds * 1000),
            f": {printable(record.reason, 1024)}" if record.reason else "",
        )


def _fits(patterns: tuple[Pattern, ...] | None, text: str) -> bool:
    return patterns is None or any(pattern.matches(text) for pattern in patterns)
