"""A link: one live connection to one upstream, many requests in flight on it at once.

`Link` is the seam: what every transport has in common, and what the rest of the broker knows. Ids and progress
tokens are the broker's own on each link, so two callers with the same id can never meet here (I-31).
"""

import asyncio
import itertools
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import anyio

from broker.core import wire
from broker.core.era import LATEST_LEGACY, Version, hop_params
from broker.core.extensions import is_foreign, offers
from broker.core.questions import CAPABILITY, Question
from broker.core.shape import is_object
from broker.core.tasks import STATUS, related_task
from broker.errors import (
    INTERNAL_ERROR,
    BrokerError,
    CannotAsk,
    MalformedAnswer,
    UpstreamAnsweredError,
    UpstreamTimedOut,
    UpstreamUnavailable,
    printable,
)
from broker.upstream.home import NO_HOME, Home, session_of
from broker.upstream.peer import BROKER_INFO, Peer
from broker.upstream.waiting import ANSWER_TIMEOUT, Ask, InFlight, Notice, Waiting, ask_nobody, ignore_notice

log = logging.getLogger(__name__)

MAX_HANGS: Final = 5
"""Requests in a row without any answer before the connection counts as dead (F-04)."""
MAX_QUESTIONS: Final = 64
"""Open questions of one upstream, and of one call: one that asks in a loop is refused, not served (F-24, SP-66)."""
ABANDONED_FOR: Final = 60.0
"""Seconds for which a call that nobody waits for counts as in flight, unless it is answered before: an upstream that
heeds a cancellation never answers, one that ignores it may still ask on behalf of a caller who is gone."""
MAX_ABANDONED: Final = 1000
"""Of these at a time; the oldest are forgotten."""
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
NEVER_CANCELLED: Final = frozenset({"initialize", "server/discover"})
"""Spec: 2025-11-25 basic/utilities/cancellation: "The initialize request MUST NOT be cancelled by clients"."""


def no_words() -> tuple[str, ...]:
    """Of an upstream that is no process of ours."""
    return ()


def ignore_loss() -> None:
    """For a link that nobody keeps."""


class Link(ABC):
    """See the module. Subclasses are transports; they call `_receive` for what comes in unasked."""

    streams_tell: bool = False
    """Whether each call has a stream of its own, so that what comes on another one belongs to none."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.peer = Peer(LATEST_LEGACY)
        self.version: Version = LATEST_LEGACY
        """The version spoken: a guess while the era is probed, `peer.version` afterwards."""
        self.on_event: Notice = ignore_notice
        """Told of notifications that belong to no request."""
        self.on_lost: Callable[[], None] = ignore_loss
        """Told when the connection is gone, before its requests are."""
        self.home: Home = NO_HOME
        """Where what no call owns goes, if all calls on this link are of one owner."""
        self.strays: Counter[str] = Counter()
        """Messages that belonged to nobody, and were dropped: each an `answer` or a `notification`."""
        self.last_words: Callable[[], tuple[str, ...]] = no_words
        """What its process has logged last, a line each, as it may be shown."""
        self.lost: str | None = None
        """Why the connection is gone, or None while it lives."""
        self.listening = anyio.Event()
        """Set once the upstream's announcements can reach us, or it is clear that they never will."""
        self._gone = anyio.Event()
        self._ids = itertools.count(1)
        self._hangs = 0
        self._in_flight = InFlight(upstream)
        self._abandoned: dict[int, tuple[str, float]] = {}
        """Calls that nobody waits for and the upstream has not answered: whose they are, and until when they count."""
        self._questions: dict[str | int, anyio.CancelScope] = {}
        """Open questions by the upstream's own ids."""
        self._carrying = 0
        """Tasks that carry a question, from the moment they are asked for: a storm must not become as many of them."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.upstream} {self.version} {self.lost or 'live'}>"

    async def request(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float,
        on_notice: Notice = ignore_notice,
        on_question: Ask = ask_nobody,
        owner: str = "",
        task: str = "",
        wants_progress: bool = False,
        capabilities: Mapping[str, Any] | None = None,
        log_level: str | None = None,
    ) -> dict[str, Any]:
        """Ask, and wait for the result: its object as it came.

        `timeout`: seconds; `owner`: the session that asks; `task`: the one whose result is asked for; `capabilities`:
        what a modern upstream may ask back in this one request; `log_level`: from which on it may log. A request that
        is cancelled, or out of time, is cancelled upstream.

        Raises: UpstreamUnavailable, UpstreamTimedOut, MalformedAnswer, UpstreamAnsweredError.
        """
        if self.lost is not None:
            raise UpstreamUnavailable(self.upstream, self.lost)
        request_id = next(self._ids)
        outgoing = hop_params(
            params,
            self.version,
            client=BROKER_INFO,
            capabilities=capabilities or {},
            progress_token=request_id if wants_progress else None,
            log_level=log_level,
        )
        body = wire.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": outgoing})
        waiting = Waiting(self._in_flight, request_id, timeout, on_notice, on_question, owner, task)
        try:
            message = await self._exchange(method, outgoing, body, waiting)
        except asyncio.CancelledError as cancelled:
            raise self._fault_of(waiting) or cancelled from None
        finally:
            waiting.end()
        self._hangs = 0
        if "error" not in message and is_object(result := message.get("result")):
            return result
        raise fault_in(self.upstream, message)

    def _fault_of(self, waiting: Waiting) -> BrokerError | None:
        """Why a request that was cancelled has ended; None if it was cancelled by whoever asks."""
        fault = waiting.take_fault()
        if isinstance(fault, UpstreamTimedOut):
            self._hangs += 1
            if self._hangs >= MAX_HANGS:
                self.lose(f"{self._hangs} requests in a row without an answer")
        return fault

    @property
    def is_asking(self) -> bool:
        """Whether the upstream waits for an answer of somebody."""
        return bool(self._questions)

    @abstractmethod
    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Tell, without an answer. A connection that is lost is no error here: nobody waits."""

    @abstractmethod
    async def _exchange(self, method: str, params: dict[str, Any], body: bytes, waiting: Waiting) -> dict[str, Any]:
        """Send a request, which `body` is, and return the response message. It is cancelled when it is out of time."""

    @abstractmethod
    async def serve(self) -> None:
        """Run what the connection needs beside its requests, until it is lost. Never raises."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give everything back. Bounded, and safe to call twice."""

    def tool_fault(self, tool: Mapping[str, Any]) -> str | None:
        """Why this transport cannot serve a tool as it is defined, or None."""
        return None

    def learn_tools(self, tools: tuple[dict[str, Any], ...]) -> None:  # noqa: B027 - a hook: most need nothing
        """Told of the tools that this upstream lists, where the transport mirrors arguments into headers."""

    def lose(self, why: str) -> None:
        """The connection is gone: every request in flight fails now, not after its time-out."""
        if self.lost is None:
            self.lost = why
            self.on_lost()
            self._in_flight.abandon(why)
            self._gone.set()

    async def gone(self) -> str:
        """Wait until the connection is lost; why it was."""
        await self._gone.wait()
        return self.lost or "closed"

    def _owner(self, method: str) -> Waiting | str:
        """The call that something without an address belongs to, or the session at `home` (`upstream/home.py`).

        Raises: CannotAsk, if that cannot be told.
        """
        now = anyio.current_time()
        self._abandoned = {key: kept for key, kept in self._abandoned.items() if kept[1] > now}
        calls = self._in_flight.calls()
        sessions = [waiting.owner for waiting in calls]
        given_up = [owner for owner, _ in self._abandoned.values()]
        stands_alone = self.streams_tell or method == "roots/list"
        session = session_of(sessions, given_up, self.home, stands_alone=stands_alone)
        return calls[0] if session is None else session

    async def _put(self, question: Question, owner: Waiting | str) -> dict[str, Any]:
        """Put a question to whose it is. One of a session may belong to any of its calls: the time of all stands still.

        Raises: BrokerError.
        """
        if isinstance(owner, Waiting):
            return await owner.ask(question)
        if is_foreign(question.method):
            raise CannotAsk(f"Method not found: no call is known that {printable(question.method)} belongs to")
        with ExitStack() as paused, anyio.move_on_after(ANSWER_TIMEOUT):
            for waiting in self._in_flight.calls():
                paused.enter_context(waiting.paused(anyio.CancelScope()))
            return await self.home.ask(owner, question)
        raise CannotAsk("its caller did not answer in time", code=INTERNAL_ERROR)

    def _addressee(self, method: str, params: Mapping[str, Any], waiting: Waiting | None) -> Waiting | str:
        """The call that a message of the upstream belongs to, or the session at `home`; `waiting` is the call on whose
        stream it came, if any.

        What names a task goes to the call that waits for that task, wherever it came: to an upstream all callers of a
        shared link are one client, and it may use any stream. Spec: 2025-11-25 basic/utilities/tasks, "Input Required
        Status".

        Raises: CannotAsk, if that cannot be told.
        """
        task = related_task(params)
        if task is None and waiting is None and is_foreign(method):
            try:
                return self._owner(method)
            except CannotAsk as error:
                raise CannotAsk(error.message) from None  # -32601, as ever where nobody is known to know a method
        if task is None:
            return waiting or self._owner(method)
        found = [call for call in self._in_flight.calls() if call.task == task]
        if not found or any(call.owner != found[0].owner for call in found):
            raise CannotAsk("nobody waits for this task: ask again while its tasks/result is open", code=INTERNAL_ERROR)
        return found[0]

    def _abandon_call(self, waiting: Waiting) -> None:
        """Nobody waits for this request any more, but its upstream may still work on it."""
        if waiting.is_call:
            self._abandoned[waiting.id] = (waiting.owner, anyio.current_time() + ABANDONED_FOR)
            if len(self._abandoned) > MAX_ABANDONED:
                del self._abandoned[next(iter(self._abandoned))]

    async def _answer_question(self, message: Mapping[str, Any], waiting: Waiting | None) -> bytes | None:
        """The answer to a request of the upstream, as bytes; None if its id is none, or it took the request back.

        `waiting` is the call it came with; without one, it must belong to the only call in flight.
        """
        request_id, method, params = message.get("id"), message.get("method"), message.get("params", {})
        if not isinstance(request_id, str | int) or not isinstance(method, str) or not is_object(params):
            return refusal_bytes(message)
        if not self._is_question(method):
            return refusal_bytes(message)
        if request_id in self._questions or len(self._questions) >= MAX_QUESTIONS:
            return error_answer(request_id, CannotAsk("too many questions are open", code=INTERNAL_ERROR))
        with anyio.CancelScope() as scope:
            self._questions[request_id] = scope
            try:
                result = await self._put(Question(method, params), self._addressee(method, params, waiting))
                return wire.encode({"jsonrpc": "2.0", "id": request_id, "result": result})
            except BrokerError as error:
                return error_answer(request_id, error)
            finally:
                del self._questions[request_id]
        return None

    def _is_question(self, method: object) -> bool:
        """Whether a request of the upstream may be a caller's to answer: of the core, or of an extension it has."""
        if method in CAPABILITY:
            return True
        return isinstance(method, str) and is_foreign(method) and bool(offers(self.peer.capabilities, self.version))

    def _take_back(self, params: Mapping[str, Any]) -> None:
        """The upstream has cancelled a question of its own."""
        request_id = params.get("requestId")
        if isinstance(request_id, str | int) and request_id in self._questions:
            self._questions[request_id].cancel()

    def _is_too_long(self, method: str, params: Mapping[str, Any]) -> bool:
        """Whether a notification is dropped: to write it for its caller would hold the event loop. Of a log message no
        more goes on than that it was long (`scrubbed_report`).
        """
        if params.__class__ is not wire.Long or method == "notifications/message":
            return False
        log.debug("%s: dropped a %s of megabytes", self.upstream, printable(method))
        self.strays["notification"] += 1
        return True

    def _unsolicited(self, method: str, params: dict[str, Any]) -> None:
        """A notification that no request owns."""
        if belongs_to_link(method) or is_foreign(method) or related_task(params) is not None:
            self.on_event(method, params)
        else:
            log.debug("%s: %s belongs to no request", self.upstream, printable(method))
            self.strays["notification"] += self.home is NO_HOME
            self.home.notice("", method, params)


def belongs_to_link(method: str) -> bool:
    """Whether a notification speaks of the upstream as a whole, whatever stream it came on."""
    if method in STATUS:
        return True  # by the task's id it reaches whose task it is, whoever's stream it came on
    return method.startswith("notifications/") and method.endswith(("/list_changed", "/resources/updated"))


def fault_in(upstream: str, message: Mapping[str, Any]) -> UpstreamAnsweredError | MalformedAnswer:
    """What a response message without a result is: its error, as it is; anything else is malformed (F-22)."""
    if "error" not in message:
        return MalformedAnswer(upstream, "no result object")
    error = message["error"]
    if "result" in message:
        return MalformedAnswer(upstream, "both a result and an error")
    if not is_object(error) or type(error.get("code")) is not int or not isinstance(error.get("message"), str):
        return MalformedAnswer(upstream, "an error without code and message")
    return UpstreamAnsweredError(error["message"], error.get("data"), code=error["code"])


def notification_bytes(method: str, params: Mapping[str, Any] | None) -> bytes:
    """A JSON-RPC notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params:
        message["params"] = params
    return wire.encode(message)


def error_answer(request_id: str | int, error: BrokerError) -> bytes:
    """A JSON-RPC error response to an upstream."""
    return wire.encode({"jsonrpc": "2.0", "id": request_id, "error": error.to_json()})


def refusal_bytes(message: Mapping[str, Any]) -> bytes | None:
    """The answer to a request of an upstream that nobody can carry: `ping` succeeds, all else is -32601.

    None if its id is no id: then there is nothing to answer.
    """
    request_id = message.get("id")
    if not wire.is_request_id(request_id):
        return None
    if message.get("method") == "ping":
        return wire.encode({"jsonrpc": "2.0", "id": request_id, "result": {}})
    error = {"code": -32601, "message": "Method not found: the broker has no caller to ask"}
    return wire.encode({"jsonrpc": "2.0", "id": request_id, "error": error})
