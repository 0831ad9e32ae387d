"""HTTP/1.1 towards one origin without TLS: few promises, kept cheaply.

A request takes a connection, writes once, and waits for one future: no task and no timer. One request at a time uses
a connection. No request is ever written twice: the peer may have run it. Whether a kept connection is still good is
therefore asked of the operating system before the write, not learned from its failure.
"""

import asyncio
import os
import re
import socket
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

from broker.upstream.connection import Connection, Known, Unreachable, WireFault, WireResponse

MAX_CONNECTIONS: Final = 100
"""Per upstream; further calls wait their turn within their own time-out (F-64)."""
KEEP: Final = 4.0
"""Seconds that an idle connection is kept. Many servers close theirs after five: a call that is written in that moment
may or may not have come there, and could not be sent again."""
_NAMES: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_WITH_BODY: Final = b"%bContent-Length: %d\r\n\r\n%b"
_FRAMING: Final = frozenset({"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"})
"""Fields that say how the bytes are to be read: not the configuration's to set."""


class RequestHead:
    """What goes ahead of a body. Made once for many requests of one client."""

    __slots__ = ("headers", "lines", "method", "url")

    def __init__(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.lines = b""
        """It as bytes, less the length of the body, once `HttpWire` has had to write it."""

    def to(self, url: str) -> "RequestHead":
        """The same of a request to another place."""
        return RequestHead(self.method, url, self.headers)


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
        self._free = limit
        """How many more may send. While anybody waits there is none: a turn that ends is handed on."""
        self._loop = asyncio.get_running_loop()
        self._queue: deque[asyncio.Future[None]] = deque()
        """Who waits for a turn. Whoever gives up leaves it."""
        self._idle: list[Connection] = []
        """The one used last at the end. A new one is opened only while there is none, so `limit` bounds all of them."""
        self._busy: set[Connection] = set()
        self._known: Known = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<HttpWire {self._host}:{self._port} {len(self._busy)} busy, {len(self._idle)} idle>"

    def ask(self, head: RequestHead, body: bytes | None) -> WireResponse:
        """See `Wire`: at once if a connection is kept, else while the head is waited for."""
        if not head.lines:
            head.lines = self._lines_of(head)
        request = b"%b\r\n" % head.lines if body is None else _WITH_BODY % (head.lines, len(body), body)
        response = WireResponse(self, self._loop)
        connection = self._kept() if self._free else None
        if connection is None:
            response.is_here = self._ask_later(response, request)
        else:
            self._free -= 1
            self._busy.add(connection)
            connection.ask(response, request)
        return response

    async def _ask_later(self, response: WireResponse, request: bytes) -> None:
        """Ask when there is a turn, and a connection."""
        if self._free:
            self._free -= 1
        else:
            await self._turn()
        try:
            connection = self._kept() or await self._open()
        except BaseException:
            self._end_turn()
            raise
        self._busy.add(connection)
        connection.ask(response, request)
        await response.came

    def give_back(self, response: WireResponse) -> None:
        """See `Wire`."""
        connection = response.connection
        if connection is None or connection not in self._busy:
            return
        self._busy.remove(connection)
        response.connection = None  # from now on it may be another's
        now = self._loop.time()
        if (
            connection.may_be_kept
            and response.is_complete
            and not connection.transport.get_write_buffer_size()
            and not self._is_closed
        ):
            connection.response = None
            connection.idle_since = now
            self._idle.append(connection)
        else:
            connection.abort()
        while self._idle and self._idle[0].idle_since < now - KEEP:
            self._idle.pop(0).abort()
        if self._queue:
            self._end_turn()
        else:
            self._free += 1

    async def aclose(self) -> None:
        """Close all connections; what is in flight fails."""
        self._is_closed = True
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()

    async def _turn(self) -> None:
        """Wait until a turn is handed on to us."""
        turn = self._loop.create_future()
        self._queue.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._end_turn()  # it came in the moment in which we were cancelled
            elif turn in self._queue:
                self._queue.remove(turn)
            raise

    def _end_turn(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _kept(self) -> Connection | None:
        """One on which the peer has neither closed, nor said anything: it is asked for now."""
        if self._is_closed:
            raise WireFault("closed")
        while self._idle:
            connection = self._idle.pop()
            is_open = connection.may_be_kept and not connection.transport.is_closing()
            if is_open and connection.idle_since >= self._loop.time() - KEEP and not connection.arrived(0):
                return connection
            connection.abort()
        return None

    async def _open(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._connect()
        except TimeoutError:
            raise WireFault("it did not accept a connection in time") from None
        if self._is_closed:  # meanwhile
            connection.abort()
            raise WireFault("closed")
        return connection

    async def _connect(self) -> Connection:
        """Try every address of the host, each for its share of the time: one that swallows packets hides no other."""
        loop = self._loop
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
                        lambda: Connection(self._known),
                        host,
                        port,
                        family=family,
                        proto=protocol,
                        flags=socket.AI_NUMERICHOST,
                    )
                return connection
            except OSError as error:
                fault = error
        if isinstance(fault, TimeoutError) and fault.errno is None:
            raise fault
        raise Unreachable(f"cannot connect ({_reason(fault)})")

    def _lines_of(self, head: RequestHead) -> bytes:
        """See `RequestHead`. Raises: WireFault, for a header that would not be one (F-63)."""
        self._always = self._always or _lines(self._given)
        lines = (self._always | _lines(head.headers)).values()
        return f"{_request_line(head.method, head.url)}{''.join(lines)}".encode()


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
