"""HTTP/1.1 as a server speaks it: one connection of a caller, its bounds, and one request after the other.

The parser is llhttp (`httptools`), which is strict: what could be read in two ways (two lengths, a folded header, a
bare line feed) is refused with 400, and the connection ends (I-24). A request that is there while another one is
answered waits its turn, and nothing more is read meanwhile. The server looks at each connection once a second
(`look`), so that no request costs a timer.
"""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Final, Protocol, cast

import httptools

from broker.clock import SystemClock
from broker.downstream.head import NO_HEAD, Head, KnownHeads, size_of_head
from broker.downstream.message import error_bytes
from broker.downstream.room import Place, Room
from broker.downstream.target import COMMON, split
from broker.downstream.web import JSON_HEADERS, Disconnected, Http, HttpError, Serve
from broker.logs import internal_error

log = logging.getLogger(__name__)

HEAD_TIMEOUT: Final = 10.0
"""Seconds that the head of a request may take to arrive (F-70)."""
KEEP_ALIVE: Final = 65.0
"""Seconds for which an idle connection is kept: longer than the 60 s of common proxies, so that they close first."""
RESTS_AFTER: Final = 10.0
"""Seconds after which an idle connection keeps nothing of what its caller has sent before."""
WRITE_TIMEOUT: Final = 30.0
"""Seconds in which a caller that has something to read must read some of it; else it is dropped (F-74)."""
LINGER: Final = 5.0
"""Seconds in which a caller may go on sending what nobody reads, so that it can read why (F-71)."""
MAX_HEAD: Final = 64 * 1024
"""Bytes of a head: more is refused before it is decoded (SP-21)."""
MAX_FIELDS: Final = 100
"""Header fields, likewise."""
HIGH_WATER: Final = 256 * 1024
"""Bytes of a body that may wait before anybody asks for it."""


class Server(Protocol):
    """What a connection needs of its server."""

    serve: Serve
    room: Room
    is_closing: bool

    def opened(self, connection: "Connection") -> None:
        """A caller has connected."""
        ...

    def ended(self, connection: "Connection") -> None:
        """A connection is gone, and nothing is done for it any more."""
        ...


class Connection(asyncio.Protocol):
    """See the module."""

    def __init__(self, server: Server, place: Place) -> None:
        self._server = server
        self.place = place
        """What it takes of the server's room."""
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._peer = ""
        self._deadline = self._loop.time() + HEAD_TIMEOUT
        """When it is closed, unless something happens before."""
        self._fields: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._gathered = 0
        """Bytes that came with the head so far."""
        self._piece = 0
        """Bytes that came last."""
        self._is_shared = False
        """Whether a request has ended in them."""
        self._is_in_head = False
        self._known = KnownHeads()
        self._complete: Head | None = None
        """Of the request that ended last, in the piece that came last."""
        self._body: list[bytes] = []
        self._arriving: Http | None = None
        """The request whose body comes in."""
        self._current: Http | None = None
        """The request that is answered."""
        self.task: asyncio.Task[None] | None = None
        """What answers it."""
        self._queue: deque[Http] = deque()
        self._refusal = 0
        """The status for what came last and is no request, once those before it are answered."""
        self._is_deaf = False
        """Whether nothing that comes is of interest any more."""
        self._is_reading = True
        self._is_lost = False
        self._drain: asyncio.Future[None] | None = None
        """Set while too much of what was sent is unread."""
        self._unread = 0

    def __repr__(self) -> str:
        return f"<Connection of {self._peer} {'busy' if self._current is not None else 'idle'}>"

    # -- asyncio.Protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._is_lost = self._is_deaf = True
        self._queue.clear()
        self.resume_writing()
        if self.task is None:
            self._server.ended(self)
        for http in {self._arriving, self._current} - {None}:
            cast(Http, http).lose()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._is_deaf:
            return
        # Whether these can only be the first bytes of a request.
        is_new = (
            self._current is None
            and self._arriving is None
            and not self._is_in_head
            and not self._queue
            and self._drain is None
        )
        key, head, body = self._known.find(data) if is_new else NO_HEAD
        if head is not None:
            return self._begin(Http(self, head, self._peer, body))
        self._piece = len(data)
        self._is_shared = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refusal or 400)
        self._feed()
        if self._is_in_head and not self._is_shared:
            self._gathered += len(data)  # the parser may be gathering one field without end
            if self._gathered > MAX_HEAD:
                self._refuse(431)
        elif key and self._complete is not None and self.place.principal:
            # Of strangers nothing is kept: there may be many of them, and they need not come back.
            self._known.learn(key, self._complete)
        self._complete = None

    def _decline(self, rest: bytes) -> None:
        """An upgrade to another protocol is not taken up: the request is read again as one of this (RFC 9110 7.8)."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            return self._refuse(405)
        fields = [name + b": " + value for name, value in self._fields if name.lower() != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join((method + b" " + self._url + b" HTTP/1.1", *fields, b"", rest)))

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._drain = self._loop.create_future()
        self._unread = self._transport.get_write_buffer_size()
        self._deadline = self._loop.time() + WRITE_TIMEOUT

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._drain is not None:
            drain, self._drain = self._drain, None
            drain.set_result(None)
            self._deadline = float("inf")
            self._next()

    # -- what the parser tells ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        self._fields = []
        self._url = b""
        self._gathered = 0
        self._is_in_head = True
        if self._current is None:
            self._deadline = self._loop.time() + HEAD_TIMEOUT

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer, which is of no use."""
        if self._is_in_head:
            self._fields.append((name, value))
            if len(self._fields) > MAX_FIELDS:
                self._refuse_head()

    def _refuse_head(self) -> None:
        self._refusal = 431
        raise HttpError(431)  # to `data_received`, as an error of the parser

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._is_in_head = False
        if self._gathered + self._piece > MAX_HEAD and size_of_head(self._url, self._fields) > MAX_HEAD:
            self._refuse_head()
        if self._parser.should_upgrade():
            return  # `data_received` is told too
        version = self._parser.get_http_version()
        path, query = COMMON.get(self._url) or split(self._url)
        method, may_go_on = self._parser.get_method().decode("ascii"), self._parser.should_keep_alive()
        head = Head(method, path, query, self._fields, may_go_on=may_go_on, is_old=version == "1.0")
        self._fields, self._url = [], b""  # a credential is among them, and the connection may rest for long
        http = Http(self, head, self._peer)
        encoding = http.headers.get("transfer-encoding")
        if version != "1.1" and (version != "1.0" or encoding is not None):
            raise HttpError(400)  # RFC 9112 6.1: such a request may have been read in another way before
        if encoding is not None and encoding.lower() != "chunked":
            raise HttpError(400)  # the parser says so too, but later
        self._arriving = http
        if self._current is None and not self._queue:
            self._begin(http)
        else:
            self._queue.append(http)
            self._pause()

    def on_body(self, data: bytes) -> None:
        """Some of the body: perhaps two bytes, many thousand times in one piece."""
        self._body.append(data)

    def _feed(self) -> None:
        """What has come of the body goes to its request."""
        data, http = b"".join(self._body), self._arriving
        self._body.clear()
        if data and http is not None and not http.is_over:
            http.feed(data)
            if http.size > HIGH_WATER and not http.is_awaited:
                self._pause()

    def on_message_complete(self) -> None:
        """The end of a request."""
        self._feed()
        self._is_shared = True
        http, self._arriving = self._arriving, None
        if http is not None:
            http.complete()
            self._complete = http.head

    # -- one request after the other ------------------------------------------------------------------------------

    def _begin(self, http: Http) -> None:
        self._current = http
        if self._server.is_closing:
            http.be_last()
        self._deadline = float("inf")
        http.task = self.task = self._loop.create_task(self._run(http))

    async def _run(self, http: Http) -> None:
        try:
            try:
                work = self._server.serve(http)
                if work is not None:
                    await work
            except HttpError as refusal:
                http.refuse(refusal)
        except Disconnected:
            pass  # there is nobody to answer
        except asyncio.CancelledError:
            # By whom it serves, since the caller is gone, or by the server, which goes down.
            if not http.is_gone and not self._server.is_closing:
                raise
        except Exception as fault:
            error = internal_error(log, SystemClock().token(), fault)
            if not http.has_begun:
                http.respond(500, error_bytes(None, error), JSON_HEADERS)
        finally:
            self.task = None
            if not http.is_over and (http.has_begun or not self._refusal):
                # Half an answer: the end of the connection says so.
                self._is_deaf = True
                self._deadline = self._loop.time() + LINGER
                self._transport.close()
            self._current = None
            if self._is_lost:
                self._server.ended(self)
            else:
                self._next()

    def _next(self) -> None:
        """What follows a request that was answered, unless too much of its answer is unread."""
        if self._current is not None or self._drain is not None or self._transport.is_closing():
            return
        if self._queue:
            self._begin(self._queue.popleft())
        elif self._refusal:
            self._say_refusal()
        elif not self._is_deaf:
            self._deadline = self._loop.time() + (HEAD_TIMEOUT if self._is_in_head else KEEP_ALIVE)
        if not self._queue and not self._is_reading:
            self.read_on()

    def _refuse(self, status: int) -> None:
        """What came is no request: it ends the connection, after those before it were answered."""
        self._is_deaf = True
        self._refusal = status
        if self._arriving is not None:
            self._arriving.lose()  # its body has no end
        if self._current is None and not self._queue:
            self._say_refusal()

    def _say_refusal(self) -> None:
        self.send(b"HTTP/1.1 %d\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % self._refusal)
        self._linger()

    # -- `Wire` ---------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """See `Wire`."""
        if not self._is_lost:
            self._transport.write(data)

    async def drained(self) -> None:
        """See `Wire`."""
        if self._drain is not None:
            await asyncio.shield(self._drain)

    def read_on(self) -> None:
        """See `Wire`."""
        if not self._is_reading and not self._is_lost:
            self._is_reading = True
            self._transport.resume_reading()

    def settle(self, principal: str) -> bool:
        """See `Wire`."""
        return self.place.principal == principal or self._server.room.settle(self.place, principal)

    def end(self, data: bytes, *, may_go_on: bool) -> None:
        """See `Wire`."""
        if data and not self._is_lost:
            self._transport.write(data)
        if not may_go_on or self._server.is_closing:
            self._queue.clear()
            self._linger()

    def _pause(self) -> None:
        if self._is_reading and not self._is_lost:
            self._is_reading = False
            self._transport.pause_reading()

    # -- the end --------------------------------------------------------------------------------------------------

    def _linger(self) -> None:
        """All is said. What the caller still sends is not read, but it gets the time to read what was said."""
        self._is_deaf = True
        self._refusal = 0
        self._deadline = self._loop.time() + LINGER
        if self._is_lost:
            return
        if self._arriving is None:
            self._transport.close()
        else:
            self.read_on()
            with suppress(OSError, RuntimeError):
                self._transport.write_eof()

    def look(self, now: float) -> None:
        """Close it, if its time is up."""
        if now < self._deadline:
            if self._current is None and now > self._deadline - KEEP_ALIVE + RESTS_AFTER:
                self._known.forget()
            return
        if self._drain is not None:
            unread = self._transport.get_write_buffer_size()
            if unread < self._unread:
                self._unread, self._deadline = unread, now + WRITE_TIMEOUT
                return
        elif self._is_in_head and not self._is_deaf:
            return self._refuse(408)
        self._transport.abort()

    def close(self) -> None:
        """No other request is taken: an idle connection ends now, a busy one with its response."""
        if self._current is None:
            self._transport.close()
        else:
            self._current.be_last()

    def abort(self) -> None:
        """End it now, and what is answered on it."""
        if self.task is not None:
            self.task.cancel()
        self._transport.abort()
