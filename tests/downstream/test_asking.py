"""Questions to a legacy caller: one answer to each, from the session that was asked, and nothing else counts."""

import asyncio
import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.core.questions import Question
from broker.core.wire import LONG, Long
from broker.downstream import asking as module
from broker.downstream.asking import MAX_OPEN, Asking
from broker.downstream.message import parse
from broker.errors import BrokerError
from tests.patience import PATIENCE

Json = dict[str, Any]
TIMEOUT = PATIENCE
FORM = Question("elicitation/create", {"message": "Who?"})
ADA: Json = {"action": "accept"}


class Stream(list[Json]):
    """What was put on the stream of a call."""

    def put(self, message: bytes) -> None:
        self.append(json.loads(message))


def post(asking: Asking, ident: Any, **outcome: Any) -> None:
    """An answer as a front hands it over."""
    asking.answer(parse(json.dumps({"jsonrpc": "2.0", "id": ident, **outcome}).encode()))


async def asked(stream: Stream, count: int = 1) -> None:
    with anyio.fail_after(TIMEOUT):
        while len(stream) < count:
            await anyio.lowlevel.checkpoint()


async def open_question(asking: Asking, stream: Stream) -> "asyncio.Task[Json]":
    task = asyncio.create_task(asking.channel(stream.put).ask(FORM))
    await asked(stream, len(stream) + 1)
    return task


async def test_a_question_is_a_request_and_its_result_comes_back_as_it_is() -> None:
    asking, stream = Asking(), Stream()
    task = await open_question(asking, stream)
    assert stream == [{"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {"message": "Who?"}}]
    post(asking, 1, result={**ADA, "x": [10**30]})
    assert await task == {**ADA, "x": [10**30]}
    assert len(asking) == 0


async def test_a_long_question_is_written_in_turns() -> None:
    asking, stream = Asking(), Stream()
    params = Long(message="x" * (2 * LONG))
    task = asyncio.create_task(asking.channel(stream.put).ask(Question("elicitation/create", params)))
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    assert not stream, "others had their turn, and it is not written yet"
    await asked(stream)
    assert stream == [{"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": params}]
    post(asking, 1, result=ADA)
    assert await task == ADA and len(asking) == 0


async def test_a_question_without_parameters_has_none() -> None:
    asking, stream = Asking(), Stream()
    task = asyncio.create_task(asking.channel(stream.put).ask(Question("roots/list")))
    await asked(stream)
    assert stream == [{"jsonrpc": "2.0", "id": 1, "method": "roots/list"}]
    post(asking, 1, result={"roots": []})
    assert await task == {"roots": []}


async def test_an_error_of_the_caller_comes_back_with_code_message_and_data() -> None:
    asking, stream = Asking(), Stream()
    task = await open_question(asking, stream)
    post(asking, 1, error={"code": -1, "message": "no", "data": {"x": 1}})
    with pytest.raises(BrokerError) as caught:
        await task
    assert caught.value.to_json() == {"code": -1, "message": "no", "data": {"x": 1}}


@pytest.mark.parametrize(
    "outcome",
    [
        {"result": None},
        {"result": "yes"},
        {"result": []},
        {"error": None},
        {"error": {}},
        {"error": {"code": "1", "message": "m"}},
        {"error": {"code": True, "message": "m"}},
        {"error": {"code": 1}},
        {"error": {"code": 1, "message": None}},
    ],
    ids=repr,
)
async def test_a_malformed_answer_is_an_error_not_a_hang(outcome: Json) -> None:
    asking, stream = Asking(), Stream()
    task = await open_question(asking, stream)
    post(asking, 1, **outcome)
    with pytest.raises(BrokerError, match="malformed answer") as caught:
        await task
    assert caught.value.code == -32603 and len(asking) == 0


@pytest.mark.parametrize("ident", [0, 2, -1, 10**30, "1", "", "q1"], ids=repr)
async def test_an_answer_to_what_was_never_asked_is_dropped(ident: Any) -> None:
    asking, stream = Asking(), Stream()
    post(asking, 1, result=ADA)
    task = await open_question(asking, stream)
    post(asking, ident, result={"action": "cancel"})
    assert not task.done() and len(asking) == 1
    post(asking, 1, result=ADA)
    assert await task == ADA


async def test_the_first_of_two_answers_counts() -> None:
    asking, stream = Asking(), Stream()
    task = await open_question(asking, stream)
    post(asking, 1, result=ADA)
    post(asking, 1, result={"action": "cancel"})
    post(asking, 1, error={"code": 1, "message": "m"})
    assert await task == ADA
    post(asking, 1, result={"action": "cancel"})
    assert len(asking) == 0


async def test_what_is_no_answer_answers_nothing() -> None:
    asking, stream = Asking(), Stream()
    task = await open_question(asking, stream)
    asking.answer(parse(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'))
    assert not task.done()
    post(asking, 1, result=ADA)
    assert await task == ADA


async def test_I33_an_answer_in_another_session_answers_nothing() -> None:
    mine, theirs, stream, other = Asking(), Asking(), Stream(), Stream()
    task = await open_question(mine, stream)
    another = await open_question(theirs, other)
    assert stream[0]["id"] == other[0]["id"], "the ids of two sessions may well be the same"
    post(theirs, 1, result={"action": "cancel"})
    assert await another == {"action": "cancel"} and not task.done()
    post(mine, 1, result=ADA)
    assert await task == ADA


async def test_each_question_goes_to_the_stream_of_its_own_call_and_has_its_own_answer() -> None:
    asking, streams = Asking(), [Stream() for _ in range(20)]
    tasks = [await open_question(asking, stream) for stream in streams]
    idents = [stream[0]["id"] for stream in streams]
    assert len(set(idents)) == 20
    for ident in reversed(idents):
        post(asking, ident, result={"to": ident})
    assert [(await task)["to"] for task in tasks] == idents
    assert all(len(stream) == 1 for stream in streams)


async def test_a_question_that_is_given_up_is_taken_back_and_a_late_answer_is_dropped() -> None:
    asking, stream = Asking(), Stream()
    task = await open_question(asking, stream)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream[1:] == [{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}]
    assert len(asking) == 0
    post(asking, 1, result=ADA)


async def test_F24_open_questions_of_a_session_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_OPEN == 64
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    asking, stream = Asking(), Stream()
    tasks = [await open_question(asking, stream) for _ in range(3)]
    with pytest.raises(BrokerError, match="too many questions") as caught:
        await asking.channel(stream.put).ask(FORM)
    assert caught.value.code == -32603 and len(stream) == 3, "nobody was asked"
    post(asking, 1, result=ADA)
    assert await tasks[0] == ADA
    tasks.append(await open_question(asking, stream))
    for number in (2, 3, 4):
        post(asking, number, result=ADA)
    assert [await task for task in tasks] == [ADA] * 4
