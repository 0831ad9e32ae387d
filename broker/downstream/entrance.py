"""Accepting connections: who finds room gets one, and the others are told so, with 503 (F-78, F-100).

The server accepts itself, since what an event loop does when the process is out of file descriptors is not ours to say:
one loop cuts what waits, another one closes the listening socket for good.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Final, cast

import anyio
import anyio.abc

from broker.downstream.message import error_bytes
from broker.downstream.moving import OUTSIDE, Arrival
from broker.downstream.room import Place, Room
from broker.errors import InvalidRequest

log = logging.getLogger(__name__)

RETRY_AFTER: Final = 5
"""Seconds after which whoever found no room may come again."""
MAX_TOLD: Final = 64
"""Connections without room that are kept until they have read why; with any further one nobody waits for that."""
TELLING: Final = 5.0
"""Seconds for which they are kept, at most."""
MAX_DISMISSED: Final = 256
"""Connections that are refused in one go while there is no descriptor: a few milliseconds."""
PAUSE: Final = 0.1
"""Seconds between two attempts while there is none."""
GIVE_WAY: Final = 0.002
"""Seconds for which a worker that has more connections than another leaves the next one to that. If nobody takes it, it
does: one that is dead or hangs holds nobody up for longer."""
SAY_EVERY: Final = 60.0
"""Seconds between two lines in the log that say so: a flood must not fill the disk."""

_BODY: Final = error_bytes(None, InvalidRequest("too many connections are open: try again later"))
NO_ROOM: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: %d\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (RETRY_AFTER, len(_BODY), _BODY)
)


class TurnedAway(asyncio.Protocol):
    """A connection without room: whatever is asked first is answered 503, and nothing is read."""

    def __init__(self, entrance: "Entrance") -> None:
        self._entrance = entrance
        self._was_told = False
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._end = asyncio.get_running_loop().call_later(TELLING, self._transport.abort)
        self._entrance.turned_away.add(self._transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. What goes on coming is dropped: a socket that is closed on it resets the answer."""
        if not self._was_told:
            self._was_told = True
            self._transport.write(NO_ROOM)
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._entrance.turned_away.discard(self._transport)
        if self._end is not None:
            self._end.cancel()


class Entrance:
    """See the module. `make` makes the protocol of a connection, which gives its place back at its end."""

    def __init__(self, room: Room, make: Callable[[Place, Arrival], asyncio.Protocol]) -> None:
        self._room = room
        self._make = make
        self.turned_away: set[asyncio.Transport] = set()
        """Those that are being told."""
        self._spare = _open_spare()
        """A descriptor that is given up to refuse one connection when there is no other."""
        self._said = float("-inf")

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled. Raises nothing: whatever one connection comes to, the next one is accepted."""
        loop = asyncio.get_running_loop()
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    if self._room.is_ahead:
                        await anyio.sleep(GIVE_WAY)
                    try:
                        opened, _ = await loop.sock_accept(listener)
                    except OSError as error:
                        await self._without(listener, error)
                    else:
                        self._receive(opened, tasks)
        finally:
            for transport in tuple(self.turned_away):
                transport.abort()
            if self._spare is not None:
                os.close(self._spare)
                self._spare = None

    def _receive(self, opened: socket.socket, tasks: anyio.abc.TaskGroup) -> None:
        place = self._room.enter(_peer(opened))
        if place is not None:
            tasks.start_soon(self._seat, opened, place)
            return
        self._say("there is no room for another connection (%s): it is answered 503", self._room)
        if len(self.turned_away) < MAX_TOLD:
            tasks.start_soon(self._tell, opened)
        else:
            _dismiss(opened)

    async def receive(self, opened: socket.socket, arrival: Arrival) -> None:
        """Another worker has accepted it."""
        place = self._room.enter(arrival.peer or _peer(opened))
        if place is None:
            _dismiss(opened)
        else:
            await self._seat(opened, place, arrival)

    async def _seat(self, opened: socket.socket, place: Place, arrival: Arrival = OUTSIDE) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._make(place, arrival), opened)
        except OSError as error:  # then nobody was told of it, who could give the place back
            log.debug("a connection was lost at once: %s", error)
            opened.close()
            self._room.leave(place)

    async def _tell(self, opened: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: TurnedAway(self), opened)
        except OSError:
            opened.close()

    async def _without(self, listener: socket.socket, error: OSError) -> None:
        """Nothing could be accepted. Those that wait are refused, with the descriptor that is kept for that; then there
        is a pause, since some systems say that there is no descriptor also while nobody waits.
        """
        if isinstance(error, ConnectionError):
            return  # it was gone again before
        self._say("no connection can be accepted (%s): raise the limit of open files, or lower max_connections", error)
        if self._spare is not None:
            os.close(self._spare)
            with contextlib.suppress(OSError):
                for _ in range(MAX_DISMISSED):
                    _dismiss(listener.accept()[0])
            self._spare = _open_spare()
        await anyio.sleep(PAUSE)
        self._spare = self._spare if self._spare is not None else _open_spare()

    def _say(self, text: str, about: object) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said >= SAY_EVERY:
            self._said = now
            log.warning(text, about)


def _peer(opened: socket.socket) -> str:
    """Its address; "" if it is gone already."""
    try:
        peer = opened.getpeername()
    except OSError:
        return ""
    return "" if isinstance(peer, str) else str(peer[0])  # a worker that asks is nowhere


def _dismiss(opened: socket.socket) -> None:
    """Say it, and close; whether it is read is not waited for."""
    with opened, contextlib.suppress(OSError):
        opened.setblocking(False)
        opened.send(NO_ROOM)


def _open_spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
