"""How an answer comes: JSON while nothing streams, an event stream as soon as something does; and who is cancelled."""

import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.downstream import stream as stream_module
from broker.downstream.stream import MAX_FRAMES, Outbox
from broker.downstream.web import Disconnected
from tests.downstream.conftest import Front, Start
from tests.downstream.raw_http import TIMEOUT, Connection, message, modern, modern_headers
from tests.relay.fake import Asked, Fake, Gate, Json

WORK: dict[str, Any] = {"name": "one__slow", "arguments": {}}
ASKING = {"progressToken": "mine"}
RESULT: Json = {"content": [{"type": "text", "text": "done"}]}


class Steps:
    """Reports progress when told to, then waits for its end."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.ended = anyio.Event()

    async def __call__(self, asked: Asked) -> Json:
        for step in range(1, self.count + 1):
            asked.progress(step, total=self.count)
        await self.ended.wait()
        return RESULT


def call(front: Front, **meta: Any) -> bytes:
    body = modern("tools/call", WORK, **meta)
    return front.client.request("POST", "/mcp", body, modern_headers(body))


async def test_an_answer_without_a_stream_is_json(start: Start) -> None:
    async with start({"one": Fake()}) as front:
        reply = await front.client.ask("tools/call", WORK, progressToken="mine")
        assert reply.header("content-type") == "application/json"
        assert reply.header("content-length") == str(len(reply.body))


async def test_SP12_progress_opens_a_stream_that_the_answer_ends(start: Start) -> None:
    steps = Steps(3)
    async with start({"one": Fake(answers={"slow": steps})}) as front, front.client.connection() as connection:
        await connection.send(call(front, **ASKING))
        reply = await connection.head()
        assert reply.status == 200
        assert reply.header("content-type") == "text/event-stream"
        assert reply.header("x-accel-buffering") == "no"
        assert "no-cache" in (reply.header("cache-control") or "")
        told = [json.loads(data) for _, data in await connection.events()]
        assert [one["params"] for one in told] == [
            {"progressToken": "mine", "progress": step, "total": 3} for step in (1, 2, 3)
        ]
        steps.ended.set()
        answer = await connection.next_message()
        assert answer["id"] == 1 and answer["result"]["content"] == RESULT["content"]
        assert await connection.chunk() == b"", "the stream ends"
        await connection.send(call(front))
        assert (await connection.reply()).status == 200, "the connection lives on"


async def test_progress_that_nobody_asked_for_opens_no_stream(start: Start) -> None:
    steps = Steps(3)
    steps.ended.set()
    async with start({"one": Fake(answers={"slow": steps})}) as front:
        reply = await front.client.raw(call(front))
        assert reply.header("content-type") == "application/json"
        assert "progressToken" not in front.fake.asked[-1].params.get("_meta", {})


async def test_progress_and_answer_at_once_come_in_order_on_one_stream(start: Start) -> None:
    steps = Steps(2)
    steps.ended.set()
    async with start({"one": Fake(answers={"slow": steps})}) as front:
        reply = await front.client.raw(call(front, **ASKING))
        assert [one.get("method", "answer") for one in reply.messages] == ["notifications/progress"] * 2 + ["answer"]


async def test_SP12_I31_progress_of_one_caller_never_reaches_another(start: Start) -> None:
    """Same id, same token, same upstream: each sees its own steps."""
    gates: list[Asked] = []
    opened = anyio.Event()

    async def work(asked: Asked) -> Json:
        gates.append(asked)
        await opened.wait()
        asked.progress(asked.params["arguments"]["n"])
        return {"content": [{"type": "text", "text": str(asked.params["arguments"]["n"])}]}

    async with start({"one": Fake(answers={"slow": work})}) as front:
        connections = [await front.client.connect() for _ in range(50)]
        for n, connection in enumerate(connections):
            body = modern("tools/call", {"name": "one__slow", "arguments": {"n": n}}, id=0, **ASKING)
            await connection.send(front.client.request("POST", "/mcp", body, modern_headers(body)))
        await front.fake.until(lambda: len(gates) == 50)
        assert len({asked.params["_meta"]["progressToken"] for asked in gates}) == 50
        opened.set()
        for n, connection in enumerate(connections):
            progress, answer = (await connection.reply()).messages
            assert progress["params"] == {"progressToken": "mine", "progress": n}
            assert answer["result"]["content"][0]["text"] == str(n)
            await connection.close()


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_after_a_silence_the_stream_begins_with_comments(
    start: Start, monkeypatch: pytest.MonkeyPatch, era: str
) -> None:
    monkeypatch.setattr(stream_module, "PATIENCE", 0.02)
    gate = Gate(RESULT)
    async with start({"one": Fake(answers={"slow": gate})}) as front, front.client.connection() as connection:
        session = await front.client.open_session()
        await connection.send(call(front) if era == "modern" else session.request(message("tools/call", WORK)))
        reply = await connection.head()
        assert (reply.status, reply.header("content-type")) == (200, "text/event-stream")
        if era == "legacy":
            assert await connection.chunk() == b"id: s1-0\nretry: 1000\ndata: \n\n"
        for _ in range(3):
            assert [event for event, _ in await connection.events()] == [""]
        gate.opened.set()
        assert (await connection.next_message())["result"]["content"] == RESULT["content"]
        assert await connection.chunk() == b""


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_SP13_F72_a_modern_disconnect_cancels_the_upstream_call_once(start: Start, is_streaming: bool) -> None:
    steps = Steps(1 if is_streaming else 0)
    async with start({"one": Fake(answers={"slow": steps})}) as front:
        connection = await front.client.connect()
        await connection.send(call(front, **ASKING))
        await front.fake.until(lambda: len(front.fake.asked) == 1)
        if is_streaming:
            await connection.head()
        connection.reset()
        await front.fake.until(lambda: front.fake.cancelled == ["slow"])
        assert (await front.client.ask("tools/call", {"name": "one__echo", "arguments": {}})).status == 200
        assert front.fake.cancelled == ["slow"]


async def test_SP13_a_polite_close_cancels_too(start: Start) -> None:
    async with start({"one": Fake(answers={"slow": Gate()})}) as front:
        async with front.client.connection() as connection:
            await connection.send(call(front))
            await front.fake.until(lambda: len(front.fake.asked) == 1)
        await front.fake.until(lambda: front.fake.cancelled == ["slow"])


async def test_F74_a_caller_that_does_not_read_stalls_nobody(start: Start) -> None:
    """It gets the latest of its progress when it reads at last, and memory stayed bounded."""
    pushed = anyio.Event()
    ended = anyio.Event()

    async def flood(asked: Asked) -> Json:
        for step in range(100):
            asked.progress(step, message="x" * 100_000)
            front.house.clock.advance(0.2)
            await anyio.lowlevel.checkpoint()
        pushed.set()
        await ended.wait()
        return RESULT

    async with start({"one": Fake(answers={"slow": flood})}) as front, front.client.connection() as deaf:
        await deaf.send(call(front, **ASKING))
        with anyio.fail_after(TIMEOUT):
            await pushed.wait()
        for _ in range(5):
            assert (await front.client.ask("tools/call", {"name": "one__echo", "arguments": {}})).status == 200
        ended.set()
        messages = (await deaf.reply()).messages
        assert messages[-1]["result"]["content"] == RESULT["content"]
        assert messages[-2]["params"]["progress"] == 99


async def test_F74_a_caller_that_never_reads_is_dropped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.downstream.connection.WRITE_TIMEOUT", 0.05)

    async def flood(asked: Asked) -> Json:
        for step in range(1_000_000):
            asked.progress(step, message="x" * 1_000_000)
            front.house.clock.advance(0.2)
            await anyio.lowlevel.checkpoint()
        return RESULT

    async with start({"one": Fake(answers={"slow": flood})}) as front:
        deaf = await front.client.connect()
        await deaf.send(call(front, **ASKING))
        await front.fake.until(lambda: front.fake.cancelled == ["slow"])
        deaf.reset()


def test_F74_an_outbox_is_bounded_in_messages_and_in_bytes() -> None:
    outbox = Outbox()
    for n in range(2 * MAX_FRAMES):
        outbox.emit("notifications/progress", {"progress": n})
    assert len(outbox) == MAX_FRAMES
    assert b'"progress":1999' in outbox.take()
    for n in range(100):
        outbox.emit("notifications/progress", {"progress": n, "message": "x" * 4_000_000})
    assert len(outbox.take()) <= stream_module.MAX_WAITING + 5_000_000


async def test_F74_an_answer_that_finds_no_room_ends_the_stream_instead_of_being_lost() -> None:
    outbox = Outbox()
    for n in range(MAX_FRAMES):
        outbox.put_answer(b"%d" % n)
    assert len(outbox) == MAX_FRAMES and not outbox.has_lost
    outbox.put_answer(b"one too many")
    assert outbox.has_lost

    class Sink:
        async def write(self, data: bytes, *, more: bool) -> None:
            raise AssertionError("nothing is sent any more")

    with pytest.raises(Disconnected):
        await stream_module.pump(Sink(), outbox)  # pyright: ignore[reportArgumentType]


def test_an_announcement_that_waits_is_not_said_twice() -> None:
    outbox = Outbox()
    for _ in range(10):
        outbox.emit("notifications/tools/list_changed", {})
    assert len(outbox) == 1
    outbox.take()
    outbox.emit("notifications/tools/list_changed", {})
    assert len(outbox) == 1


async def listen(front: Front, flags: Any, id: Any = "sub", path: str = "/mcp") -> Connection:
    body = modern("subscriptions/listen", {"notifications": flags}, id=id)
    connection = await front.client.connect()
    await connection.send(front.client.request("POST", path, body, modern_headers(body)))
    assert (await connection.head()).header("content-type") == "text/event-stream"
    return connection


def tagged(method: str, id: Any = "sub", **params: Any) -> Json:
    meta = {"io.modelcontextprotocol/subscriptionId": id}
    return {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": {**params, "_meta": meta}}


async def test_SP38_a_subscription_is_acknowledged_first_and_ends_with_a_result(start: Start) -> None:
    flags = {"toolsListChanged": True, "promptsListChanged": False, "resourceSubscriptions": ["x"], "unknown": True}
    async with start({"one": Fake(prompts=[{"name": "p"}])}) as front, await listen(front, flags) as connection:
        acknowledged = await connection.next_message()
        assert acknowledged == tagged("subscriptions/acknowledged", notifications={"toolsListChanged": True})
        front.fake.announce("prompts")
        front.fake.announce("tools")
        assert await connection.next_message() == tagged("tools/list_changed")
        front.house.broker.engine.closing.set()
        end = await connection.next_message()
        assert end["id"] == "sub" and end["result"]["resultType"] == "complete"
        assert end["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "sub"
        assert await connection.chunk() == b""


async def test_SP38_two_subscriptions_each_get_what_they_asked_for(start: Start) -> None:
    fakes = {"one": Fake(prompts=[{"name": "p"}]), "two": Fake()}
    async with start(fakes) as front:
        both = {"toolsListChanged": True, "promptsListChanged": True}
        async with (
            await listen(front, {"toolsListChanged": True}, id=1) as tools,
            await listen(front, {"promptsListChanged": True}, id=2) as prompts,
            await listen(front, both, id=3, path="/mcp/two") as other,
        ):
            for connection in (tools, prompts, other):
                assert (await connection.next_message())["method"] == "notifications/subscriptions/acknowledged"
            front.fake.announce("tools")
            front.fake.announce("prompts")
            assert await tools.next_message() == tagged("tools/list_changed", 1)
            assert await prompts.next_message() == tagged("prompts/list_changed", 2)
            front.house.fakes["two"].announce()
            assert await other.next_message() == tagged("tools/list_changed", 3)


async def test_SP38_an_empty_filter_is_honoured_as_empty(start: Start) -> None:
    for flags in ({}, {"toolsListChanged": "yes"}, {"toolsListChanged": 1}):
        async with start({"one": Fake()}) as front, await listen(front, flags) as connection:
            assert await connection.next_message() == tagged("subscriptions/acknowledged", notifications={})


async def test_a_subscription_that_is_cut_is_forgotten(start: Start) -> None:
    async with start({"one": Fake()}) as front:
        connection = await listen(front, {"toolsListChanged": True})
        hub = front.house.broker.engine.hub
        assert len(hub) == 1
        connection.reset()
        with anyio.fail_after(TIMEOUT):
            while len(hub):
                await front.client.ask("tools/list")


async def test_F90_a_call_in_flight_at_shutdown_is_finished(start: Start) -> None:
    gate = Gate(RESULT)
    async with start({"one": Fake(answers={"slow": gate})}) as front, front.client.connection() as connection:
        await connection.send(call(front))
        await front.fake.until(lambda: len(front.fake.asked) == 1)
        front.house.broker.engine.closing.set()
        gate.opened.set()
        assert (await connection.reply()).json["result"]["content"] == RESULT["content"]


async def test_F90_a_call_that_does_not_end_in_time_is_told_why(start: Start) -> None:
    fakes = {"one": Fake(answers={"slow": Gate()}), "two": Fake(answers={"slow": Gate()})}
    body = modern("tools/call", {"name": "two__slow", "arguments": {}})
    async with (
        start(fakes, servers={"two": {"isolation": "caller"}}, drain=lambda: 0.05) as front,
        front.client.connection() as first,
        front.client.connection() as second,
    ):
        await first.send(call(front))
        await second.send(front.client.request("POST", "/mcp", body, modern_headers(body)))
        for fake in fakes.values():
            await fake.until(lambda fake=fake: bool(fake.asked))
        front.house.broker.engine.closing.set()
        for connection in (first, second):
            error = (await connection.reply()).json["error"]
            assert error["code"] == -32603 and "the broker is shutting down" in error["message"]


async def test_a_fault_of_ours_gives_an_id_and_nothing_else(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with start({"one": Fake()}) as front:

        async def broken(*_: object) -> Any:
            raise RuntimeError("SECRET in /etc/passwd")

        session = await front.client.open_session()
        monkeypatch.setattr(front.house.broker.engine.router, "answer", broken)
        monkeypatch.setattr(front.house.broker.engine.router, "greeting", broken)
        initialize = message("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
        for reply in (
            await front.client.ask("tools/list"),
            await session.ask("ping"),
            await front.client.post(initialize),
        ):
            assert reply.status == 200
            error = reply.json["error"]
            assert (error["code"], error["message"], list(error["data"])) == (-32603, "Internal error", ["errorId"])
            assert error["data"]["errorId"] in caplog.text
