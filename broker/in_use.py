"""How many calls use something that may go while the broker runs, and when nobody does any more."""

from types import TracebackType

import anyio


class InUse:
    """Entered for as long as a call needs what it belongs to. Entering it costs a call next to nothing."""

    __slots__ = ("_idle", "count", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last = 0
        """How many have begun, ever: whoever looks twice sees whether there was one meanwhile."""
        self._idle: anyio.Event | None = None

    def __enter__(self) -> None:
        self.count += 1
        self.last += 1

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.count -= 1
        if self._idle is not None and not self.count:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until nobody uses it."""
        while self.count:
            if self._idle is None or self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()
