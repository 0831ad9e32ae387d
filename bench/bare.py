"""A bare relay in Python: how fast one can be that does nothing. What the broker takes beyond it is what it is for.

`python -m bench.bare --upstream 8001 --port 8000` passes each POST on as it is, and its answer back. With `--strict`
each is decoded and encoded anew as the broker does it: the least that a relay does which changes names. As the broker
does, it reads a head once, and knows it again by its bytes. It knows no callers and no bounds, so it is no example.
"""

import argparse
import asyncio
from abc import ABC, abstractmethod
from collections import deque
from http import HTTPStatus
from typing import Final, NamedTuple, cast

import httptools
import uvloop

from broker.core.wire import FROM_CALLER, FROM_UPSTREAM, Limits, Malformed, decode_object, encode

PASSED: Final = (b"accept", b"content-type", b"mcp-", b"www-authenticate")
"""How header fields begin that the other side needs."""
MAX_KNOWN: Final = 1024
"""Heads that are known again."""
STATUS: Final = {one.value: b"HTTP/1.1 %d %b\r\n" % (one, one.phrase.encode()) for one in HTTPStatus}


class Message(NamedTuple):
    """What stands in front of a body."""

    head: bytes
    """As the other side gets it, less the length."""
    size: int
    goes_on: bool
    """Whether the connection can be used after it."""


Known = dict[bytes, Message]
"""By the bytes of their heads."""


class Side(asyncio.Protocol, ABC):
    """A connection to either side, and the message that comes in on it."""

    parser: httptools.HttpRequestParser | httptools.HttpResponseParser

    def __init__(self, relay: "Relay", known: Known) -> None:
        self.relay = relay
        self._known = known
        self._is_amid = False
        """Whether a message has begun, and not ended."""
        self._last: Message | None = None
        """What has ended in the bytes that came last."""
        self._fields: list[bytes] = []
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        end = data.find(b"\r\n\r\n") + 4
        was_amid, rest = self._is_amid, len(data) - end
        if not was_amid:
            known = self._known.get(data[:end])
            if known is not None and known.size == rest:
                return self.take(known, data[end:])
        self._last = None
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return self.transport.close()
        # With as many bytes after the head as its body has, it was alone in them, and not in chunks.
        if not was_amid and self._last is not None and self._last.size == rest and len(self._known) < MAX_KNOWN:
            self._known[data[:end]] = self._last

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_amid = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head."""
        if name.lower().startswith(PASSED):
            self._fields.append(b"%b: %b\r\n" % (name, value))

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """The end of a message."""
        self._is_amid = False
        fields, body = b"".join(self._fields), b"".join(self._parts)
        self._fields.clear()
        self._parts.clear()
        head = self.begun() + fields
        if head != fields:
            self._last = Message(head, len(body), self.parser.should_keep_alive())
            self.take(self._last, body)

    @abstractmethod
    def begun(self) -> bytes:
        """How the head of what has come begins on the other side; nothing if it is not for that."""

    @abstractmethod
    def take(self, message: Message, body: bytes) -> None:
        """A message is complete."""


class Caller(Side):
    """A connection of a caller. What it sends meanwhile waits its turn."""

    def __init__(self, relay: "Relay") -> None:
        super().__init__(relay, relay.known_requests)
        self.parser = self._requests = httptools.HttpRequestParser(self)
        self._url = b""
        self._waiting: deque[tuple[Message, bytes]] = deque()
        """The first of them was sent on."""

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url

    def begun(self) -> bytes:
        """See `Side`."""
        url, self._url = self._url, b""
        return b"%b %b HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % (self._requests.get_method(), url, self.relay.port)

    def take(self, message: Message, body: bytes) -> None:
        """See `Side`."""
        self._waiting.append((message, body))
        if len(self._waiting) == 1:
            self.relay.send(self, message.head, body)

    def answer(self, head: bytes, body: bytes = b"") -> None:
        """The answer to the first that waits."""
        if self.transport.is_closing():
            return  # nobody reads it
        goes_on = self._waiting.popleft()[0].goes_on
        if not goes_on:
            head += b"connection: close\r\n"
        self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        if not goes_on:
            self.transport.close()
        elif self._waiting:
            message, body = self._waiting[0]
            self.relay.send(self, message.head, body)


class Upstream(Side):
    """A connection to the upstream; one request at a time."""

    def __init__(self, relay: "Relay") -> None:
        super().__init__(relay, relay.known_answers)
        self.parser = self._answers = httptools.HttpResponseParser(self)
        self._caller: Caller | None = None

    def ask(self, caller: Caller, request: bytes) -> None:
        """Send a request."""
        self._caller = caller
        self.transport.write(request)

    def begun(self) -> bytes:
        """See `Side`."""
        status = self._answers.get_status_code()
        return b"" if status < 200 else STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status

    def take(self, message: Message, body: bytes) -> None:
        """See `Side`."""
        caller, self._caller = self._caller, None
        if caller is None:
            return self.transport.abort()  # nobody has asked
        if message.goes_on:
            self.relay.idle.append(self)
        else:
            self.transport.close()
        if self.relay.is_strict and body:
            anew = recoded(body, FROM_UPSTREAM)
            return caller.answer(message.head, anew) if anew else caller.answer(STATUS[502])
        caller.answer(message.head, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self in self.relay.idle:
            self.relay.idle.remove(self)
        if self._caller is not None:
            self._caller.answer(STATUS[502])


class Relay:
    """What the connections share."""

    def __init__(self, port: int, *, is_strict: bool) -> None:
        self.port = port
        """Of the upstream."""
        self.is_strict = is_strict
        self.idle: list[Upstream] = []
        self.known_requests: Known = {}
        self.known_answers: Known = {}
        self._opening: set[asyncio.Task[None]] = set()

    def send(self, caller: Caller, head: bytes, body: bytes) -> None:
        """Ask for a caller, over a connection that is its own meanwhile."""
        if self.is_strict and body:
            body = recoded(body, FROM_CALLER)
            if not body:
                return caller.answer(STATUS[400])
        request = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        if self.idle:
            return self.idle.pop().ask(caller, request)
        task = asyncio.get_running_loop().create_task(self._open(caller, request))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, caller: Caller, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, upstream = await loop.create_connection(lambda: Upstream(self), "127.0.0.1", self.port)
        except OSError:
            return caller.answer(STATUS[502])
        upstream.ask(caller, request)


def recoded(body: bytes, limits: Limits) -> bytes:
    """A message, read and written; nothing if it cannot be read."""
    try:
        return encode(decode_object(body, limits))
    except Malformed:
        return b""


async def serve(relay: Relay, port: int) -> None:
    """Until it is killed, on loopback."""
    server = await asyncio.get_running_loop().create_server(lambda: Caller(relay), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.bare", description="A bare relay to measure against.")
    parser.add_argument("--upstream", type=int, required=True, help="the port of the server, on 127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--strict", action="store_true", help="decode and encode each message, as the broker does")
    arguments = parser.parse_args()
    uvloop.run(serve(Relay(arguments.upstream, is_strict=arguments.strict), arguments.port))


if __name__ == "__main__":
    main()
