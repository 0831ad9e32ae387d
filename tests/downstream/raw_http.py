"""A tiny HTTP/1.1 client on asyncio streams: what it sends is exactly what the test wrote, byte for byte.

Every wait is bounded by `TIMEOUT`, so a broker that goes silent fails the test instead of hanging it.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from tests.patience import PATIENCE

TIMEOUT = PATIENCE
"""Seconds for any single step: a bound, not an expectation."""

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
ENVELOPE: dict[str, Any] = {
    f"{META}protocolVersion": MODERN,
    f"{META}clientInfo": {"name": "raw", "version": "1"},
    f"{META}clientCapabilities": {},
}
JSON = "application/json"
STREAM = "text/event-stream"
_NAME_KEYS = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

Headers = Iterable[tuple[str, str]]


@dataclass
class Reply:
    """One response. `headers` are as they came, names in lower case."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> int | None:
        """The code of the JSON-RPC error, if it is one."""
        return self.json.get("error", {}).get("code") if self.body else None

    @property
    def messages(self) -> list[Any]:
        """The messages of a whole event stream, or the one JSON message."""
        if self.header("content-type") != STREAM:
            return [self.json]
        return [json.loads(data) for _, data in parse_events(self.body)]


def parse_events(stream: bytes) -> list[tuple[str, str]]:
    """(event, data) of each whole event; comments are ("", comment)."""
    found: list[tuple[str, str]] = []
    for block in stream.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            found.append(("", block))
            continue
        pairs = [line.partition(": ") for line in block.split("\n")]
        fields = {name: value for name, _, value in pairs}
        found.append((fields.get("event", "message"), fields["data"]))
    return found


def head(method: str, path: str, headers: Headers) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def without(headers: Headers, *names: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in names]


def message(method: str, params: Any = None, id: Any = 1, **more: Any) -> dict[str, Any]:
    """A legacy JSON-RPC message; `id=...` (Ellipsis) leaves the id out."""
    found: dict[str, Any] = {"jsonrpc": "2.0", "method": method, **more}
    if id is not ...:
        found["id"] = id
    if params is not None:
        found["params"] = params
    return found


def modern(method: str, params: Any = None, id: Any = 1, **meta: Any) -> dict[str, Any]:
    """A message with the envelope of 2026-07-28."""
    return message(method, {**(params or {}), "_meta": {**ENVELOPE, **meta}}, id)


def modern_headers(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The mirrored headers that belong to a modern message."""
    found = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", body["method"])]
    key = _NAME_KEYS.get(body["method"])
    if key is not None:
        found.append(("Mcp-Name", body["params"][key]))
    return found


class Connection:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(TIMEOUT):
            await self.writer.drain()

    async def head(self) -> Reply:
        """The status line and headers of the next response."""
        async with asyncio.timeout(TIMEOUT):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *rest = raw.decode("latin-1").split("\r\n")[:-2]
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in rest)]
        return Reply(int(first.split()[1]), headers)

    async def reply(self) -> Reply:
        """The next response, whole."""
        found = await self.head()
        length = found.header("content-length")
        async with asyncio.timeout(TIMEOUT):
            if length is not None:
                found.body = await self.reader.readexactly(int(length))
            elif found.header("transfer-encoding") == "chunked":
                while chunk := await self.chunk():
                    found.body += chunk
        return found

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(TIMEOUT):
            size = int(await self.reader.readline(), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def events(self) -> list[tuple[str, str]]:
        """The events of the next chunk: the broker never splits one."""
        return parse_events(await self.chunk())

    async def next_message(self) -> Any:
        """The next JSON-RPC message of an event stream; comments are skipped. One chunk must hold one at most."""
        while True:
            found = [json.loads(data) for event, data in await self.events() if event == "message"]
            if found:
                assert len(found) == 1, found
                return found[0]

    async def at_end(self) -> bool:
        """Whether the broker closes the connection."""
        async with asyncio.timeout(TIMEOUT):
            with suppress(ConnectionError):
                return await self.reader.read(1) == b""
        return True

    def reset(self) -> None:
        """Cut the connection without a goodbye."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class Client:
    """Requests to one broker."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.base = [("Host", f"127.0.0.1:{port}"), ("Content-Type", JSON), ("Accept", f"{JSON}, {STREAM}")]

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24))

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection, None]:
        async with await self.connect() as connection:
            yield connection

    async def raw(self, data: bytes) -> Reply:
        """Send these bytes on a new connection; the first response."""
        async with self.connection() as connection:
            await connection.send(data)
            return await connection.reply()

    def request(
        self, method: str, path: str = "/mcp", body: Any = None, headers: Headers = (), drop: Iterable[str] = ()
    ) -> bytes:
        """A request as bytes; `body` is bytes, or a value to encode. `headers` add, `drop` leaves base ones out."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        length = [("Content-Length", str(len(data)))] if data else []
        return head(method, path, [*without(self.base, *drop), *headers, *length]) + data

    async def post(self, body: Any, headers: Headers = (), path: str = "/mcp", drop: Iterable[str] = ()) -> Reply:
        return await self.raw(self.request("POST", path, body, headers, drop))

    async def ask(self, method: str, params: dict[str, Any] | None = None, path: str = "/mcp", **meta: Any) -> Reply:
        """A well-formed modern request."""
        body = modern(method, params, **meta)
        return await self.post(body, modern_headers(body), path)

    async def open_session(self, path: str = "/mcp", version: str = LEGACY) -> "Session":
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        reply = await self.post(message("initialize", params), path=path)
        assert reply.status == 200, reply
        return Session(self, path, reply.header("mcp-session-id") or "", reply.json["result"])


@dataclass
class Session:
    """A legacy session."""

    client: Client
    path: str
    id: str
    greeting: dict[str, Any]

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("Mcp-Session-Id", self.id), ("MCP-Protocol-Version", self.greeting["protocolVersion"])]

    def request(self, body: Any, method: str = "POST") -> bytes:
        return self.client.request(method, self.path, body, self.headers)

    async def post(self, body: Any) -> Reply:
        return await self.client.raw(self.request(body))

    async def ask(self, method: str, params: dict[str, Any] | None = None, id: Any = 1) -> Reply:
        return await self.post(message(method, params, id))

    async def delete(self) -> Reply:
        return await self.client.raw(self.request(None, "DELETE"))
