"""Whether a server has to run: always, or while somebody needs it (`start: lazy`, `idle_stop`).

A server that nobody needs is stopped, and not down: its entries are listed as they were last known, and the next call
starts it and waits for it.
"""

from typing import Final, Protocol

import anyio

from broker.clock import Clock
from broker.config import Server
from broker.in_use import InUse

RESTS: Final = "it is not started: the next call starts it"
"""In place of a reason why it is not ready."""
LOOKS: Final = 4
"""Times that a server is looked at within its `idle_stop`: it may rest a fourth of that longer, not more."""
LOOK_AGAIN: Final = 15.0
"""Seconds until a server without `idle_stop` is looked at again: a reload may have given it one."""


class Demand:
    """See the module."""

    def __init__(self, server: Server) -> None:
        self.is_asleep = server.start == "lazy"
        """Whether it is not started, or being started, because nobody needed it: nothing is wrong with it."""
        self._wanted = anyio.Event()

    def want(self) -> None:
        """Somebody needs it."""
        self._wanted.set()

    def forget(self) -> None:
        """Who needed it before does not count any more."""
        self._wanted = anyio.Event()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody has needed it since it was last forgotten."""
        return self._wanted.is_set()

    async def wanted(self) -> None:
        """Wait until somebody needs it."""
        await self._wanted.wait()


class Rests(Protocol):
    """What is looked at."""

    @property
    def server(self) -> Server:
        """Its settings, as of now."""
        ...

    @property
    def in_use(self) -> InUse:
        """Its calls."""
        ...

    @property
    def is_needed(self) -> bool:
        """Whether something of it goes on: a call, a subscription, a task."""
        ...


async def until_idle(one: Rests, clock: Clock) -> None:
    """Wait until nobody has used it for `idle_stop` seconds."""
    quiet, used = 0, one.in_use.begun
    while quiet < LOOKS:
        idle = one.server.idle_stop
        await clock.sleep(LOOK_AGAIN if idle is None else idle / LOOKS)
        is_quiet = idle is not None and one.in_use.begun == used and not one.is_needed
        quiet, used = quiet + 1 if is_quiet else 0, one.in_use.begun
