"""What a guardrail has decided, as a value; and how it is read out of what its process says.

A process that runs other people's code may say anything. So there are three answers that let something pass or name a
reason, read strictly, and everything else is a `Fault`, which denies (promise (e)).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.core.shape import is_array, is_object
from broker.guardrails.source import Flaw

MAX_REASON: Final = 1024
"""Characters of a reason that are kept; it goes to the log, never to a caller."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Go on with what there is."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Go on with this in its place."""

    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reject:
    """It ends here."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fault:
    """No decision came, or none that can be read: it ends here too.

    `why` quotes nothing that was judged. `detail` may (an exception's text): it is for the test command alone.
    """

    why: str
    detail: str = ""
    line: int = 0
    """Of the guardrail's text, 0 if none is known."""


Verdict = Pass | Rewrite | Reject | Fault
PASS: Final = Pass()


def read_verdict(answer: Mapping[str, Any], member: str) -> Verdict:
    """The verdict in the answer to a run. `member` names what a rewrite carries in this phase (`args`, `result`, ...).

    Spec of an answer: `{"ok": {"action": "allow" | "block" | "modify", "reason"?: text, <member>?: object}}`: a reason
    with `block` (and, unused, with `allow`), the member with `modify` and nowhere else; nothing besides.
    """
    if set(answer) == {"error"}:
        return read_error(answer["error"])
    said = answer["ok"] if set(answer) == {"ok"} else None
    if not is_object(said):
        return Fault("it returned no object with an action")
    reason = said.get("reason")
    if not (reason is None or isinstance(reason, str)):
        return Fault("it returned a reason that is no text")
    match said.get("action"):
        case "allow" if said.keys() <= {"action", "reason"}:
            return PASS
        case "block" if said.keys() <= {"action", "reason"}:
            return Reject((reason or "")[:MAX_REASON])
        case "modify" if said.keys() <= {"action", "reason", member} and is_object(said.get(member)):
            return Rewrite(said[member])
        case "allow" | "block" | "modify" as action:
            return Fault(f"it returned {action} with something else than {_expected(action, member)}")
        case _:
            return Fault("it returned no action of allow, block, modify")


def _expected(action: str, member: str) -> str:
    return f"a {member} object" if action == "modify" else "a reason"


def read_error(error: object) -> Fault:
    """An exception that a guardrail did not catch."""
    if not is_object(error):
        return Fault("its process answered nonsense")
    kind, line, text = error.get("kind"), error.get("line"), error.get("text")
    if not isinstance(kind, str) or not kind.isidentifier() or type(line) is not int or not isinstance(text, str):
        return Fault("its process answered nonsense")
    where = f" in line {line}" if line else ""
    return Fault(f"{kind[:64]}{where}", text, line)


def read_flaws(answer: Mapping[str, Any]) -> Sequence[Flaw] | None:
    """What the answer to a compilation finds wrong: nothing, some flaws, or None for an answer that is none."""
    if answer == {"ok": None}:
        return ()
    flaws = answer.get("flaws")
    if set(answer) != {"flaws"} or not is_array(flaws) or not flaws:
        return None
    found: list[Flaw] = []
    for flaw in flaws:
        match flaw:
            case [int(line), str(message)] if type(line) is int:
                found.append(Flaw(line, message))
            case _:
                return None
    return found
