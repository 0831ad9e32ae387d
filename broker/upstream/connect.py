"""Open a connection by a server's configuration, and shake hands on it: each within the connect time-out."""

from collections.abc import Mapping
from typing import Any

import anyio

from broker.config import HttpServer, Server
from broker.core.era import Version
from broker.errors import BrokerError, UpstreamAnsweredError, UpstreamUnavailable
from broker.secrecy import foreign
from broker.upstream.handshake import Declare, agree
from broker.upstream.link import Link
from broker.upstream.transports import open_link


async def connect(key: str, server: Server) -> Link:
    """A link that nobody has spoken on yet. Raises: BrokerError, OSError."""
    with anyio.move_on_after(server.connect_timeout):
        return await open_link(key, server, server.connect_timeout)
    raise UpstreamUnavailable(key, f"it did not connect within {server.connect_timeout:g} s")


def offered(capabilities: Mapping[str, Any], server: Server) -> Mapping[str, Any]:
    """Of what a caller offers, what this server is told of (`roots: false` keeps roots to ourselves)."""
    if server.roots or "roots" not in capabilities:
        return capabilities
    return {name: value for name, value in capabilities.items() if name != "roots"}


async def shake_hands(link: Link, server: Server, declare: Declare, *, is_legacy: bool = False) -> None:
    """The handshake, within the connect time-out; the time that `declare` waits for a caller does not count.

    `is_legacy`: its era is known, and not probed.

    Raises: BrokerError.
    """
    timeout = server.connect_timeout
    pinned = None if server.protocol == "auto" else Version(server.protocol)
    is_sse = isinstance(server, HttpServer) and server.transport == "sse"
    with anyio.CancelScope(deadline=anyio.current_time() + timeout) as patience:

        async def declared() -> Mapping[str, Any]:
            left = patience.deadline - anyio.current_time()
            patience.deadline = float("inf")
            try:
                return offered(await declare(), server)
            finally:
                patience.deadline = anyio.current_time() + left

        is_pipe = not isinstance(server, HttpServer)
        await agree(
            link, pinned=pinned, is_pipe=is_pipe, timeout=timeout, declare=declared, is_legacy=is_sse or is_legacy
        )
    if patience.cancelled_caught:
        raise UpstreamUnavailable(link.upstream, f"it did not finish the handshake within {timeout:g} s")


def reason(error: BrokerError) -> str:
    """What went wrong, for a person; an upstream's own words escaped and cut (F-60)."""
    if isinstance(error, UpstreamAnsweredError):
        return f"it answered with error {error.code}: {foreign(error.message)}"
    return error.why if isinstance(error, UpstreamUnavailable) else error.message
