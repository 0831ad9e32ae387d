"""The HTTP front: `/mcp` and `/mcp/<view>` for both eras, `/sse` and `/messages` for the oldest, `/api`, and health.

Every other path is 404 before anything else happens. Paths are compared as they were sent, never decoded, and never
taken from `Host` (I-02, I-24).
"""

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import anyio

from broker.clock import SystemClock
from broker.core import wire
from broker.core.era import ALL_VERSIONS, META_VERSION, MODERN_VERSIONS, is_modern
from broker.core.shape import is_object
from broker.core.tracecontext import PARENT
from broker.downstream import metrics
from broker.downstream.crew import NO_CREW, Crew
from broker.downstream.door import Door
from broker.downstream.elsewhere import Elsewhere
from broker.downstream.engine import Answer, Engine, agreed_version, refused
from broker.downstream.envelope import check_envelope, traced
from broker.downstream.health import WELL, Health
from broker.downstream.media import accepts, check_media
from broker.downstream.memory import LOOK, RETRY_AFTER
from broker.downstream.message import Incoming, Rejected, parse, parse_in_turns, result_bytes
from broker.downstream.room import Room
from broker.downstream.session import SESSION_HEADER, LegacySession, Sessions, SessionStream
from broker.downstream.sse import SseFront
from broker.downstream.stream import STREAM_HEADERS, Outbox, Response, Silence, Stage, pump, resume, while_connected
from broker.downstream.vigil import RECHECK, Vigil
from broker.downstream.vitals import Vitals
from broker.downstream.web import JSON_HEADERS, Http, HttpError
from broker.errors import HTTP_STATUS, BrokerError, InvalidRequest, UnsupportedVersion
from broker.identity.admission import Admission
from broker.relay.notify import Subscriber
from broker.usage.gauges import Gauge

log = logging.getLogger(__name__)

ENDPOINT: Final = "/mcp"
_VIEW: Final = re.compile(rf"{ENDPOINT}/[a-z][a-z0-9-]{{0,31}}")
"""A view of it: what any other word could never name is no endpoint (I-16)."""
VERSION_HEADER: Final = "mcp-protocol-version"
_VERSIONS: Final = frozenset({None, *ALL_VERSIONS})
"""That a legacy caller may name, or none: one that we do not know falls into no era (SP-25)."""
LAST_EVENT_HEADER: Final = "last-event-id"
_SSE: Final = frozenset({"/sse", "/messages"})
_API: Final = "/api/"
_MAX_BODY: Final = wire.FROM_CALLER.size
_RETRY_LATER: Final = ((b"retry-after", str(RETRY_AFTER).encode()),)


class Api(Protocol):
    """What answers below `/api/`, if anything does."""

    async def serve(self, http: Http, admission: Admission, front: "HttpFront") -> None:
        """One request of somebody who was let in. Raises: HttpError, Disconnected."""
        ...


class HttpFront:
    """Serves HTTP requests; `running` must be entered around it."""

    def __init__(
        self,
        engine: Engine,
        door: Door,
        page: metrics.Metrics | None = None,
        api: Api | None = None,
        room: Room | None = None,
        health: Health = WELL,
        vitals: Vitals | None = None,
        crew: Crew = NO_CREW,
    ) -> None:
        self.crew = crew
        """The workers, of which this is the front of one."""
        self._elsewhere = Elsewhere(crew, engine.knows_task, self.sessions)
        self._room = room or Room()
        self._vitals = vitals or Vitals(SystemClock())
        self._metrics = page
        self._state = health
        self._engine = engine
        self._door = door
        self._api = api
        self._sessions = Sessions(engine.session_ended)
        self._vigil = Vigil()
        self._sse = SseFront(engine, self._vigil, crew.worker)
        self._stage: Stage | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Owns what outlives a connection: calls of legacy sessions, and the look at who may go on."""
        async with self._vitals.pulse.running(), anyio.create_task_group() as tasks:
            self._stage = Stage(tasks, self._vigil, self._door.expired, Silence())
            tasks.start_soon(self._sweep)
            tasks.start_soon(self._watch_memory)
            try:
                yield
            finally:
                self._stage.silence.close()
                self._stage = None
                tasks.cancel_scope.cancel()

    def sessions(self) -> Iterator[LegacySession]:
        """All that are open, those of the old transport too."""
        yield from self._sessions.listed()
        yield from self._sse.sessions()

    def end(self, session: LegacySession) -> None:
        """End a session with all that is in flight in it."""
        if not self._sse.end(session):
            self._sessions.close(session)

    def serve(self, http: Http, admission: Admission | None = None) -> Awaitable[None] | None:
        """See `Serve`. `admission`: who was let in for it, if that had to be waited for."""
        path = http.path
        if path != ENDPOINT and path not in _SSE and not _VIEW.fullmatch(path):
            return self._serve_other(http, path)
        if admission is None:
            admission = self._door.known(http, path)
            if admission is None or not self.crew.is_alone:
                return self._let_in(http, admission)
        if self._vitals.memory.is_high and http.method != "DELETE":
            raise HttpError(503, InvalidRequest("memory is short: try again later"), _RETRY_LATER)
        if path in _SSE:
            return self._sse.serve(path, admission, http)
        view = path[len(ENDPOINT) + 1 :]
        # After the credential was seen: which views exist is not everybody's business.
        if view and not self._engine.router.has_view(view, admission.caller):
            raise HttpError(404)
        match http.method:
            case "POST":
                return self._post(http, admission, view)
            case "GET":
                return self._get(http, admission, view)
            case "DELETE":
                self._sessions.close(self._session(http, admission, view))
                return http.respond(200)
            case _:
                raise HttpError.not_allowed("GET, POST, DELETE")

    async def _let_in(self, http: Http, admission: Admission | None) -> None:
        """Go on with a request as soon as it is known who asks, unless it is another worker's."""
        admission = admission or await self._door.admit(http, http.path)
        if self.crew.is_alone or not await self._elsewhere.has_session_of(http):
            await _done(self.serve(http, admission))

    async def _serve_other(self, http: Http, path: str) -> None:
        """What is no endpoint of the protocol."""
        if path in ("/healthz", "/readyz"):
            self._health(path, http)
        elif path == metrics.PATH and self._metrics is not None:
            await self._metrics.serve(http, self._door, self._gauges(), self.crew)
        elif self._api is not None and path.startswith(_API):
            admission = await self._door.admit(http, ENDPOINT)
            if self.crew.is_alone or not await self._elsewhere.has_administered(http):
                await self._api.serve(http, admission, self)
        else:
            await self._door.describe(http, path)

    def _gauges(self) -> list[Gauge]:
        """What only the front knows."""
        room = self._room
        return [
            Gauge("sessions", "Open legacy sessions over HTTP.", len(self._sessions)),
            Gauge("connections", "Connections of callers.", room.taken),
            Gauge("connections_max", "The most of them that there may be.", room.bounds.total),
            *(
                Gauge("connections_refused", "Found no room.", number, {"bound": bound}, is_counter=True)
                for bound, number in room.refused.items()
            ),
            *self._vitals.gauges(),
        ]

    def _health(self, path: str, http: Http) -> None:
        if http.method not in ("GET", "HEAD"):
            raise HttpError.not_allowed("GET")
        if path == "/readyz":
            status, body = self._state.page(is_closing=self._engine.closing.is_set())
        else:
            status, body = 200, b"ok\n"
        http.respond(status, body, ((b"content-type", b"text/plain"),))

    def _post(
        self, http: Http, admission: Admission, view: str, incoming: Incoming | None = None
    ) -> Awaitable[None] | None:
        """What is left to do. `incoming`: what was posted, if that had to be waited for."""
        if incoming is None:
            if not http.head.is_fit:
                check_media(http)
            if http.whole is None or len(http.whole) > wire.SHORT:
                return self._receive(http, admission, view)
            try:
                incoming = parse(http.whole)
            except Rejected as rejected:
                return _respond(http, 400, refused(rejected.id, rejected.error))
        if PARENT in http.headers:
            incoming = traced(incoming, http.headers)
        if META_VERSION not in incoming.meta and http.headers.get(VERSION_HEADER) not in MODERN_VERSIONS:
            return self._post_legacy(http, admission, view, incoming)
        if not self.crew.is_alone:
            return self._post_in_crew(http, admission, view, incoming)
        return self._post_modern(http, admission, view, incoming)

    async def _receive(self, http: Http, admission: Admission, view: str) -> None:
        """Go on with a message as soon as it is there, and read."""
        body = await http.body(_MAX_BODY)
        if not self.crew.is_alone:
            http.put_back(body)  # for another worker, if it is that one's
        try:
            incoming = await parse_in_turns(body) if wire.is_long(body) else parse(body)
        except Rejected as rejected:
            return _respond(http, 400, refused(rejected.id, rejected.error))
        await _done(self._post(http, admission, view, incoming))

    async def _post_in_crew(self, http: Http, admission: Admission, view: str, incoming: Incoming) -> None:
        """Go on with a message of the modern era, unless it is another worker's."""
        if not await self._elsewhere.has_named(http, admission.caller, incoming):
            await _done(self._post_modern(http, admission, view, incoming))

    # -- the modern era: every POST stands alone ------------------------------------------------------------------

    def _post_modern(self, http: Http, admission: Admission, view: str, incoming: Incoming) -> Awaitable[None] | None:
        """What is left to do; None, if it is answered."""
        if incoming.answer is not None:
            return _respond(http, 400, refused(None, InvalidRequest("a response is not accepted here")))
        try:
            who = check_envelope(http.headers, incoming, admission, view, self._engine.router.served)
        except BrokerError as error:
            return _respond(http, HTTP_STATUS.get(error.code, 200), refused(incoming.id, error))
        if incoming.id is None:
            return http.respond(202)
        # Spec 2026-07-28: a request whose connection is closed is cancelled.
        assert self._stage is not None and http.task is not None
        http.on_gone = http.task.cancel
        only_waits = incoming.method == "subscriptions/listen"
        response = Response(http, self._stage, admission, only_waits=only_waits)
        return response.send(self._engine.answer(incoming, who, response.emit))

    # -- the legacy era: sessions ---------------------------------------------------------------------------------

    def _post_legacy(self, http: Http, admission: Admission, view: str, incoming: Incoming) -> Awaitable[None] | None:
        """What is left to do; None, if it is answered. Raises: HttpError."""
        if incoming.method == "initialize" and incoming.is_request:
            return self._open_session(http, admission, view, incoming)
        session = self._session(http, admission, view)
        if not incoming.is_request:
            session.note(incoming)
            self._engine.note(incoming, session.who)
            return http.respond(202)
        assert self._stage is not None
        # Spec 2025-11-25: "Disconnection SHOULD NOT be interpreted as the client cancelling its request." So nobody
        # looks whether the caller is there, and the server lets this task run to its end.
        response = Response(http, self._stage, admission, session)
        return response.send(self._run_in_session(session, incoming, response))

    async def _run_in_session(self, session: LegacySession, incoming: Incoming, response: Response) -> Answer | None:
        """The answer; None for a request that its caller has cancelled: it gets none."""
        assert incoming.id is not None
        try:
            with session.begin(incoming.id):
                answer = await self._engine.answer(incoming, session.who, response.emit, response)
                session.learn(incoming, answer)
                return answer
        except BrokerError as error:
            return refused(incoming.id, error)
        finally:
            session.last_used = self._engine.clock.now()
        return None

    async def _open_session(self, http: Http, admission: Admission, view: str, incoming: Incoming) -> None:
        if http.headers.get(VERSION_HEADER) not in _VERSIONS:
            raise _unknown_version(http)
        assert incoming.id is not None
        capabilities = incoming.params.get("capabilities")
        session = LegacySession(
            self.crew.worker.mark(self._engine.clock.token()),
            admission.caller,
            view,
            agreed_version(incoming.params),
            capabilities if is_object(capabilities) else {},
            self._engine.clock.now(),
            admission,
        )
        try:
            result = await self._engine.initialize(incoming.params, session.who)
        except BrokerError as error:
            return _respond(http, 200, refused(incoming.id, error))
        if not self._sessions.open(session):
            raise HttpError(503, InvalidRequest("too many sessions are open and busy"))
        headers = (*JSON_HEADERS, (SESSION_HEADER.encode(), session.id.encode()))
        http.respond(200, result_bytes(incoming.id, result), headers)

    def _session(self, http: Http, admission: Admission, view: str) -> LegacySession:
        """Raises: HttpError: 400 without a session or for a version we do not serve, 404 for one that is not theirs."""
        if http.headers.get(VERSION_HEADER) not in _VERSIONS:
            raise _unknown_version(http)
        session_id = http.headers.get(SESSION_HEADER)
        if session_id is None or SESSION_HEADER in http.headers.duplicated:
            raise HttpError(400, InvalidRequest("no session: send initialize, or the 2026-07-28 envelope"))
        session = self._sessions.find(session_id, admission, view, self._engine.clock.now())
        if session is None:
            raise HttpError(404, InvalidRequest("Session not found: send initialize"))
        return session

    async def _get(self, http: Http, admission: Admission, view: str) -> None:
        """The stream of a legacy session on which changes are announced."""
        if http.headers.get(SESSION_HEADER) is None and (
            http.headers.get(VERSION_HEADER) is None or is_modern(http.headers.get(VERSION_HEADER) or "")
        ):
            raise HttpError.not_allowed("POST")
        if not accepts(http.headers.get("accept"), "text/event-stream"):
            raise HttpError(406, InvalidRequest("Accept must list text/event-stream"))
        session = self._session(http, admission, view)
        await http.body(0)
        last_event_id = http.headers.get(LAST_EVENT_HEADER)
        if last_event_id is not None:
            return await self._resume(http, admission, session, last_event_id)
        outbox = Outbox()
        stream = SessionStream(session, self._engine.clock, outbox.emit, outbox.put_answer)
        subscriber = Subscriber(
            admission.caller, view, outbox.emit, session.watches, session.id, session.capabilities, stream=stream
        )
        self._engine.hub.add(subscriber)
        try:
            with (
                anyio.CancelScope() as scope,
                self._vigil.over(admission, scope.cancel, only_waits=True),
                session.streaming(),
            ):
                await http.start(200, STREAM_HEADERS)
                await while_connected(http, lambda: pump(http, outbox), self._engine.closing.wait)
            await http.write(b"", more=False)
        finally:
            session.last_used = self._engine.clock.now()
            self._engine.hub.remove(subscriber)

    async def _resume(self, http: Http, admission: Admission, session: LegacySession, last_event_id: str) -> None:
        """The rest of a stream whose connection broke; of this session's streams only (SP-80)."""
        found = session.replay.find(last_event_id)
        if found is None:
            raise HttpError(404, InvalidRequest("no such stream in this session"))
        await http.start(200, STREAM_HEADERS)
        with anyio.CancelScope() as scope, self._vigil.over(admission, scope.cancel):
            await while_connected(http, lambda: resume(http, *found))
        if scope.cancelled_caught:
            await http.write(b"", more=False)

    async def _watch_memory(self) -> None:
        """While it is all but gone, what only waits has to go, the oldest first (F-98)."""
        memory = self._vitals.memory
        while True:
            await self._engine.clock.sleep(LOOK)
            memory.look()
            if memory.is_critical and (ended := self._vigil.make_room()):
                log.warning("memory is all but gone: %d streams that were only waiting have been ended", ended)

    async def _sweep(self) -> None:
        while True:
            await self._engine.clock.sleep(RECHECK)
            self._vigil.look()
            self._sessions.expire(self._engine.clock.now())


def _unknown_version(http: Http) -> HttpError:
    return HttpError(400, UnsupportedVersion(http.headers[VERSION_HEADER], ALL_VERSIONS))


async def _done(work: Awaitable[None] | None) -> None:
    if work is not None:
        await work


def _respond(http: Http, status: int, answer: Answer) -> None:
    http.respond(status, answer.body, JSON_HEADERS)
