"""What an upstream said of itself: judged, made known to those who serve it, and remembered."""

import logging
from typing import Protocol

import anyio

from broker.core.catalog import Listing
from broker.core.request import Kind
from broker.threads import NoThreads, in_thread
from broker.upstream.supplies import Supplies

log = logging.getLogger(__name__)


class Speaker(Protocol):
    """Who said it."""

    key: str
    fingerprint: str
    """What its listing is remembered under."""
    supplies: Supplies
    """What it is given, as of now."""
    listing: Listing | None
    """What it serves, as last known."""


class Heard:
    """See the module."""

    def __init__(self, upstream: Speaker) -> None:
        self._upstream = upstream
        self.listing: Listing | None = None
        """What it said itself, before that was judged."""
        self._publishing = anyio.Lock()
        self._doubted = anyio.Event()

    def rejudge(self) -> None:
        """What may be served of what it said may be something else now."""
        self._doubted.set()

    async def rejudge_when_wanted(self) -> None:
        """Serve that, until cancelled."""
        while True:
            await self._doubted.wait()
            self._doubted = anyio.Event()
            if self.listing is not None:
                await self.publish(self.listing)

    async def publish(self, listing: Listing, announced: frozenset[Kind] = frozenset()) -> None:
        """Make a listing the known one, judged. `announced`: kinds to tell callers of even if they look the same."""
        self.listing = listing
        async with self._publishing:
            await self._publish_heard(self.listing, announced)

    async def _publish_heard(self, heard: Listing, announced: frozenset[Kind]) -> None:
        upstream = self._upstream
        listing = await upstream.supplies.judge(upstream.key, heard)
        before, upstream.listing = upstream.listing, listing
        changed = announced | frozenset(kind for kind in Kind if before is None or _differs(before, listing, kind))
        if before != listing or announced:
            upstream.supplies.on_listing(upstream.key, listing, changed)
        if before != listing:
            for item in listing.dropped:
                log.warning("%s: not served: %s %r: %s", upstream.key, item.kind, item.own, item.reason)
            for item in listing.cleaned:
                log.info("%s: cleaned: %s %r: %s", upstream.key, item.kind, item.own, item.what)
            try:
                await in_thread(upstream.supplies.snapshots.save, upstream.fingerprint, listing)
            except NoThreads as error:
                log.warning("%s: no catalog snapshot: %s", upstream.key, error)


def _differs(before: Listing, after: Listing, kind: Kind) -> bool:
    """Whether two listings have other items of a kind."""
    return before.items.get(kind, ()) != after.items.get(kind, ())
