"""What is judged of a request, a result, an error; and what shape a rewritten value must have.

A rewrite may change what is said, never what is done: not the method, not the entry, not the kind of answer.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from broker.core import wire
from broker.core.shape import is_array, is_object
from broker.errors import UpstreamAnsweredError
from broker.guardrails.chain import INSTRUCTIONS, Phase, Subject

COMPLETE: Final = "completion/complete"
READ: Final = "resources/read"
_COMPLETION_ARGS: Final = ("argument", "context")


def args_of(subject: Subject, params: Mapping[str, Any]) -> Any:
    """What a caller asks with: the arguments; of a read, its own URI; of a completion, what is completed; of a method
    of an extension, all parameters.
    """
    if not subject.kind:
        return {name: value for name, value in params.items() if name != "_meta"}
    if subject.method == READ:
        return {"uri": subject.own}
    if subject.method == COMPLETE:
        return {name: params[name] for name in _COMPLETION_ARGS if name in params}
    return params.get("arguments", {})


def with_args(params: Mapping[str, Any], args: dict[str, Any]) -> dict[str, Any]:
    """The parameters with rewritten args, of which `shape_fault` has found nothing wrong."""
    if "ref" in params:
        return {**{name: value for name, value in params.items() if name not in _COMPLETION_ARGS}, **args}
    return {**params, "arguments": args}


def is_task(result: Mapping[str, Any]) -> bool:
    """Whether a result is that a task was made, and nothing else: one with more in it is judged like any result."""
    if result.get("resultType") == "task":
        return "content" not in result and "structuredContent" not in result
    return is_object(result.get("task")) and set(result) <= {"task", "_meta", "resultType"}


def shape_fault(phase: Phase, subject: Subject, before: Any, after: dict[str, Any]) -> str | None:
    """Why a rewritten value may not take the place of the judged one, or None."""
    match phase:
        case Phase.REQUEST:
            return _request_fault(subject, before, after)
        case Phase.RESULT:
            return _result_fault(subject, before, after)
        case Phase.DEFINITION:
            return _definition_fault(subject, before, after)
        case Phase.QUESTION:
            was = before.get("method") if is_object(before) else None
            is_same = after.get("method") == was and set(after) == {"method", "params"}
            return None if is_same and is_object(after["params"]) else "it returned another question"


def _request_fault(subject: Subject, before: Any, after: dict[str, Any]) -> str | None:
    if not subject.kind:
        return None if after == before else "it changed the parameters of an extension, which cannot be rewritten"
    if subject.method == READ:
        return None if after == before else "it returned another URI: what is read cannot be rewritten"
    if subject.method == COMPLETE and (not set(after) <= set(_COMPLETION_ARGS) or not is_object(after.get("argument"))):
        return "it returned no argument to complete"
    return None


def _result_fault(subject: Subject, before: Any, after: dict[str, Any]) -> str | None:
    before = before if is_object(before) else {}
    if after.get("resultType") != before.get("resultType"):
        return "it returned another type of result"
    member, is_sound = _RESULTS.get(subject.method, ("", is_object))
    if member in before and not is_sound(after.get(member)):
        return f"it returned a result without sound {member}"
    return None


def _definition_fault(subject: Subject, before: Any, after: dict[str, Any]) -> str | None:
    if subject.kind == INSTRUCTIONS:
        is_text = set(after) == {"instructions"} and isinstance(after["instructions"], str)
        return None if is_text else "it returned instructions that are no text"
    before = before if is_object(before) else {}
    for name in ("name", "uri", "uriTemplate"):
        if after.get(name) != before.get(name):
            return f"it returned another {name}: who asks for it must reach what was judged"
    if subject.kind == "tools" and not is_object(after.get("inputSchema")):
        return "it returned a tool without inputSchema"
    return None


def _blocks(value: object) -> bool:
    return is_array(value) and all(is_object(one) and isinstance(one.get("type"), str) for one in value)


def _messages(value: object) -> bool:
    return is_array(value) and all(is_object(one) and isinstance(one.get("role"), str) for one in value)


def _contents(value: object) -> bool:
    return is_array(value) and all(is_object(one) and isinstance(one.get("uri"), str) for one in value)


def _completion(value: object) -> bool:
    return is_object(value) and is_array(value.get("values"))


_RESULTS: Final[Mapping[str, tuple[str, Callable[[object], bool]]]] = {
    "tools/call": ("content", _blocks),
    "prompts/get": ("messages", _messages),
    READ: ("contents", _contents),
    COMPLETE: ("completion", _completion),
}
"""Method -> the member of its result that hosts cannot do without, and whether a value can be it."""


def as_result(subject: Subject, error: UpstreamAnsweredError) -> dict[str, Any]:
    """An upstream's error as the result that would have said the same: what it says is its message, then its data."""
    texts = [error.message]
    if error.data is not None:
        texts.append(wire.encode(error.data).decode())
    blocks = [{"type": "text", "text": text} for text in texts]
    match subject.method:
        case "prompts/get":
            return {"messages": [{"role": "user", "content": block} for block in blocks], "isError": True}
        case "resources/read":
            return {"contents": [{"uri": subject.own, "text": text} for text in texts], "isError": True}
        case "completion/complete":
            return {"completion": {"values": texts}, "isError": True}
        case _:
            return {"content": blocks, "isError": True}


def as_error(subject: Subject, error: UpstreamAnsweredError, judged: Mapping[str, Any]) -> UpstreamAnsweredError:
    """The error with what a guardrail has made of its message. Its data is left out: the words in it were changed."""
    member, _ = _RESULTS.get(subject.method, ("content", _blocks))
    said = judged.get(member)
    first: Any = (said.get("values") if is_object(said) else said) or [""]
    one = first[0] if is_array(first) else ""
    if is_object(one):
        inner = one.get("content", one)
        one = inner.get("text") if is_object(inner) else ""
    return UpstreamAnsweredError(one if isinstance(one, str) else "", None, code=error.code)
