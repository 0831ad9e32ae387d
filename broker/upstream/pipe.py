"""A link over a pair of streams that all requests share: stdio, and old SSE.

`Duplex` carries whole messages; `PipeLink` tells the answers apart.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol

import anyio
import anyio.abc

from broker.core import wire
from broker.core.era import META_SUBSCRIPTION
from broker.core.extensions import is_foreign
from broker.core.shape import is_object
from broker.core.tasks import related_task
from broker.errors import CannotAsk, MalformedAnswer, UpstreamUnavailable
from broker.secrecy import MAX_QUOTED, foreign
from broker.upstream.link import (
    MAX_QUESTIONS,
    NEVER_CANCELLED,
    Link,
    notification_bytes,
    refusal_bytes,
)
from broker.upstream.source import Take
from broker.upstream.waiting import Waiting

log = logging.getLogger(__name__)

MAX_GARBAGE: Final = 100
"""Lines in a row that are no message before the connection counts as broken: banners and warnings of package
runners are tolerated, a program that only talks is not (F-10)."""
MAX_REFUSALS: Final = 64
"""Requests of an upstream refused between two answers of its own; more are dropped unanswered (F-24)."""


class Gone(Exception):
    """The stream is over. The text says why."""


class Duplex(Protocol):
    """Whole messages, both ways, over one connection."""

    async def send(self, message: bytes) -> None:
        """Write one message (no newline in it).

        Raises: Gone, also when the peer has not read for too long; UpstreamUnavailable, if it refuses this message.
        """
        ...

    def post(self, message: bytes) -> None:
        """Write one message if that is possible without waiting, else drop it. Never raises."""
        ...

    async def serve(self, take: Take) -> None:
        """Hand each message to `take` as it comes, and run what the stream needs beside (a log to drain, a queue to
        write).

        Raises: Gone, at the end.
        """
        ...

    async def aclose(self) -> None:
        """Close, and give everything back; bounded in time."""
        ...


class PipeLink(Link):
    """See the module."""

    def __init__(self, upstream: str, duplex: Duplex) -> None:
        super().__init__(upstream)
        self._duplex = duplex
        self.listening.set()  # one stream for everything
        self._garbage = 0
        self._refusals = 0
        self._tasks: anyio.abc.TaskGroup | None = None

    async def _exchange(self, method: str, params: dict[str, Any], body: bytes, waiting: Waiting) -> dict[str, Any]:
        answer = waiting.answer = self._in_flight.loop.create_future()
        try:
            await self._duplex.send(body)
            return await answer
        except Gone as gone:
            self.lose(str(gone))
            raise UpstreamUnavailable(self.upstream, str(gone)) from None
        finally:
            if not answer.done() or answer.cancelled():
                self._abandon(waiting, method)
            else:
                answer.exception()  # seen, even if the waiter was cancelled in the same moment

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """See `Link`."""
        try:
            await self._duplex.send(notification_bytes(method, params))
        except Gone as gone:
            self.lose(str(gone))
        except UpstreamUnavailable as error:
            log.debug("%s: a notification was refused: %s", self.upstream, error.why)

    async def serve(self) -> None:
        """See `Link`: what comes in."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                if self.lost is None:
                    await self._duplex.serve(self._on_bytes)
            except Gone as gone:
                self.lose(str(gone))
            tasks.cancel_scope.cancel()

    def lose(self, why: str) -> None:
        """See `Link`. Nothing is read any more."""
        super().lose(why)
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    async def aclose(self) -> None:
        """See `Link`."""
        self.lose("closed")
        await self._duplex.aclose()

    def _abandon(self, waiting: Waiting, method: str) -> None:
        """Nobody waits for this answer any more: say so, once."""
        self._abandon_call(waiting)
        if self.lost is None and method not in NEVER_CANCELLED:
            self._duplex.post(notification_bytes("notifications/cancelled", {"requestId": waiting.id}))

    def _on_bytes(self, data: bytes) -> wire.Steps[None] | None:
        if self.lost is not None or not data.strip():
            return None
        if len(data) > wire.SHORT and wire.is_long(data):
            return self._on_long(data)
        try:
            message = wire.decode_object(data, wire.FROM_UPSTREAM)
        except wire.Malformed as error:
            return self._on_garbage(data, str(error))
        return self._on_message(message)

    def _on_long(self, data: bytes) -> wire.Steps[None]:
        try:
            message = yield from wire.decoding_object(data, wire.FROM_UPSTREAM)
        except wire.Malformed as error:
            return self._on_garbage(data, str(error))
        yield
        if self.lost is None:
            self._on_message(message)

    def _on_message(self, message: dict[str, Any]) -> None:
        self._garbage = 0
        method = message.get("method")
        if isinstance(method, str):
            if "id" in message:
                self._on_request(message)
            else:
                params = message.get("params")
                self._on_notification(method, params if is_object(params) else {})
        elif "id" in message:
            self._on_answer(message)

    def _on_answer(self, message: dict[str, Any]) -> None:
        request_id = message["id"]
        # Ours are integers, so the string form of one can mean nobody else (F-21).
        if isinstance(request_id, str) and request_id.isdecimal() and len(request_id) < 19:
            request_id = int(request_id)
        answer = self._answer_to(request_id)
        if answer is None:
            log.debug("%s: dropped an answer that nobody waits for", self.upstream)
            was_abandoned = type(request_id) is int and self._abandoned.pop(request_id, None) is not None
            self.strays["answer"] += not was_abandoned
            return
        self._refusals = 0
        answer.set_result(message)

    def _answer_to(self, request_id: Any) -> "asyncio.Future[dict[str, Any]] | None":
        """Where the answer to a request is waited for."""
        waiting = self._in_flight.requests.get(request_id) if type(request_id) is int else None
        answer = None if waiting is None else waiting.answer
        return None if answer is None or answer.done() else answer

    def _waiting(self, request_id: Any) -> Waiting | None:
        return self._in_flight.requests.get(request_id) if type(request_id) is int else None

    def _on_notification(self, method: str, params: dict[str, Any]) -> None:
        if self._is_too_long(method, params):
            return
        match method:
            case "notifications/progress":
                waiting = self._waiting(params.get("progressToken"))
                if waiting is not None:
                    waiting.notice(method, params)
                elif related_task(params) is not None:
                    self._unsolicited(method, params)  # of a call that has been answered with a task
                else:
                    self.strays["notification"] += 1
            case "notifications/cancelled":
                self._take_back(params)
            case "notifications/subscriptions/acknowledged":
                waiting = self._subscription(params)
                if waiting is not None:
                    waiting.notice(method, params)
            case "notifications/message" | "notifications/elicitation/complete":
                self._on_unaddressed(method, params)
            case _ if is_foreign(method):
                self._on_unaddressed(method, params)
            case _:
                self._unsolicited(method, params)

    def _subscription(self, params: dict[str, Any]) -> Waiting | None:
        """The `subscriptions/listen` that a message says it belongs to."""
        meta = params.get("_meta")
        return self._waiting(meta.get(META_SUBSCRIPTION)) if is_object(meta) else None

    def _on_unaddressed(self, method: str, params: dict[str, Any]) -> None:
        """What names no call goes to whose it is (`upstream/home.py`), or to nobody."""
        try:
            owner = self._addressee(method, params, None)
        except CannotAsk:
            if related_task(params) is not None:
                self._unsolicited(method, params)
            else:
                log.debug("%s: dropped %s: nothing tells whose it is", self.upstream, method)
                self.strays["notification"] += 1
            return
        if isinstance(owner, Waiting):
            owner.notice(method, params)
        else:
            self.home.notice(owner, method, params)

    def _on_request(self, message: dict[str, Any]) -> None:
        if self._is_question(message.get("method")) and self._tasks is not None and self._carrying < MAX_QUESTIONS:
            self._carrying += 1
            self._tasks.start_soon(self._on_question, message)
            return
        self._refusals += 1
        answer = refusal_bytes(message)
        if answer is not None and self._refusals <= MAX_REFUSALS:
            self._duplex.post(answer)

    async def _on_question(self, message: dict[str, Any]) -> None:
        try:
            answer = await self._answer_question(message, None)
            if answer is not None:
                await self._duplex.send(answer)
        except Gone as gone:
            self.lose(str(gone))
        except UpstreamUnavailable as error:
            log.debug("%s: an answer was refused: %s", self.upstream, error.why)
        finally:
            self._carrying -= 1

    def _on_garbage(self, data: bytes, why: str) -> None:
        """A line that is no message. The call it was meant for, if that can be told, fails now (F-12)."""
        request_id = wire.readable_id(data)
        answer = self._answer_to(request_id)
        if answer is not None:
            answer.set_exception(MalformedAnswer(self.upstream, why))
            return
        self._garbage += 1
        if self._garbage == 1:
            text = foreign(data[:MAX_QUOTED].decode("utf-8", "replace"))
            log.info("%s: not a message (%s): %s", self.upstream, why, text)
        if self._garbage >= MAX_GARBAGE:
            self.lose(f"{self._garbage} lines in a row that are no messages")
