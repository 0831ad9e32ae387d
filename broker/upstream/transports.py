"""Open a link by a server's configuration.

The drivers for URLs bring in an HTTP client, which takes its time to load: they are loaded when the first URL is
opened, in a thread, so that a broker with commands only starts at once and the others are not held up.
"""

import importlib
import os
from typing import Any

import anyio

from broker.config import HttpServer, Server, StdioServer, reveal
from broker.threads import in_thread
from broker.upstream.link import Link
from broker.upstream.pipe import PipeLink
from broker.upstream.stdio import StdioDuplex


async def open_link(name: str, server: Server, connect_timeout: float) -> Link:
    """A link that nobody has spoken on yet.

    Raises: UpstreamUnavailable, CannotStart.
    """
    if isinstance(server, HttpServer):
        return await _open_url(name, server, connect_timeout)
    argv = [reveal(server.command), *map(reveal, server.args)]
    env = {key: reveal(value) for key, value in server.env.items()}
    duplex = await StdioDuplex.open(name, argv, env, _directory(server))
    link = PipeLink(name, duplex)
    link.last_words = duplex.last_words
    return link


def _directory(server: StdioServer) -> str | None:
    return None if server.cwd is None else os.path.expanduser(reveal(server.cwd))


async def _open_url(name: str, server: HttpServer, connect_timeout: float) -> Link:
    web = await _driver("web")
    headers = {key: reveal(value) for key, value in server.headers.items()}
    client = await web.WebClient.open(name, reveal(server.url), headers, connect_timeout)
    try:
        if server.transport == "sse":
            duplex = await (await _driver("sse")).SseDuplex.open(client)
            return PipeLink(name, duplex)
        return (await _driver("http")).HttpLink(client)
    except BaseException:
        with anyio.CancelScope(shield=True):  # closing waits for nobody
            await client.aclose()
        raise


async def _driver(name: str) -> Any:
    return await in_thread(importlib.import_module, f"broker.upstream.{name}")
