"""What an upstream may ask in the middle of a call, and of whom: elicitation, sampling, roots.

A question belongs to the caller of the call it came with, and may use no more than that caller declared. Everything
here is about one question; who carries it is `relay/backchannel.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker.core.shape import is_array, is_object

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

CAPABILITY: Final[Mapping[str, str]] = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}
"""Method of a question -> the client capability without which nobody may ask it."""
ASKABLE: Final = frozenset(CAPABILITY.values())
"""Client capabilities without any of which there is nothing to ask."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its method, and its parameters as the upstream wrote them."""

    method: str
    params: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Unanswerable:
    """Why a caller cannot be asked, as a JSON-RPC error for the upstream."""

    code: int
    message: str


def unanswerable(question: Question, capabilities: Mapping[str, Any]) -> Unanswerable | None:
    """Whether a caller with these capabilities cannot be asked, first failure wins:

    1. the method is a question at all, and the caller declared its capability: else -32601;
    2. an elicitation uses a mode that it declared (no mode is `form`; an empty capability is `form` only): else -32602;
    3. a sampling request with tools goes to a caller that can use them: else -32602.

    Spec: 2025-11-25 client/elicitation, "Capabilities"; client/sampling, "Capabilities".
    """
    declared = capabilities.get(CAPABILITY[question.method]) if question.method in CAPABILITY else None
    if not is_object(declared):
        return Unanswerable(METHOD_NOT_FOUND, f"Method not found: the caller does not offer {question.method}")
    if question.method == "elicitation/create":
        mode = question.params.get("mode", "form")
        if not isinstance(mode, str) or mode not in elicitation_modes(declared):
            return Unanswerable(INVALID_PARAMS, "the caller does not offer this elicitation mode")
    if question.method == "sampling/createMessage" and _uses_tools(question) and not is_object(declared.get("tools")):
        return Unanswerable(INVALID_PARAMS, "the caller does not offer tools in sampling")
    return None


def _uses_tools(question: Question) -> bool:
    return any(question.params.get(name) is not None for name in ("tools", "toolChoice"))


def elicitation_modes(declared: Mapping[str, Any]) -> frozenset[str]:
    """The modes of an `elicitation` capability: an empty one means `form` only."""
    modes = frozenset(mode for mode in ("form", "url") if is_object(declared.get(mode)))
    return modes or frozenset({"form"})


def labelled(question: Question, server: str) -> Question:
    """The question with the server that asks named in front, where a person reads it (SP-64)."""
    message = question.params.get("message")
    if question.method != "elicitation/create" or not isinstance(message, str):
        return question
    return Question(question.method, {**question.params, "message": f"[{server}] {message}"})


def questions_of(result: Mapping[str, Any]) -> dict[str, Question] | None:
    """The questions of an `input_required` result by their keys, or None if it is malformed.

    Spec: 2026-07-28 basic/patterns/mrtr: values "MUST be one of ElicitRequest, CreateMessageRequest, ListRootsRequest";
    at least one of `inputRequests` or `requestState` is there.
    """
    requests, state = result.get("inputRequests"), result.get("requestState")
    if state is not None and not isinstance(state, str):
        return None
    if requests is None:
        return None if state is None else {}
    if not is_object(requests):
        return None
    questions: dict[str, Question] = {}
    for key, request in requests.items():
        if not is_object(request):
            return None
        method, params = request.get("method"), request.get("params", {})
        if not isinstance(method, str) or method not in CAPABILITY or not is_object(params):
            return None
        questions[key] = Question(method, params)
    return questions


def requests_of(questions: Mapping[str, Question]) -> dict[str, Any]:
    """`inputRequests` of questions."""
    return {
        key: {"method": question.method, **({"params": question.params} if question.params else {})}
        for key, question in questions.items()
    }


def url_questions(data: object) -> dict[str, Question]:
    """The URL questions that a -32042 error carries (2025-11-25), by made-up keys; empty if it carries none.

    Spec: 2025-11-25 client/elicitation, "URL Elicitation Required Error".
    """
    elicitations = data.get("elicitations") if is_object(data) else None
    if not is_array(elicitations):
        return {}
    asked = [one for one in elicitations if is_object(one) and one.get("mode") == "url"]
    return {f"url{number}": Question("elicitation/create", one) for number, one in enumerate(asked, 1)}
