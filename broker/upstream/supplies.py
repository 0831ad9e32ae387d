"""What an upstream is given by the configuration that it belongs to, and whom it tells."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from broker.clock import Clock
from broker.core.catalog import Listing
from broker.core.era import SHARED_CAPABILITIES
from broker.core.request import Kind
from broker.upstream.handshake import Declare
from broker.upstream.home import NO_HOME, Home
from broker.upstream.link import Link
from broker.upstream.snapshot import Snapshots

OnListing = Callable[[str, Listing, frozenset[Kind]], None]
"""Told of a new listing: server, listing, kinds that differ from what was known."""

Judge = Callable[[str, Listing], Awaitable[Listing]]
"""What of a server's listing may be served, once for each time that it is discovered."""

OnUpdated = Callable[[str, dict[str, Any]], None]
"""Told that a resource has changed: server, and the notification's parameters with the own URI."""
OnSaid = Callable[[str, Link, str, dict[str, Any]], None]
"""Told what a server says of a task, or in words of an extension: server, the link it came on, method, parameters."""
OnTurn = Callable[[str], None]
"""Told that a server has become ready, or is so no more."""


async def declare_shared() -> Mapping[str, Any]:
    """For links that many callers share."""
    return SHARED_CAPABILITIES


def no_home(server: str) -> Home:
    """For links that many callers share."""
    return NO_HOME


def ignore_update(server: str, params: dict[str, Any]) -> None:
    """For who has nobody to tell."""


def ignore_said(server: str, link: Link, method: str, params: dict[str, Any]) -> None:
    """Likewise."""


def ignore_turn(server: str) -> None:
    """Likewise."""


def ignore_listing(server: str, listing: Listing, changed: frozenset[Kind]) -> None:
    """Likewise."""


def needs_nothing(server: str) -> bool:
    """For who knows of nothing."""
    return False


async def take_as_it_is(server: str, listing: Listing) -> Listing:
    """For who judges nothing."""
    return listing


@dataclass(frozen=True, slots=True)
class Supplies:
    """What every upstream of a configuration is given."""

    clock: Clock
    snapshots: Snapshots
    on_listing: OnListing
    declare: Declare = declare_shared
    on_updated: OnUpdated = ignore_update
    on_said: OnSaid = ignore_said
    on_turn: OnTurn = ignore_turn
    judge: Judge = take_as_it_is
    home_of: Callable[[str], Home] = no_home
    """Where the only caller of the front is found outside of its calls."""
    needs: Callable[[str], bool] = needs_nothing
    """Whether something goes on at a server that is no call, as a task."""

    def mute(self) -> "Supplies":
        """The same for an upstream that tells nobody anything any more."""
        return replace(
            self,
            on_listing=ignore_listing,
            on_updated=ignore_update,
            on_said=ignore_said,
            on_turn=ignore_turn,
        )
