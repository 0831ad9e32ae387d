"""How a caller is told that it may not have what it names."""

from typing import Any, Final

from broker.core.era import is_modern, result_for_caller
from broker.core.policy import Denied
from broker.core.request import NAMED, Kind, Request
from broker.errors import INVALID_PARAMS, RESOURCE_NOT_FOUND, BrokerError, Refused, UnknownName, UnknownResource
from broker.relay.served import Served

_WORD: Final = {
    Kind.TOOL: "tool",
    Kind.PROMPT: "prompt",
    Kind.RESOURCE: "resource",
    Kind.TEMPLATE: "resource",
}


def unknown(kind: Kind, public: str, request: Request) -> BrokerError:
    """The answer for what does not exist and for what is hidden. A read has a code of its own, and one for each era."""
    if kind is not Kind.RESOURCE or request.method not in NAMED:
        return UnknownName(_WORD[kind], public)
    return UnknownResource(public, INVALID_PARAMS if is_modern(request.version) else RESOURCE_NOT_FOUND)


def refused(public: str, decision: Denied) -> Refused:
    """The answer for a call of a visible tool."""
    return Refused(public, decision.argument, decision.rule)


async def told(result: dict[str, Any]) -> dict[str, Any]:
    """A result that is there already, for who awaits it."""
    return result


def as_result(refusal: BrokerError, request: Request, now: Served) -> dict[str, Any]:
    """A refused call, for the model that made it: it may make another one."""
    result = {"content": [{"type": "text", "text": refusal.message}], "isError": True}
    return result_for_caller(request.method, result, upstream=request.version, caller=request.version, server=now.me)
