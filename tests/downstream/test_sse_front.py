"""The HTTP+SSE transport of 2024-11-05: its whole life, and what it refuses."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from tests.downstream.conftest import Front, Start, two_servers
from tests.downstream.raw_http import LEGACY, TIMEOUT, Connection, Reply, message
from tests.relay.fake import Asked, Fake, Gate, Json

SLOW = {"name": "one__slow", "arguments": {}}


@dataclass
class Sse:
    front: Front
    stream: Connection
    endpoint: str

    async def post(self, body: Any) -> Reply:
        return await self.front.client.post(body, path=self.endpoint)

    async def ask(self, method: str, params: Json | None = None, id: Any = 1) -> Any:
        assert (await self.post(message(method, params, id))).status == 202
        return await self.stream.next_message()


@asynccontextmanager
async def opened(front: Front, *, initialize: bool = True) -> AsyncGenerator[Sse, None]:
    async with front.client.connection() as stream:
        await stream.send(front.client.request("GET", "/sse"))
        reply = await stream.head()
        assert (reply.status, reply.header("content-type"), reply.header("x-accel-buffering")) == (
            200,
            "text/event-stream",
            "no",
        )
        [(event, endpoint)] = await stream.events()
        assert event == "endpoint" and endpoint.startswith("/messages?session=")
        assert [event for event, _ in await stream.events()] == [""]
        sse = Sse(front, stream, endpoint)
        if initialize:
            await sse.ask("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}})
        yield sse


async def test_the_whole_life_of_a_stream(start: Start) -> None:
    async def work(asked: Asked) -> Json:
        asked.progress(1)
        return {"content": []}

    fakes = two_servers()
    fakes["one"].answers["slow"] = work
    async with start(fakes) as front, opened(front, initialize=False) as sse:
        assert (await sse.ask("ping"))["result"] == {}
        assert (await sse.ask("tools/list"))["error"]["code"] == -32602, "not before initialize"
        greeting = await sse.ask("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}})
        assert greeting["result"]["protocolVersion"] == "2024-11-05"
        assert (await sse.post(message("notifications/initialized", {}, ...))).status == 202
        assert len((await sse.ask("tools/list"))["result"]["tools"]) == 5 + 1
        params = {**SLOW, "_meta": {"progressToken": "t"}}
        await sse.post(message("tools/call", params, 9))
        told = json.loads("[" + ",".join(data for _, data in await sse.stream.events()) + "]")
        while len(told) < 2:
            told += [json.loads(data) for _, data in await sse.stream.events()]
        assert told[0]["params"] == {"progressToken": "t", "progress": 1}
        assert told[1] == {"jsonrpc": "2.0", "id": 9, "result": {"content": []}}
        front.fake.announce()
        assert (await sse.stream.next_message())["method"] == "notifications/tools/list_changed"
        front.house.broker.engine.closing.set()
        assert await sse.stream.chunk() == b""


async def test_F75_a_duplicate_id_in_flight_is_refused_on_the_stream(start: Start) -> None:
    gate = Gate()
    async with start({"one": Fake(answers={"slow": gate})}) as front, opened(front) as sse:
        await sse.post(message("tools/call", SLOW, 7))
        await front.fake.until(lambda: len(front.fake.asked) == 1)
        refused = await sse.ask("ping", id=7)
        assert (refused["id"], refused["error"]["code"]) == (7, -32600)
        gate.opened.set()
        assert (await sse.stream.next_message())["result"]["content"][0]["text"] == "done"


async def test_SP34_cancelled_ends_the_call_and_it_gets_no_answer(start: Start) -> None:
    async with start({"one": Fake(answers={"slow": Gate()})}) as front, opened(front) as sse, opened(front) as other:
        await sse.post(message("tools/call", SLOW, 7))
        await front.fake.until(lambda: len(front.fake.asked) == 1)
        await other.post(message("notifications/cancelled", {"requestId": 7}, ...))
        assert (await other.ask("ping"))["result"] == {} and front.fake.cancelled == []
        await sse.post(message("notifications/cancelled", {"requestId": 7}, ...))
        await front.fake.until(lambda: front.fake.cancelled == ["slow"])
        assert (await sse.ask("ping", id=8))["id"] == 8


async def test_SP13_F72_a_disconnect_cancels_and_the_session_is_gone(start: Start) -> None:
    async with start({"one": Fake(answers={"slow": Gate()})}) as front, opened(front) as sse:
        await sse.post(message("tools/call", SLOW, 7))
        await front.fake.until(lambda: len(front.fake.asked) == 1)
        sse.stream.reset()
        await front.fake.until(lambda: front.fake.cancelled == ["slow"])
        with anyio.fail_after(TIMEOUT):
            while (await sse.post(message("ping"))).status != 404:
                pass
        assert len(front.house.broker.engine.hub) == 0


async def test_what_may_not_stand_there_is_refused_in_the_post(start: Start) -> None:
    async with start({"one": Fake()}) as front, opened(front) as sse:
        table: list[tuple[Any, int, int | None]] = [
            ([message("ping")], 400, -32600),
            (b"{", 400, -32700),
            (message("ping", id=None), 400, -32600),
            (message("ping", id=1.5), 400, -32600),
            (message("tools/call", {"name": "one__echo", "Name": "x"}), 400, -32600),
            ({"jsonrpc": "2.0", "id": 1, "result": {}}, 202, None),
            (message("notifications/unknown", {}, ...), 202, None),
        ]
        for body, status, code in table:
            reply = await sse.post(body)
            assert reply.status == status
            assert status == 202 or reply.code == code
        length = [("Content-Length", str((4 << 20) + 1))]
        reply = await front.client.raw(front.client.request("POST", sse.endpoint, headers=length))
        assert (reply.status, reply.code, reply.header("connection")) == (413, -32700, "close")
        assert (await sse.ask("nobody/knows"))["error"]["code"] == -32601
        assert (await sse.ask("server/discover"))["error"]["code"] == -32601


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_SP04_I36_the_post_is_checked_like_that_of_mcp(start: Start, content_type: str) -> None:
    async with start({"one": Fake()}) as front, opened(front) as sse:
        request = front.client.request(
            "POST", sse.endpoint, message("tools/call", SLOW), [("Content-Type", content_type)], drop=["content-type"]
        )
        assert (await front.client.raw(request)).status == 415
        assert (await sse.ask("ping"))["id"] == 1 and front.fake.asked == []


@pytest.mark.parametrize(
    "query", ["", "?session=", "?session=nobody", "?sessionId=x", "?session=a&session=b", "?session=%00"]
)
async def test_I21_an_unknown_stream_is_404(front: Front, query: str) -> None:
    reply = await front.client.post(message("ping"), path=f"/messages{query}")
    assert (reply.status, reply.code) == (404, -32600)


async def test_a_session_of_one_transport_is_none_of_the_other(start: Start) -> None:
    async with start({"one": Fake()}) as front, opened(front) as sse:
        identifier = sse.endpoint.partition("=")[2]
        reply = await front.client.post(message("ping"), [("Mcp-Session-Id", identifier)])
        assert reply.status == 404
        session = await front.client.open_session()
        assert (await front.client.post(message("ping"), path=f"/messages?session={session.id}")).status == 404


async def test_many_answers_for_a_stream_that_is_read_late_all_come(start: Start) -> None:
    async with start({"one": Fake()}) as front, opened(front) as sse, front.client.connection() as poster:
        for n in range(300):
            await poster.send(front.client.request("POST", sse.endpoint, message("tools/list", id=n)))
            assert (await poster.reply()).status == 202
        seen: list[int] = []
        while len(seen) < 300:
            seen += [json.loads(data)["id"] for event, data in await sse.stream.events() if event == "message"]
        assert sorted(seen) == list(range(300))


async def test_a_fault_of_ours_in_the_handshake_costs_that_answer_only(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start({"one": Fake()}) as front, opened(front, initialize=False) as sse:

        async def broken(*_: object) -> Any:
            raise RuntimeError("SECRET")

        with monkeypatch.context() as patch:
            patch.setattr(front.house.broker.engine.router, "greeting", broken)
            answer = await sse.ask("initialize", {"protocolVersion": LEGACY})
            assert answer["error"]["code"] == -32603 and "SECRET" not in json.dumps(answer)
        assert (await sse.ask("initialize", {"protocolVersion": LEGACY}))["result"]["protocolVersion"] == LEGACY
