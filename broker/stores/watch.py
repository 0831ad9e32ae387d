"""The directory of the store as last seen, and who is told when it changes.

Nothing on the way of a call reads the database: it is asked here, twice a second, whether it was changed, and only then
read. A store that is down keeps what is known; that is said once, and so is its return.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio

from broker.clock import Clock
from broker.core.directory import Directory
from broker.stores.errors import StoreError, StoreUnavailable, StoreUnusable
from broker.stores.location import Location
from broker.threads import NoThreads, in_thread

if TYPE_CHECKING:
    from broker.stores.directory import DirectoryStore

log = logging.getLogger(__name__)

INTERVAL: Final = 0.5
"""Seconds between two looks. A change must be in force within one second, and one look may just have passed."""
RETRY: Final = 1.0
"""Seconds between two tries to reach a store that is down."""

_A_MOMENT: Final = 0.001
"""Seconds of silence, at least: a store that has just failed must not be taken for one that is well."""

Open = Callable[[], Awaitable["DirectoryStore"]]


class Watch:
    """See the module. `on_change` gets every new directory; it must not raise.

    `known`: the last one that was read; None until one was, or there is no store yet. A store is looked for and opened
    here as soon as there is one: `mcp-broker key create` beside a running broker makes the file.
    """

    def __init__(
        self, location: Location, open_store: Open, clock: Clock, on_change: Callable[[Directory], object]
    ) -> None:
        self.known: Directory | None = None
        self.trouble = ""
        """What is wrong with the store, in a sentence; "" while it is well, or there is none."""
        self.is_unusable = False
        """Whether somebody has to mend it: it is there, and is no store, or not one of ours."""
        self.settled = anyio.Event()
        """Set when the first look has ended, whichever way."""
        self._location = location
        self._open = open_store
        self._clock = clock
        self._on_change = on_change
        self._revision: int | None = None
        self._store: DirectoryStore | None = None
        self._file: tuple[int, ...] | None = None
        self._heard = clock.now()

    def silence(self) -> float:
        """Seconds since the store last answered; 0 while it is well. What was verified before may be trusted for some
        of them; what was not must be answered with "not now", since it may be known to the store."""
        return max(self._clock.now() - self._heard, _A_MOMENT) if self.trouble else 0.0

    async def serve(self) -> None:
        """Look again and again, until cancelled."""
        try:
            while True:
                await self.look()
                await self._clock.sleep(RETRY if self.trouble else INTERVAL)
        finally:
            await self._close()

    async def look(self) -> None:
        """Look once: open the store if there is one, ask for changes, and pass them on."""
        try:
            changed = await self._read()
        except StoreError as error:
            self.is_unusable = isinstance(error, StoreUnusable)
            self._say(str(error))
        else:
            self._heard = self._clock.now()
            self.is_unusable = False
            self._say("")
            if changed is not None:
                self.known = changed
                self._on_change(changed)
        finally:
            self.settled.set()

    async def _read(self) -> Directory | None:
        """The directory, if it is another than the known one. Raises: StoreError."""
        if not await self._is_open():
            return None
        assert self._store is not None
        try:
            revision = await self._store.revision_if_touched()
            if revision is None or revision == self._revision:
                return None
            stored = await self._store.load(self.known or Directory(), self._revision)
        except StoreError:
            # Opened anew: a server that comes back may be another one, with other tables.
            await self._close()
            raise
        self._revision = stored.revision
        return stored.directory

    async def _is_open(self) -> bool:
        if self._location.url is None:
            file = _identity(self._location)
            if file != self._file:
                # Removed or replaced: the open connections still show the old file.
                await self._close()
            if file is None and self._file is None:
                return False
            if file is None:
                raise StoreUnavailable(f"the database {self._location.path} was removed")
            self._file = file
        if self._store is None:
            # Opening loads the driver, a second of it: not for a file in which there is nothing.
            try:
                if not await in_thread(self._location.holds_something):
                    return False
                self._store = await self._open()
            except NoThreads as error:
                raise StoreUnavailable(f"the store cannot be opened: {error}") from None
        return True

    async def _close(self) -> None:
        store, self._store = self._store, None
        self._revision = None
        if store is not None:
            await store.aclose()

    def _say(self, trouble: str) -> None:
        if trouble and not self.trouble:
            log.error("%s; what is known of keys and teams stays in force", trouble)
        if self.trouble and not trouble:
            log.info("the store answers again")
        self.trouble = trouble


def _identity(location: Location) -> tuple[int, ...] | None:
    """Which file it is; None for none. One that cannot be looked at is some file: opening it says why.

    Of a file that may only be read the time counts too, since SQLite itself does not look for changes then.
    """
    try:
        found = os.stat(location.path)
    except FileNotFoundError:
        return None
    except OSError:
        return (0,)
    changed = (found.st_mtime_ns, found.st_size) if location.is_read_only() else ()
    return found.st_dev, found.st_ino, *changed
