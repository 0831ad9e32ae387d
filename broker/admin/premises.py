"""The office of a broker that runs: opened when somebody first needs it, since most brokers never do."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from broker.admin.desk import Office


class Premises:
    """See the module. `furnish` opens the store and makes the office of it."""

    def __init__(self, furnish: Callable[[], Awaitable[Office]]) -> None:
        self._furnish = furnish
        self._office: Office | None = None
        self._opening = anyio.Lock()

    async def office(self) -> Office:
        """The same one each time. Raises: StoreError; then the next one tries again."""
        async with self._opening:
            if self._office is None:
                self._office = await self._furnish()
            return self._office

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """At its end the store is closed."""
        try:
            yield
        finally:
            if self._office is not None:
                with anyio.CancelScope(shield=True):
                    await self._office.store.aclose()
