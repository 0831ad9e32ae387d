"""Requests in flight on one link: what comes to them before their answers, and the time that they may take."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import anyio

from broker.core.questions import Question
from broker.errors import (
    INTERNAL_ERROR,
    BrokerError,
    CannotAsk,
    UpstreamTimedOut,
    UpstreamUnavailable,
    printable,
)

Ask = Callable[[Question], Awaitable[dict[str, Any]]]
"""Puts a question of the upstream to the caller of a request: its result as it came. Raises: BrokerError."""
Notice = Callable[[str, dict[str, Any]], None]
"""Told of a notification: method, parameters. Called from the reader, so it must neither block nor raise."""

MAX_EXTENSIONS: Final = 10
"""A call that reports progress may take this many times its timeout, never more (SP-33)."""
ANSWER_TIMEOUT: Final = 600.0
"""Seconds that a caller may take to answer: a person fills in a form. The call's own time stands still meanwhile."""
_NEVER: Final = float("inf")


def ignore_notice(method: str, params: dict[str, Any]) -> None:
    """For requests that nobody watches."""


async def ask_nobody(question: Question) -> dict[str, Any]:
    """For requests of the broker's own: there is nobody to ask."""
    raise CannotAsk(f"Method not found: nobody can be asked {printable(question.method)}")


class InFlight:
    """The requests of one link that wait for their answers, by id.

    One timer is for all of them: it is set for the first deadline, and looks for the next one when it is due. A timer
    for each would be set and cancelled in every call, and go off in none.
    """

    __slots__ = ("_timer", "due", "loop", "requests", "upstream")

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.loop = asyncio.get_running_loop()
        """Asked for once: each time it costs a system call."""
        self.requests: dict[int, Waiting] = {}
        self.due = _NEVER
        """No deadline is before it."""
        self._timer: asyncio.TimerHandle | None = None

    def calls(self) -> "list[Waiting]":
        """Those of callers, which a question or a log message may belong to."""
        return [waiting for waiting in self.requests.values() if waiting.is_call]

    def abandon(self, why: str) -> None:
        """The connection is gone: there is nothing left to wait for."""
        for waiting in list(self.requests.values()):
            waiting.abandon(why)

    def ends_at(self, deadline: float) -> None:
        """One of them is out of time then, at the latest."""
        if deadline < self.due:
            if self._timer is not None:
                self._timer.cancel()
            self.due = deadline
            self._timer = self.loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self.due, self._timer = _NEVER, None
        now = self.loop.time()
        for waiting in list(self.requests.values()):
            if waiting.deadline <= now:
                waiting.time_out()
        self.ends_at(
            min((waiting.deadline for waiting in self.requests.values() if waiting.is_awaited), default=_NEVER)
        )


class Waiting:
    """One request in flight, from when it is made until `end`: `timeout` seconds of silence, ten times that in all;
    while its caller answers a question, time stands still.

    It is made by the task that waits, which is cancelled when time is up, or the connection lost: `take_fault` then
    tells why. A scope of anyio's would cost ten times as much.
    """

    __slots__ = (
        *("id", "timeout", "on_notice", "on_question", "owner", "task", "answer", "deadline"),
        *("_asking", "_began", "_fault", "_flight", "_others", "_waiter"),
    )

    def __init__(
        self,
        flight: InFlight,
        request_id: int,
        timeout: float,
        on_notice: Notice = ignore_notice,
        on_question: Ask = ask_nobody,
        owner: str = "",
        task: str = "",
    ) -> None:
        self.id = request_id
        self.timeout = timeout
        self.on_notice = on_notice
        self.on_question = on_question
        self.owner = owner
        """The session that it belongs to, "" for none: what comes late for one call may go to another of the same."""
        self.task = task
        """The upstream's own id of the task that it waits for, "" for none."""
        self.answer: asyncio.Future[dict[str, Any]] | None = None
        """Where its answer comes, of a transport on which one reader tells answers apart."""
        self._flight = flight
        self._fault: BrokerError | None = None
        self._asking: set[anyio.CancelScope] | None = None
        """What ends with it: questions to its caller. Most have none."""
        waiter = asyncio.current_task(flight.loop)
        assert waiter is not None
        self._waiter = waiter
        self._others = waiter.cancelling()
        """Requests to cancel the task that came before: not ours to take back."""
        self._began = flight.loop.time()
        self.deadline = self._began + timeout
        flight.requests[request_id] = self
        if self.deadline < flight.due:
            flight.ends_at(self.deadline)

    def end(self) -> None:
        """It is over, in whatever way."""
        del self._flight.requests[self.id]
        if self._asking is not None:
            for asking in self._asking:
                asking.cancel()
        if self._fault is not None:
            self.take_fault()

    def take_fault(self) -> BrokerError | None:
        """Why its task was cancelled; None if it was not, or if others than this have cancelled it too."""
        # Not kept: the way of a fault leads through the request, and who looks at this would hold all of that.
        fault, self._fault = self._fault, None
        return fault if fault is not None and self._waiter.uncancel() <= self._others else None

    @property
    def is_call(self) -> bool:
        """Whether it is a caller's, who may be asked."""
        return self.on_question is not ask_nobody

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it still."""
        return self._fault is None

    def abandon(self, why: str) -> None:
        """The connection is gone. An answer that came before counts."""
        if self.answer is None or not self.answer.done():
            self._end(UpstreamUnavailable(self._flight.upstream, why))

    def time_out(self) -> None:
        """Time is up."""
        self._end(UpstreamTimedOut(self._flight.upstream, self.timeout))

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """A notification that belongs to this request: passed on; work that shows progress gets more time."""
        if method == "notifications/progress" and not self._asking:
            latest = self._began + self.timeout * MAX_EXTENSIONS
            self.deadline = min(latest, self._flight.loop.time() + self.timeout)
        self.on_notice(method, params)

    async def ask(self, question: Question) -> dict[str, Any]:
        """Put a question to the caller of this request; given up when the request ends.

        Raises: BrokerError.
        """
        with anyio.move_on_after(ANSWER_TIMEOUT) as asking, self.paused(asking):
            return await self.on_question(question)
        raise CannotAsk("the call has ended, or its caller did not answer in time", code=INTERNAL_ERROR)

    @contextmanager
    def paused(self, asking: anyio.CancelScope) -> Generator[None, None, None]:
        """Time stands still while a caller is asked; `asking` is cancelled when the request ends."""
        loop = self._flight.loop
        paused_at = loop.time()
        self.deadline = _NEVER
        if self._asking is None:
            self._asking = set()
        self._asking.add(asking)
        try:
            yield
        finally:
            self._asking.discard(asking)
            self._began += loop.time() - paused_at
            if not self._asking:
                self.deadline = loop.time() + self.timeout
                self._flight.ends_at(self.deadline)

    def _end(self, fault: BrokerError) -> None:
        # A task that finds out itself goes on, and raises what it has found.
        if self._fault is None and self._waiter is not asyncio.current_task():
            self._fault = fault
            self._waiter.cancel()
