"""An HTTP upstream in this process, over a real socket, whose answers a test writes by hand.

What a test does not write is answered by tests/servers/rawhttp.py.
"""

import argparse
import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.hostile.cost import belongs_to_the_test
from tests.servers import rawhttp
from tests.servers.rawhttp import Out, Request

Answer = Callable[[Out, Request, Any], Awaitable[None]]
"""Writes the answer to one request; the last argument is its JSON-RPC id."""


class Wire(Out):
    """The answer's side of a connection, which sees when the other side hangs up."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(writer)
        self.reader = reader


class Web:
    """`on` maps places to answers: `boom`, `list`, `handshake`, `GET`, `initialize`, or a method."""

    def __init__(self, era: str, on: dict[str, Answer]) -> None:
        options = argparse.Namespace(fault="none", at="boom", era=era, log=None, bytes=2**20, interval=0.1)
        self.state = rawhttp.State(options)
        self.on = on
        self.seen: list[Request] = []
        self.messages: list[dict[str, Any]] = []
        self.open = 0
        """Connections."""
        self.url = ""

    def methods(self, method: str) -> int:
        """How many messages of this method came."""
        return sum(message.get("method") == method for message in self.messages)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        belongs_to_the_test()
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                async for request in rawhttp.requests(reader):
                    await self._answer(Wire(reader, writer), request)
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, out: Out, request: Request) -> None:
        self.seen.append(request)
        message = json.loads(request.body) if request.body else {}
        if request.body:
            self.messages.append(message)
        place = rawhttp.place(message) or ""
        for where in (request.method, str(message.get("method")), place):
            if where in self.on:
                await self.on[where](out, request, message.get("id"))
                return
        await rawhttp.handle(self.state, out, request)


@asynccontextmanager
async def web(
    era: str = "legacy", tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", **on: Answer
) -> AsyncGenerator[Web, None]:
    """The server, listening; `on` is `Web.on`, with `_` for `/` in names."""
    served = Web(era, {name.replace("_", "/"): answer for name, answer in on.items()})
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(served.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    shown = f"[{host}]" if ":" in host else host
    served.url = f"{'http' if tls is None else 'https'}://{shown}:{server.sockets[0].getsockname()[1]}/mcp"
    try:
        yield served
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def says(status: str, headers: dict[str, str], body: bytes = b"") -> Answer:
    """An answer with these very bytes, then the end of the connection unless a length is given."""

    async def answer(out: Out, request: Request, ident: Any) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
        content = body.replace(b"$ID", json.dumps(ident).encode())
        if "Content-Length" not in headers:
            lines.append(f"Content-Length: {len(content)}")
        await out.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + content)

    return answer


def streams(*events: str, end: bool = True) -> Answer:
    """An event stream of these texts, which ends, or stays open."""

    async def answer(out: Out, request: Request, ident: Any) -> None:
        await out.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for event in events:
            await out.chunk(event.replace("$ID", json.dumps(ident)).encode())
        while not end and isinstance(out, Wire) and not out.reader.at_eof():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await out.raw(b"0\r\n\r\n")

    return answer
