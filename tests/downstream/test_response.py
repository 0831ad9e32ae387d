"""What a response costs, and what becomes of the task that looks after a slow one."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from broker.core.caller import LOCAL
from broker.core.era import LATEST_LEGACY
from broker.downstream import stream as stream_module
from broker.downstream.engine import Answer
from broker.downstream.head import Head, Headers
from broker.downstream.room import Place
from broker.downstream.session import LegacySession
from broker.downstream.stream import Response, Silence, Stage
from broker.downstream.vigil import Vigil
from broker.downstream.web import Disconnected, Http, HttpError
from broker.identity.admission import Admission, always
from broker.relay.exchange import Emit
from tests.calls import uncollected

Work = Callable[[Emit], Awaitable[Answer]]

ANSWER = Answer(b"{}")


class Caller:
    """A connection without a server; implements `Wire`."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.sent: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.fault = fault
        self.place = Place("192.0.2.1")
        self.http = Http(self, Head("POST", "/mcp"))
        self.http.complete()

    def send(self, data: bytes) -> None:
        if self.fault is not None:
            raise self.fault
        self.sent.append(data)

    async def drained(self) -> None:
        await self.reads.wait()

    def read_on(self) -> None:
        pass

    def settle(self, principal: str) -> bool:
        return True

    def end(self, data: bytes, *, may_go_on: bool) -> None:
        self.send(data)

    async def answer(self, tasks: TaskGroup, work: Work, session: LegacySession | None = None) -> None:
        stage = Stage(tasks, Vigil(), lambda path: HttpError(401), Silence())
        response = Response(self.http, stage, Admission(LOCAL, always), session)
        try:
            await response.send(work(response.emit))
        finally:
            stage.silence.close()
        assert not len(stage.vigil) and not len(stage.silence)

    @property
    def body(self) -> bytes:
        return b"".join(self.sent).partition(b"\r\n\r\n")[2]


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

        await caller.answer(group, work)
        assert tasks() == before and caller.body == b"{}"


async def test_a_fault_while_a_stream_is_sent_is_one_of_its_request_only(caplog: pytest.LogCaptureFixture) -> None:
    """The task group is that of all requests."""
    caller = Caller(RuntimeError("a fault of the server's"))
    async with anyio.create_task_group() as group:

        async def work(emit: Emit) -> Answer:
            emit("notifications/x", {})
            await anyio.lowlevel.checkpoint()
            return ANSWER

        await caller.answer(group, work)
        assert not group.cancel_scope.cancel_called
    assert "a fault of the server's" in caplog.text


async def test_what_a_stream_has_held_is_free_when_it_ends_and_waits_for_no_collection() -> None:
    async def work(emit: Emit) -> Answer:
        emit("notifications/x", {})
        await anyio.lowlevel.checkpoint()
        return ANSWER

    async with anyio.create_task_group() as group:
        gc.collect()
        with uncollected():
            await Caller().answer(group, work)
            await anyio.lowlevel.checkpoint()
            assert not [one for one in gc.get_objects() if isinstance(one, Response)]


async def test_a_silence_begins_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "PATIENCE", 0.0)
    caller = Caller()
    async with anyio.create_task_group() as group:

        async def work(emit: Emit) -> Answer:
            while not caller.sent:
                await anyio.lowlevel.checkpoint()
            return ANSWER

        await caller.answer(group, work)
    assert b"text/event-stream" in caller.sent[0] and b": " in caller.sent[1]
    assert caller.sent[-1].endswith(b"0\r\n\r\n") and caller.http.is_over


class Attended(Response):
    """One that only counts how often it is attended to."""

    __slots__ = ("silence", "times")

    def __init__(self, silence: Silence) -> None:
        self.silence = silence
        self.times = 0

    def attend(self) -> None:
        self.times += 1
        self.silence.end(self)


class Hours:
    """A loop whose timers go off when they are told to; counts those that were set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.set: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.set.append((when, callback))
        return asyncio.TimerHandle(when, callback, (), asyncio.get_running_loop())

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback)


async def test_one_timer_is_for_all_that_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = Hours()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: hours)
    silence = Silence()
    monkeypatch.undo()
    first, answered, last = (Attended(silence) for _ in range(3))
    silence.begin(first)
    for _ in range(1000):
        silence.begin(answered)
        silence.end(answered)
    hours.now = 5.0
    silence.begin(last)
    assert [when for when, _ in hours.set] == [stream_module.PATIENCE]
    hours.now, go_off = hours.set.pop()
    go_off()
    assert (first.times, answered.times, last.times) == (1, 0, 0), "each has its own time"
    hours.now, go_off = hours.set.pop()
    assert hours.now == 5.0 + stream_module.PATIENCE
    go_off()
    assert last.times == 1 and not hours.set and not len(silence), "no timer is for nobody"


async def test_a_storm_that_is_silent_is_attended_to_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = Hours()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: hours)
    silence = Silence()
    monkeypatch.undo()
    storm = [Attended(silence) for _ in range(2 * stream_module.AT_ONCE + 1)]
    for one in storm:
        silence.begin(one)
    turns: list[int] = []
    while hours.set:
        hours.now, go_off = hours.set.pop()
        go_off()
        turns.append(sum(one.times for one in storm))
    assert turns == [stream_module.AT_ONCE, 2 * stream_module.AT_ONCE, len(storm)]
    assert hours.now == stream_module.PATIENCE and not len(silence)


async def test_a_caller_that_goes_is_told_once() -> None:
    caller = Caller()
    gone: list[int] = []
    caller.http.on_gone = lambda: gone.append(1)
    waiting = asyncio.ensure_future(caller.http.gone())
    await anyio.lowlevel.checkpoint()
    caller.http.lose()
    await waiting
    await caller.http.gone()
    assert gone == [1] and caller.http.is_gone


async def test_who_has_its_answer_is_not_told() -> None:
    caller = Caller()
    gone: list[int] = []
    caller.http.on_gone = lambda: gone.append(1)
    caller.http.respond(200)
    caller.http.lose()
    assert gone == []


async def test_work_that_outlives_its_caller_runs_to_its_end() -> None:
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

        await caller.answer(group, work)
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
            await caller.answer(group, work)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert tasks() == before


def test_headers_keep_the_first_value_and_say_what_came_twice() -> None:
    raw: list[tuple[Any, Any]] = [(b"a", b"1"), (b"b", b" 2\t"), (b"a", b"3")]
    headers = Headers(raw)
    assert headers.get("a") == "1" and headers.get("b") == "2" and headers.get("c") is None
    assert headers.duplicated == {"a"} and len(headers.lines) == 3


async def test_a_request_that_is_cancelled_while_its_answer_is_sent_harms_no_other() -> None:
    caller = Caller()
    caller.reads.clear()

    async def work(emit: Emit) -> Answer:
        emit("notifications/x", {})
        return ANSWER

    async with anyio.create_task_group() as group:
        request = asyncio.ensure_future(caller.answer(group, work, LegacySession("s", LOCAL, "", LATEST_LEGACY)))
        while not caller.sent:
            await anyio.lowlevel.checkpoint()
        request.cancel()  # as the server does when it goes down
        await asyncio.wait([request])
        assert request.cancelled() and not group.cancel_scope.cancel_called
