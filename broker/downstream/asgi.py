"""The few words of ASGI that the HTTP fronts need.

The bounds here are asyncio's own: every request takes two of them, and anyio's cost twice as much.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from broker.downstream.message import error_bytes
from broker.errors import BrokerError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WRITE_TIMEOUT: Final = 30.0
"""Seconds that a caller may leave an answer unread; then its stream is dropped (F-74)."""
BODY_TIMEOUT: Final = 30.0
"""Seconds that a body may take to arrive (F-70)."""

JSON_MEDIA: Final = "application/json"
JSON_HEADERS: Final = ((b"content-type", JSON_MEDIA.encode()),)
CLOSE: Final = (b"connection", b"close")
"""For an answer that comes before the end of the body: what is left of it is not read (F-71)."""


class Disconnected(Exception):
    """The caller is gone, or does not read."""


class BodyRefused(Exception):
    """The body passes the limit (413), or does not arrive in time (408). The text says which."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class HttpError(Exception):
    """An HTTP status that ends a request before it is dispatched."""

    def __init__(
        self, status: int, error: BrokerError | None = None, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(status)
        self.status = status
        self.error = error
        self.headers = (*headers, CLOSE) if status in (408, 413) else tuple(headers)

    @classmethod
    def not_allowed(cls, allow: str) -> "HttpError":
        """405, with the methods that are."""
        return cls(405, headers=((b"allow", allow.encode()),))


class Headers:
    """Request headers by lower-case name. A name that comes twice where one value counts is `duplicated`.

    White space around a value is none of it (RFC 9110 5.5), whatever the parser below left there.
    """

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self.items = [(name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")) for name, value in raw]
        self._first = dict(reversed(self.items))
        self.duplicated: set[str] = set()
        if len(self._first) < len(self.items):
            counts = Counter(name for name, _ in self.items)
            self.duplicated.update(name for name, count in counts.items() if count > 1)

    def get(self, name: str) -> str | None:
        """The first value."""
        return self._first.get(name)

    @property
    def mapping(self) -> dict[str, str]:
        """First values."""
        return self._first


@dataclass(frozen=True, slots=True)
class Http:
    """One HTTP request: its headers, and the two ends of the connection."""

    method: str
    headers: Headers
    receive: Receive
    send: Send
    query: bytes = b""
    peer: str = ""
    """The address at the other end of the connection."""

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> "Http":
        """The request of an ASGI scope."""
        client = scope.get("client")
        peer = client[0] if client else ""
        return cls(scope["method"], Headers(scope["headers"]), receive, send, scope.get("query_string", b""), peer)

    async def body(self, limit: int) -> bytes:
        """The whole body.

        Raises: BodyRefused, before more than `limit` bytes are held; Disconnected.
        """
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                return await self._body(limit)
        except TimeoutError:
            raise BodyRefused(408, "the body did not arrive in time") from None

    async def _body(self, limit: int) -> bytes:
        too_large = BodyRefused(413, f"the body is larger than {limit} bytes")
        declared = self.headers.get("content-length")
        if declared is not None and declared.isdecimal() and int(declared[:20]) > limit:
            raise too_large
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise too_large
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The head of a response. Raises: Disconnected."""
        await self._send(_head(status, headers))

    async def write(self, data: bytes, *, more: bool) -> None:
        """A part of the body. Raises: Disconnected."""
        await self._send(_part(data, more=more))

    async def respond(self, status: int, body: bytes = b"", headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """A whole response. Raises: Disconnected."""
        length = (b"content-length", str(len(body)).encode())
        await self._send(_head(status, (*headers, length)), _part(body, more=False))

    async def refuse(self, refusal: HttpError) -> None:
        """The response that is a refusal. Raises: Disconnected."""
        body = b"" if refusal.error is None else error_bytes(None, refusal.error)
        await self.respond(refusal.status, body, (*(JSON_HEADERS if body else ()), *refusal.headers))

    async def gone(self) -> None:
        """Wait until the caller has closed the connection. Only after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _send(self, *messages: Message) -> None:
        # Even a small response may have to wait: for an earlier one on the same connection, which was not read yet.
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                for message in messages:
                    await self.send(message)
        except (TimeoutError, OSError):
            raise Disconnected from None


def _head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def _part(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def media_type(http: Http) -> str:
    """The `Content-Type` of a request, without its parameters."""
    return (http.headers.get("content-type") or "").partition(";")[0].strip().lower()
