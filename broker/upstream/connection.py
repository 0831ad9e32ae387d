"""One connection of HTTP/1.1 towards an upstream: a request is written, its response read. `httpwire.py` has the rest.

Most responses begin with a head that was read before, byte for byte but for the digits of their length: what the parser
made of it then is what it would make of it now, so it is not asked again, and the body is counted off. All else is the
parser's: it is the only one who decides what HTTP is.
"""

import asyncio
import select
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, cast

import httptools

from broker.half_open import notice_half_open

MAX_HEAD: Final = 64 * 1024
"""Bytes of a head; also those that may come in a row without any content (chunk extensions, trailers, 1xx): the
parser would gather or skip them for ever."""
HIGH_WATER: Final = 256 * 1024
"""Bytes of a body that may wait for their reader; then the connection is not read from (promise b)."""
MAX_KNOWN: Final = 256
"""Heads that are remembered of one upstream; then all are read anew, so that it cannot fill the memory."""
MAX_KNOWN_HEAD: Final = 2048
"""Bytes of such a head; a longer one is read each time."""
MAX_DIGITS: Final = 9
"""Of a length that is read here."""
_HEAD_END: Final = b"\r\n\r\n"
_LENGTHS: Final = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
"""What stands before it, in the spellings of most servers; both are equally long."""


class WireFault(OSError):
    """The exchange failed. The text says why."""


class Unreachable(WireFault):
    """No connection could be opened: nothing was sent."""


class Head:
    """What the head of a response says. Most are those of many responses, so what everybody asks is found out once."""

    __slots__ = ("headers", "is_plain", "media", "status")

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        """By lower-case name; the first of several. Of `content-length` only that it is there: its value may be that of
        another response."""
        self.media = headers.get("content-type", "").partition(";")[0].strip().lower()
        """The media type, without parameters."""
        self.is_plain = status == 200 and "content-encoding" not in headers
        """Whether nothing is to be asked before its body is read."""


NO_HEAD: Final = Head(0, {})

Known = dict[bytes, Head]
"""Heads by their bytes, less the digits of their length: of responses that were read to their end, said how long they
are, and left their connection good for another request."""


class Returns(Protocol):
    """Takes connections back."""

    def give_back(self, response: "WireResponse") -> None:
        """See `Wire`."""
        ...


class WireResponse:
    """See `Response`: a request from when it is made, and what comes on it."""

    __slots__ = (
        *("came", "connection", "head", "is_complete", "is_here", "whole"),
        *("_fault", "_loop", "_owner", "_parts", "_size", "_waiter", "_was_read"),
    )

    def __init__(self, owner: Returns, loop: asyncio.AbstractEventLoop) -> None:
        self.connection: Connection | None = None
        """Over which it was asked for; None as long as it has not been."""
        self.head = NO_HEAD
        self.came: asyncio.Future[None] = loop.create_future()
        """Done when its head has come."""
        self.is_here: Awaitable[None] = self.came
        self.is_complete = False
        self.whole: bytes | None = None
        self._owner = owner
        self._loop = loop
        self._parts: list[bytes] = []
        self._was_read = False
        self._size = 0
        self._fault: WireFault | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> "WireResponse":
        return self

    def __exit__(self, *_: object) -> None:
        self._owner.give_back(self)

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing else says where the body ends."""
        head = self.head
        return head.status != 0 and "content-length" not in head.headers and "transfer-encoding" not in head.headers

    async def read(self) -> bytes:
        """What has come of the body, at least one byte; nothing at its end.

        Raises: WireFault.
        """
        if not self._parts and not self.is_complete and self._fault is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._was_read = True
            self._size = 0
            if self.connection is not None:
                self.connection.resume()
            return data
        if not self.is_complete and self._fault is not None:
            raise self._fault
        return b""

    def begin(self, head: Head) -> None:
        """The head has come."""
        self.head = head
        if not self.came.done():
            self.came.set_result(None)

    def arrive(self, head: Head, body: bytes) -> None:
        """Head and body have come, in one piece, as most do: what `begin`, `add` and `complete` do one by one."""
        self.head = head
        self.whole = body
        if body:
            self._parts.append(body)
        self.is_complete = True
        if not self.came.done():
            self.came.set_result(None)

    def add(self, data: bytes) -> None:
        """A part of the body has come."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and self.connection is not None:
            self.connection.pause()
        if self._waiter is not None:
            self._wake(self._waiter)

    def complete(self) -> None:
        """The whole body has come."""
        if not self._was_read:
            self.whole = b"".join(self._parts)
        self.is_complete = True
        if self.connection is not None:
            self.connection.resume()
        if self._waiter is not None:
            self._wake(self._waiter)

    def fail(self, fault: WireFault) -> None:
        """The rest will never come."""
        self._fault = self._fault or fault
        if not self.came.done():
            self.came.set_exception(self._fault)
            self.came.exception()  # seen, even if the waiter was cancelled in the same moment
        if self._waiter is not None:
            self._wake(self._waiter)

    def _wake(self, waiter: "asyncio.Future[None]") -> None:
        if not waiter.done():
            waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One connection, and the callbacks of its parser. `known` is shared by all of one upstream."""

    def __init__(self, known: Known) -> None:
        self.loop = asyncio.get_running_loop()
        """Asked for once: each time it costs a system call."""
        self.response: WireResponse | None = None
        self.idle_since = 0.0
        self.may_be_kept = True
        """Whether it can carry another request, once the response to this one is complete."""
        self._known = known
        self._is_open = False
        self._is_paused = False
        self._left = 0
        """Bytes to come of a body that is counted off."""
        self._is_new = True
        """Whether nothing has come yet of the response that is waited for."""
        self._first = b""
        """What that began with, up to the first empty line: its head, as a rule. Less the digits of its length; nothing
        if it says none."""
        self._first_size = 0
        """Bytes of it, with them."""
        self._parsed = 0
        """Bytes of it that were given to the parser."""
        self._content = 0
        """Bytes of these that are its body."""
        self._bare = 0
        """Bytes that came since the last content."""
        self._fields: list[tuple[bytes, bytes]] = []
        self._gathered = 0
        """Bytes of the fields."""
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._is_open = True
        opened: socket.socket = transport.get_extra_info("socket")
        notice_half_open(opened)
        self.arrived = arrivals(opened.fileno())

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._is_open = self.may_be_kept = False
        response, self.response = self.response, None
        if response is None or response.is_complete:
            return
        if exc is None and response.ends_with_connection:
            response.complete()
        else:
            response.fail(WireFault("the connection broke"))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        response = self.response
        if response is None or response.is_complete:
            return self.abort()  # what nobody asked for would be taken for the next answer
        if self._left:
            return self._count_off(response, data)
        if self._is_new:
            return self._begin(response, data)
        self._parse(response, data)

    def _begin(self, response: WireResponse, data: bytes) -> None:
        """The first piece of a response: all of it, as a rule."""
        self._is_new = False
        self._parsed = self._content = self._bare = 0
        self._first = b""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        start = data.find(_LENGTHS[0], 0, end)
        if start < 0:
            start = data.find(_LENGTHS[1], 0, end)
        if start >= 0:
            start += len(_LENGTHS[0])
            stop = data.find(b"\r", start)
            digits, body = data[start:stop], data[end:]
            self._first, self._first_size = data[:start] + data[stop:end], end
            head = self._known.get(self._first)
            if head is not None and len(digits) <= MAX_DIGITS and digits.isdigit() and len(body) <= int(digits):
                if len(body) == int(digits):
                    return response.arrive(head, body)
                self._left = int(digits)
                response.begin(head)
                return self._count_off(response, body)
        self._parse(response, data)

    def _count_off(self, response: WireResponse, data: bytes) -> None:
        """The next bytes of a body whose length is known."""
        more = len(data) - self._left
        if more > 0:
            self.may_be_kept = False  # it has said more than it was asked for
            data = data[:-more]
        if data:
            self._left -= len(data)
            response.add(data)
        if not self._left:
            response.complete()

    def _parse(self, response: WireResponse, data: bytes) -> None:
        self._parsed += len(data)
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return self._refuse("HTTP fault (its answer is not HTTP)")
        if self._bare > MAX_HEAD:
            self._refuse(f"HTTP fault (more than {MAX_HEAD} bytes without content)")
        elif response.is_complete:
            self._remember(response)

    def _remember(self, response: WireResponse) -> None:
        """The head of a response that was read to its end.

        Only if it and the body are all that came: then nothing was read otherwise than by its length, and nothing went
        before it or came after it.
        """
        first, head = self._first, response.head
        if not first or not self.may_be_kept or self._parsed != self._first_size + self._content:
            return
        if len(first) <= MAX_KNOWN_HEAD and head.status == 200:  # to some others there is no body, whatever they say
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[first] = head

    def ask(self, response: WireResponse, request: bytes) -> None:
        """Write a request."""
        self.response, response.connection = response, self
        self._is_new = True
        self.transport.write(request)

    def pause(self) -> None:
        """Read no more."""
        if not self._is_paused and self._is_open:
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._is_paused and self._is_open:
            self._is_paused = False
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close at once; what was being read fails."""
        self.may_be_kept = False
        if self._is_open:
            self.transport.abort()
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
        if self.response is None or self.response.head.status:
            self.may_be_kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer, which is of no use."""
        if self.response is not None and not self.response.head.status:
            self._gathered += len(name) + len(value)
            if self._gathered > MAX_HEAD:
                raise WireFault("too long a head")  # to `data_received`, as an error of the parser
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        status = self._parser.get_status_code()
        response = self.response
        if response is None or response.head.status or status < 200:
            return
        self._bare = 0
        fields = reversed(self._fields)
        response.begin(
            Head(
                status,
                {name.decode("latin-1").lower(): value.decode("utf-8", "surrogateescape") for name, value in fields},
            )
        )

    def on_body(self, data: bytes) -> None:
        """Some of the content."""
        if self.response is not None and self.response.head.status and not self.response.is_complete:
            self._bare = 0
            self._content += len(data)
            self.response.add(data)

    def on_message_complete(self) -> None:
        """The end of a response, or of a 1xx."""
        if self.response is not None and self.response.head.status:
            self.may_be_kept = self.may_be_kept and self._parser.should_keep_alive()
            self.response.complete()


def arrivals(number: int) -> Callable[[int], object]:
    """What tells, in no milliseconds, what has arrived at a socket that the event loop has not told yet, the end
    included; nothing, or something.
    """
    if not hasattr(select, "poll"):
        return lambda _: select.select([number], (), (), 0)[0]  # Windows, which has no limit on the number
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return poll.poll
