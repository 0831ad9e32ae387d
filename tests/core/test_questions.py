"""What may be asked of whom, and what a malformed question is taken for."""

from typing import Any

import pytest

from broker.core.era import LATEST_LEGACY, LATEST_MODERN, declared_upstream, question_for_caller
from broker.core.questions import (
    CAPABILITY,
    Question,
    Unanswerable,
    elicitation_modes,
    labelled,
    questions_of,
    requests_of,
    unanswerable,
    url_questions,
)

Json = dict[str, Any]
FORM: Json = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
URL: Json = {"mode": "url", "message": "Go there", "url": "https://example.com/"}
SAMPLE: Json = {"messages": [], "maxTokens": 5}
ALL: Json = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}

ASKED: list[tuple[str, str, Json, Json, int | None]] = [
    # id, method, params, capabilities -> code
    ("everything", "elicitation/create", FORM, ALL, None),
    ("an empty capability has forms", "elicitation/create", FORM, {"elicitation": {}}, None),
    ("an empty capability has no urls", "elicitation/create", URL, {"elicitation": {}}, -32602),
    ("a mode that is said", "elicitation/create", {**FORM, "mode": "form"}, {"elicitation": {"form": {}}}, None),
    ("forms only", "elicitation/create", URL, {"elicitation": {"form": {}}}, -32602),
    ("urls only", "elicitation/create", URL, {"elicitation": {"url": {}}}, None),
    ("urls only, asked a form", "elicitation/create", FORM, {"elicitation": {"url": {}}}, -32602),
    ("a mode that is null", "elicitation/create", {**URL, "mode": None}, ALL, -32602),
    ("a mode of tomorrow", "elicitation/create", {**URL, "mode": "voice"}, ALL, -32602),
    ("a mode that is no text", "elicitation/create", {**URL, "mode": ["url"]}, ALL, -32602),
    ("a mode that is an object", "elicitation/create", {**URL, "mode": {}}, ALL, -32602),
    ("no elicitation", "elicitation/create", FORM, {"sampling": {}, "roots": {}}, -32601),
    ("elicitation is null", "elicitation/create", FORM, {"elicitation": None}, -32601),
    ("elicitation is no object", "elicitation/create", FORM, {"elicitation": True}, -32601),
    ("sampling", "sampling/createMessage", SAMPLE, {"sampling": {}}, None),
    ("no sampling", "sampling/createMessage", SAMPLE, {"elicitation": {}}, -32601),
    ("tools in sampling", "sampling/createMessage", {**SAMPLE, "tools": [{"name": "t"}]}, ALL, None),
    ("tools without", "sampling/createMessage", {**SAMPLE, "tools": [{"name": "t"}]}, {"sampling": {}}, -32602),
    ("no tool without", "sampling/createMessage", {**SAMPLE, "tools": []}, {"sampling": {}}, -32602),
    ("tools null without", "sampling/createMessage", {**SAMPLE, "tools": None}, {"sampling": {}}, None),
    ("a tool choice without", "sampling/createMessage", {**SAMPLE, "toolChoice": {}}, {"sampling": {}}, -32602),
    ("tools are null", "sampling/createMessage", {**SAMPLE, "tools": []}, {"sampling": {"tools": None}}, -32602),
    ("roots", "roots/list", {}, {"roots": {"listChanged": True}}, None),
    ("no roots", "roots/list", {}, {}, -32601),
    ("no question at all", "tools/call", {}, {**ALL, "": {}, "tools": {}}, -32601),
    ("an empty method", "", {}, ALL, -32601),
]


@pytest.mark.parametrize(
    ("method", "params", "capabilities", "code"), [row[1:] for row in ASKED], ids=[row[0] for row in ASKED]
)
def test_SP30_a_caller_is_asked_no_more_than_it_declared(
    method: str, params: Json, capabilities: Json, code: int | None
) -> None:
    why = unanswerable(Question(method, params), capabilities)
    assert (why.code if why is not None else None) == code
    assert why is None or (isinstance(why, Unanswerable) and why.message)


@pytest.mark.parametrize("method", CAPABILITY)
def test_SP30_the_refusal_names_the_method_that_nobody_offers(method: str) -> None:
    why = unanswerable(Question(method), {})
    assert why == Unanswerable(-32601, f"Method not found: the caller does not offer {method}")


@pytest.mark.parametrize(
    ("declared", "modes"),
    [
        ({}, {"form"}),
        ({"form": {}}, {"form"}),
        ({"url": {}}, {"url"}),
        ({"form": {}, "url": {}}, {"form", "url"}),
        ({"form": None, "url": True}, {"form"}),
        ({"voice": {}}, {"form"}),
    ],
)
def test_the_modes_of_an_elicitation_capability(declared: Json, modes: set[str]) -> None:
    assert elicitation_modes(declared) == modes


@pytest.mark.parametrize("params", [FORM, URL], ids=["form", "url"])
def test_SP64_a_label_says_which_server_asks_and_changes_nothing_else(params: Json) -> None:
    before = dict(params)
    found = labelled(Question("elicitation/create", params), "one")
    assert found.params == {**params, "message": f"[one] {params['message']}"}
    assert params == before, "the upstream's own object is not touched"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sampling/createMessage", {**SAMPLE, "message": "no person reads it"}),
        ("roots/list", {}),
        ("elicitation/create", {}),
        ("elicitation/create", {"message": 5}),
        ("elicitation/create", {"message": None}),
    ],
)
def test_what_no_person_reads_gets_no_label(method: str, params: Json) -> None:
    question = Question(method, params)
    assert labelled(question, "one") is question


def ask(method: str = "elicitation/create", **more: Any) -> Json:
    return {"method": method, **more}


def test_questions_keep_their_keys_and_parameters() -> None:
    requests = {"a b": ask(params=FORM), "": ask("roots/list"), "c": ask("sampling/createMessage", params=SAMPLE)}
    questions = questions_of({"inputRequests": requests, "requestState": "s"})
    assert questions is not None
    assert list(questions.items()) == [
        ("a b", Question("elicitation/create", FORM)),
        ("", Question("roots/list")),
        ("c", Question("sampling/createMessage", SAMPLE)),
    ]
    assert requests_of(questions) == requests


@pytest.mark.parametrize(
    ("result", "is_fine"),
    [
        ({"requestState": "s"}, True),
        ({"requestState": ""}, True),
        ({"requestState": "s", "inputRequests": None}, True),
        ({"requestState": None, "inputRequests": {}}, True),
        ({}, False),
        ({"requestState": None}, False),
    ],
)
def test_a_result_may_have_a_state_and_no_question_but_not_neither(result: Json, is_fine: bool) -> None:
    assert questions_of(result) == ({} if is_fine else None)


MALFORMED: dict[str, Json] = {
    "requests are a list": {"inputRequests": [ask()]},
    "requests are text": {"inputRequests": "x", "requestState": "s"},
    "a request is text": {"inputRequests": {"a": "elicitation/create"}},
    "a request is null": {"inputRequests": {"a": None}},
    "no method": {"inputRequests": {"a": {"params": {}}}},
    "a method that is no question": {"inputRequests": {"a": ask("tools/call")}},
    "a method that is a list": {"inputRequests": {"a": {"method": []}}},
    "a method that is an object": {"inputRequests": {"a": {"method": {}}}},
    "params are a list": {"inputRequests": {"a": ask(params=[])}},
    "params are null": {"inputRequests": {"a": ask(params=None)}},
    "one of many is bad": {"inputRequests": {"a": ask(params=FORM), "b": ask("ping")}},
    "the state is a number": {"inputRequests": {"a": ask()}, "requestState": 5},
    "the state is an object": {"inputRequests": {}, "requestState": {}},
    "a state alone that is no text": {"requestState": ["s"]},
}


@pytest.mark.parametrize("result", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_question_is_none(result: Json) -> None:
    assert questions_of({"resultType": "input_required", **result}) is None


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ({"elicitations": [URL, {**URL, "url": "https://example.com/2"}]}, 2),
        ({"elicitations": [{**URL, "mode": "form"}, "x", None, URL]}, 1),
        ({"elicitations": []}, 0),
        ({"elicitations": {"a": URL}}, 0),
        ({}, 0),
        (None, 0),
        ([URL], 0),
    ],
)
def test_the_url_questions_of_an_error(data: Any, count: int) -> None:
    questions = url_questions(data)
    assert list(questions) == [f"url{number}" for number in range(1, count + 1)]
    assert all(question.params["mode"] == "url" for question in questions.values())


@pytest.mark.parametrize(
    ("caller", "given", "expected"),
    [
        (LATEST_MODERN, {"elicitationId": "theirs"}, None),
        (LATEST_MODERN, {}, None),
        (LATEST_LEGACY, {"elicitationId": "theirs"}, "theirs"),
        (LATEST_LEGACY, {}, "minted"),
    ],
    ids=["modern drops it", "modern needs none", "legacy keeps it", "legacy gets one"],
)
def test_a_url_question_has_an_id_in_the_legacy_era_only(caller: Any, given: Json, expected: str | None) -> None:
    found = question_for_caller(Question("elicitation/create", {**URL, **given}), caller, "minted")
    assert found.params == (URL if expected is None else {**URL, "elicitationId": expected})


@pytest.mark.parametrize("caller", [LATEST_LEGACY, LATEST_MODERN])
@pytest.mark.parametrize("method", CAPABILITY)
def test_any_other_question_is_the_same_in_both_eras(caller: Any, method: str) -> None:
    question = Question(method, {"elicitationId": "theirs", "mode": "form"})
    assert question_for_caller(question, caller, "minted") is question


def test_an_upstream_is_told_only_what_can_be_carried_and_that_as_it_is() -> None:
    odd: Json = {"elicitation": {"form": {}, "x": 1}, "sampling": {}, "roots": {"listChanged": True}}
    odd |= {"experimental": {"x": 1}, "extensions": {"a/b": None}}
    assert declared_upstream({**odd, "completions": {}, "": {}}, LATEST_MODERN) == odd
