"""HTTP/1.1 for callers: one request on one connection, and its response as it comes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

LIMIT = 2**26
"""Bytes of one line or chunk."""


class Response:
    """An HTTP response, from its head on. `reader` may be replaced by one that looks at what it reads."""

    def __init__(self, status: int, headers: dict[str, str], reader: Any) -> None:
        self.status = status
        self.headers = headers
        self.reader = reader

    async def body(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
        elif "content-length" in self.headers:
            yield await self.reader.readexactly(int(self.headers["content-length"]))

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
        """(event, data) of each event that has data."""
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
async def http(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> AsyncGenerator[Response, None]:
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
