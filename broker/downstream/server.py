"""The HTTP server under the HTTP front: uvicorn on a socket that is bound before anything is started."""

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Generator
from typing import Final

import anyio
import uvicorn

from broker.downstream.door import Door
from broker.downstream.engine import Engine
from broker.downstream.http import HttpFront

DRAIN: Final = 20
"""Seconds that calls in flight get to finish when the broker goes down (F-90)."""
KEEP_ALIVE: Final = 65
"""Seconds for which an idle connection is kept: longer than the 60 s of common proxies, so that they close first."""
BACKLOG: Final = 2048


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: OSError, if the address is not ours or is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named since asyncio switches Nagle's algorithm off only where it is: else every answer waits
    # for the caller's delayed acknowledgement, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """uvicorn, less its signal handlers: the broker has its own, and outlives the server to stop its upstreams."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing to capture."""
        yield


async def serve_http(engine: Engine, door: Door, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until `engine.closing` is set and what was in flight has ended, or `DRAIN` has passed."""
    front = HttpFront(engine, door)
    config = uvicorn.Config(
        front,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=DRAIN,
    )
    server = _Server(config)

    async def stop() -> None:
        await engine.closing.wait()
        server.should_exit = True

    async with front.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(stop)
        on_ready()
        await server.serve(sockets=[listener])
        tasks.cancel_scope.cancel()
