"""The front for hosts that launch the broker: messages over our own standard streams, both eras on one pipe.

Each message decides for itself: one with the envelope is modern; `initialize` opens the pipe's one legacy session,
whenever it comes. One id space for both. Reading and writing stand in threads, because no event loop can wait for
every kind of standard stream on every system; nothing but protocol is ever written.
"""

import asyncio
import contextlib
import logging
import os
import queue
import sys
import threading
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel

from broker.core import wire
from broker.core.caller import LOCAL
from broker.core.era import META_VERSION
from broker.core.framing import LEAST, TURN, LineSplitter, LineTooLong
from broker.core.shape import is_object
from broker.downstream.ending import LAST_WORDS, usual_drain
from broker.downstream.engine import Answer, Engine, Who, agreed_version, refused
from broker.downstream.in_flight import InFlight
from broker.downstream.message import (
    Incoming,
    Rejected,
    envelope_of,
    notification_bytes,
    parse,
    parse_in_turns,
    result_bytes,
)
from broker.downstream.session import LegacySession, SessionStream
from broker.errors import BrokerError, InvalidParams, ParseError
from broker.relay.notify import Subscriber

log = logging.getLogger(__name__)

CHUNK: Final = 65536
MAX_CHUNKS: Final = 64
"""Chunks read ahead of the loop: 4 MiB; then the host has to wait."""
MAX_UNWRITTEN: Final = 64 * 1024 * 1024
"""Bytes that may wait for the host to read. A host that lets more pile up is taken for gone."""
FLUSH_TIMEOUT: Final = 1.0
"""Seconds that the last answers get to be written when the host has closed its end."""

OnCapabilities = Callable[[Mapping[str, Any]], None]
"""Told once of what the host can be asked, from its first message."""


class StdioFront:
    """See the module."""

    def __init__(
        self, engine: Engine, on_capabilities: OnCapabilities, drain: Callable[[], float] = usual_drain
    ) -> None:
        self._engine = engine
        self._drain = drain
        self._on_capabilities: OnCapabilities | None = on_capabilities
        self._session: LegacySession | None = None
        self._subscriber = Subscriber(LOCAL, "", self._emit)
        # Requests of both eras, by id: the pipe is one id space. Its version is that of no request.
        self._pipe = LegacySession("stdio", LOCAL, "", agreed_version({}), front="stdio")
        self._writer = _Writer()
        self._request_ended = anyio.Event()

    async def serve(self) -> None:
        """Serve until the host closes our stdin."""
        reader = _Reader(asyncio.get_running_loop())
        splitter = LineSplitter(wire.FROM_CALLER.size)
        turn = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._end_when_closing, tasks.cancel_scope)
            try:
                while (chunk := await reader.read()) and not self._writer.is_gone:
                    for line in splitter.feed(chunk):
                        turn += len(line) + LEAST
                        if turn > TURN:  # the next chunk may be there already: to read it is no pause
                            turn = 0
                            await anyio.lowlevel.checkpoint()
                        line = line.removeprefix(BOM_UTF8)  # some Windows programs begin with one (F-11)
                        if len(line) > wire.SHORT and wire.is_long(line):
                            await self._on_long_line(line, tasks)
                        elif line.strip():
                            self._on_line(line, tasks)
            except LineTooLong as error:
                self._send(refused(None, ParseError(str(error))))
            with anyio.move_on_after(LAST_WORDS):
                await self._answered()
            self._engine.closing.set()
            tasks.cancel_scope.cancel()
        self._writer.close(FLUSH_TIMEOUT)

    async def _end_when_closing(self, scope: anyio.CancelScope) -> None:
        """A signal: what is in flight is finished, or told that it will not be (F-90)."""
        await self._engine.closing.wait()
        with anyio.move_on_after(self._drain()):
            await self._answered()
        self._engine.ending.set()
        with anyio.move_on_after(LAST_WORDS):
            await self._answered()
        scope.cancel()

    async def _answered(self) -> None:
        """Wait until nothing is in flight."""
        while self._pipe.in_flight:
            if self._request_ended.is_set():
                self._request_ended = anyio.Event()
            await self._request_ended.wait()

    def _on_line(self, line: bytes, tasks: anyio.abc.TaskGroup) -> None:
        try:
            incoming = parse(line)
        except Rejected as rejected:
            return self._send(refused(rejected.id, rejected.error))
        return self._on_message(incoming, tasks)

    async def _on_long_line(self, line: bytes, tasks: anyio.abc.TaskGroup) -> None:
        """Nothing is read meanwhile: what comes next has its turn after it."""
        try:
            incoming = await parse_in_turns(line)
        except Rejected as rejected:
            return self._send(refused(rejected.id, rejected.error))
        return self._on_message(incoming, tasks)

    def _on_message(self, incoming: Incoming, tasks: anyio.abc.TaskGroup) -> None:
        if incoming.is_request:
            assert incoming.id is not None
            if self._engine.closing.is_set():
                self._send(refused(incoming.id, BrokerError("The broker is shutting down")))
                return
            try:
                # Before the task runs: a cancellation may be the very next line.
                request = self._pipe.begin(incoming.id)
            except BrokerError as error:
                self._send(refused(incoming.id, error))
                return
            tasks.start_soon(self._on_request, incoming, request)
            return
        self._pipe.note(incoming)
        if self._session is not None:
            self._session.note(incoming)
            self._engine.note(incoming, self._session.who)

    async def _on_request(self, incoming: Incoming, request: InFlight) -> None:
        with request:
            if request.is_cancelled:
                await anyio.lowlevel.checkpoint()  # it ends here: nothing of it is begun
            # A request that its caller has cancelled gets no answer.
            answer = await self._answer(incoming)
            self._writer.put(answer.body)
        self._request_ended.set()

    async def _answer(self, incoming: Incoming) -> Answer:
        assert incoming.id is not None
        try:
            if META_VERSION in incoming.meta:
                version, capabilities, log_level = envelope_of(incoming)
                self._learn(capabilities)
                who = Who(LOCAL, version, "", capabilities, log_level, session=self._pipe.id, front="stdio")
                return await self._engine.answer(incoming, who, self._emit)
            if incoming.method == "initialize":
                return await self._initialize(incoming)
            if self._session is None and incoming.method != "ping":
                raise InvalidParams("no session: send initialize, or the 2026-07-28 envelope in params._meta")
            session = self._session or self._pipe
            channel = session.asking.channel(self._writer.put)
            answer = await self._engine.answer(incoming, session.who, self._emit, channel)
            session.learn(incoming, answer)
            return answer
        except BrokerError as error:
            return refused(incoming.id, error)

    async def _initialize(self, incoming: Incoming) -> Answer:
        """Opens the pipe's session; said again, it is answered again, and the latest version counts."""
        assert incoming.id is not None
        capabilities = incoming.params.get("capabilities")
        self._learn(capabilities)
        offered = capabilities if is_object(capabilities) else dict[str, Any]()
        session = LegacySession("stdio", LOCAL, "", agreed_version(incoming.params), offered, front="stdio")
        answer = Answer(result_bytes(incoming.id, await self._engine.initialize(incoming.params, session.who)))
        if self._session is not None:
            session.succeed(self._session)
        self._session = session
        self._engine.hub.remove(self._subscriber)
        stream = SessionStream(session, self._engine.clock, self._emit, self._writer.put)
        self._subscriber = Subscriber(
            LOCAL, "", self._emit, session.watches, session.id, session.capabilities, stream=stream
        )
        self._engine.hub.add(self._subscriber)
        return answer

    def _learn(self, capabilities: object) -> None:
        if self._on_capabilities is not None:
            self._on_capabilities(capabilities if is_object(capabilities) else {})
            self._on_capabilities = None

    def _emit(self, method: str, params: dict[str, Any]) -> None:
        self._writer.put(notification_bytes(method, params))

    def _send(self, answer: Answer) -> None:
        self._writer.put(answer.body)


class _Reader:
    """Chunks of stdin, read ahead by a thread that ends with the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(MAX_CHUNKS)
        threading.Thread(target=self._run, name="stdin", daemon=True).start()

    async def read(self) -> bytes:
        """The next chunk; empty at the end."""
        chunk = await self._chunks.get()
        self._room.release()
        return chunk

    def _run(self) -> None:
        descriptor = _blocking(sys.stdin.fileno())
        while True:
            self._room.acquire()
            try:
                chunk = os.read(descriptor, CHUNK)
            except OSError:
                chunk = b""
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except RuntimeError:  # the loop is closed
                return
            if not chunk:
                return


class _Writer:
    """Lines to stdout, written in order by a thread, so that a host that does not read stops nobody."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unwritten = 0
        self._lock = threading.Lock()
        self.is_gone = False
        """Whether the host reads no more."""
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    def put(self, message: bytes) -> None:
        """Write one message, soon. Never blocks."""
        with self._lock:
            self._unwritten += len(message)
            if self._unwritten > MAX_UNWRITTEN:
                self.is_gone = True
        if not self.is_gone:
            self._lines.put(message + b"\n")

    def close(self, timeout: float) -> None:
        """Write what is left, for at most `timeout` seconds."""
        self._lines.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        descriptor = _blocking(sys.stdout.fileno())
        while (line := self._lines.get()) is not None:
            view = memoryview(line)
            while view:
                try:
                    view = view[os.write(descriptor, view) :]
                except OSError:
                    self.is_gone = True
                    return
            with self._lock:
                self._unwritten -= len(line) - 1


def _blocking(descriptor: int) -> int:
    """A host may hand over a pipe with O_NONBLOCK set: "nothing yet" would read as an error, and that as the end."""
    with contextlib.suppress(OSError, AttributeError):  # Windows before 3.12 cannot
        os.set_blocking(descriptor, True)
    return descriptor
