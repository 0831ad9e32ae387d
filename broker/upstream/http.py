"""A link over streamable HTTP, both eras: every request is a POST of its own, answered by JSON or an event stream.

Spec: 2026-07-28 basic/transports/streamable-http; 2025-11-25 basic/transports, "Streamable HTTP".
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.abc

from broker.core import mirroring, wire
from broker.core.era import is_modern
from broker.core.eventstream import Event
from broker.core.shape import is_object
from broker.core.tasks import related_task
from broker.errors import BrokerError, MalformedAnswer, UpstreamUnavailable
from broker.secrecy import foreign
from broker.turns import in_turns
from broker.upstream.connection import Head
from broker.upstream.heads import JSON, SESSION_HEADER, STREAM, Heads
from broker.upstream.httpwire import RequestHead
from broker.upstream.link import (
    MAX_QUESTIONS,
    NEVER_CANCELLED,
    Link,
    belongs_to_link,
    notification_bytes,
)
from broker.upstream.waiting import Waiting
from broker.upstream.web import CannotConnect, Response, WebClient

log = logging.getLogger(__name__)

COURTESY_TIMEOUT: Final = 5.0
"""Seconds for what nobody waits for: a cancellation, the end of a session, the refusal of a question."""
MAX_COURTESIES: Final = 64
"""Of these at a time, per upstream."""
STREAM_RETRY: Final = 1.0
"""Seconds at least between two openings of the event stream: one that is closed at once makes no storm (F-54)."""
MIN_RESUME: Final = 0.1
"""Seconds at least before a stream of a call is taken up again, whatever its `retry` says (F-54)."""
MAX_RESUMES: Final = 10
"""Times that the stream of one call is taken up again; the call's own time bounds them too."""
MAX_STREAM_RETRY: Final = 30.0
"""Seconds at most, whatever its `retry` says (F-55)."""


class HttpLink(Link):
    """See the module."""

    streams_tell = True

    def __init__(self, client: WebClient) -> None:
        super().__init__(client.upstream)
        self._client = client
        self._session: str | None = None
        self._renewal = anyio.Lock()
        self._initialize: dict[str, Any] = {}
        """The parameters of `initialize`, to open a new session when the upstream has ended ours."""
        self._tasks: anyio.abc.TaskGroup | None = None
        self._courtesies = 0
        self._heads = Heads(client)
        self._initialized = anyio.Event()
        """Set when a legacy handshake is complete: before it there is no session to listen to."""

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """See `Link`. The modern era has no notifications to a server."""
        if is_modern(self.version):
            return
        await self._tell(notification_bytes(method, params))
        if method == "notifications/initialized":
            self._initialized.set()

    async def serve(self) -> None:
        """See `Link`: courtesies, and the stream on which an upstream announces changes."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                tasks.start_soon(self._listen_legacy)
                await self.gone()
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def aclose(self) -> None:
        """See `Link`. A legacy session is ended politely."""
        was_live = self.lost is None
        self.lose("closed")
        if was_live and self._session is not None:
            with anyio.move_on_after(COURTESY_TIMEOUT / 5, shield=True):
                try:
                    with await self._client.send(self._heads.bare("DELETE", self.version, self._session)):
                        pass
                except UpstreamUnavailable:
                    log.debug("%s: the session could not be ended", self.upstream)
        await self._client.aclose()

    def tool_fault(self, tool: Mapping[str, Any]) -> str | None:
        """See `Link`. Spec: a client MUST exclude a tool whose `x-mcp-header` breaks the rules (SP-22)."""
        return mirroring.fault_of(tool["inputSchema"]) if is_modern(self.version) else None

    def learn_tools(self, tools: tuple[dict[str, Any], ...]) -> None:
        """See `Link`."""
        self._heads.learn_tools(tools)

    async def _exchange(self, method: str, params: dict[str, Any], body: bytes, waiting: Waiting) -> dict[str, Any]:
        """See `Link`. What most answers are, JSON, is read here."""
        response: Response | None = None
        is_answered = False
        try:
            head = self._heads.of(method, params, self.version, self._session)
            response = self._client.wire.ask(head, body)
            await response.is_here
            if not response.head.is_plain:
                response = await self._in_place_of(response, head, body, method, params)
            if method == "initialize":
                self._begin_session(params, response.head)
            if response.head.media == JSON and response.head.status == 200:
                whole = response.whole
                if whole is None:
                    whole = await self._client.read_capped(response, wire.FROM_UPSTREAM.size)
                message = await self._decode(whole)
                given = message.get("id")
                if (given.__class__ is not int or given != waiting.id) and not _is_answer_to(message, waiting.id):
                    raise MalformedAnswer(self.upstream, "an answer to something else")
            else:
                message = await self._answer(response, waiting)
            is_answered = True
            return message
        except (OSError, CannotConnect) as fault:
            raise self._broken(fault) from None
        finally:
            if response is not None:
                self._client.wire.give_back(response)
            if not is_answered:
                self._give_up(waiting.id, method)

    async def _in_place_of(
        self, response: Response, head: RequestHead, body: bytes, method: str, params: dict[str, Any]
    ) -> Response:
        """A response that is not plain; or another, where it redirects, or the session has ended and is renewed."""
        found = await self._client.followed(head, body, response)
        if found.head.status != 404 or SESSION_HEADER not in head.headers:
            return found
        self._client.wire.give_back(found)
        await self._renew_session(head.headers[SESSION_HEADER])
        return await self._client.send(self._heads.of(method, params, self.version, self._session), body)

    def _begin_session(self, params: dict[str, Any], head: Head) -> None:
        """The answer to `initialize` has come."""
        if head.status == 200:
            self._initialize = params
            self._session = _visible_ascii(head.headers.get(SESSION_HEADER.lower()))

    def _broken(self, fault: OSError | CannotConnect) -> UpstreamUnavailable:
        """A fault of the network, in our words."""
        error = self._client.in_our_words(fault) if isinstance(fault, OSError) else fault
        if isinstance(error, CannotConnect):
            self.lose(error.why)
        return error

    def _give_up(self, request_id: int, method: str) -> None:
        """There was no answer. In the modern era the closed connection says it."""
        if method not in NEVER_CANCELLED and not is_modern(self.version) and self.lost is None:
            self._courtesy(notification_bytes("notifications/cancelled", {"requestId": request_id}))

    async def _answer(self, response: Response, waiting: Waiting) -> dict[str, Any]:
        """A response message that did not come as JSON, with success. Raises: UpstreamUnavailable, MalformedAnswer."""
        if response.head.status != 200:
            return await self._unusual(waiting.id, response)
        if response.head.media == STREAM:
            return await self._from_stream(response, waiting)
        raise MalformedAnswer(self.upstream, "neither JSON nor an event stream")

    async def _unusual(self, request_id: int, response: Response) -> dict[str, Any]:
        """A status that is not 200: a JSON-RPC error in its body is the answer, else the status is the fault."""
        if response.head.status == 202:
            raise MalformedAnswer(self.upstream, "HTTP 202 to a request")
        refused = await self._client.refusal(response)
        try:
            message = wire.decode_object(refused.body, wire.FROM_UPSTREAM)
        except wire.Malformed:
            raise refused from None
        if "error" in message and message.get("id") in (request_id, None):
            return message
        raise refused

    async def _renew_session(self, ended: str | None) -> None:
        """Open a new session in place of `ended`, once for all calls that found it gone (F-61).

        Spec: 2025-11-25 basic/transports: "it MUST start a new session by sending a new InitializeRequest".
        """
        async with self._renewal:
            if self._session != ended:
                return
            try:
                await self.request("initialize", self._initialize, timeout=COURTESY_TIMEOUT)
                await self._tell(notification_bytes("notifications/initialized", None))
            except BrokerError as error:
                self.lose(f"it ended the session, and opens no new one: {foreign(error.message)}")
                raise
            except BaseException:
                self._session = ended  # given up half-way: the next call that finds it gone begins again
                raise

    async def _from_stream(self, response: Response, waiting: Waiting) -> dict[str, Any]:
        """The answer that an event stream brings. A legacy stream that breaks before is taken up again.

        Spec: 2025-11-25 basic/transports, "Resumability and Redelivery": a GET with the last event id, after `retry`.
        """
        place = _Place()
        message = await self._read_stream(response, waiting, place)
        for _ in range(MAX_RESUMES):
            if message is not None:
                return message
            if place.event_id is None or is_modern(self.version):
                break
            await anyio.sleep(place.retry)
            head = self._heads.of_stream(self.version, self._session, {"Last-Event-ID": place.event_id})
            with await self._client.send(head) as again:
                if again.head.status != 200 or again.head.media != STREAM:
                    raise UpstreamUnavailable(self.upstream, "the stream broke, and cannot be taken up again")
                message = await self._read_stream(again, waiting, place)
        if message is not None:
            return message
        raise UpstreamUnavailable(self.upstream, "the stream ended before the answer")

    async def _read_stream(self, response: Response, waiting: Waiting, place: "_Place") -> dict[str, Any] | None:
        """The answer, or None if the stream ends before it; `place` is where it ended."""
        try:
            async for event in self._client.events(response):
                place.note(event)
                if event.event != "message" or not event.data:
                    continue
                message = await self._decode(event.data)
                method = message.get("method")
                if not isinstance(method, str):
                    if _is_answer_to(message, waiting.id):
                        return message
                    self.strays["answer"] += 1
                elif "id" in message:
                    self._on_question(message, waiting)
                else:
                    params = message.get("params")
                    self._on_notification(method, params if is_object(params) else {}, waiting)
        except UpstreamUnavailable:
            if place.event_id is None or is_modern(self.version):
                raise
        return None

    def _on_notification(self, method: str, params: dict[str, Any], waiting: Waiting) -> None:
        if self._is_too_long(method, params):
            return
        if method == "notifications/progress":
            if params.get("progressToken") == waiting.id:
                waiting.notice(method, params)
            elif related_task(params) is not None:
                self._unsolicited(method, params)  # of a call that has been answered with a task
            else:
                self.strays["notification"] += 1
        elif method == "notifications/cancelled":
            self._take_back(params)
        elif belongs_to_link(method) or related_task(params) not in (None, waiting.task):
            self._unsolicited(method, params)
        else:
            waiting.notice(method, params)

    async def _decode(self, data: bytes) -> dict[str, Any]:
        """In turns of the loop, if it is long: all else that becomes of it is another turn."""
        try:
            if len(data) > wire.SHORT and wire.is_long(data):
                return await in_turns(wire.decoding_object(data, wire.FROM_UPSTREAM))
            return wire.decode_object(data, wire.FROM_UPSTREAM)
        except wire.Malformed as error:
            raise MalformedAnswer(self.upstream, str(error)) from None

    def _on_question(self, message: dict[str, Any], waiting: Waiting | None) -> None:
        """A request of a legacy upstream, on the stream of the call that it belongs to. A modern one may send none."""
        if is_modern(self.version) or self._tasks is None or self._carrying >= MAX_QUESTIONS:
            return
        self._carrying += 1
        self._tasks.start_soon(self._put_question, message, waiting)

    async def _put_question(self, message: dict[str, Any], waiting: Waiting | None) -> None:
        try:
            answer = await self._answer_question(message, waiting)
            if answer is not None:
                await self._tell(answer)
        finally:
            self._carrying -= 1

    def _courtesy(self, body: bytes) -> None:
        """Tell it in the background; dropped when too many such wait already."""
        if self._tasks is not None and self._courtesies < MAX_COURTESIES:
            self._courtesies += 1
            self._tasks.start_soon(self._tell_aside, body)

    async def _tell_aside(self, body: bytes) -> None:
        try:
            await self._tell(body)
        finally:
            self._courtesies -= 1

    async def _tell(self, body: bytes) -> None:
        """POST what has no answer."""
        with anyio.move_on_after(COURTESY_TIMEOUT):
            try:
                with await self._client.send(self._heads.bare("POST", self.version, self._session), body):
                    pass
            except UpstreamUnavailable as error:
                log.debug("%s: a notification was lost: %s", self.upstream, error.why)

    async def _listen_legacy(self) -> None:
        """The optional GET stream of a session, reopened while the link lives."""
        await self._initialized.wait()
        try:
            await self._follow_stream()
        finally:
            self.listening.set()

    async def _follow_stream(self) -> None:
        while self.lost is None:
            wait = STREAM_RETRY
            head = self._heads.of_stream(self.version, self._session)
            try:
                with await self._client.send(head) as response:
                    if response.head.status == 404 and SESSION_HEADER in head.headers:
                        raise UpstreamUnavailable(self.upstream, "the session has ended")  # a call will renew it
                    if response.head.status != 200 or response.head.media != STREAM:
                        return  # 405: it offers none
                    self.listening.set()
                    async for event in self._client.events(response):
                        if event.retry is not None:
                            wait = min(MAX_STREAM_RETRY, max(STREAM_RETRY, event.retry / 1000))
                        await self._on_announcement(event.data)
            except CannotConnect as error:
                return self.lose(error.why)
            except UpstreamUnavailable as error:
                log.debug("%s: the event stream broke: %s", self.upstream, error.why)
                wait = MAX_STREAM_RETRY
            await anyio.sleep(wait)

    async def _on_announcement(self, data: bytes) -> None:
        if not data:
            return
        try:
            message = await self._decode(data)
        except MalformedAnswer as error:
            log.debug("%s: dropped an event: %s", self.upstream, error.message)
            return
        method, params = message.get("method"), message.get("params")
        if not isinstance(method, str):
            self.strays["answer"] += 1
            return
        params = params if is_object(params) else {}
        if "id" in message:
            self._on_question(message, None)
        elif method == "notifications/cancelled":
            self._take_back(params)
        elif not self._is_too_long(method, params):
            self._unsolicited(method, params)


@dataclass(slots=True)
class _Place:
    """How far a stream was read: its last event id, and the seconds to wait before coming back."""

    event_id: str | None = None
    retry: float = STREAM_RETRY

    def note(self, event: Event) -> None:
        """One more event was read."""
        if event.id:
            self.event_id = event.id
        if event.retry is not None:
            self.retry = min(MAX_STREAM_RETRY, max(MIN_RESUME, event.retry / 1000))


def _is_answer_to(message: Mapping[str, Any], request_id: int) -> bool:
    """Whether a message answers our request; the string form of our id can mean nobody else (F-21)."""
    given = message.get("id")
    return (given == request_id or given == str(request_id)) and type(given) is not bool


def _visible_ascii(session: str | None) -> str | None:
    """Spec 2025-11-25: a session id consists of visible ASCII only; anything else is no session id."""
    if session is None or not session or len(session) > 1024:
        return None
    return session if all("!" <= character <= "~" for character in session) else None
