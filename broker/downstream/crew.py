"""The workers of one broker, as each of them sees the others: what is another's is passed to it.

Sessions, parked calls and tasks stay where they are. A worker that gets a request which belongs to another one passes
it on with its connection (`moving.py`), over a socket in a directory that only this broker may enter; the other judges
the request from its first byte, credential and all, and answers on the connection itself. So a request is passed on
once, and a caller that stays on one connection pays for it once.

Where nobody can tell whose something is (a task has the id that its server gave it), a request goes round the ring of
workers, until one knows it, or all have been asked.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from math import inf
from pathlib import Path
from typing import Any, Final

import anyio

from broker.core import wire
from broker.downstream.entrance import PAUSE, RETRY_AFTER, SAY_EVERY, Entrance
from broker.downstream.moving import OUTSIDE, Arrival, Movable
from broker.downstream.web import Http, HttpError
from broker.errors import InvalidRequest
from broker.workers.assignment import ALONE, Worker, socket_of

log = logging.getLogger(__name__)

WITHIN: Final = 5.0
"""Seconds in which another worker must take a connection, or answer: one that hangs must not hold others."""
MAX_REQUEST: Final = wire.FROM_CALLER.size + 128 * 1024
"""Bytes of a request that is passed on: the largest body, and the largest head."""
MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of what another worker answers to us."""
MAX_AT_ONCE: Final = 256
"""Connections that are taken from others at a time: each may hold a request."""
BACKLOG: Final = 1024
_HEAD: Final = struct.Struct("<II")
"""Bytes of what is said of the connection, as JSON; and of the request."""
_MAX_SAID: Final = 1024
_TAKEN: Final = b"\n"
_LATER: Final = ((b"retry-after", str(RETRY_AFTER).encode()),)
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class NotThere(ConnectionError):
    """There is no such worker now."""


class Crew:
    """See the module. `directory`: where the sockets of the workers are."""

    def __init__(self, worker: Worker = ALONE, directory: Path = Path()) -> None:
        self.worker = worker
        self.is_alone = worker.is_alone
        """Whether there are no others. Every request asks."""
        self._directory = directory
        self._listener: socket.socket | None = None
        self._said = -inf

    def asks(self, http: Http) -> bool:
        """Whether a request concerns all workers, of which the others have to be asked."""
        return not self.is_alone and not _arrival(http).is_inner

    # -- to others ------------------------------------------------------------------------------------------------

    async def has_taken(self, http: Http, number: int) -> bool:
        """Pass a request on, with its connection; whether worker `number` has it now. If not, since that is not there,
        it is still ours, whole.

        Raises: HttpError, also if that does not answer; Disconnected.
        """
        if not number or not isinstance(http.wire, Movable):
            return False
        body = await http.body(0 if http.method == "GET" else wire.FROM_CALLER.size)
        connection = http.wire
        try:
            async with connection.lent() as (handle, has_more):
                request = http.again(body, is_last=has_more)
                await self._give(number, handle, Arrival(connection.arrival.tries + 1, request=request))
        except NotThere as error:
            log.info("worker %d is not there: %s", number, error)
            http.put_back(body)
            connection.read_on()
            return False
        except OSError as error:  # what it has is not gone
            connection.read_on()
            log.warning("worker %d does not take what is its own: %s", number, error)
            raise HttpError(503, InvalidRequest("what has this does not answer: try again later"), _LATER) from None
        connection.forsake(http)
        return True

    async def has_gone_on(self, http: Http) -> bool:
        """Pass a request on to the next worker in the ring, unless all have had it; whether another has it now.

        One that is not there is left out.
        """
        tries, number = _arrival(http).tries, self.worker.next
        while tries < self.worker.count - 1:
            if await self.has_taken(http, number):
                return True
            tries, number = tries + 1, number % self.worker.count + 1
        return False

    async def answers(self, http: Http) -> list[tuple[int, bytes]]:
        """What the others answer to the same request, those of them that do: number of the worker, and body.

        Only for what is answered whole, and for reading.
        """
        found: dict[int, bytes] = {}

        async def one(number: int) -> None:
            try:
                status, body = await self._ask(number, http)
            except (OSError, TimeoutError, ValueError) as error:
                log.info("worker %d does not answer: %s", number, error)
            else:
                if status == 200:
                    found[number] = body

        async with anyio.create_task_group() as tasks:
            for number in range(1, self.worker.count + 1):
                if number != self.worker.number:
                    tasks.start_soon(one, number)
        return sorted(found.items())

    async def items(self, http: Http) -> tuple[list[Any], list[int]]:
        """Of a list of the API, those of the others; and the numbers of the workers whose items are not among them."""
        found: list[Any] = []
        missing = {*range(1, self.worker.count + 1)} - {self.worker.number}
        for number, body in await self.answers(http):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found += json.loads(body)["items"]
                missing.discard(number)
        return found, sorted(missing)

    async def _ask(self, number: int, http: Http) -> tuple[int, bytes]:
        """Raises: OSError, ValueError; TimeoutError."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                arrival = Arrival(0, is_inner=True, peer=http.peer, request=http.again(b"", is_last=True))
                await self._give(number, theirs.fileno(), arrival)
            ours.setblocking(False)
            answer = bytearray()
            with anyio.fail_after(WITHIN):
                while data := await asyncio.get_running_loop().sock_recv(ours, 65536):
                    answer += data
                    if len(answer) > MAX_ANSWER:
                        raise ValueError("a long answer")
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        return int(head[9:12]), body

    async def _give(self, number: int, handle: int, arrival: Arrival) -> None:
        """Raises: NotThere; OSError, if the other worker is there, and has not taken it."""
        loop = asyncio.get_running_loop()
        said = json.dumps({"tries": arrival.tries, "is_inner": arrival.is_inner, "peer": arrival.peer}).encode()
        with socket.socket(socket.AF_UNIX) as way:
            way.setblocking(False)
            try:
                way.connect(str(socket_of(self._directory, number)))  # at once, or not at all, where many wait for it
            except (FileNotFoundError, ConnectionRefusedError) as error:
                raise NotThere(*error.args) from None
            try:
                with anyio.fail_after(WITHIN):
                    # A fresh socket has room for so few bytes: they go at once, and the descriptor with them.
                    socket.send_fds(way, [_HEAD.pack(len(said), len(arrival.request)) + said], [handle])
                    await loop.sock_sendall(way, arrival.request)
                    taken = await loop.sock_recv(way, 1)
            except OSError:
                # From here on it cannot say so any more, and then gives it up; it may have said so just before.
                taken = b""
                with contextlib.suppress(OSError):
                    way.shutdown(socket.SHUT_RDWR)
                with contextlib.suppress(OSError):
                    taken = way.recv(1)
            if taken != _TAKEN:
                raise TimeoutError("it is not taken")

    # -- from others ----------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Be there for the others: connections that they pass wait from now on. Raises: OSError."""
        path = socket_of(self._directory, self.worker.number)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.setblocking(False)
            listener.bind(str(path))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener

    async def serve(self, entrance: Entrance) -> None:
        """Take connections from the others, until cancelled."""
        if self._listener is None:
            return
        slots = anyio.Semaphore(MAX_AT_ONCE)
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    await slots.acquire()
                    try:
                        way, _ = await asyncio.get_running_loop().sock_accept(self._listener)
                    except OSError as error:
                        self._say(error)
                        slots.release()
                        await anyio.sleep(PAUSE)
                    else:
                        tasks.start_soon(self._take, way, entrance, slots)
        finally:
            self._listener.close()
            socket_of(self._directory, self.worker.number).unlink(missing_ok=True)

    def _say(self, error: OSError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said >= SAY_EVERY:
            self._said = now
            log.warning("connections of other workers cannot be taken: %s", error)

    async def _take(self, way: socket.socket, entrance: Entrance, slots: anyio.Semaphore) -> None:
        handles: list[int] = []
        try:
            with way, anyio.fail_after(WITHIN):
                way.setblocking(False)
                arrival = await _received(way, handles)
                opened = socket.socket(fileno=handles.pop())
                opened.setblocking(False)
                try:
                    way.send(_TAKEN)
                except OSError:
                    opened.close()  # whoever gave it has it still
                    raise
            await entrance.receive(opened, arrival)
        except (OSError, TimeoutError, ValueError) as error:
            log.info("a connection of another worker was not taken: %s", error)
        finally:
            for handle in handles:
                os.close(handle)
            slots.release()


NO_CREW: Final = Crew()
"""For a broker of one process."""


def _arrival(http: Http) -> Arrival:
    return http.wire.arrival if isinstance(http.wire, Movable) else OUTSIDE


async def _received(way: socket.socket, handles: list[int]) -> Arrival:
    """What comes; descriptors are put into `handles`. Raises: OSError, ValueError."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(way, lambda: None if readable.done() else readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(way)
    data, found, _, _ = socket.recv_fds(way, _HEAD.size + _MAX_SAID, 4, _CLOEXEC)
    handles += found
    if len(data) < _HEAD.size or len(found) != 1:
        raise ValueError("it is none")
    said, size = _HEAD.unpack_from(data)
    start = _HEAD.size + said
    if len(data) < start or size > MAX_REQUEST:
        raise ValueError("it is too long")
    request = bytearray(data[start:])
    while len(request) < size:
        more = await loop.sock_recv(way, min(size - len(request), 1 << 18))
        if not more:
            raise ConnectionError("it has an end too soon")
        request += more
    return Arrival(**json.loads(data[_HEAD.size : start]), request=bytes(request))
