"""What both HTTP transports share: one client, bounded reads, errors in our words.

Two clients stand behind this file: our own for plain `http://` (`httpwire.py`, a fifth of the cost), and another for
TLS and proxies (`tlswire.py`), which takes a third of a second and 20 MiB to load, where it is needed. Bodies are asked
for without compression, so the bytes that are counted are the bytes that are kept (F-50); redirects are followed on the
same origin only, and only where the method and body stay (F-56).
"""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from broker.core.eventstream import Event, EventParser, TooLong
from broker.core.wire import FROM_UPSTREAM
from broker.errors import UpstreamUnavailable
from broker.secrecy import foreign
from broker.threads import in_thread
from broker.upstream.connection import Unreachable, WireFault
from broker.upstream.httpwire import MAX_CONNECTIONS, HttpWire, RequestHead, can_carry

MAX_ERROR_BODY: Final = 64 * 1024
"""Bytes of an error page that are read to find a JSON-RPC error in it."""
MAX_REDIRECTS: Final = 3
TURN: Final = 16 * 1024
"""Bytes of an event stream that are read in one turn of the event loop: a flood of events that say nothing is bounded
by what it costs to read them, and would hold everybody else for as long as more has come than was read."""
_PLAIN: Final = frozenset({"application/json", "text/event-stream"})
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
    """A response whose head has come. It is released where `with` ends: a connection on which more would come is then
    closed.
    """

    def __enter__(self) -> "Response": ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def status(self) -> int:
        """Its HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its header fields by lower-case name; the first of several."""
        ...

    @property
    def whole(self) -> bytes | None:
        """The whole body, if it is there already, and nothing of it was read."""
        ...

    async def read(self) -> bytes:
        """What has come of the body, at least one byte; nothing at its end."""
        ...

    def release(self) -> None:
        """Nobody reads on. Safe to call twice."""
        ...


class Client(Protocol):
    """Sends requests to one upstream."""

    async def send(self, head: RequestHead, body: bytes | None) -> Response:
        """The response to a request, when its head has come; redirects are not followed.

        Raises: WireFault, here and while its body is read.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections; what is in flight fails."""
        ...


class WebClient:
    """HTTP towards one upstream, with its configured headers."""

    def __init__(self, upstream: str, url: str, client: Client) -> None:
        self.upstream = upstream
        self.url = url
        self._is_closed = False
        self._client = client

    @classmethod
    async def open(cls, upstream: str, url: str, headers: Mapping[str, str], connect_timeout: float) -> "WebClient":
        """With the client that is for such a URL. No connection is opened before the first request."""
        proxy = environment_proxy(url)
        fields = {"Accept-Encoding": "identity", "User-Agent": "mcp-broker", **headers}
        if proxy is None and can_carry(url):
            return cls(upstream, url, HttpWire(url, fields, connect_timeout, MAX_CONNECTIONS))
        driver: Any = await in_thread(importlib.import_module, "broker.upstream.tlswire")
        return cls(upstream, url, driver.TlsWire(fields, connect_timeout, proxy))

    async def aclose(self) -> None:
        """Close all connections."""
        self._is_closed = True
        await self._client.aclose()

    async def send(self, head: RequestHead, body: bytes | None = None) -> Response:
        """The response, when its head has come: `with` it. Redirects are followed, any other status is the caller's.

        Raises: UpstreamUnavailable.
        """
        if self._is_closed:
            raise UpstreamUnavailable(self.upstream, "closed")
        try:
            for _ in range(MAX_REDIRECTS):
                response = await self._client.send(head, body)
                if response.status == 200 and "content-encoding" not in response.headers:
                    return response
                try:
                    if response.status not in _REDIRECTS:
                        self._refuse_encoding(response)
                        return response
                    head = head.to(self._redirected(head.url, response))
                except UpstreamUnavailable:
                    response.release()
                    raise
                response.release()
        except OSError as error:
            raise self._in_our_words(error) from None
        raise UpstreamUnavailable(self.upstream, f"more than {MAX_REDIRECTS} redirects")

    def _in_our_words(self, fault: OSError) -> UpstreamUnavailable:
        """What a fault of the network is to whoever asked."""
        kind = CannotConnect if isinstance(fault, Unreachable) else UpstreamUnavailable
        return kind(self.upstream, _describe(fault))

    def _refuse_encoding(self, response: Response) -> None:
        encoding = response.headers.get("content-encoding")
        if encoding is not None and (encoding := encoding.strip().lower()) not in ("", "identity"):
            raise UpstreamUnavailable(self.upstream, f"it compressed its answer ({foreign(encoding, 20)}) unasked")

    def _redirected(self, url: str, response: Response) -> str:
        target = resolve(url, response.headers.get("location", ""))
        if origin(target) != origin(url):
            scheme, host, port = origin(target)
            where = foreign(f"{scheme}://{host}:{port}", 100) if host else "to no URL"
            raise UpstreamUnavailable(
                self.upstream, f"it redirects to another origin ({where}): put that URL in the file"
            )
        if response.status not in (307, 308):
            raise UpstreamUnavailable(self.upstream, f"HTTP {response.status} to {foreign(urlsplit(target).path, 100)}")
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
            raise self._in_our_words(error) from None
        return b"".join(chunks)

    async def events(self, response: Response) -> AsyncIterator[Event]:
        """The events of a stream, until it ends. Raises: UpstreamUnavailable, for one that is too long (F-57)."""
        parser = EventParser(FROM_UPSTREAM.size)
        try:
            while chunk := await response.read():
                for start in range(0, len(chunk), TURN):
                    if start:
                        await asyncio.sleep(0)
                    for event in parser.feed(chunk[start : start + TURN]):
                        yield event
        except TooLong as error:
            raise UpstreamUnavailable(self.upstream, str(error)) from None
        except OSError as error:
            raise self._in_our_words(error) from None

    async def refusal(self, response: Response) -> Refused:
        """The error of a response that is no success."""
        body = b""
        with contextlib.suppress(UpstreamUnavailable):
            body = await self.read_capped(response, MAX_ERROR_BODY)
        return Refused(self.upstream, response.status, body, response.headers.get("retry-after"))


def _describe(error: OSError) -> str:
    """A network fault in few words, without URLs or credentials (d)."""
    if isinstance(error, WireFault):
        return str(error)
    return "the connection broke" if isinstance(error, ConnectionError) else f"HTTP fault ({type(error).__name__})"


def content_type(response: Response) -> str:
    """The media type, lower case, without parameters."""
    given = response.headers.get("content-type", "")
    return given if given in _PLAIN else given.partition(";")[0].strip().lower()
