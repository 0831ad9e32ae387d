"""A caller that vanishes leaves nothing behind, whatever it was in the middle of."""

import asyncio
import json
from collections.abc import Callable

import anyio
import pytest

from broker.relay.parking import PARKED_FOR
from tests.downstream.conftest import Front, Start
from tests.downstream.raw_http import META, TIMEOUT, Connection, Session, message, modern, modern_headers
from tests.downstream.test_sse_front import opened
from tests.relay.fake import Asked, Fake, Gate, Json

SLOW: Json = {"name": "one__slow", "arguments": {}, "_meta": {"progressToken": "t"}}
ELICITS: Json = {"elicitation": {"form": {}}}
FORM: Json = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}


class Work:
    """Streams progress, then asks if it is told to, then waits until the test lets it go on."""

    def __init__(self, *, asks: bool) -> None:
        self.asks, self.gate = asks, Gate()

    async def __call__(self, asked: Asked) -> Json:
        asked.progress(1)
        if self.asks:
            await asked.ask("elicitation/create", FORM)
        return await self.gate(asked)


def kept(front: Front) -> Json:
    """What a broker may hold for a caller."""
    link, engine = front.fake.link, front.house.broker.engine
    assert link is not None
    return {
        "calls": len(link._in_flight.calls()),
        "questions": len(link._questions),
        "parked": len(front.house.broker.parking),
        "watching": len(engine.hub),
        "tasks": len(asyncio.all_tasks()),
    }


async def back_to(front: Front, before: Json) -> None:
    """Wait until all that was held has been let go; other callers are served meanwhile."""
    with anyio.fail_after(TIMEOUT):
        while kept(front) != before:
            assert (await front.client.ask("tools/list")).status == 200


async def until(is_true: Callable[[], bool], front: Front) -> None:
    with anyio.fail_after(TIMEOUT):
        while not is_true():
            await front.client.ask("tools/list")


async def quiet(front: Front) -> Json:
    """What is held before anything happens; the first request of a kind may start what stays."""
    await front.client.ask("tools/list")
    session = await front.client.open_session()
    await session.delete()
    return kept(front)


def modern_call(front: Front) -> bytes:
    body = modern("tools/call", SLOW, **{f"{META}clientCapabilities": ELICITS, "progressToken": "t"})
    return front.client.request("POST", "/mcp", body, modern_headers(body))


async def legacy(front: Front) -> Session:
    params = {"protocolVersion": "2025-11-25", "capabilities": ELICITS}
    reply = await front.client.post(message("initialize", params))
    return Session(front.client, "/mcp", reply.header("mcp-session-id") or "", reply.json["result"])


async def streaming(connection: Connection) -> None:
    """The stream has begun, and the progress has come."""
    assert (await connection.head()).header("content-type") == "text/event-stream"
    told = b""
    while b"notifications/progress" not in told:
        told += await connection.chunk()


async def test_a_modern_caller_that_vanishes_while_its_call_streams(start: Start) -> None:
    work = Work(asks=False)
    async with start({"one": Fake(answers={"slow": work})}) as front:
        before = await quiet(front)
        connection = await front.client.connect()
        await connection.send(modern_call(front))
        await streaming(connection)
        connection.reset()
        await front.fake.until(lambda: front.fake.cancelled == ["slow"])
        await back_to(front, before)


async def test_a_modern_caller_that_vanishes_while_its_call_is_parked(start: Start) -> None:
    """Its request was answered with the question, so that nothing tells that it has gone but time."""
    work = Work(asks=True)
    async with start({"one": Fake(answers={"slow": work})}) as front:
        before = await quiet(front)
        async with front.client.connection() as connection:
            await connection.send(modern_call(front))
            reply = await connection.reply()
            assert reply.messages[-1]["result"]["resultType"] == "input_required"
        assert kept(front)["parked"] == 1 and front.fake.cancelled == []
        front.house.clock.advance(PARKED_FOR + 1)
        await front.fake.until(lambda: front.fake.cancelled == ["slow"])
        front.house.clock.advance(PARKED_FOR + 1)
        await back_to(front, before)


async def test_SP14_a_legacy_caller_that_vanishes_while_its_call_streams(start: Start) -> None:
    """The call goes on; when it has ended nothing is held for it, and DELETE ends what the session held."""
    work = Work(asks=False)
    async with start({"one": Fake(answers={"slow": work})}) as front:
        before = await quiet(front)
        session = await legacy(front)
        connection = await front.client.connect()
        await connection.send(session.request(message("tools/call", SLOW, id=3)))
        await streaming(connection)
        connection.reset()
        assert (await session.ask("tools/call", SLOW, id=3)).code == -32600, "it is in flight still"
        assert front.fake.cancelled == []
        work.gate.opened.set()
        link = front.fake.link
        assert link is not None
        await until(lambda: not link._in_flight.calls(), front)
        assert (await session.delete()).status == 200
        await back_to(front, before)


@pytest.mark.parametrize("end", ["DELETE", "cancelled"])
async def test_a_legacy_caller_that_vanishes_while_it_is_asked(start: Start, end: str) -> None:
    work = Work(asks=True)
    async with start({"one": Fake(answers={"slow": work})}) as front:
        before = await quiet(front)
        session = await legacy(front)
        connection = await front.client.connect()
        await connection.send(session.request(message("tools/call", SLOW, id=3)))
        told = b""
        assert (await connection.head()).status == 200
        while b"elicitation/create" not in told:
            told += await connection.chunk()
        connection.reset()
        assert (await session.ask("ping")).json["result"] == {} and front.fake.cancelled == []
        if end == "cancelled":
            await session.post(message("notifications/cancelled", {"requestId": 3}, ...))
            await front.fake.until(lambda: front.fake.cancelled == ["slow"])
        assert (await session.delete()).status == 200
        await front.fake.until(lambda: front.fake.cancelled == ["slow"])
        await back_to(front, before)


@pytest.mark.parametrize("asks", [False, True])
async def test_SP13_a_caller_on_old_SSE_that_vanishes(start: Start, asks: bool) -> None:
    work = Work(asks=asks)
    async with start({"one": Fake(answers={"slow": work})}) as front:
        before = await quiet(front)
        async with opened(front, initialize=False) as sse:
            await sse.ask("initialize", {"protocolVersion": "2024-11-05", "capabilities": {"elicitation": {}}})
            await sse.post(message("tools/call", SLOW, 3))
            wanted = "elicitation/create" if asks else "notifications/progress"
            while wanted not in [json.loads(data).get("method") for _, data in await sse.stream.events()]:
                pass
            sse.stream.reset()
            await front.fake.until(lambda: front.fake.cancelled == ["slow"])
            await back_to(front, before)


async def test_a_caller_that_vanishes_while_it_listens(start: Start) -> None:
    async with start({"one": Fake()}) as front:
        before = await quiet(front)
        body = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        connection = await front.client.connect()
        await connection.send(front.client.request("POST", "/mcp", body, modern_headers(body)))
        await connection.head()
        assert (await connection.next_message())["method"] == "notifications/subscriptions/acknowledged"
        connection.reset()
        await back_to(front, before)
