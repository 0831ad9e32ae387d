"""What both HTTP transports share: one client, bounded reads, errors in our words.

Two wires stand behind this file: our own for plain `http://` (`httpwire.py`, a fifth of the cost), and another for
TLS and proxies (`tlswire.py`), which takes a third of a second and 20 MiB to load, where it is needed. Bodies are asked
for without compression, so the bytes that are counted are the bytes that are kept (F-50); redirects are followed on the
same origin only, and only where the method and body stay (F-56).
"""

import asyncio
import contextlib
import importlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from broker.core.eventstream import Event, EventParser, TooLong
from broker.core.wire import FROM_UPSTREAM
from broker.errors import UpstreamUnavailable
from broker.secrecy import foreign
from broker.threads import in_thread
from broker.upstream.connection import Head, Unreachable, WireFault
from broker.upstream.httpwire import MAX_CONNECTIONS, HttpWire, RequestHead, can_carry

MAX_ERROR_BODY: Final = 64 * 1024
"""Bytes of an error page that are read to find a JSON-RPC error in it."""
MAX_REDIRECTS: Final = 3
TURN: Final = 16 * 1024
"""Bytes of an event stream that are read in one turn of the event loop: a flood of events that say nothing is bounded
by what it costs to read them, and would hold everybody else for as long as more has come than was read."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Refused(UpstreamUnavailable):
    """An HTTP status that is no answer. `status` decides what it says about the peer's era."""

    def __init__(self, upstream: str, status: int, body: bytes = b"", retry_after: str | None = None) -> None:
        later = f", retry after {foreign(retry_after, 40)}" if retry_after else ""
        super().__init__(upstream, f"HTTP {status}{later}")
        self.status = status
        self.body = body


class CannotConnect(UpstreamUnavailable):
    """Nobody listens there (any more): not one request of ours was lost, the server is."""


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what decides whether two URLs are the same site. What is no URL has none of them."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", "", None


def resolve(base: str, reference: str) -> str:
    """The URL that an upstream refers to; empty if it refers to none."""
    try:
        return urljoin(base, reference)
    except ValueError:
        return ""


def environment_proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL (`HTTPS_PROXY`, `NO_PROXY` …), never for this machine.

    Not aiohttp's `trust_env`, which would also send what it finds in `~/.netrc`.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in _LOOPBACK or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


class Response(Protocol):
    """A request that was made, and the response to it. It is given back where `with` ends."""

    def __enter__(self) -> "Response": ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def is_here(self) -> Awaitable[None]:
        """To be awaited, once, before anything else: its head has come then. Raises: WireFault."""
        ...

    @property
    def head(self) -> Head:
        """What its head says; nothing before that has come."""
        ...

    @property
    def whole(self) -> bytes | None:
        """The whole body, if it was there before anybody read of it."""
        ...

    async def read(self) -> bytes:
        """What has come of the body, at least one byte; nothing at its end. Raises: WireFault."""
        ...


class Wire(Protocol):
    """Requests to one upstream."""

    def ask(self, head: RequestHead, body: bytes | None) -> Response:
        """Make a request. The response must be given back, whatever becomes of it; redirects are not followed.

        Raises: WireFault.
        """
        ...

    def give_back(self, response: Any) -> None:
        """Nobody reads on. The connection is kept if the response is over, else closed: that cancels the request. Safe
        to call twice.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections; what is in flight fails."""
        ...


class WebClient:
    """HTTP towards one upstream, with its configured headers."""

    def __init__(self, upstream: str, url: str, wire: Wire) -> None:
        self.upstream = upstream
        self.url = url
        self.wire = wire

    @classmethod
    async def open(cls, upstream: str, url: str, headers: Mapping[str, str], connect_timeout: float) -> "WebClient":
        """With the wire that is for such a URL. No connection is opened before the first request."""
        proxy = environment_proxy(url)
        fields = {"Accept-Encoding": "identity", "User-Agent": "mcp-broker", **headers}
        if proxy is None and can_carry(url):
            return cls(upstream, url, HttpWire(url, fields, connect_timeout, MAX_CONNECTIONS))
        driver: Any = await in_thread(importlib.import_module, "broker.upstream.tlswire")
        return cls(upstream, url, driver.TlsWire(fields, connect_timeout, proxy))

    async def aclose(self) -> None:
        """Close all connections."""
        await self.wire.aclose()

    async def send(self, head: RequestHead, body: bytes | None = None, redirects: int = MAX_REDIRECTS) -> Response:
        """The response, when its head has come: `with` it. Redirects are followed, any other status is the caller's.

        Raises: UpstreamUnavailable.
        """
        response: Response | None = None
        try:
            response = self.wire.ask(head, body)
            await response.is_here
            return response if response.head.is_plain else await self.followed(head, body, response, redirects)
        except BaseException as fault:
            if response is not None:
                self.wire.give_back(response)
            if isinstance(fault, OSError):
                raise self.in_our_words(fault) from None
            raise

    async def followed(
        self, head: RequestHead, body: bytes | None, response: Response, redirects: int = MAX_REDIRECTS
    ) -> Response:
        """Where a response leads that is not plain: mostly to itself. It is given back if it is another.

        Raises: UpstreamUnavailable.
        """
        if response.head.status not in _REDIRECTS:
            self._refuse_encoding(response)
            return response
        target = self._redirected(head.url, response)
        if redirects == 0:
            raise UpstreamUnavailable(self.upstream, f"more than {MAX_REDIRECTS} redirects")
        self.wire.give_back(response)
        return await self.send(head.to(target), body, redirects - 1)

    def in_our_words(self, fault: OSError) -> UpstreamUnavailable:
        """What a fault of the network is to whoever asked."""
        kind = CannotConnect if isinstance(fault, Unreachable) else UpstreamUnavailable
        return kind(self.upstream, _describe(fault))

    def _refuse_encoding(self, response: Response) -> None:
        encoding = response.head.headers.get("content-encoding")
        if encoding is not None and (encoding := encoding.strip().lower()) not in ("", "identity"):
            raise UpstreamUnavailable(self.upstream, f"it compressed its answer ({foreign(encoding, 20)}) unasked")

    def _redirected(self, url: str, response: Response) -> str:
        target = resolve(url, response.head.headers.get("location", ""))
        if origin(target) != origin(url):
            scheme, host, port = origin(target)
            where = foreign(f"{scheme}://{host}:{port}", 100) if host else "to no URL"
            raise UpstreamUnavailable(
                self.upstream, f"it redirects to another origin ({where}): put that URL in the file"
            )
        if response.head.status not in (307, 308):
            raise UpstreamUnavailable(
                self.upstream, f"HTTP {response.head.status} to {foreign(urlsplit(target).path, 100)}"
            )
        if url == self.url:
            self.url = target
        return target

    async def read_capped(self, response: Response, limit: int) -> bytes:
        """The body. Raises: UpstreamUnavailable, also if it is longer than `limit` bytes (F-51)."""
        chunks: list[bytes] = []
        size = 0
        try:
            while chunk := await response.read():
                size += len(chunk)
                if size > limit:
                    raise UpstreamUnavailable(self.upstream, f"its answer is larger than {limit} bytes")
                chunks.append(chunk)
        except OSError as error:
            raise self.in_our_words(error) from None
        return b"".join(chunks)

    def events(self, response: Response) -> AsyncIterator[Event]:
        """The events of a stream, until it ends. Raises: UpstreamUnavailable, for one that is too long (F-57)."""
        return _Events(self, response)

    async def refusal(self, response: Response) -> Refused:
        """The error of a response that is no success."""
        body = b""
        with contextlib.suppress(UpstreamUnavailable):
            body = await self.read_capped(response, MAX_ERROR_BODY)
        return Refused(self.upstream, response.head.status, body, response.head.headers.get("retry-after"))


class _Events:
    """See `WebClient.events`. No generator: most are left in the middle, where the answer has come, and the event loop
    has each of those closed by a task of its own.
    """

    def __init__(self, client: WebClient, response: Response) -> None:
        self._client = client
        self._response = response
        self._parser = EventParser(FROM_UPSTREAM.size)
        self._found: deque[Event] = deque()
        self._chunk = b""
        """What was read last."""
        self._at = 0
        """How much of it the parser has."""

    def __aiter__(self) -> "_Events":
        return self

    async def __anext__(self) -> Event:
        while not self._found:
            await self._read_on()
        return self._found.popleft()

    async def _read_on(self) -> None:
        """The next of the stream, as much as is for one turn."""
        try:
            if self._at < len(self._chunk):
                await asyncio.sleep(0)
            else:
                self._chunk, self._at = await self._response.read(), 0
                if not self._chunk:
                    raise StopAsyncIteration
            start, self._at = self._at, self._at + TURN
            self._found.extend(self._parser.feed(self._chunk[start : self._at]))
        except TooLong as error:
            raise UpstreamUnavailable(self._client.upstream, str(error)) from None
        except OSError as error:
            raise self._client.in_our_words(error) from None


def _describe(error: OSError) -> str:
    """A network fault in few words, without URLs or credentials (d)."""
    if isinstance(error, WireFault):
        return str(error)
    return "the connection broke" if isinstance(error, ConnectionError) else f"HTTP fault ({type(error).__name__})"
