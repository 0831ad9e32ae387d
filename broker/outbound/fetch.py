"""`Outbound`: the one HTTP client for URLs that are not the operator's own upstreams.

Each connection goes to an address that was judged, and to no other: names are resolved once, here, and the connection
is pinned to the result (a second look-up could answer differently). No proxy of the environment is asked, no cookie is
kept, no credential is sent, redirects are followed on the same origin only, each judged anew; bytes are counted as they
are decoded, since nothing is asked for in compressed form.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urljoin

import aiohttp
import aiohttp.abc
from yarl import URL

from broker.core import wire
from broker.errors import printable
from broker.outbound.addresses import Forbidden, Target, judge, target_of

TIMEOUT: Final = 10.0
"""Seconds for a whole document, with all its redirects: whoever waits for it waits for somebody's credential."""
MAX_SIZE: Final = 512 * 1024
"""Bytes of a document. Sets of keys have a few thousand."""
MAX_REDIRECTS: Final = 3
_LIMITS: Final = wire.Limits(size=MAX_SIZE, depth=32, nodes=50_000)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""All addresses of a host."""


class FetchFailed(Exception):
    """There is no document. The text says why in our words; it quotes neither the URL nor what came."""


class Outbound:
    """See the module. `tls`: None for the certificate authorities of the system (`SSL_CERT_FILE` adds to them)."""

    def __init__(self, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._resolve = resolve or _resolve
        self._tls = tls

    async def get_json(self, url: str, *, allow_private: bool = False) -> dict[str, Any]:
        """A JSON object. `allow_private`: the operator says that the URL may lead into its own network.

        Raises: FetchFailed.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                return wire.decode_object(await self._get(url, allow_private=allow_private), _LIMITS)
        except Forbidden as error:
            raise FetchFailed(str(error)) from None
        except TimeoutError:
            raise FetchFailed(f"no whole answer within {TIMEOUT:g} s") from None
        except wire.Malformed as error:
            raise FetchFailed(f"the answer is not a JSON object ({error})") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchFailed(_described(error)) from None

    async def _get(self, url: str, *, allow_private: bool) -> bytes:
        target = target_of(url, allow_private=allow_private)
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._try(target, allow_private=allow_private)
            if isinstance(found, bytes):
                return found
            next_target = target_of(found, allow_private=allow_private)
            if next_target.origin != target.origin:
                raise FetchFailed("it redirects to another origin")
            target = next_target
        raise FetchFailed(f"more than {MAX_REDIRECTS} redirects")

    async def _try(self, target: Target, *, allow_private: bool) -> bytes | str:
        """The body, or the URL to try next."""
        resolver = _Resolver(self._resolve, target, allow_private=allow_private)
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "mcp-broker"},
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.get(
                URL(target.url, encoded=True),
                allow_redirects=False,
                ssl=self._tls if self._tls is not None else True,
            ) as response,
        ):
            if response.status in _REDIRECTS:
                return urljoin(target.url, response.headers.get("Location", ""))
            if response.status != 200:
                raise FetchFailed(f"HTTP {response.status}")
            if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
                raise FetchFailed("it compressed its answer unasked")
            return await _capped(response)


class _Resolver(aiohttp.abc.AbstractResolver):
    """Gives the connection the addresses that were judged, all of them or none."""

    def __init__(self, resolve: Resolve, target: Target, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._target = target
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        """See `aiohttp`. Raises: Forbidden, if any address is one that the broker must not reach."""
        found = await self._resolve(host, port)
        if not found:
            raise FetchFailed("its host name has no address")
        results: list[aiohttp.abc.ResolveResult] = []
        for text in found:
            address = ip_address(text)
            judge(address, self._target, allow_private=self._allow_private)
            results.append(
                {
                    "hostname": host,
                    "host": text,
                    "port": port,
                    "family": socket.AF_INET if address.version == 4 else socket.AF_INET6,
                    "proto": socket.IPPROTO_TCP,
                    "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                }
            )
        return results

    async def close(self) -> None:
        """Nothing is held."""


async def _resolve(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def _capped(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > MAX_SIZE:
            response.close()
            raise FetchFailed(f"the answer is larger than {MAX_SIZE} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _described(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "its TLS certificate is not valid"
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "its host name cannot be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "the TLS handshake failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return printable(f"cannot connect ({error.os_error.strerror or type(error.os_error).__name__})", 100)
    return printable(f"the connection failed ({type(error).__name__})", 100)
