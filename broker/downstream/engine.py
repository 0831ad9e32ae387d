"""From a judged message to the bytes of its answer: what all fronts and both eras share.

A front finds out who asks, in which era, and through which view; `Engine` runs the request and makes the response.
It is the boundary for faults of the broker: whatever is not a `BrokerError` is logged under an id, and the caller gets
that id and nothing else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio

from broker.clock import Clock
from broker.core.caller import Caller
from broker.core.era import META_SUBSCRIPTION, Version, declared_upstream, is_modern, negotiate, passing_meta
from broker.core.request import Request
from broker.core.shape import is_array, is_object
from broker.core.wire import Long
from broker.downstream.message import Incoming, error_bytes, result_bytes, writing_result
from broker.errors import BrokerError, InternalError, InvalidParams, MethodNotFound
from broker.logs import begin_request, internal_error
from broker.relay.backchannel import BackChannel
from broker.relay.exchange import Emit, Exchange
from broker.relay.notify import UPDATED, Hub, Subscriber
from broker.relay.router import Router
from broker.relay.task_requests import refuse_without_tasks
from broker.relay.watches import Watches
from broker.relay.who import Who
from broker.secrecy import of_upstream
from broker.turns import in_turns
from broker.usage.audit import NO_AUDIT, Audit
from broker.usage.trail import Trail

log = logging.getLogger(__name__)

LISTEN_FLAGS: Final = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
WATCHING: Final = frozenset({"resources/subscribe", "resources/unsubscribe"})
"""Of a legacy session."""
TASK_NEWS: Final = "notifications/tasks"
WATCHED_AT_ONCE: Final = 100
"""Resources of one stream that upstreams are asked for at a time: one by one, a stream of many would wait for each."""


@dataclass(slots=True)
class Answer:
    """A response as bytes, never changed. `code` is that of its error, None for a result."""

    body: bytes
    code: int | None = None


def ignore_emit(method: str, params: dict[str, Any]) -> None:
    """For callers that no notification can reach."""


class Engine:
    """See the module."""

    def __init__(self, router: Router, hub: Hub, clock: Clock, audit: Audit = NO_AUDIT) -> None:
        self.router = router
        self.hub = hub
        self.clock = clock
        self.audit = audit
        self.closing = anyio.Event()
        """Set when the broker goes down: streams that wait for changes end well, nothing new begins."""
        self.ending = anyio.Event()
        """Set when what is then still in flight gets no more time: it is answered with an error."""

    async def answer(
        self, incoming: Incoming, who: Who, emit: Emit = ignore_emit, channel: BackChannel | None = None
    ) -> Answer:
        """Run a request. `emit` takes the notifications that belong to it, until this returns; `channel` asks its
        caller, where that is possible.
        """
        assert incoming.id is not None
        begin_request(self.clock.token)
        method, params, version = incoming.method, incoming.params, who.version
        trail = self.audit.begin(who.caller, who.front, version, method, who.view, params, incoming.size)
        try:
            request = Request(method, params, version, who.view)
            if method == "subscriptions/listen" and is_modern(version):
                result = await self._listen(incoming, who, emit)
            elif method in WATCHING and who.watches is not None:
                result = await self._watch(request, who, who.watches, trail)
            else:
                exchange = Exchange(self.clock, who, emit, channel, incoming.progress_token, trail)
                result = await self.router.answer(request, exchange)
            answer = Answer(
                await in_turns(writing_result(incoming.id, result))
                if result.__class__ is Long
                else result_bytes(incoming.id, result)
            )
            trail.ended(result, len(answer.body))
            return answer
        except BrokerError as error:
            trail.failed(error)
            return refused(incoming.id, of_upstream(error))
        except asyncio.CancelledError:
            trail.cancelled()
            raise
        except Exception as fault:
            error = self.internal_error(fault)
            trail.failed(error)
            return refused(incoming.id, error)

    def internal_error(self, fault: Exception) -> InternalError:
        """The answer for a fault of ours; its cause goes to the log."""
        return internal_error(log, self.clock.token(), fault)

    async def initialize(self, params: dict[str, Any], who: Who) -> dict[str, Any]:
        """The result of `initialize`; `who.version` is the negotiated one. Spec: 2025-11-25 basic/lifecycle.

        Raises: BrokerError, and nothing else.
        """
        trail = self.audit.begin(who.caller, who.front, who.version, "initialize", who.view, params, 0)
        try:
            result = await self.router.greeting(who.view, who.caller, who.version, trail)
            trail.ended(result, 0)
        except BrokerError as error:
            trail.failed(error)
            raise
        except asyncio.CancelledError:
            trail.cancelled()
            raise
        except Exception as fault:
            error = self.internal_error(fault)
            trail.failed(error)
            raise error from None
        return {"protocolVersion": who.version, "serverInfo": dict(self.router.served.me), **result}

    def note(self, incoming: Incoming, who: Who) -> None:
        """A notification of a legacy caller that concerns more than one request."""
        if incoming.method == "notifications/initialized":
            self.hub.wake()
        request = Request(incoming.method, incoming.params, who.version, who.view)
        self.router.note(request, who.caller, who.asker)

    def knows_task(self, public: object, caller: Caller) -> bool:
        """Whether a task of the modern era is known here, and this caller's."""
        return self.router.knows_task(public, caller, self.clock.now())

    def session_ended(self, session: str) -> None:
        """A legacy session is over: what was kept for it alone ends with it."""
        self.router.served.pool.end_session(session)

    async def _watch(self, request: Request, who: Who, watches: Watches, trail: Trail) -> dict[str, Any]:
        """`resources/subscribe` and its opposite, of a legacy session. Raises: BrokerError."""
        if not self.router.subscribes(request.view, who.caller):
            raise MethodNotFound(request.method)
        uri = request.params.get("uri")
        if not isinstance(uri, str):
            raise InvalidParams("params.uri must be a string")
        if request.method == "resources/subscribe":
            await self.router.watch(uri, request, who.caller, who.asker, watches, trail)
        else:
            await self.router.unwatch(uri, request, who.caller, watches, trail)
        return {}

    async def _listen(self, incoming: Incoming, who: Who, emit: Emit) -> dict[str, Any]:
        """A stream of changes, acknowledged first; the result ends it. Spec: 2026-07-28 basic/patterns/subscriptions.

        A resource that the caller may not read, or that its upstream does not watch, is left out of what is agreed.
        """
        asked = incoming.params.get("notifications")
        if not is_object(asked):
            raise InvalidParams("params.notifications must be an object")
        tag = {META_SUBSCRIPTION: incoming.id}
        honoured: dict[str, Any] = {flag: True for flag in LISTEN_FLAGS if asked.get(flag) is True}
        methods = {LISTEN_FLAGS[flag] for flag in honoured} | {UPDATED, TASK_NEWS}
        if "taskIds" in asked:
            refuse_without_tasks(declared_upstream(who.capabilities, who.version))

        def deliver(method: str, params: dict[str, Any]) -> None:
            if method in methods:
                emit(method, {**params, "_meta": {**passing_meta(params.get("_meta")), **tag}})

        subscriber = Subscriber(
            who.caller,
            who.view,
            deliver,
            capabilities=who.capabilities,
            is_one_of_many=len(self.router.served.shown(who.view, who.caller)) > 1,
        )
        try:
            watched = await self._watch_all(asked.get("resourceSubscriptions"), incoming, who, subscriber.watches)
            if watched:
                honoured["resourceSubscriptions"] = watched
            if tasks := await self._watch_tasks(asked.get("taskIds"), incoming, who, subscriber.watches):
                honoured["taskIds"] = tasks
            emit("notifications/subscriptions/acknowledged", {"notifications": honoured, "_meta": tag})
            self.hub.add(subscriber)
            await self.closing.wait()
        finally:
            self.hub.remove(subscriber)
            subscriber.watches.clear()
        return {"resultType": "complete", "_meta": tag}

    async def _watch_all(self, uris: object, incoming: Incoming, who: Who, watches: Watches) -> list[str]:
        """Those of `uris` that can be watched."""
        request = Request("resources/read", incoming.params, who.version, who.view)
        return await _those_of(uris, lambda uri: self._watch_one(uri, request, who, watches))

    async def _watch_one(self, uri: str, request: Request, who: Who, watches: Watches) -> None:
        """A decision of its own, with a record of its own: the stream itself ends much later. Raises: BrokerError."""
        listen = "subscriptions/listen"
        trail = self.audit.begin(who.caller, who.front, who.version, listen, who.view, request.params, 0)
        try:
            await self.router.watch(uri, request, who.caller, who.asker, watches, trail)
            trail.ended({}, 0)
        except BrokerError as error:
            trail.failed(error)
            raise
        except asyncio.CancelledError:
            trail.cancelled()
            raise

    async def _watch_tasks(self, ids: object, incoming: Incoming, who: Who, watches: Watches) -> list[str]:
        """Those of `ids` that are tasks of the caller's."""
        request, now = Request("tasks/get", incoming.params, who.version, who.view), self.clock.now()
        return await _those_of(
            ids, lambda public: self.router.watch_task(public, request, who.caller, who.asker, watches, now)
        )


async def _those_of(names: object, watch: Callable[[str], Awaitable[None]]) -> list[str]:
    """Those of `names` that can be watched, in the same order, each once."""
    wanted = list(dict.fromkeys(name for name in (names if is_array(names) else []) if isinstance(name, str)))
    refused: set[str] = set()

    async def one(name: str) -> None:
        try:
            await watch(name)
        except BrokerError as error:
            log.debug("not watched: %s", error.message)
            refused.add(name)

    for start in range(0, len(wanted), WATCHED_AT_ONCE):
        async with anyio.create_task_group() as tasks:
            for name in wanted[start : start + WATCHED_AT_ONCE]:
                tasks.start_soon(one, name)
    return [name for name in wanted if name not in refused]


def agreed_version(params: dict[str, Any]) -> Version:
    """The version that an `initialize` with these parameters gets."""
    return negotiate(params.get("protocolVersion"))


def refused(request_id: str | int | None, error: BrokerError) -> Answer:
    """The answer that carries an error."""
    return Answer(error_bytes(request_id, error), error.code)
