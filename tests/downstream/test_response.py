"""What a response costs, and what becomes of the task that looks after a slow one."""

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.downstream import stream as stream_module
from broker.downstream.asgi import Disconnected, Headers, Http, Message
from broker.downstream.engine import Answer
from broker.downstream.stream import Response
from broker.relay.exchange import Emit

ANSWER = Answer(b"{}")


class Caller:
    """The two ends of a connection, without a server."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.sent: list[Message] = []
        self.is_gone = asyncio.Event()
        self.fault = fault
        self.http = Http("POST", Headers([]), self._receive, self._send)

    async def _receive(self) -> Message:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.fault is not None:
            raise self.fault
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def tasks() -> int:
    return len(asyncio.all_tasks())


async def test_an_answer_that_comes_at_once_costs_no_task() -> None:
    caller = Caller()
    async with anyio.create_task_group() as group:
        before = tasks()

        async def work(emit: Emit) -> Answer:
            await anyio.lowlevel.checkpoint()
            assert tasks() == before
            return ANSWER

        await Response(caller.http, group, lambda _: 200).send(work)
        assert tasks() == before and caller.body == b"{}"


@pytest.mark.parametrize("is_modern", [True, False])
async def test_a_fault_while_a_stream_is_sent_is_one_of_its_request_only(
    caplog: pytest.LogCaptureFixture, is_modern: bool
) -> None:
    """The task group is that of all requests."""
    caller = Caller(RuntimeError("a fault of the server's"))
    async with anyio.create_task_group() as group:

        async def work(emit: Emit) -> Answer:
            emit("notifications/x", {})
            await anyio.lowlevel.checkpoint()
            return ANSWER

        def ignore() -> None:
            pass

        await Response(caller.http, group, lambda _: 200, on_gone=ignore if is_modern else None).send(work)
        assert not group.cancel_scope.cancel_called
    assert "a fault of the server's" in caplog.text


async def test_a_caller_that_goes_is_told_once_and_the_attendant_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "GRACE", 0.0)
    caller = Caller()
    gone: list[int] = []
    async with anyio.create_task_group() as group:
        before = tasks()
        with anyio.CancelScope() as scope:

            def on_gone() -> None:
                gone.append(1)
                scope.cancel()

            async def work(emit: Emit) -> Answer:
                caller.is_gone.set()
                await anyio.sleep_forever()
                raise AssertionError

            await Response(caller.http, group, lambda _: 200, on_gone=on_gone).send(work)
        assert scope.cancelled_caught and gone == [1] and caller.sent == []
        assert tasks() == before


async def test_work_that_outlives_its_caller_runs_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "GRACE", 0.0)
    caller = Caller(Disconnected())
    async with anyio.create_task_group() as group:
        ended = False

        async def work(emit: Emit) -> Answer:
            nonlocal ended
            emit("notifications/x", {})
            await anyio.sleep(0.05)
            emit("notifications/x", {})
            ended = True
            return ANSWER

        await Response(caller.http, group, lambda _: 200).send(work)
        assert ended


async def test_a_request_that_is_cancelled_leaves_no_attendant() -> None:
    caller = Caller()
    async with anyio.create_task_group() as group:
        before = tasks()

        async def work(emit: Emit) -> Answer:
            emit("notifications/x", {})
            await anyio.sleep_forever()
            raise AssertionError

        with anyio.move_on_after(0.05):
            await Response(caller.http, group, lambda _: 200, on_gone=lambda: None).send(work)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert tasks() == before


def test_headers_keep_the_first_value_and_say_what_came_twice() -> None:
    raw: list[tuple[Any, Any]] = [(b"a", b"1"), (b"b", b" 2\t"), (b"a", b"3")]
    headers = Headers(raw)
    assert headers.get("a") == "1" and headers.get("b") == "2" and headers.get("c") is None
    assert headers.duplicated == {"a"} and len(headers.items) == 3


async def test_a_request_that_is_cancelled_while_its_answer_is_sent_harms_no_other() -> None:
    caller = Caller()
    is_full = asyncio.Event()

    async def stuck(message: Message) -> None:
        is_full.set()
        await anyio.sleep_forever()

    http = Http("POST", Headers([]), caller.http.receive, stuck)

    async def work(emit: Emit) -> Answer:
        emit("notifications/x", {})
        return ANSWER

    async with anyio.create_task_group() as group:
        request = asyncio.ensure_future(Response(http, group, lambda _: 200).send(work))
        await is_full.wait()
        request.cancel()  # as the server does when it goes down
        await asyncio.wait([request])
        assert request.cancelled() and not group.cancel_scope.cancel_called
