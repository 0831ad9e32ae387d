"""What a view says of itself, in `initialize` and in `server/discover`: truthful for this one caller."""

from typing import Any

from broker.core.caller import Caller
from broker.core.catalog import Listing
from broker.core.extensions import view_capabilities
from broker.core.request import Kind
from broker.relay.listing import Scope
from broker.relay.served import Served


def visible_servers(now: Served, view: str, caller: Caller) -> tuple[str, ...]:
    """The servers of a view of which the caller sees something, in configuration order.

    A server all of whose entries are hidden is not there at all: nothing of it is declared, nothing is sent to it.
    """
    seen = now.views.servers(now.catalog, Scope(caller, view, now.hidden()))
    return tuple(key for key in now.shown(view, caller) if key in seen)


def greeting(now: Served, view: str, caller: Caller, version: str) -> dict[str, Any]:
    """`capabilities` and `instructions` of a view."""
    result: dict[str, Any] = {"capabilities": capabilities(now, view, caller, version)}
    instructions = now.views.instructions(now.catalog, Scope(caller, view, now.hidden()))
    if instructions is not None:
        result["instructions"] = instructions
    return result


def capabilities(now: Served, view: str, caller: Caller, version: str) -> dict[str, Any]:
    """What the caller is offered in a view, in its version. See `view_capabilities`."""
    known = {key: now.pool.upstreams[key].listing for key in now.shown(view, caller) if key not in now.hidden()}
    visible = visible_servers(now, view, caller)
    return view_capabilities(
        [listing for key, listing in known.items() if listing is not None and key in visible],
        [listing for listing in known.values() if listing is not None and _is_empty(listing)],
        caller=version,
        is_open=any(listing is None for listing in known.values()),
    )


def _is_empty(listing: Listing) -> bool:
    return not any(listing.items.get(kind) for kind in Kind)
