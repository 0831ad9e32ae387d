"""One downstream request in flight, with all that belongs to it alone.

Progress and log messages of the upstream call pass here, under the caller's token, from the level it asked for, at a
bounded rate; questions go to its caller, who is asked no more than it offered. Cancellation needs no code: whoever
runs the request cancels its task, and the link cancels upstream what it was waiting for.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from broker.clock import Clock
from broker.core.era import declared_upstream, is_modern, passing_params
from broker.core.extensions import is_foreign
from broker.core.logs import LogGate, is_at_least
from broker.core.progress import ProgressGate
from broker.core.questions import ASKABLE, Question, unanswerable
from broker.errors import CannotAsk
from broker.relay.backchannel import BackChannel, NoBackChannel
from broker.relay.who import Who
from broker.secrecy import scrubbed_report
from broker.usage.trail import NO_TRAIL, Trail

Emit = Callable[[str, dict[str, Any]], None]
"""Send a notification to the caller of this request, ahead of its result: method, parameters. Never blocks."""


NOBODY: Final[Mapping[str, Any]] = {}
_NO_CHANNEL: Final = NoBackChannel()


class Exchange:
    """See the module. `channel` reaches its caller; `progress_token` is None if that has asked for no progress."""

    _logs: LogGate | None = None
    _gate: ProgressGate | None = None
    _timer: asyncio.TimerHandle | None = None
    _is_over: bool = False

    def __init__(
        self,
        clock: Clock,
        who: Who,
        emit: Emit,
        channel: BackChannel | None = None,
        progress_token: str | int | None = None,
        trail: Trail = NO_TRAIL,
    ) -> None:
        self.who = who
        self.trail = trail
        """What is recorded of the request."""
        self._clock = clock
        self._emit = emit
        self._channel = channel or _NO_CHANNEL
        self.token = progress_token
        """The caller's progress token; without one the upstream is not asked for progress either."""
        self.capabilities = declared_upstream(who.capabilities, who.version) if who.capabilities else NOBODY
        """Of what its caller offers, what the broker can carry."""

    @property
    def now(self) -> float:
        """By the broker's clock."""
        return self._clock.now()

    @property
    def can_be_asked(self) -> bool:
        """Whether its caller offers to answer any question at all."""
        return not ASKABLE.isdisjoint(self.capabilities)

    def renew(self, who: Who) -> None:
        """What is known of its caller has changed."""
        self.who, self.capabilities = who, declared_upstream(who.capabilities, who.version)

    def withhold(self, capability: str) -> None:
        """Its upstream is not to know that the caller offers it, and does not get it."""
        if capability in self.capabilities:
            self.capabilities = {name: value for name, value in self.capabilities.items() if name != capability}

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """A notification of the upstream that belongs to this request."""
        if self._is_over:
            return
        if method == "notifications/message":
            self._log(params)
        elif method == "notifications/progress" and self.token is not None:
            self._progress(params)
        elif method == "notifications/elicitation/complete" and not is_modern(self.who.version):
            self._emit(method, params)

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """A notification on its stream, as it is: of a task that it waits for."""
        if not self._is_over:
            self._emit(method, params)

    def pass_on(self, method: str, params: dict[str, Any]) -> None:
        """A notification of an extension that its caller knows: no more of them than of log messages."""
        if not self._is_over and self._admits():
            self._emit(method, passing_params(params))

    async def ask(self, question: Question) -> dict[str, Any]:
        """Put a question to the caller: its result as it came.

        Raises: CannotAsk, if it offers no such thing; BrokerError: its own error.
        """
        why = unanswerable(question, self.capabilities)
        if why is not None:
            raise CannotAsk(why.message, code=why.code)
        return await self._channel.ask(question)

    async def ask_beyond(self, question: Question) -> dict[str, Any]:
        """Put a request of an extension to the caller, which is known to have declared that, likewise."""
        return await self._channel.ask(question)

    def via(self, channel: BackChannel, emit: Emit) -> "Exchange":
        """The same request with another way to its caller."""
        other = Exchange(self._clock, self.who, emit, channel, self.token, self.trail)
        other.capabilities = self.capabilities
        return other

    def relay(self, method: str, params: dict[str, Any]) -> None:
        """A notification that an earlier request of the same call has let pass: under this one's token and level."""
        if self._is_over:
            return
        if method == "notifications/progress":
            if self.token is not None:
                self._send(params)
        elif is_foreign(method):
            self._emit(method, params)  # counted where it came in
        elif self.who.log_level is not None and is_at_least(params.get("level"), self.who.log_level):
            self._emit(method, params)

    def _log(self, params: dict[str, Any]) -> None:
        least = self.who.log_level
        if least is not None and is_at_least(params.get("level"), least) and self._admits():
            # Spec: 2026-07-28 server/utilities/logging: "MUST NOT contain: Credentials or secrets" (SP-37).
            self._emit("notifications/message", scrubbed_report(params))

    def _admits(self) -> bool:
        """Whether one more message may pass now."""
        now = self._clock.now()
        if self._logs is None:
            self._logs = LogGate(now)
        return self._logs.admits(now)

    def _progress(self, params: dict[str, Any]) -> None:
        if self._gate is None:
            self._gate = ProgressGate(self._clock.now())
        self._send(self._gate.offer(params, self._clock.now()))
        self._set_timer()

    def finish(self) -> None:
        """The result is here: what progress was kept goes out before it, and nothing after (SP-35)."""
        if self._timer is not None:
            self._timer.cancel()
        if self._gate is not None and not self._is_over:
            self._send(self._gate.flush())
        self._is_over = True

    def abandon(self) -> None:
        """The caller has cancelled, or is gone: what was kept is of no use, and nothing may be said any more."""
        self._is_over = True

    def _send(self, params: dict[str, Any] | None) -> None:
        if params is not None:
            self._emit("notifications/progress", {**params, "progressToken": self.token})

    def _set_timer(self) -> None:
        assert self._gate is not None
        due = self._gate.due()
        if due is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._gate is not None and not self._is_over:
            self._send(self._gate.release(self._clock.now()))
            self._set_timer()
