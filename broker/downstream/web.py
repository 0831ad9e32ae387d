"""One HTTP request and its response, as the fronts see them; `connection.py` is where the bytes come from.

A request that is there whole when its task begins, and a response that is sent at once, wait for nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Protocol

from broker.downstream.head import Head, RawHeaders
from broker.downstream.message import error_bytes
from broker.downstream.room import Place
from broker.errors import BrokerError, ParseError

BODY_TIMEOUT: Final = 30.0
"""Seconds that a body may take to arrive (F-70)."""

JSON_MEDIA: Final = "application/json"
JSON_HEADERS: Final = ((b"content-type", JSON_MEDIA.encode()),)
_CLOSE: Final = (b"connection", b"close")
_FRAMING: Final = frozenset({b"connection", b"transfer-encoding"})
"""Said here, and by nobody else."""
_REFRAMED: Final = frozenset({"content-length", "transfer-encoding", "expect", "upgrade"})
"""Of a request: said of the way in which its body came."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODILESS: Final = frozenset({204, 304})


class Disconnected(Exception):
    """The caller is gone, or does not read."""


class HttpError(Exception):
    """An HTTP status that ends a request before it is dispatched."""

    def __init__(self, status: int, error: BrokerError | None = None, headers: RawHeaders = ()) -> None:
        super().__init__(status)
        self.status = status
        self.error = error
        self.headers = tuple(headers)

    @classmethod
    def not_allowed(cls, allow: str) -> "HttpError":
        """405, with the methods that are."""
        return cls(405, headers=((b"allow", allow.encode()),))


class BodyRefused(HttpError):
    """The body passes the limit (413), or does not arrive in time (408). The text says which."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(status, ParseError(why))


class Wire(Protocol):
    """The connection under a request."""

    place: Place
    """Where it stands: whose it is."""

    def send(self, data: bytes) -> None:
        """Write, now or as soon as the caller reads; dropped, if it is gone. Never blocks."""
        ...

    async def drained(self) -> None:
        """Wait until the caller has read most of what was sent, or is gone."""
        ...

    def read_on(self) -> None:
        """More of the body is wanted."""
        ...

    def settle(self, principal: str) -> bool:
        """Whether the caller may have this connection beside the others that are its own."""
        ...

    def end(self, data: bytes, *, may_go_on: bool) -> None:
        """`send` what the response ends with; `may_go_on`: another request may follow on this connection."""
        ...


class Http:
    """One request: the connection feeds it, a front answers it."""

    __slots__ = (
        *("head", "method", "path", "query", "headers", "peer", "is_gone", "has_begun", "is_over", "on_gone", "size"),
        *("task", "whole", "wire", "_content", "_gone", "_is_chunked", "_is_whole", "_may_go_on", "_more"),
    )

    def __init__(self, wire: Wire, head: Head, peer: str = "", whole: bytes | None = None) -> None:
        """`peer`: the address at the other end of the connection."""
        self.wire = wire
        """The connection under it."""
        self.head = head
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.headers = head.headers
        self.peer = peer
        self.is_gone = False
        """Whether the caller has closed the connection."""
        self.has_begun = False
        """Whether the response has."""
        self.is_over = False
        """Whether the response is complete."""
        self.on_gone: Callable[[], object] | None = None
        """Called when the caller closes the connection before the response is complete."""
        self.task: asyncio.Task[None] | None = None
        """What answers it."""
        self.whole = whole
        """The body, if it has come in one piece; None: `body` waits for it."""
        self._is_whole = whole is not None
        self._content: bytes | bytearray = whole or b""
        """What has come of the body. Bytes, if in one piece; not a list of pieces, since those of two bytes take twenty
        times the room of what is in them."""
        self.size = 0 if whole is None else len(whole)
        """Bytes of the body that wait here."""
        self._more: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._may_go_on = head.may_go_on
        self._is_chunked = False

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for more of the body."""
        return self._more is not None and not self._more.done()

    # -- the request, fed by the connection -----------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """A part of the body has come."""
        if not self._content:
            self._content = data
        elif isinstance(self._content, bytes):
            self._content = bytearray(self._content) + data
        else:
            self._content += data
        self.size += len(data)
        _wake(self._more)

    def complete(self) -> None:
        """The whole body has come."""
        self._is_whole = True
        if isinstance(self._content, bytes):
            self.whole = self._content
        _wake(self._more)

    def lose(self) -> None:
        """The caller is gone."""
        self.is_gone = True
        _wake(self._more)
        _wake(self._gone)
        if self.on_gone is not None and not self.is_over:
            self.on_gone()

    async def body(self, limit: int) -> bytes:
        """The whole body.

        Raises: BodyRefused, before more than `limit` bytes are held; Disconnected.
        """
        if not self._is_whole:
            try:
                async with asyncio.timeout(BODY_TIMEOUT):
                    await self._arrival(limit)
            except TimeoutError:
                raise BodyRefused(408, "the body did not arrive in time") from None
        self._refuse_more_than(limit)
        content, self._content, self.whole = self._content, b"", None
        return bytes(content)

    def put_back(self, body: bytes) -> None:
        """What `body` gave is to be had once more."""
        self._content = body

    def again(self, body: bytes, *, is_last: bool) -> bytes:
        """The request, once more, as bytes. `is_last`: none other is to follow it."""
        target = self.path.encode("latin-1") + (b"?" + self.query if self.query else b"")
        gone = _REFRAMED | ({"connection"} if is_last else set[str]())
        fields = [f"{name}: {value}\r\n".encode("latin-1") for name, value in self.headers.lines if name not in gone]
        fields += [b"connection: close\r\n"] * is_last
        if body or self.method != "GET":
            fields.append(b"content-length: %d\r\n" % len(body))
        version = b"1.0" if self.head.is_old else b"1.1"
        return b"%b %b HTTP/%b\r\n%b\r\n%b" % (self.method.encode(), target, version, b"".join(fields), body)

    async def _arrival(self, limit: int) -> None:
        declared = self.headers.get("content-length")
        if declared is not None and int(declared[:20]) > limit:
            self._refuse_more_than(-1)
        if (self.headers.get("expect") or "").lower() == "100-continue":
            self.wire.send(_CONTINUE)
        while not self._is_whole:
            self._refuse_more_than(limit)
            if self.is_gone:
                raise Disconnected
            self.wire.read_on()
            self._more = asyncio.get_running_loop().create_future()
            await self._more

    def _refuse_more_than(self, limit: int) -> None:
        if self.size > limit:
            self._content, self.whole = b"", None
            raise BodyRefused(413, f"the body is larger than {limit} bytes")

    async def gone(self) -> None:
        """Wait until the caller has closed the connection."""
        if not self.is_gone:
            self._gone = asyncio.get_running_loop().create_future()
            await self._gone

    def settle(self, principal: str) -> bool:
        """Whether this caller, who was let in, may have one more connection; else none other follows on it."""
        if self.wire.settle(principal):
            return True
        self.be_last()
        return False

    # -- the response ---------------------------------------------------------------------------------------------

    def respond(self, status: int, body: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """A whole response. Never blocks."""
        if self.is_over:
            return
        if status in (408, 413):
            self.be_last()
        self._may_go_on = may_go_on = self._may_go_on and self._is_whole
        head = _head(status, headers, not may_go_on)
        self.has_begun = True
        if self.method == "HEAD":
            whole = b"%bcontent-length: %d\r\n\r\n" % (head, len(body))
        else:
            whole = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        # Nobody waits here until it is read: the connection takes no other request before (F-74).
        self.wire.end(whole, may_go_on=may_go_on)
        self.is_over = True

    def refuse(self, refusal: HttpError) -> None:
        """The response that is a refusal."""
        body = b"" if refusal.error is None else error_bytes(None, refusal.error)
        self.respond(refusal.status, body, (*(JSON_HEADERS if body else ()), *refusal.headers))

    async def cut(self, refusal: HttpError) -> None:
        """The response ends here, with `refusal` if nothing was sent yet. What else is said is dropped."""
        self.be_last()
        if self.has_begun:
            await self.write(b"", more=False)
        else:
            self.refuse(refusal)

    async def start(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """The head of a response whose length is not known, unless `headers` say it."""
        if self.is_over:
            return
        has_length = status in _BODILESS or any(name.lower() == b"content-length" for name, _ in headers)
        self._is_chunked = not has_length and not self.head.is_old
        self._may_go_on = self._may_go_on and (has_length or self._is_chunked)
        head = _head(status, headers, self._is_last())
        self.has_begun = True
        self.wire.send(head + (b"transfer-encoding: chunked\r\n\r\n" if self._is_chunked else b"\r\n"))

    async def write(self, data: bytes, *, more: bool) -> None:
        """A part of the body, its last one without `more`. Waits while too much is unread."""
        if self.is_over:
            return
        if self.method == "HEAD":
            data = b""
        elif self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if not more:
                data += b"0\r\n\r\n"
        if more:
            if data:
                self.wire.send(data)
            await self.wire.drained()
        else:
            self.wire.end(data, may_go_on=self._may_go_on)
            self.is_over = True

    def be_last(self) -> None:
        """No other request is taken on this connection."""
        self._may_go_on = False

    def _is_last(self) -> bool:
        """Whether the connection ends with this response, said in its head: what is left of a body is not read."""
        self._may_go_on = self._may_go_on and self._is_whole
        return not self._may_go_on


Serve = Callable[[Http], Awaitable[None] | None]
"""Serves one request: what is left to do for it; None, if it is answered. Raises, as that does: HttpError, with which
it is answered, and Disconnected."""


@lru_cache(maxsize=256)
def _head(status: int, headers: tuple[tuple[bytes, bytes], ...], is_last: bool) -> bytes:
    """A head, less its last lines."""
    given = [(name, value) for name, value in headers if name.lower() not in _FRAMING]
    lines = [name + b": " + value for name, value in (*given, *((_CLOSE,) if is_last else ()))]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise ValueError("a header of a response is not one line")
    return b"\r\n".join((b"HTTP/1.1 %d %b" % (status, _reason(status)), *lines, b""))


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
