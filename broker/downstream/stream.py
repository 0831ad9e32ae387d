"""One response: JSON when nothing streams, an event stream as soon as something does, or when 15 s have passed.

A silent connection is cut by proxies, and in the modern era a cut is a cancellation.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import anyio
import anyio.abc

from broker.core.eventstream import KEEPALIVE, frame
from broker.core.questions import Question
from broker.downstream.engine import Answer
from broker.downstream.message import notification_bytes
from broker.downstream.replay import EventLog
from broker.downstream.session import LegacySession
from broker.downstream.vigil import Vigil
from broker.downstream.web import JSON_HEADERS, Disconnected, Http, HttpError
from broker.errors import HTTP_STATUS
from broker.identity.admission import Admission

log = logging.getLogger(__name__)

PATIENCE: Final = 15.0
"""Seconds of silence before the stream begins, and between two signs of life on it."""
AT_ONCE: Final = 200
"""Silent responses that are attended to in one go, 3 ms: a storm of calls is silent as one."""
MAX_FRAMES: Final = 1000
"""Messages that may wait for a caller that reads slowly. Of notifications the oldest go first; an answer is never
dropped: a stream that has no room for it ends (F-74)."""
MAX_WAITING: Final = 32 * 1024 * 1024
"""Bytes that may wait likewise; a single message may be more."""

STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class Outbox:
    """Messages on their way to one event stream; `log` keeps them for a caller that comes back for them."""

    def __init__(self, log: EventLog | None = None) -> None:
        self._log = log
        self._frames: deque[bytes] = deque()
        self._answers: deque[bytes] = deque()
        """Those of the frames that are answers, in the same order."""
        self._size = 0
        self._wake = anyio.Event()
        self.answer: Answer | None = None
        """The response, once it is there."""
        self.is_finished = False
        """Whether the stream ends, with its response if it has one."""
        self.has_lost = False
        """Whether an answer found no room."""

    def __len__(self) -> int:
        return len(self._frames)

    def emit(self, method: str, params: dict[str, Any]) -> None:
        """A notification. Never blocks. One that says nothing new while it waits is not said twice."""
        message = notification_bytes(method, params)
        if message not in self._frames:
            self._put(message)

    def put_answer(self, message: bytes) -> None:
        """One of many answers on a stream that does not end with it."""
        self._answers.append(message)
        self._put(message)

    def _put(self, message: bytes) -> None:
        self._frames.append(message)
        self._size += len(message)
        while len(self._frames) > MAX_FRAMES or (self._size > MAX_WAITING and len(self._frames) > 1):
            oldest = self._frames.popleft()
            self._size -= len(oldest)
            if self._answers and oldest is self._answers[0]:
                self._answers.popleft()
                self.has_lost = True
        self._wake.set()

    def finish(self, answer: Answer | None) -> None:
        """The response, or that there will be none."""
        self.answer = answer
        self.is_finished = True
        self._wake.set()

    def take(self) -> bytes:
        """All frames that wait, as the bytes of an event stream."""
        self._wake = anyio.Event()
        data = b"".join(self.event(message) for message in self._frames)
        self._frames.clear()
        self._answers.clear()
        self._size = 0
        return data

    def event(self, message: bytes) -> bytes:
        """A message as an event of this stream."""
        return frame(message) if self._log is None else self._log.add(message)

    def opening(self) -> bytes:
        """What the stream begins with."""
        return b"" if self._log is None else self._log.priming()

    def close(self) -> None:
        """The response was the last event."""
        if self._log is not None:
            self._log.end()

    async def wait(self) -> bool:
        """Wait for something to send, for at most `PATIENCE` seconds; whether there is."""
        with anyio.move_on_after(PATIENCE):
            await self._wake.wait()
        return self._wake.is_set()


class Silence:
    """Responses of which nothing was sent yet, in the order in which they began. One timer is for all of them: one for
    each would be set and cancelled in every call, and go off in hardly any.
    """

    __slots__ = ("_loop", "_timer", "began")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        """Asked for once: each time it costs a system call."""
        self.began: dict[Response, float] = {}
        """When each began, by the loop's time."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.began)

    def begin(self, response: "Response") -> None:
        """It begins, and is attended to when nothing has been sent for `PATIENCE` seconds."""
        self.began[response] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._on_timer)

    def end(self, response: "Response") -> None:
        """It is over, or attended to. Safe to say twice."""
        self.began.pop(response, None)

    def close(self) -> None:
        """No response is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = [response for response, began in islice(self.began.items(), AT_ONCE) if now >= began + PATIENCE]
        for response in due:
            del self.began[response]
        if self.began:  # those of a storm are all silent together
            self._timer = self._loop.call_at(next(iter(self.began.values())) + PATIENCE, self._on_timer)
        for response in due:
            response.attend()


@dataclass(frozen=True, slots=True)
class Stage:
    """What all responses of a front share: the tasks that outlive a request, who looks whether a caller may go on, what
    is answered at a path to one that may not, and which responses are silent.
    """

    tasks: anyio.abc.TaskGroup
    vigil: Vigil
    expired: Callable[[str], HttpError]
    silence: Silence


class Response:
    """The response to one request, whose work runs in the task that received it; it is `Held` as long as that takes.

    Work that says nothing before its answer costs no task. Any other gets an attendant: a task of the stage that sends
    what there is to send. Of a legacy `session`, it is a `BackChannel` too: its caller is asked on this stream.
    """

    __slots__ = ("_attendant", "_http", "_session", "_stage", "admission", "only_waits")

    def __init__(
        self,
        http: Http,
        stage: "Stage",
        admission: Admission,
        session: LegacySession | None = None,
        *,
        only_waits: bool = False,
    ) -> None:
        self._http = http
        self._stage = stage
        self.admission = admission
        """See `Held`."""
        self._session = session
        self.only_waits = only_waits
        """See `Held`."""
        self._attendant: _Attendant | None = None

    def end(self) -> None:
        """See `Held`: the response ends here, whatever the work comes to."""
        self._stage.tasks.start_soon(self._cut, self._stage.expired(self._http.path))

    async def _cut(self, refusal: HttpError) -> None:
        await self._http.cut(refusal)
        if self._http.on_gone is not None:
            self._http.on_gone()

    async def ask(self, question: Question) -> dict[str, Any]:
        """See `BackChannel`."""
        assert self._session is not None
        return await self._session.asking.ask(question, self._put)

    def _put(self, message: bytes) -> None:
        """A message that must not be lost, ahead of the answer. Never blocks."""
        self._attended().outbox.put_answer(message)

    async def send(self, work: Awaitable[Answer | None]) -> None:
        """Wait for `work`, and send the notifications that it emits and its answer, or end without one."""
        stage = self._stage
        stage.silence.begin(self)
        stage.vigil.held[self] = None
        try:
            answer = await work
            if self._attendant is None and answer is not None:
                status = 200 if answer.code is None else _status_of(answer, self._session)
                return self._http.respond(status, answer.body, JSON_HEADERS)
            # No answer at all is a stream that ends without one.
            self._attended().outbox.finish(answer)
            await self._attended().ended.wait()
        finally:
            stage.vigil.held.pop(self, None)
            if self._attendant is None:
                stage.silence.began.pop(self, None)
            else:
                self._attendant.scope.cancel()
                self._attendant.outbox.close()

    def emit(self, method: str, params: dict[str, Any]) -> None:
        """A notification that belongs to the request, ahead of the answer. Never blocks."""
        self._attended().outbox.emit(method, params)

    def attend(self) -> None:
        """What there is to send is sent from now on, and a sign of life where there is nothing."""
        self._attended()

    def _attended(self) -> "_Attendant":
        if self._attendant is None:
            self._stage.silence.end(self)
            outbox = Outbox(None if self._session is None else self._session.new_log())
            self._attendant = _Attendant(self._http, self._session, outbox)
            self._stage.tasks.start_soon(self._attendant.run)
        return self._attendant


def _status_of(answer: Answer, session: LegacySession | None) -> int:
    """In the legacy eras an error is an answer like any other."""
    return 200 if answer.code is None or session is not None else HTTP_STATUS.get(answer.code, 200)


class _Attendant:
    """Looks after a response that is a stream. It does not know that: whatever leads from the two to each other would
    stay, with all of the request, until the garbage is collected.
    """

    def __init__(self, http: Http, session: LegacySession | None, outbox: Outbox) -> None:
        self._http = http
        self._session = session
        self.outbox = outbox
        self.scope = anyio.CancelScope()
        self.ended = asyncio.Event()

    async def run(self) -> None:
        """Send until the answer is sent, or the caller does not read."""
        try:
            with self.scope, suppress(Disconnected):
                await self._send()
        except Exception:
            # A fault of ours costs this response: the connection of what is not complete is closed. Raised on, it
            # would end the task group, and with it every other request.
            log.exception("a response could not be sent")
        finally:
            self.ended.set()

    async def _send(self) -> None:
        answer = self.outbox.answer
        if answer is not None and not len(self.outbox):
            self._http.respond(_status_of(answer, self._session), answer.body, JSON_HEADERS)
            return
        await self._http.start(200, STREAM_HEADERS)
        if opening := self.outbox.opening():
            await self._http.write(opening, more=True)
        await pump(self._http, self.outbox)


async def pump(http: Http, outbox: Outbox) -> None:
    """The event stream itself, with a comment whenever it would be silent for too long.

    Raises: Disconnected.
    """
    while True:
        if outbox.has_lost:
            raise Disconnected
        if outbox.is_finished:
            last = outbox.take() + (outbox.event(outbox.answer.body) if outbox.answer is not None else b"")
            outbox.close()
            await http.write(last, more=False)
            return
        await http.write(outbox.take() or KEEPALIVE, more=True)
        await outbox.wait()


async def resume(http: Http, log: EventLog, seen: int) -> None:
    """A stream that was taken up again: what came after the event `seen`, and what comes, until its response.

    Raises: Disconnected.
    """
    while True:
        is_over = log.is_over
        data, seen = log.after(seen)
        await http.write(data or (b"" if is_over else KEEPALIVE), more=not is_over)
        if is_over:
            return
        with anyio.move_on_after(PATIENCE):
            await log.more()


async def while_connected(http: Http, *works: Callable[[], Awaitable[None]]) -> None:
    """Run all of `works` until the last one given ends; a caller that is gone ends them all.

    Spec: 2026-07-28 basic/transports/streamable-http, "Cancellation".
    """
    async with anyio.create_task_group() as tasks:

        async def quietly(work: Callable[[], Awaitable[None]]) -> None:
            try:
                await work()
            except Disconnected:
                tasks.cancel_scope.cancel()

        async def watch() -> None:
            await http.gone()
            tasks.cancel_scope.cancel()

        for work in (watch, *works[:-1]):
            tasks.start_soon(quietly, work)
        await quietly(works[-1])
        tasks.cancel_scope.cancel()
