"""HTTP/1.1 towards one origin without TLS: few promises, kept cheaply.

A request takes a connection, writes once, and waits for one future: no task and no timer. One request at a time uses
a connection. No request is ever written twice: the peer may have run it. Whether a kept connection is still good is
therefore asked of the operating system before the write, not learned from its failure.
"""

import asyncio
import os
import re
import select
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, cast
from urllib.parse import quote, urlsplit

import httptools

from broker.half_open import notice_half_open

MAX_HEAD: Final = 64 * 1024
"""Bytes of a head; also those that may come in a row without any content (chunk extensions, trailers, 1xx): the
parser would gather or skip them for ever."""
HIGH_WATER: Final = 256 * 1024
"""Bytes of a body that may wait for their reader; then the connection is not read from (promise b)."""
MAX_CONNECTIONS: Final = 100
"""Per upstream; further calls wait their turn within their own time-out (F-64)."""
KEEP: Final = 30.0
"""Seconds that an idle connection is kept: less than most firewalls remember one."""
MAX_KEPT: Final = 256
"""Heads kept for requests of the same kind; then all are made anew, so that strangers cannot fill the memory."""
MAX_KEPT_HEAD: Final = 4096
"""Characters of such a head; a longer one, with a long name in it, is made each time."""
_NAMES: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING: Final = frozenset({"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"})
"""Fields that say how the bytes are to be read: not the configuration's to set."""


class WireFault(OSError):
    """The exchange failed. The text says why."""


class Unreachable(WireFault):
    """No connection could be opened: nothing was sent."""


class WireResponse:
    """A response; its body comes while it is read. `release` must follow."""

    def __init__(self, connection: "_Connection", pool: "HttpWire") -> None:
        self._connection = connection
        self._pool = pool
        self.status = 0
        """0 until its head is there."""
        self.headers: dict[str, str] = {}
        """By lower-case name; the first of several."""
        self.head: asyncio.Future[None] = connection.loop.create_future()
        self.is_complete = False
        self._parts: list[bytes] = []
        self._was_read = False
        self._size = 0
        self._fault: WireFault | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing else says where the body ends."""
        return self.status != 0 and "content-length" not in self.headers and "transfer-encoding" not in self.headers

    @property
    def whole(self) -> bytes | None:
        """The whole body, if it is there already, and nothing of it was read."""
        if not self.is_complete or self._was_read:
            return None
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    async def read(self) -> bytes:
        """What has come of the body, at least one byte; nothing at its end.

        Raises: WireFault.
        """
        if not self._parts and not self.is_complete and self._fault is None:
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._was_read = True
            self._size = 0
            self._connection.resume()
            return data
        if not self.is_complete and self._fault is not None:
            raise self._fault
        return b""

    def release(self) -> None:
        """Nobody reads on. The connection is kept if the response is over, else closed: that cancels the request."""
        self._pool.give_back(self._connection)

    def add(self, data: bytes) -> None:
        """A part of the body has come."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER:
            self._connection.pause()
        self._wake()

    def complete(self) -> None:
        """The whole body has come."""
        self.is_complete = True
        self._wake()

    def fail(self, fault: WireFault) -> None:
        """The rest will never come."""
        self._fault = self._fault or fault
        if not self.head.done():
            self.head.set_exception(self._fault)
            self.head.exception()  # seen, even if the waiter was cancelled in the same moment
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection, and the callbacks of its parser."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        """Asked for once: each time it costs a system call."""
        self.response: WireResponse | None = None
        self.idle_since = 0.0
        self._is_open = False
        self._is_paused = False
        self._may_be_kept = True
        self._bare = 0
        """Bytes that came since the last content."""
        self._fields: list[tuple[bytes, bytes]] = []
        self._gathered = 0
        """Bytes of the fields."""
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._is_open = True
        opened: socket.socket = transport.get_extra_info("socket")
        notice_half_open(opened)
        self._arrived = _Arrived(opened.fileno())

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._is_open = False
        response, self.response = self.response, None
        if response is None or response.is_complete:
            return
        if exc is None and response.ends_with_connection:
            response.complete()
        else:
            response.fail(WireFault("the connection broke"))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.response is None:
            return self.abort()  # an answer that nobody asked for would be taken for the next one
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse("HTTP fault (its answer is not HTTP)")
        else:
            if self._bare > MAX_HEAD:
                self._refuse(f"HTTP fault (more than {MAX_HEAD} bytes without content)")

    @property
    def is_good(self) -> bool:
        """Whether a request may be written: the peer has neither closed, nor said anything."""
        return self._is_open and not self._transport.is_closing() and not self._arrived()

    @property
    def may_be_kept(self) -> bool:
        """Whether it can carry another request."""
        response = self.response
        return (
            self._may_be_kept
            and self._is_open
            and not self._is_paused
            and response is not None
            and response.is_complete
            and not self._transport.get_write_buffer_size()
        )

    def begin(self, response: WireResponse, request: bytes) -> None:
        """Write a request."""
        self.response = response
        self._bare = 0
        self._transport.write(request)

    def pause(self) -> None:
        """Read no more."""
        if not self._is_paused and self._is_open:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._is_paused and self._is_open:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once; what was being read fails."""
        if self._is_open:
            self._transport.abort()
        response, self.response = self.response, None
        if response is not None and not response.is_complete:
            response.fail(WireFault("closed"))

    def _refuse(self, why: str) -> None:
        if self.response is not None:
            self.response.fail(WireFault(why))
        self.abort()

    # -- what the parser tells ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins: the first one, that after a 1xx, or one too many."""
        self._fields.clear()
        self._gathered = 0
        if self.response is None or self.response.status:
            self._may_be_kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer, which is of no use."""
        if self.response is not None and not self.response.status:
            self._gathered += len(name) + len(value)
            if self._gathered > MAX_HEAD:
                raise WireFault("too long a head")  # to `data_received`, as an error of the parser
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        status = self._parser.get_status_code()
        response = self.response
        if response is None or response.status or status < 200:
            return
        self._bare = 0
        for name, value in reversed(self._fields):
            response.headers[name.decode("latin-1").lower()] = value.decode("utf-8", "surrogateescape")
        response.status = status
        if not response.head.done():
            response.head.set_result(None)

    def on_body(self, data: bytes) -> None:
        """Some of the content."""
        if self.response is not None and self.response.status and not self.response.is_complete:
            self._bare = 0
            self.response.add(data)

    def on_message_complete(self) -> None:
        """The end of a response, or of a 1xx."""
        if self.response is not None and self.response.status:
            self._may_be_kept = self._may_be_kept and self._parser.should_keep_alive()
            self.response.complete()


class _Arrived:
    """Whether anything has arrived at a socket that the event loop has not told yet, the end included."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(number, select.POLLIN)

    def __call__(self) -> bool:
        if self._poll is not None:
            return bool(self._poll.poll(0))
        return bool(select.select([self._number], (), (), 0)[0])  # Windows has no poll, and no limit on the number


class HttpWire:
    """Requests to one origin, over at most `limit` connections; further ones wait in order.

    `headers` go with every request that does not set them itself.
    """

    def __init__(self, url: str, headers: Mapping[str, str], connect_timeout: float, limit: int) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 80
        self._connect_timeout = connect_timeout
        self._given = {"Host": parts.netloc} | {
            name: value for name, value in headers.items() if name.lower() not in _FRAMING
        }
        self._always: dict[str, str] = {}
        """The lines of `_given`, once they have been needed: whoever asks is told if they are none."""
        self._heads: dict[tuple[object, ...], str] = {}
        """Heads by what they were made of: most requests are for the same few."""
        self._turns = asyncio.Semaphore(limit)
        self._idle: list[_Connection] = []
        """The one used last at the end. A new one is opened only while there is none, so `limit` bounds all of them."""
        self._busy: set[_Connection] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<HttpWire {self._host}:{self._port} {len(self._busy)} busy, {len(self._idle)} idle>"

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> WireResponse:
        """The response, when its head has come. Whoever is cancelled here has cancelled the request.

        Raises: WireFault.
        """
        request = self._request(method, url, headers, body)
        await self._turns.acquire()
        try:
            connection = self._kept() or await self._open()
        except BaseException:
            self._turns.release()
            raise
        response = WireResponse(connection, self)
        self._busy.add(connection)
        try:
            connection.begin(response, request)
            await response.head
        except BaseException:
            self.give_back(connection)
            raise
        return response

    def give_back(self, connection: _Connection) -> None:
        """A request is over. Safe to call twice."""
        if connection not in self._busy:
            return
        self._busy.remove(connection)
        now = connection.loop.time()
        if connection.may_be_kept and not self._is_closed:
            connection.response = None
            connection.idle_since = now
            self._idle.append(connection)
        else:
            connection.abort()
        while self._idle and self._idle[0].idle_since < now - KEEP:
            self._idle.pop(0).abort()
        self._turns.release()

    async def aclose(self) -> None:
        """Close all connections; what is in flight fails."""
        self._is_closed = True
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()

    def _kept(self) -> _Connection | None:
        if self._is_closed:
            raise WireFault("closed")
        while self._idle:
            connection = self._idle.pop()
            if connection.is_good:
                return connection
            connection.abort()
        return None

    async def _open(self) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._connect()
        except TimeoutError:
            raise WireFault("it did not accept a connection in time") from None
        if self._is_closed:  # meanwhile
            connection.abort()
            raise WireFault("closed")
        return connection

    async def _connect(self) -> _Connection:
        """Try every address of the host, each for its share of the time: one that swallows packets hides no other."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connect_timeout
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except OSError:
            raise Unreachable("its host name cannot be resolved") from None
        fault: OSError = OSError()
        for left, (family, _, protocol, _, address) in zip(range(len(found), 0, -1), found, strict=True):
            host, port = str(address[0]), int(address[1])
            try:
                async with asyncio.timeout((deadline - loop.time()) / left):
                    # With the protocol named, asyncio switches Nagle's algorithm off.
                    _, connection = await loop.create_connection(
                        _Connection, host, port, family=family, proto=protocol, flags=socket.AI_NUMERICHOST
                    )
                return connection
            except OSError as error:
                fault = error
        if isinstance(fault, TimeoutError) and fault.errno is None:
            raise fault
        raise Unreachable(f"cannot connect ({_reason(fault)})")

    def _request(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        """All bytes of a request. Raises: WireFault, for a header that would not be one (F-63)."""
        key = (method, url, *headers.items())
        head = self._heads.get(key)
        if head is None:
            self._always = self._always or _lines(self._given)
            head = _request_line(method, url) + "".join((self._always | _lines(headers)).values())
            if len(self._heads) >= MAX_KEPT:
                self._heads.clear()
            if len(head) <= MAX_KEPT_HEAD:
                self._heads[key] = head
        if body is None:
            return f"{head}\r\n".encode()
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def can_carry(url: str) -> bool:
    """Whether this client is for such a URL: no TLS, no password in it, no name that must be translated."""
    parts = urlsplit(url)
    return parts.scheme == "http" and "@" not in parts.netloc and parts.netloc.isascii() and bool(parts.hostname)


def _lines(headers: Mapping[str, str]) -> dict[str, str]:
    """Header lines by lower-case name. Raises: WireFault, if one would be read as anything else than itself (F-63)."""
    values = "".join(headers.values())  # one search is a tenth of the cost of one for each
    if "" in headers or _NAMES.fullmatch("".join(headers)) is None or _FORBIDDEN.search(values) is not None:
        raise WireFault("a header for it is not one line of text")
    if not values.isascii() and any("\ud800" <= character <= "\udfff" for character in values):
        raise WireFault("a header for it is not Unicode")
    return {name.lower(): f"{name}: {value}\r\n" for name, value in headers.items()}


@lru_cache(maxsize=256)
def _request_line(method: str, url: str) -> str:
    """Anything that a request line must not hold is escaped; what is escaped already stays."""
    parts = urlsplit(url)
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?[]|")
    return f"{method} {target} HTTP/1.1\r\n"


def _reason(fault: OSError) -> str:
    return os.strerror(fault.errno).lower() if fault.errno else "no route"
