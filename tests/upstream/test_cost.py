"""What a call costs on its link, counted: functions entered from the link's request to its result."""

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import anyio

import broker
from broker.core import wire
from broker.core.eventstream import frame
from broker.upstream.http import HttpLink
from broker.upstream.link import Link
from broker.upstream.pipe import PipeLink
from broker.upstream.stdio import StdioDuplex
from broker.upstream.web import WebClient
from tests.calls import watched
from tests.relay.fake import MODERN
from tests.upstream.test_httpwire import Peer, meeting

ROOM = str(Path(broker.__file__).parent / "upstream")
MOST_OVER_HTTP = 15
"""Of `broker/upstream`. 24 before anybody counted."""
MOST_ON_A_STREAM = 39
"""Likewise, if its answer is an event."""
MOST_OVER_STDIO = 13
"""Of `broker/upstream`, and reading what came of the pipe."""
SERVER = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"jsonrpc": "2.0", "id": json.loads(line)["id"], "result": {"content": []}}), flush=True)
"""


async def entered(link: Link) -> int:
    """Functions that one call enters; a coroutine that waits is entered once."""
    frames: set[FrameType] = set()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ROOM):
            frames.add(frame)

    with watched(count):
        assert await link.request("tools/call", {"name": "echo", "arguments": {}}, timeout=10) == {"content": []}
    return len(frames)


async def answer(peer: Peer, writer: asyncio.StreamWriter) -> None:
    asked = wire.decode_object(peer.bodies[-1], wire.FROM_CALLER)
    body = wire.encode({"jsonrpc": "2.0", "id": asked["id"], "result": {"content": []}})
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def test_a_call_over_http_is_few_steps() -> None:
    async with meeting(answer) as (peer, to_peer):
        link = HttpLink(WebClient("up", peer.url, to_peer))
        link.version = MODERN
        # The first ones find out what is kept for the others.
        found = [await entered(link) for _ in range(5)]
        await link.aclose()
    assert min(found) <= MOST_OVER_HTTP, found


async def stream(peer: Peer, writer: asyncio.StreamWriter) -> None:
    asked = wire.decode_object(peer.bodies[-1], wire.FROM_CALLER)
    event = frame(wire.encode({"jsonrpc": "2.0", "id": asked["id"], "result": {"content": []}}))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))


async def test_a_call_that_a_stream_answers_is_few_steps_and_leaves_no_task_behind() -> None:
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        made.append(repr(work))
        return asyncio.Task(work, loop=loop, **more)

    async with meeting(stream) as (peer, to_peer):
        link = HttpLink(WebClient("up", peer.url, to_peer))
        link.version = MODERN
        await entered(link)
        asyncio.get_running_loop().set_task_factory(make)
        found = [await entered(link) for _ in range(5)]
        asyncio.get_running_loop().set_task_factory(None)
        await link.aclose()
    assert min(found) <= MOST_ON_A_STREAM, found
    assert not made, "no other call has to wait for what is left of this one"


async def test_a_call_over_stdio_is_few_steps() -> None:
    link = PipeLink("up", await StdioDuplex.open("up", [sys.executable, "-c", SERVER], {}, None))
    link.version = MODERN
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.serve)
        found = [await entered(link) for _ in range(5)]
        await link.aclose()
    assert min(found) <= MOST_OVER_STDIO, found
