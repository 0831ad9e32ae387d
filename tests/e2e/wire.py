"""Callers without any SDK: what they send and what they get are the very bytes.

`Pipe` speaks to a command, `Web` to streamable HTTP, `OldWeb` to HTTP+SSE. The first two speak either era.
"""

import asyncio
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit

import anyio

from tests.e2e.brokers import TIMEOUT, environment
from tests.peers import ROOT

Json = dict[str, Any]
MODERN, LEGACY = "2026-07-28", "2025-11-25"
ENVELOPE: Json = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "e2e", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
INITIALIZE: Json = {
    "protocolVersion": LEGACY,
    "capabilities": {},
    "clientInfo": {"name": "e2e", "version": "1"},
}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
LIMIT = 2**26
"""Bytes of one line or event."""


class Failed(Exception):
    """The answer was an error."""

    def __init__(self, error: Json) -> None:
        super().__init__(error)
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error.get("data")


class Caller(ABC):
    """One caller; `notices` are all notifications that reached it, in order."""

    def __init__(self, era: str, first_id: int = 1) -> None:
        self.era = era
        self.greeting: Json = {}
        self.notices: list[Json] = []
        self._heard = anyio.Event()
        self._ids = itertools.count(first_id)

    @property
    def is_modern(self) -> bool:
        return self.era == "modern"

    async def greet(self) -> Self:
        """Say hello in the manner of the era."""
        if self.is_modern:
            self.greeting = await self.ask("server/discover")
        else:
            self.greeting = await self.ask("initialize", INITIALIZE)
            await self.tell("notifications/initialized")
        return self

    def envelope(self, params: Json | None) -> Json:
        """`params` as they go out."""
        if not self.is_modern:
            return params or {}
        meta = (params or {}).get("_meta", {})
        return {**(params or {}), "_meta": {**meta, **ENVELOPE}}

    def next_id(self) -> int:
        return next(self._ids)

    async def ask(self, method: str, params: Json | None = None, *, ident: int | str | None = None) -> Json:
        """The result. Raises: Failed."""
        with anyio.fail_after(TIMEOUT):
            answer = json.loads(await self.exchange(method, params, ident=ident))
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["result"]

    async def call(self, name: str, arguments: Json | None = None, **more: Any) -> Json:
        """The result of tools/call."""
        meta = {"_meta": more.pop("meta")} if "meta" in more else {}
        return await self.ask("tools/call", {"name": name, "arguments": arguments or {}, **meta}, **more)

    async def list(self, kind: str) -> list[Json]:
        """A list to its end: tools, prompts, resources or resourceTemplates."""
        method = "resources/templates/list" if kind == "resourceTemplates" else f"{kind}/list"
        items, cursor = [], None
        while True:
            page = await self.ask(method, {"cursor": cursor} if cursor is not None else None)
            items += page[kind]
            cursor = page.get("nextCursor")
            if cursor is None:
                return items

    async def heard(self, method: str, count: int = 1) -> None:
        """Wait until `count` notifications of that method have come."""
        with anyio.fail_after(TIMEOUT):
            while sum(notice["method"] == method for notice in self.notices) < count:
                self._heard = anyio.Event()
                await self._heard.wait()

    def count(self, method: str) -> int:
        return sum(notice["method"] == method for notice in self.notices)

    def _on_notice(self, notice: Json) -> None:
        self.notices.append(notice)
        self._heard.set()

    @abstractmethod
    async def exchange(self, method: str, params: Json | None, *, ident: int | str | None = None) -> bytes:
        """One request; the bytes of its response."""

    @abstractmethod
    async def tell(self, method: str, params: Json | None = None) -> None:
        """One notification."""


class _Duplex(Caller):
    """One stream of messages for everything: responses find their request by id."""

    def __init__(self, era: str, first_id: int = 1) -> None:
        super().__init__(era, first_id)
        self._waiting: dict[int | str, asyncio.Future[bytes]] = {}

    async def exchange(self, method: str, params: Json | None, *, ident: int | str | None = None) -> bytes:
        ident = self.next_id() if ident is None else ident
        answer = self._waiting[ident] = asyncio.get_running_loop().create_future()
        message = {"jsonrpc": "2.0", "id": ident, "method": method, "params": self.envelope(params)}
        try:
            await self.send(json.dumps(message).encode())
            return await answer
        finally:
            self._waiting.pop(ident, None)

    async def tell(self, method: str, params: Json | None = None) -> None:
        await self.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params or {}}).encode())

    def is_waiting(self, ident: int | str) -> bool:
        return ident in self._waiting

    def _on_message(self, data: bytes) -> None:
        message = json.loads(data)
        if "method" in message:
            self._on_notice(message)
        elif (waiter := self._waiting.get(message["id"])) is not None and not waiter.done():
            waiter.set_result(data)

    def _on_end(self) -> None:
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(ConnectionError("the other side is gone"))

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """One message."""


class Pipe(_Duplex):
    """A caller on the pipe of a command that it has started."""

    process: asyncio.subprocess.Process

    async def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data + b"\n")
        await self.process.stdin.drain()

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self._on_message(line)
        self._on_end()

    def hang_up(self) -> None:
        """Close the pipe's end, as a host does that goes."""
        assert self.process.stdin is not None
        self.process.stdin.close()


@asynccontextmanager
async def pipe(argv: Sequence[str], era: str, *, greets: bool = True) -> AsyncIterator[Pipe]:
    """Start a command and say hello; at the end it gets EOF, and is killed if that is not enough."""
    caller = Pipe(era)
    caller.process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(),
        cwd=ROOT,
        limit=LIMIT,
        start_new_session=True,
    )
    reading = asyncio.create_task(caller.read())
    try:
        yield await caller.greet() if greets else caller
    finally:
        with anyio.CancelScope(shield=True):
            caller.hang_up()
            with suppress(TimeoutError), anyio.fail_after(10):
                await caller.process.wait()
            with suppress(ProcessLookupError):
                caller.process.kill()
            await caller.process.wait()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


class Response:
    """An HTTP response, from its head on."""

    def __init__(self, status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader

    async def body(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._reader.readline(), 16):
                yield (await self._reader.readexactly(size + 2))[:-2]
        elif "content-length" in self.headers:
            yield await self._reader.readexactly(int(self.headers["content-length"]))

    async def messages(self) -> AsyncIterator[bytes]:
        """The messages in it: one if it is JSON, any number if it is a stream."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            if body := await self.body():
                yield body
            return
        async for event, data in self.events():
            if event == b"message" and data:
                yield data

    async def events(self) -> AsyncIterator[tuple[bytes, bytes]]:
        buffer = b""
        async for chunk in self.chunks():
            buffer += chunk.replace(b"\r\n", b"\n")
            while b"\n\n" in buffer:
                block, buffer = buffer.split(b"\n\n", 1)
                name, data = b"message", []
                for line in block.split(b"\n"):
                    field, _, value = line.partition(b":")
                    value = value.removeprefix(b" ")
                    if field == b"event":
                        name = value
                    elif field == b"data":
                        data.append(value)
                if data:
                    yield name, b"\n".join(data)


@asynccontextmanager
async def http(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> AsyncIterator[Response]:
    """One request on a connection of its own, which is closed at the end."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=LIMIT)
    try:
        path = where.path + (f"?{where.query}" if where.query else "")
        head = {"Host": where.netloc, "Connection": "close", "Content-Length": str(len(body)), **headers}
        rows = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        writer.write("\r\n".join(rows).encode() + body)
        await writer.drain()
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        pairs = (row.partition(":") for row in rest)
        yield Response(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, reader)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class Web(Caller):
    """A caller over streamable HTTP. A cancelled `exchange` closes its connection."""

    def __init__(self, url: str, era: str, first_id: int = 1) -> None:
        super().__init__(era, first_id)
        self.url = url
        self.session: str | None = None
        self.status = 0
        """Of the last response."""
        self.on_head: Callable[[Response], None] = lambda response: None

    def headers(self, method: str, params: Json | None = None) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.is_modern:
            headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            name = (params or {}).get(NAMED.get(method, ""))
            return headers | ({"Mcp-Name": name} if isinstance(name, str) else {})
        if self.session is not None:
            headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": LEGACY}
        return headers

    async def exchange(self, method: str, params: Json | None, *, ident: int | str | None = None) -> bytes:
        ident = self.next_id() if ident is None else ident
        message = {"jsonrpc": "2.0", "id": ident, "method": method, "params": self.envelope(params)}
        return await self.post(json.dumps(message).encode(), self.headers(method, params))

    async def post(self, body: bytes, headers: dict[str, str]) -> bytes:
        """One POST with exactly this body; the bytes of the response message, empty if there is none."""
        async with http("POST", self.url, headers, body) as response:
            self.status = response.status
            self.session = response.headers.get("mcp-session-id", self.session)
            self.on_head(response)
            async for data in response.messages():
                message = json.loads(data)
                if "method" not in message:
                    return data
                self._on_notice(message)
        if response.status == 202:
            return b""
        raise ConnectionError(f"HTTP {response.status} without a response")

    async def tell(self, method: str, params: Json | None = None) -> None:
        body = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        await self.post(json.dumps(body).encode(), self.headers(method, params))

    async def delete(self) -> int:
        """End the session; the HTTP status."""
        async with http("DELETE", self.url, self.headers("")) as response:
            return response.status

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """The GET stream of a legacy session."""
        headers = {**self.headers("", None), "Accept": "text/event-stream"}
        async with http("GET", self.url, headers) as response:
            assert response.status == 200, response.status

            async def read() -> None:
                async for data in response.messages():
                    self._on_notice(json.loads(data))

            reading = asyncio.create_task(read())
            try:
                yield
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading


class OldWeb(_Duplex):
    """A caller over HTTP+SSE."""

    def __init__(self, url: str) -> None:
        super().__init__("legacy")
        self.url = url
        self.endpoint = anyio.Event()
        self._to = ""

    async def send(self, data: bytes) -> None:
        await self.endpoint.wait()
        async with http("POST", self._to, {"Content-Type": "application/json"}, data) as response:
            assert response.status == 202, response.status

    async def read(self, response: Response) -> None:
        where = urlsplit(self.url)
        async for event, data in response.events():
            if event == b"endpoint":
                self._to = f"{where.scheme}://{where.netloc}{data.decode()}"
                self.endpoint.set()
            else:
                self._on_message(data)
        self._on_end()


@asynccontextmanager
async def old_web(url: str) -> AsyncIterator[OldWeb]:
    caller = OldWeb(url)
    async with http("GET", url, {"Accept": "text/event-stream"}) as response:
        reading = asyncio.create_task(caller.read(response))
        try:
            yield await caller.greet()
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
