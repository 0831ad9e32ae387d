"""Questions to the caller in the middle of a request, in the way of whichever era the caller speaks.

A legacy caller is asked on the stream of the request itself; a modern one gets `input_required`, and comes again.
"""

from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

Context = ServerRequestContext
Answers = dict[str, types.InputResponse]
Asked = types.CallToolRequestParams | types.GetPromptRequestParams

_NEEDS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
_ANSWERS: dict[str, type[Any]] = {
    "elicitation/create": types.ElicitResult,
    "sampling/createMessage": types.CreateMessageResult,
    "roots/list": types.ListRootsResult,
}


def form(message: str, **fields: str) -> types.ElicitRequest:
    """Ask for fields, all required; each is given by its JSON type."""
    properties = {name: {"type": kind} for name, kind in fields.items()}
    return schema_form(message, {"type": "object", "properties": properties, "required": list(fields)})


def schema_form(message: str, schema: dict[str, Any]) -> types.ElicitRequest:
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(prompt: str, max_tokens: int = 100) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=prompt))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    )


def roots() -> types.ListRootsRequest:
    return types.ListRootsRequest()


def is_modern(ctx: Context) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def can_answer(ctx: Context, question: types.InputRequest) -> bool:
    """Whether the caller declared what the question needs."""
    declared = ctx.session.client_capabilities
    return declared is not None and getattr(declared, _NEEDS[question.method]) is not None


def missing_capability(*names: str) -> MCPError:
    required = {name: {} for name in names}
    return MCPError(
        code=types.MISSING_REQUIRED_CLIENT_CAPABILITY,
        message=f"The caller must declare: {', '.join(names)}",
        data={"requiredCapabilities": required},
    )


async def ask(
    ctx: Context, params: Asked, questions: Mapping[str, types.InputRequest], state: str | None = None
) -> Answers | types.InputRequiredResult:
    """All answers, or the result that asks for those that are missing.

    `state` travels with the questions to a modern caller; a legacy caller never sees it.
    Raises: MCPError, if the caller cannot be asked, or answers with an error.
    """
    lacking = [_NEEDS[question.method] for question in questions.values() if not can_answer(ctx, question)]
    if lacking:
        raise missing_capability(*dict.fromkeys(lacking))
    if not is_modern(ctx):
        return {key: await _ask_now(ctx, question) for key, question in questions.items()}
    given = params.input_responses or {}
    fitting = {key: given[key] for key, question in questions.items() if _fits(question, given.get(key))}
    if len(fitting) == len(questions):
        return fitting
    missing = {key: question for key, question in questions.items() if key not in fitting}
    return types.InputRequiredResult(input_requests=missing, request_state=state)


async def _ask_now(ctx: Context, question: types.InputRequest) -> types.InputResponse:
    related = ServerMessageMetadata(related_request_id=ctx.request_id)
    return await ctx.session.send_request(question, _ANSWERS[question.method], metadata=related)


def _fits(question: types.InputRequest, answer: types.InputResponse | None) -> bool:
    return isinstance(answer, _ANSWERS[question.method])


def answered(answers: Answers) -> str:
    """The answers as text: what a test, or a human who debugs, can see in a result."""
    return "; ".join(f"{key}: {answer.model_dump_json(exclude_none=True)}" for key, answer in answers.items())
