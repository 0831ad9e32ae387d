"""What an upstream says of itself, judged when it is discovered: items are rewritten or left out, and that is said."""

from dataclasses import replace
from typing import Any

from broker.core.catalog import Dropped, Listing
from broker.core.cleaning import clean
from broker.core.request import LISTS, Kind
from broker.errors import Blocked
from broker.guardrails.chain import INSTRUCTIONS
from broker.guardrails.guards import Guards, NoGuards


async def judged(guards: Guards | NoGuards, server: str, listing: Listing) -> Listing:
    """A listing as it may be served. The same one, if nothing judges it."""
    if not guards.judges_definitions(server):
        return listing
    dropped = list(listing.dropped)
    items: dict[Kind, tuple[dict[str, Any], ...]] = {}
    for kind, found in listing.items.items():
        kept: list[dict[str, Any]] = []
        for item in found:
            own: str = item[LISTS[kind].name_key]
            try:
                kept.append(await guards.definition(server, kind, own, item))
            except Blocked as error:
                dropped.append(Dropped(kind, own, error.message))
        items[kind] = tuple(kept)
    instructions = await _instructions(guards, server, listing.instructions)
    return replace(listing, items=items, dropped=tuple(dropped), instructions=instructions)


async def _instructions(guards: Guards | NoGuards, server: str, text: str | None) -> str | None:
    """Judged as a reader would see them; blocked ones are not there. The log says so."""
    if not text:
        return text
    try:
        found = await guards.definition(server, INSTRUCTIONS, "", {"instructions": clean(text)})
    except Blocked:
        return None
    return found["instructions"]
