"""A connection that can go on in another worker: its descriptor is passed, with the request that was read from it.

From then on the other worker has it as if it had accepted it: nothing is copied between the two, and neither knows
later what the other does. Nothing else than a request in between was sent on it yet, and what came behind that request
(a caller that does not wait for answers) is given up: the other worker closes it after the answer, and a caller sends
again what was not answered (RFC 9112 9.3.2).
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from broker.downstream.connection import WRITE_TIMEOUT, Connection, Server
from broker.downstream.room import Place
from broker.downstream.web import Disconnected, Http

_LOOK: Final = 0.01
"""Seconds between two looks whether the caller has read the answers before: one that waits for them has."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a connection came. `tries`: workers that had its request before; `is_inner`: of a worker, which wants to know
    what this one alone would answer, on behalf of `peer`. `request`: what was read from it.
    """

    tries: int = 0
    is_inner: bool = False
    peer: str = ""
    request: bytes = b""


OUTSIDE: Final = Arrival()
"""Of one that was accepted here."""


class Movable(Connection):
    """See the module."""

    def __init__(self, server: Server, place: Place, arrival: Arrival = OUTSIDE) -> None:
        super().__init__(server, place)
        self._arrival = arrival
        self.arrival = arrival
        """How the request came that is answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._peer = self._arrival.peer or self._peer
        if self._arrival.request:
            self.data_received(self._arrival.request)  # before anything that comes from the caller

    def _begin(self, http: Http) -> None:
        self.arrival, self._arrival = self._arrival, OUTSIDE  # only the first one came as the connection did
        super()._begin(http)

    @asynccontextmanager
    async def lent(self) -> AsyncGenerator[tuple[int, bool], None]:
        """A descriptor to pass on, and whether something has come behind the request. Nothing is read meanwhile.

        Raises: Disconnected.
        """
        self._pause()
        for _ in range(int(WRITE_TIMEOUT / _LOOK)):
            if self._is_lost or not self._transport.get_write_buffer_size():
                break
            await anyio.sleep(_LOOK)
        if self._is_lost or self._transport.get_write_buffer_size():
            raise Disconnected
        has_more = bool(self._queue) or self._arriving is not None or self._is_in_head or bool(self._refusal)
        handle = os.dup(self._transport.get_extra_info("socket").fileno())
        try:
            yield handle, has_more
        finally:
            os.close(handle)

    def forsake(self, http: Http) -> None:
        """It is another worker's now: what is left here goes, and the caller sees nothing of it."""
        http.is_over = self._is_deaf = True
        self._queue.clear()
        self._transport.abort()
