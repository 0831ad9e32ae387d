"""Questions to a legacy caller: requests of the broker's own, and the caller's answers.

Ids are the broker's own within one session, so an answer can resolve nothing but a question that this session was
asked; one that was never asked, or answered already, is dropped.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Final

from broker.core.questions import Question
from broker.core.shape import is_object
from broker.core.wire import Long
from broker.downstream.message import Incoming, notification_bytes, request_bytes, writing_request
from broker.errors import INTERNAL_ERROR, BrokerError, CannotAsk
from broker.turns import in_turns

MAX_OPEN: Final = 64
"""Questions that wait for one session at a time."""

Put = Callable[[bytes], None]
"""Puts a message on the stream of the call that the question belongs to. Never blocks."""


class Asking:
    """The open questions of one session."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def channel(self, put: Put) -> "LegacyChannel":
        """The way back to the caller of one call."""
        return LegacyChannel(self, put)

    async def ask(self, question: Question, put: Put) -> dict[str, Any]:
        """The caller's result.

        Raises: BrokerError: its own error, or that it has too many questions open.
        """
        if len(self._open) >= MAX_OPEN:
            raise CannotAsk("the caller has too many questions open", code=INTERNAL_ERROR)
        request_id = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[request_id] = future
        try:
            put(await _request(request_id, question))
            return await future
        except asyncio.CancelledError:
            put(notification_bytes("notifications/cancelled", {"requestId": request_id}))
            raise
        finally:
            del self._open[request_id]

    def answer(self, incoming: Incoming) -> None:
        """A posted response."""
        future = self._open.get(incoming.id) if isinstance(incoming.id, int) else None
        if future is None or future.done() or incoming.answer is None:
            return
        error, result = incoming.answer.get("error"), incoming.answer.get("result")
        if is_object(result):
            future.set_result(result)
        elif is_object(error) and type(error.get("code")) is int and isinstance(error.get("message"), str):
            future.set_exception(BrokerError(error["message"], error.get("data"), code=error["code"]))
        else:
            future.set_exception(CannotAsk("the caller gave a malformed answer", code=INTERNAL_ERROR))


class LegacyChannel:
    """See `BackChannel`: the caller is asked on the stream of its call."""

    def __init__(self, asking: Asking, put: Put) -> None:
        self._asking = asking
        self._put = put

    async def ask(self, question: Question) -> dict[str, Any]:
        """See `BackChannel`."""
        return await self._asking.ask(question, self._put)


async def _request(request_id: int, question: Question) -> bytes:
    if question.params.__class__ is Long:
        return await in_turns(writing_request(request_id, question.method, question.params))
    return request_bytes(request_id, question.method, question.params)
