"""One response: JSON when nothing streams, an event stream as soon as something does, or when 15 s have passed.

A silent connection is cut by proxies, and in the modern era a cut is a cancellation.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio

from broker.core.eventstream import KEEPALIVE, frame
from broker.downstream.asgi import JSON_HEADERS, Disconnected, Http
from broker.downstream.engine import Answer
from broker.downstream.message import notification_bytes

PATIENCE: Final = 15.0
"""Seconds of silence before the stream begins, and between two signs of life on it."""
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
    """Messages on their way to one event stream."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._answers: deque[bytes] = deque()
        """Those of the frames that are answers, in the same order."""
        self._size = 0
        self._wake = anyio.Event()
        self.answer: Answer | None = None
        """The response, once it is there: it ends the stream."""
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

    def finish(self, answer: Answer) -> None:
        """The response."""
        self.answer = answer
        self._wake.set()

    def take(self) -> bytes:
        """All frames that wait, as the bytes of an event stream."""
        self._wake = anyio.Event()
        data = b"".join(frame(message) for message in self._frames)
        self._frames.clear()
        self._answers.clear()
        self._size = 0
        return data

    async def wait(self) -> bool:
        """Wait for something to send, for at most `PATIENCE` seconds; whether there is."""
        with anyio.move_on_after(PATIENCE):
            await self._wake.wait()
        return self._wake.is_set()


async def reply(http: Http, outbox: Outbox, status_of: Callable[[Answer], int]) -> None:
    """Send what comes through `outbox` until its answer is there.

    Raises: Disconnected.
    """
    await outbox.wait()
    if outbox.answer is not None and not len(outbox):
        await http.respond(status_of(outbox.answer), outbox.answer.body, JSON_HEADERS)
        return
    await http.start(200, STREAM_HEADERS)
    await pump(http, outbox)


async def pump(http: Http, outbox: Outbox) -> None:
    """The event stream itself, with a comment whenever it would be silent for too long.

    Raises: Disconnected.
    """
    while True:
        if outbox.has_lost:
            raise Disconnected
        if outbox.answer is not None:
            await http.write(outbox.take() + frame(outbox.answer.body), more=False)
            return
        await http.write(outbox.take() or KEEPALIVE, more=True)
        await outbox.wait()


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
