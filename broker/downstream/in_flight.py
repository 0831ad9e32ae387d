"""A request that is being worked on, and can be cancelled by its id."""

import asyncio
from typing import Any


class InFlight:
    """One request of a session, to its end: entered by the task that works for it, once. One that was cancelled before
    ends at its first wait.

    It cancels its task as `asyncio.timeout` does. A scope of anyio's costs ten times as much, and every call has one.
    """

    __slots__ = ("_held", "_id", "_others", "_task", "is_cancelled")

    def __init__(self, held: "dict[str | int, InFlight]", request_id: str | int) -> None:
        """`held`: where it stands under its id until it ends."""
        self._held = held
        self._id = request_id
        self.is_cancelled = False
        """Whether nobody wants it any more."""
        self._task: asyncio.Task[Any] | None = None
        self._others = 0
        """Requests to cancel the task that came before it entered: not ours to take back."""
        held[request_id] = self

    def cancel(self) -> None:
        """Nobody wants it any more. Twice is once."""
        if not self.is_cancelled:
            self.is_cancelled = True
            if self._task is not None:
                self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._others = task.cancelling()
        if self.is_cancelled:
            task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """Whether its end was a cancellation, and ours alone."""
        del self._held[self._id]
        task, self._task = self._task, None
        assert task is not None
        return self.is_cancelled and task.uncancel() <= self._others and kind is asyncio.CancelledError
