"""How many calls use something that may go while the broker runs, and when nobody does any more."""

from types import TracebackType

import anyio


class InUse:
    """Entered for as long as a call needs what it belongs to. Who has a `finally` anyway adds one to `begun`, and says
    there that it has come to its `end`.
    """

    __slots__ = ("_ended", "_idle", "begun")

    def __init__(self) -> None:
        self.begun = 0
        """How many have begun, ever: whoever looks twice sees whether there was one meanwhile."""
        self._ended = 0
        self._idle: anyio.Event | None = None

    @property
    def count(self) -> int:
        """How many use it now."""
        return self.begun - self._ended

    def end(self) -> None:
        """One that has begun uses it no more."""
        self._ended += 1
        if self._idle is not None and not self.count:
            self._idle.set()

    def __enter__(self) -> None:
        self.begun += 1

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    async def idle(self) -> None:
        """Wait until nobody uses it."""
        while self.count:
            if self._idle is None or self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()
