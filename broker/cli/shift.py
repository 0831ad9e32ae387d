"""What a broker that serves shares with other workers: nothing, where there are none."""

from collections.abc import Callable
from typing import Final, Protocol

import anyio

from broker.downstream.crew import NO_CREW, Crew
from broker.downstream.room import Held
from broker.usage.counting import OWN_COUNTING, Counting


class Shift(Protocol):
    """See the module. `crew`: the workers; `counting`: where limits are counted; `held`: where connections are."""

    crew: Crew
    counting: Counting
    held: Held | None

    def is_ready(self) -> None:
        """It serves."""
        ...

    async def serve(self, closing: anyio.Event, drain: Callable[[], float]) -> None:
        """What has to be done meanwhile, until cancelled. `closing`: set, if the broker has to end; within `drain`
        seconds, asked then.
        """
        ...


class AloneAtWork:
    """For a broker of one process."""

    def __init__(self) -> None:
        self.crew = NO_CREW
        self.counting: Counting = OWN_COUNTING
        self.held: Held | None = None

    def is_ready(self) -> None:
        """See `Shift`."""

    async def serve(self, closing: anyio.Event, drain: Callable[[], float]) -> None:
        """See `Shift`."""


ALONE_AT_WORK: Final = AloneAtWork()
