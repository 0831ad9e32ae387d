"""F-39: a message of many megabytes is read, and written, in turns, wherever it comes in."""

import asyncio
import json
from typing import Any

import anyio
import anyio.to_thread
import pytest

from broker.core.caller import LOCAL
from broker.core.era import LATEST_LEGACY
from broker.downstream.engine import Who
from broker.downstream.message import Incoming
from broker.secrecy import LEFT_OUT
from tests.callers.pipe import front_of
from tests.hostile.conftest import BrokerOf, Puppet
from tests.hostile.cost import MIB, apart
from tests.hostile.harness import Running, needs_proc
from tests.hostile.puppet import HELLO, TOOLS
from tests.hostile.web import Wire, says, streams, web
from tests.servers.rawhttp import Out, Request

pytestmark = needs_proc

TIMES = 15 * 4
"""Of a quarter of a MiB."""
SPELLED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\U0001f600": "\\ud83d\\ude00", "a": "a", "\u6f22": "\u6f22"}
"""Characters, as they are spelled by whom we are to read."""
MEMORY = 200 * MIB


def unit(character: str) -> str:
    """A quarter of a MiB."""
    return SPELLED[character] * (2**18 // len(SPELLED[character].encode()))


def text_of(character: str) -> str:
    return character * (len(unit(character)) // len(SPELLED[character])) * TIMES


def answer(character: str, ident: Any) -> bytes:
    head = f'{{"jsonrpc":"2.0","id":{json.dumps(ident)},"result":{{"content":[{{"type":"text","text":"'
    return (head + unit(character) * TIMES + '"}]}}').encode()


async def is_read_in_turns(run: Running, character: str) -> None:
    """The bounds of every test here hold: no callback of more than 50 ms."""
    await run.ready("bad")
    text = await run.text("bad__boom")
    with apart():
        assert text == text_of(character)
    await run.innocent("bad")


@pytest.mark.parametrize("character", SPELLED, ids=ascii)
@pytest.mark.costs("15 MiB, several times", memory=MEMORY)
async def test_F39_a_large_text_of_nothing_but_escapes_is_read_in_turns_from_a_pipe(
    broker_of: BrokerOf, puppet: Puppet, character: str
) -> None:
    head, tail = '{"jsonrpc":"2.0","id":$ID,"result":{"content":[{"type":"text","text":"', '"}]}}\n'
    bad = puppet({"boom": [head, ["repeat", [TIMES, unit(character)]], tail]})
    async with broker_of({"bad": bad}) as run:
        await is_read_in_turns(run, character)


@pytest.mark.parametrize("character", SPELLED, ids=ascii)
@pytest.mark.parametrize("media", ["json", "stream"])
@pytest.mark.costs("15 MiB, several times, the server's included", memory=MEMORY)
async def test_F39_a_large_text_of_nothing_but_escapes_is_read_in_turns_over_http(
    broker_of: BrokerOf, character: str, media: str
) -> None:
    async def large(out: Out, request: Request, ident: Any) -> None:
        body = answer(character, ident)
        if media == "json":
            await says("200 OK", {"Content-Type": "application/json"}, body)(out, request, ident)
        else:
            await out.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
            await out.chunk(b"data: " + body + b"\n\n")
            await out.raw(b"0\r\n\r\n")

    async with web(boom=large) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await is_read_in_turns(run, character)


class OldServer:
    """On HTTP+SSE: what it answers comes on the one stream."""

    def __init__(self, character: str) -> None:
        self._character = character
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def stream(self, out: Out, request: Request, ident: Any) -> None:
        assert isinstance(out, Wire)
        await out.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        await out.chunk(b"event: endpoint\ndata: /mcp\n\n")
        while not out.reader.at_eof():
            await out.chunk(b"data: " + await self._answers.get() + b"\n\n")

    async def post(self, out: Out, request: Request, ident: Any) -> None:
        message = json.loads(request.body)
        if ident is not None:
            self._answers.put_nowait(self._answer(message))
        await says("202 Accepted", {})(out, request, ident)

    def _answer(self, message: dict[str, Any]) -> bytes:
        if message["method"] == "tools/call" and message["params"]["name"] == "boom":
            return answer(self._character, message["id"])
        said = {"content": [{"type": "text", "text": "ok x"}]}
        result = {"initialize": HELLO, "tools/list": {"tools": TOOLS}, "tools/call": said}.get(message["method"], {})
        return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()


@pytest.mark.parametrize("character", SPELLED, ids=ascii)
@pytest.mark.costs("15 MiB, several times, the server's included", memory=MEMORY)
async def test_F39_a_large_text_of_nothing_but_escapes_is_read_in_turns_from_an_old_event_stream(
    broker_of: BrokerOf, character: str
) -> None:
    old = OldServer(character)
    async with (
        web(GET=old.stream, POST=old.post) as bad,
        broker_of({"bad": {"url": bad.url, "transport": "sse"}}) as run,
    ):
        await is_read_in_turns(run, character)


@pytest.mark.parametrize("media", ["pipe", "stream"])
@pytest.mark.costs("9 MiB, several times, the server's included", memory=MEMORY)
async def test_F39_of_a_notification_of_megabytes_nothing_is_passed_on_but_that_it_was_long(
    broker_of: BrokerOf, puppet: Puppet, media: str
) -> None:
    def said(method: str, member: str) -> list[str]:
        head = f'{{"jsonrpc":"2.0","method":"notifications/{method}","params":{{"level":"error","progressToken":$TOKEN,'
        return [head + f'"progress":1,"{member}":"', unit('"') * 12, '"}}']

    result = '{"jsonrpc":"2.0","id":$ID,"result":{"content":[{"type":"text","text":"done"}]}}'
    with apart():
        messages = ["".join(said("progress", "message")), "".join(said("message", "data")), result]
        said_by_pipe = puppet({"boom": [one + "\n" for one in messages]})

    async def all_of(out: Out, request: Request, ident: Any) -> None:
        token = json.dumps(json.loads(request.body)["params"]["_meta"]["progressToken"])
        events = [f"data: {one.replace('$TOKEN', token)}\n\n" for one in messages]
        await streams(*events)(out, request, ident)

    told: list[tuple[str, dict[str, Any]]] = []
    async with web(boom=all_of) as server:
        bad = {"url": server.url} if media == "stream" else said_by_pipe
        async with broker_of({"bad": bad}) as run:
            await run.ready("bad")
            params = {"name": "bad__boom", "arguments": {}, "_meta": {"progressToken": 7}}
            incoming = Incoming(1, "tools/call", params)
            answer = await run.broker.engine.answer(
                incoming, Who(LOCAL, LATEST_LEGACY, log_level="debug"), lambda *one: told.append(one)
            )
            assert b"done" in answer.body
            assert run.upstream("bad").strays["notification"] == 1
            await run.innocent("bad")
    assert [(method, params["data"]) for method, params in told] == [("notifications/message", LEFT_OUT)]


@pytest.mark.costs("4 MiB, several times", memory=MEMORY)
async def test_F39_a_large_request_of_a_host_is_read_in_turns_and_none_overtakes_it(
    broker_of: BrokerOf, puppet: Puppet
) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    calls = [
        {"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": {"name": "x", "arguments": {}, "_meta": meta}}
        for name in ("long", "last")
    ]
    long, last = (json.dumps(call) for call in calls)
    long = long.replace('"arguments": {}', '"arguments": {"x": "' + '\\"' * (15 * MIB // 8) + '"}')
    async with broker_of({}) as run:
        await run.innocent()
        async with front_of(run.broker.engine) as (pipe, told), anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, pipe.write, f"{long}\n{last}\n".encode())
            lines = [await anyio.to_thread.run_sync(told.readline) for _ in range(2)]
    assert [json.loads(line)["id"] for line in lines] == ["long", "last"]
