"""HTTP towards one upstream with TLS, or through a proxy: `aiohttp`, its faults in our words."""

import os
import socket
import ssl
from collections.abc import Awaitable, Mapping
from typing import Any

import aiohttp

from broker.half_open import notice_half_open
from broker.upstream.connection import NO_HEAD, Head, Unreachable, WireFault
from broker.upstream.httpwire import MAX_CONNECTIONS, RequestHead


class TlsResponse:
    """See `Response`."""

    def __init__(self, asked: Awaitable[aiohttp.ClientResponse]) -> None:
        self.is_here = self._arrive(asked)
        self.head = NO_HEAD
        self.whole: bytes | None = None
        self._response: aiohttp.ClientResponse | None = None

    def __enter__(self) -> "TlsResponse":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    async def _arrive(self, asked: Awaitable[aiohttp.ClientResponse]) -> None:
        try:
            self._response = await asked
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from None
        self.head = Head(self._response.status, self._response.headers)  # whose case does not matter

    async def read(self) -> bytes:
        """See `Response`."""
        assert self._response is not None
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from None

    def release(self) -> None:
        """See `Wire.give_back`."""
        if self._response is not None:
            self._response.release()


class TlsWire:
    """See `Wire`. `headers` go with every request that does not set them itself."""

    def __init__(self, headers: Mapping[str, str], connect_timeout: float, proxy: str | None) -> None:
        self._proxy = proxy
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, socket_factory=_socket),
            headers=headers,
            skip_auto_headers=("Content-Type",),
            # Every request has its own deadline; a total here would cut streams that are meant to stay open.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def ask(self, head: RequestHead, body: bytes | None) -> TlsResponse:
        """See `Wire`."""
        if self._session.closed:
            raise WireFault("closed")
        return TlsResponse(
            self._session.request(
                head.method, head.url, headers=head.headers, data=body, allow_redirects=False, proxy=self._proxy
            )
        )

    def give_back(self, response: TlsResponse) -> None:
        """See `Wire`."""
        response.release()

    async def aclose(self) -> None:
        """See `Wire`."""
        await self._session.close()


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """For an address as `socket.getaddrinfo` gives it."""
    family, kind, protocol = address[:3]
    opened = socket.socket(family, kind, protocol)
    opened.setblocking(False)
    notice_half_open(opened)
    return opened


def _fault(error: Exception) -> WireFault:
    kind = Unreachable if isinstance(error, aiohttp.ClientConnectorError) else WireFault
    return kind(_described(error))


def _described(error: Exception) -> str:
    """A fault in few words, without URLs or credentials (d)."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "its TLS certificate is not valid"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name cannot be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "the TLS handshake failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"cannot connect ({os.strerror(number).lower() if number else 'no route'})"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError | aiohttp.ClientPayloadError):
        return "the connection broke"
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return "it did not accept a connection in time"
    return f"HTTP fault ({type(error).__name__})"
