"""A link: one live connection to one upstream, many requests in flight on it at once.

`Link` is the seam: what every transport has in common, and what the rest of the broker knows. Ids and progress
tokens are the broker's own on each link, so two callers with the same id can never meet here (I-31).
"""

import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from broker.core import wire
from broker.core.era import LATEST_LEGACY, Version, hop_params
from broker.core.shape import is_object
from broker.errors import MalformedAnswer, UpstreamAnsweredError, UpstreamTimedOut, UpstreamUnavailable, printable
from broker.upstream.peer import BROKER_INFO, Peer

log = logging.getLogger(__name__)

Notice = Callable[[str, dict[str, Any]], None]
"""Told of a notification: method, parameters. Called from the reader, so it must neither block nor raise."""

MAX_EXTENSIONS: Final = 10
"""A call that reports progress may take this many times its timeout, never more (SP-33)."""
MAX_HANGS: Final = 5
"""Requests in a row without any answer before the connection counts as dead (F-04)."""
NEVER_CANCELLED: Final = frozenset({"initialize", "server/discover"})
"""Spec: 2025-11-25 basic/utilities/cancellation: "The initialize request MUST NOT be cancelled by clients"."""


def ignore_notice(method: str, params: dict[str, Any]) -> None:
    """For requests that nobody watches."""


@dataclass(slots=True)
class Waiting:
    """The time that one request may take: `timeout` seconds of silence, ten times that in all."""

    upstream: str
    timeout: float
    on_notice: Notice = ignore_notice
    started: float = field(default_factory=anyio.current_time)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    lost: str | None = None
    """Why the connection is gone, if it is."""

    @contextmanager
    def deadline(self) -> Generator[None, None, None]:
        """Bounds what is awaited inside.

        Raises: UpstreamTimedOut; UpstreamUnavailable, once abandoned.
        """
        self.scope.deadline = self.started + self.timeout
        with self.scope:
            yield
        if self.scope.cancelled_caught:
            if self.lost is not None:
                raise UpstreamUnavailable(self.upstream, self.lost)
            raise UpstreamTimedOut(self.upstream, self.timeout)

    def abandon(self, why: str) -> None:
        """The connection is gone: there is nothing left to wait for."""
        self.lost = why
        self.scope.cancel()

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """A notification that belongs to this request: passed on; work that shows progress gets more time."""
        if method == "notifications/progress":
            latest = self.started + self.timeout * MAX_EXTENSIONS
            self.scope.deadline = min(latest, anyio.current_time() + self.timeout)
        self.on_notice(method, params)


class Link(ABC):
    """See the module. Subclasses are transports; they call `_receive` for what comes in unasked."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.peer = Peer(LATEST_LEGACY)
        self.version: Version = LATEST_LEGACY
        """The version spoken: a guess while the era is probed, `peer.version` afterwards."""
        self.on_event: Notice = ignore_notice
        """Told of notifications that belong to no request."""
        self.lost: str | None = None
        """Why the connection is gone, or None while it lives."""
        self.listening = anyio.Event()
        """Set once the upstream's announcements can reach us, or it is clear that they never will."""
        self._gone = anyio.Event()
        self._ids = itertools.count(1)
        self._hangs = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.upstream} {self.version} {self.lost or 'live'}>"

    async def request(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float,
        on_notice: Notice = ignore_notice,
        wants_progress: bool = False,
        capabilities: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Ask, and wait for the result: its object as it came.

        `timeout`: seconds; `capabilities`: what a modern upstream may ask back in this one request. A request that
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
        )
        waiting = Waiting(self.upstream, timeout, on_notice)
        try:
            message = await self._exchange(request_id, method, outgoing, waiting)
        except UpstreamTimedOut:
            self._hangs += 1
            if self._hangs >= MAX_HANGS:
                self.lose(f"{self._hangs} requests in a row without an answer")
            raise
        self._hangs = 0
        return judge_answer(self.upstream, message)

    @abstractmethod
    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Tell, without an answer. A connection that is lost is no error here: nobody waits."""

    @abstractmethod
    async def _exchange(self, request_id: int, method: str, params: dict[str, Any], waiting: Waiting) -> dict[str, Any]:
        """Send a request under `waiting.deadline` and return the response message."""

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
            self._fail_pending(why)
            self._gone.set()

    async def gone(self) -> str:
        """Wait until the connection is lost; why it was."""
        await self._gone.wait()
        return self.lost or "closed"

    def _fail_pending(self, why: str) -> None:  # noqa: B027 - a hook, likewise
        """Fail what waits; transports that wait elsewhere have nothing here."""

    def _unsolicited(self, method: str, params: dict[str, Any]) -> None:
        """A notification that no request owns."""
        if belongs_to_link(method):
            self.on_event(method, params)
        else:
            log.debug("%s: dropped %s, which belongs to no request", self.upstream, printable(method))


def belongs_to_link(method: str) -> bool:
    """Whether a notification speaks of the upstream as a whole, whatever stream it came on."""
    return method.startswith("notifications/") and method.endswith(
        ("/list_changed", "/resources/updated", "/subscriptions/acknowledged")
    )


def judge_answer(upstream: str, message: dict[str, Any]) -> dict[str, Any]:
    """The result of a response message.

    Raises: UpstreamAnsweredError for its error, as it is; MalformedAnswer for anything that is neither (F-22).
    """
    if "error" in message:
        error = message["error"]
        if "result" in message:
            raise MalformedAnswer(upstream, "both a result and an error")
        if not is_object(error) or type(error.get("code")) is not int or not isinstance(error.get("message"), str):
            raise MalformedAnswer(upstream, "an error without code and message")
        raise UpstreamAnsweredError(error["message"], error.get("data"), code=error["code"])
    result = message.get("result")
    if not is_object(result):
        raise MalformedAnswer(upstream, "no result object")
    return result


def request_bytes(request_id: int, method: str, params: Mapping[str, Any]) -> bytes:
    """A JSON-RPC request."""
    return wire.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def notification_bytes(method: str, params: Mapping[str, Any] | None) -> bytes:
    """A JSON-RPC notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params:
        message["params"] = params
    return wire.encode(message)


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
