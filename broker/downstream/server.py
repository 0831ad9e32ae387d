"""The HTTP server under the HTTP front: connections on a socket that is bound before anything is started."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Final

import anyio

from broker.downstream.connection import Connection
from broker.downstream.crew import NO_CREW, Crew
from broker.downstream.door import Door
from broker.downstream.ending import LAST_WORDS, nobody_to_tell, usual_drain
from broker.downstream.engine import Engine
from broker.downstream.entrance import Entrance
from broker.downstream.health import WELL, Health
from broker.downstream.http import Api, HttpFront
from broker.downstream.metrics import Metrics
from broker.downstream.moving import Arrival, Movable
from broker.downstream.room import Place, Room
from broker.downstream.vitals import Vitals
from broker.downstream.web import Serve
from broker.half_open import notice_half_open

log = logging.getLogger(__name__)

BACKLOG: Final = 2048
LOOK: Final = 1.0
"""Seconds between two looks at every connection: how late a time-out may come."""


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
        notice_half_open(listener)  # what it accepts inherits it
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


class HttpServer:
    """The open connections, and those that are gone while a session still works for them; implements `Server`."""

    def __init__(self, serve: Serve, room: Room | None = None, crew: Crew = NO_CREW) -> None:
        self.serve = serve
        self._crew = crew
        self.room = room or Room()
        """How many of them there may be."""
        self.connections: set[Connection] = set()
        self.is_closing = False
        self._is_empty = anyio.Event()

    def opened(self, connection: Connection) -> None:
        """See `Server`."""
        self.connections.add(connection)

    def ended(self, connection: Connection) -> None:
        """See `Server`."""
        self.connections.discard(connection)
        self.room.leave(connection.place)
        if self.is_closing and not self.connections:
            self._is_empty.set()

    async def run(
        self,
        listener: socket.socket,
        closing: anyio.Event,
        drain: Callable[[], float] = usual_drain,
        give_up: Callable[[], None] = nobody_to_tell,
    ) -> None:
        """Accept until `closing` is set; then let what is in flight end, for at most `drain` seconds (asked then).
        `give_up` makes answers of what is left.
        """
        entrance = Entrance(self.room, self._connection)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look)
            accepting = anyio.CancelScope()
            tasks.start_soon(_accept, entrance, listener, self._crew, accepting)
            try:
                await closing.wait()
                self.is_closing = True
                accepting.cancel()
                listener.close()
                for connection in tuple(self.connections):
                    connection.close()
                if self.connections:
                    with anyio.move_on_after(drain()):
                        await self._is_empty.wait()
                    give_up()
                    with anyio.move_on_after(LAST_WORDS):
                        await self._is_empty.wait()
            finally:
                listener.close()
                await self._abort()
                tasks.cancel_scope.cancel()

    def _connection(self, place: Place, arrival: Arrival) -> Connection:
        return Connection(self, place) if self._crew.is_alone else Movable(self, place, arrival)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await anyio.sleep(LOOK)
            now = loop.time()
            for connection in tuple(self.connections):
                connection.look(now)

    async def _abort(self) -> None:
        """End what is left, and wait until it has ended."""
        self.is_closing = True
        left = [connection.task for connection in self.connections if connection.task is not None]
        if left:
            log.warning("%d requests were cut", len(left))
        for connection in tuple(self.connections):
            connection.abort()
        if left:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(left)


async def _accept(entrance: Entrance, listener: socket.socket, crew: Crew, scope: anyio.CancelScope) -> None:
    with scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crew.serve, entrance)
            await entrance.serve(listener)


async def serve_http(
    engine: Engine,
    door: Door,
    listener: socket.socket,
    on_ready: Callable[[], None],
    metrics: Metrics | None = None,
    api: Api | None = None,
    room: Room | None = None,
    health: Health = WELL,
    drain: Callable[[], float] = usual_drain,
    vitals: Vitals | None = None,
    crew: Crew = NO_CREW,
) -> None:
    """Serve until `engine.closing` is set and what was in flight has ended, or `drain` seconds have passed (F-90)."""
    room = room or Room()
    front = HttpFront(engine, door, metrics, api, room, health, vitals, crew)
    async with front.running():
        on_ready()
        await HttpServer(front.serve, room, crew).run(listener, engine.closing, drain, engine.ending.set)
