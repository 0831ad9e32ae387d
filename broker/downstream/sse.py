"""The HTTP+SSE transport of 2024-11-05, for hosts that still speak it: `GET /sse`, then `POST /messages?session=…`.

The open stream is the session: it ends with it, and what is in flight in it is cancelled.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import anyio
import anyio.abc

from broker.core import wire
from broker.core.era import LATEST_LEGACY
from broker.core.eventstream import frame
from broker.core.shape import is_object
from broker.downstream.engine import Engine, agreed_version, refused
from broker.downstream.envelope import traced
from broker.downstream.media import media_type
from broker.downstream.message import Incoming, Rejected, parse, parse_in_turns, result_bytes
from broker.downstream.session import SESSION_PARAMETER, LegacySession, SessionStream
from broker.downstream.stream import STREAM_HEADERS, Outbox, pump, while_connected
from broker.downstream.vigil import Vigil
from broker.downstream.web import JSON_HEADERS, JSON_MEDIA, Http
from broker.errors import BrokerError, InvalidParams, InvalidRequest
from broker.identity.admission import Admission
from broker.relay.notify import Subscriber
from broker.workers.assignment import ALONE, Worker

MAX_STREAMS: Final = 1000
"""Open streams in all; each holds a connection."""


@dataclass(slots=True, eq=False)
class _Stream:
    session: LegacySession
    outbox: Outbox
    tasks: anyio.abc.TaskGroup
    is_initialized: bool = False


class SseFront:
    """See the module. The HTTP front has let the caller in."""

    def __init__(self, engine: Engine, vigil: Vigil, worker: Worker = ALONE) -> None:
        self._worker = worker
        self._engine = engine
        self._vigil = vigil
        self._streams: dict[str, _Stream] = {}

    def sessions(self) -> tuple[LegacySession, ...]:
        """All that are open."""
        return tuple(stream.session for stream in self._streams.values())

    def end(self, session: LegacySession) -> bool:
        """End a session, if it is one of these."""
        stream = self._streams.get(session.id)
        if stream is not None:
            stream.tasks.cancel_scope.cancel()
        return stream is not None

    async def serve(self, path: str, admission: Admission, http: Http) -> None:
        """One request to `/sse` or `/messages`."""
        if path == "/sse":
            await (self._open(admission, http) if http.method == "GET" else _refuse(http, 405, "GET opens the stream"))
        else:
            await (self._post(admission, http) if http.method == "POST" else _refuse(http, 405, "POST sends a message"))

    async def _open(self, admission: Admission, http: Http) -> None:
        if len(self._streams) >= MAX_STREAMS:
            return await _refuse(http, 503, "too many streams are open")
        await http.body(0)
        session_id = self._worker.mark(self._engine.clock.token())
        session = LegacySession(session_id, admission.caller, "", LATEST_LEGACY, front="sse")
        outbox = Outbox()

        await http.start(200, STREAM_HEADERS)
        endpoint = f"/messages?{SESSION_PARAMETER}={session.id}"
        await http.write(frame(endpoint.encode(), event="endpoint"), more=True)
        async with anyio.create_task_group() as tasks, self._kept(session, outbox, tasks):
            with self._vigil.over(admission, tasks.cancel_scope.cancel):
                await while_connected(http, lambda: pump(http, outbox), self._engine.closing.wait)
            tasks.cancel_scope.cancel()
        await http.write(b"", more=False)

    @asynccontextmanager
    async def _kept(
        self, session: LegacySession, outbox: Outbox, tasks: anyio.abc.TaskGroup
    ) -> AsyncGenerator[None, None]:
        way = SessionStream(session, self._engine.clock, outbox.emit, outbox.put_answer)
        subscriber = Subscriber(
            session.caller, session.view, outbox.emit, session.watches, session.id, session.capabilities, stream=way
        )
        self._streams[session.id] = _Stream(session, outbox, tasks)
        self._engine.hub.add(subscriber)
        try:
            yield
        finally:
            del self._streams[session.id]
            session.close()
            self._engine.hub.remove(subscriber)
            self._engine.session_ended(session.id)

    async def _post(self, admission: Admission, http: Http) -> None:
        parameters = dict(parse_qsl(http.query.decode("latin-1")))
        stream = self._streams.get(parameters.get(SESSION_PARAMETER, ""))
        if stream is None or not stream.session.is_of(admission):
            return await _refuse(http, 404, "Session not found: open /sse")
        if media_type(http) != JSON_MEDIA:
            return await _refuse(http, 415, f"Content-Type must be {JSON_MEDIA}")
        try:
            body = await http.body(wire.FROM_CALLER.size)
            incoming = traced(await parse_in_turns(body) if wire.is_long(body) else parse(body), http.headers)
        except Rejected as rejected:
            body = refused(rejected.id, rejected.error).body
            return http.respond(400, body, JSON_HEADERS)
        if incoming.is_request:
            stream.tasks.start_soon(self._run, stream, incoming)
        else:
            stream.session.note(incoming)
            self._engine.note(incoming, stream.session.who)
        http.respond(202, b"Accepted", ((b"content-type", b"text/plain"),))

    async def _run(self, stream: _Stream, incoming: Incoming) -> None:
        assert incoming.id is not None
        try:
            with stream.session.begin(incoming.id):
                stream.outbox.put_answer(await self._answer(stream, incoming))
        except BrokerError as error:
            stream.outbox.put_answer(refused(incoming.id, error).body)

    async def _answer(self, stream: _Stream, incoming: Incoming) -> bytes:
        assert incoming.id is not None
        if incoming.method == "initialize":
            capabilities = incoming.params.get("capabilities")
            stream.session.agree(agreed_version(incoming.params), capabilities if is_object(capabilities) else {})
            stream.is_initialized = True
            return result_bytes(incoming.id, await self._engine.initialize(incoming.params, stream.session.who))
        if not stream.is_initialized and incoming.method != "ping":
            raise InvalidParams("no session: send initialize first")
        channel = stream.session.asking.channel(stream.outbox.put_answer)
        answer = await self._engine.answer(incoming, stream.session.who, stream.outbox.emit, channel)
        stream.session.learn(incoming, answer)
        return answer.body


async def _refuse(http: Http, status: int, why: str) -> None:
    http.respond(status, refused(None, InvalidRequest(why)).body, JSON_HEADERS)
