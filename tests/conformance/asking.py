"""The tools of the reference server that ask the caller something before they answer."""

from collections.abc import Mapping
from typing import Any

import mcp_types as types

from tests.conformance.questions import Context, answered, ask, can_answer, form, roots, sample, schema_form
from tests.conformance.tools import Body, Reference, Result, define, text

_STATE = "reference"
"""The content of states. The boundary of the SDK seals it, and refuses what comes back changed."""

DEFAULTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
    "required": [],
}
_TITLED = [{"const": f"value{n}", "title": f"Title {n}"} for n in (1, 2, 3)]
_PLAIN = [f"option{n}" for n in (1, 2, 3)]
ENUMS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": _PLAIN},
        "titledSingle": {"type": "string", "oneOf": _TITLED},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option 1", "Option 2"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _PLAIN}},
        "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
    },
    "required": [],
}


def asks(state: str | None = None, **questions: types.InputRequest) -> Body:
    """A tool that asks fixed questions, and answers with the answers."""

    async def body(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
        return await _tell(ctx, params, questions, state)

    return body


async def _tell(
    ctx: Context, params: types.CallToolRequestParams, questions: Mapping[str, types.InputRequest], state: str | None
) -> Result:
    answers = await ask(ctx, params, questions, state)
    if not isinstance(answers, dict):
        return answers
    return text(f"{answered(answers)}{', with its state' if params.request_state else ''}")


async def sampling(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    prompt = str((params.arguments or {}).get("prompt", ""))
    return await _tell(ctx, params, {"answer": sample(prompt)}, None)


async def elicitation(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    message = str((params.arguments or {}).get("message", ""))
    return await _tell(ctx, params, {"user": form(message, username="string", email="string")}, None)


async def multi_round(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    """Two questions one after the other; the state says which one was the last."""
    if params.request_state != "second":
        answers = await ask(ctx, params, {"step1": form("Step 1: what is your name?", name="string")}, "first")
        if not isinstance(answers, dict):
            return answers
        # The second question is a new one: answers to the first one do not belong to it.
        params = params.model_copy(update={"input_responses": None})
    return await _tell(ctx, params, {"step2": form("Step 2: which colour?", color="string")}, "second")


async def by_capability(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    """Asks only what the caller can answer."""
    questions = {
        "name": form("What is your name?", name="string"),
        "word": sample("Say a word."),
        "client_roots": roots(),
    }
    return await _tell(ctx, params, {key: each for key, each in questions.items() if can_answer(ctx, each)}, None)


_NAME = form("What is your name?", name="string")
_CONFIRM = form("Do you confirm?", ok="boolean")
_WORDS = {"type": "string", "description": "What to ask."}
_PREFIX = "test_input_required_result_"

ASKING: list[tuple[types.Tool, Body]] = [
    (define("test_sampling", "Samples.", prompt=_WORDS), sampling),
    (define("test_elicitation", "Elicits.", message=_WORDS), elicitation),
    (define("test_elicitation_sep1034_defaults", "Has defaults."), asks(form=schema_form("Fill in.", DEFAULTS))),
    (define("test_elicitation_sep1330_enums", "All kinds of choices."), asks(form=schema_form("Choose.", ENUMS))),
    (define("test_streaming_elicitation", "Elicits on a stream."), asks(user_name=_NAME)),
    (define(_PREFIX + "elicitation", "One form."), asks(user_name=_NAME)),
    (define(_PREFIX + "sampling", "One sample."), asks(capital_question=sample("What is the capital of France?"))),
    (define(_PREFIX + "list_roots", "The roots."), asks(client_roots=roots())),
    (define(_PREFIX + "request_state", "A form and a state."), asks(_STATE, confirm=_CONFIRM)),
    (define(_PREFIX + "tampered_state", "A state that must come back unchanged."), asks(_STATE, confirm=_CONFIRM)),
    (
        define(_PREFIX + "multiple_inputs", "Three questions at once."),
        asks(_STATE, user_name=_NAME, greeting=sample("Greet somebody.", 50), client_roots=roots()),
    ),
    (define(_PREFIX + "multi_round", "Two questions, one after the other."), multi_round),
    (define(_PREFIX + "capabilities", "Asks what the caller can answer."), by_capability),
]
