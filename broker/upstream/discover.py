"""What does an upstream serve? All pages of all its lists, bounded, each item on its own merits.

One malformed item costs that item, not the list (F-29); a list that never ends, or turns in a circle, is an error
that is said, not a silently shorter list (F-28).
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import anyio
import anyio.lowlevel

from broker.core import wire
from broker.core.catalog import WHOLE_LIST, Cleaned, Dropped, Listing
from broker.core.cleaning import clean, clean_item
from broker.core.request import LISTS, Kind
from broker.core.shape import is_array, is_object
from broker.errors import METHOD_NOT_FOUND, BrokerError, MalformedAnswer, UpstreamAnsweredError
from broker.secrecy import foreign
from broker.upstream.link import Link

MAX_PAGES: Final = 50
MAX_ITEMS: Final = 2000
"""Of one kind, per upstream (F-27)."""
MAX_DEFINITION: Final = 256 * 1024
"""Bytes of one definition: schemas are never evaluated here, but they are held, merged and sent (F-35)."""
MAX_LIST: Final = 32 * 1024 * 1024
"""Bytes of all definitions of one list together: each may be as large as it may, but not all of them."""
MAX_DEFINITION_VALUES: Final = 20_000
"""Values in one definition, an empty object or array counted twice: all are walked through in one turn (F-35)."""
MAX_VALUES: Final = 500_000
"""Values in all definitions of one list together: three bytes of a text become sixty in memory (F-35)."""
MAX_DROPPED: Final = 100
"""Items of one list that are reported one by one, and as many that were cleaned; of the former's rest, their number."""
MAX_NAME: Final = 1024
"""Characters of an own name or URI."""
MAX_CURSOR: Final = 64 * 1024
TURN: Final = 256 * 1024
"""Bytes of definitions that are judged in one turn of the event loop: a page is as long as its server likes, and holds
nobody else meanwhile (promise b)."""
LEAST: Final = 1024
"""Bytes that an item counts for at least in a turn: the smallest is looked at too."""
WEIGHT: Final = 32
"""Bytes that each value counts for beside its own in a turn: to walk through many small ones is what takes time."""

_CAPABILITY: Final = {
    Kind.TOOL: "tools",
    Kind.PROMPT: "prompts",
    Kind.RESOURCE: "resources",
    Kind.TEMPLATE: "resources",
}


_INSTRUCTIONS: Final = Cleaned("instructions", "", "invisible characters taken out")


@dataclass(frozen=True, slots=True)
class Found:
    """One list of one upstream. `ttl` is in seconds, where the upstream gave one."""

    items: tuple[dict[str, Any], ...]
    dropped: tuple[Dropped, ...]
    ttl: float | None = None
    cleaned: tuple[Cleaned, ...] = ()


async def discover(link: Link, timeout: float, known: Listing | None) -> Listing:
    """All lists that the upstream declares, asked in parallel.

    A list that cannot be had keeps its `known` items and is reported, so that it costs the others nothing.

    Raises: BrokerError, if none can be had.
    """
    found: dict[Kind, Found] = {}
    failures: list[BrokerError] = []

    async def fetch(kind: Kind) -> None:
        try:
            found[kind] = await fetch_list(link, kind, timeout)
        except BrokerError as error:
            failures.append(error)
            items = known.items.get(kind, ()) if known is not None else ()
            found[kind] = Found(
                items, (Dropped(kind, WHOLE_LIST, f"the list cannot be had: {foreign(error.message)}"),), 0.0
            )

    kinds = [kind for kind in Kind if link.peer.has(_CAPABILITY[kind])]
    async with anyio.create_task_group() as tasks:
        for kind in kinds:
            tasks.start_soon(fetch, kind)
    if failures and (len(failures) == len(kinds) or link.lost is not None):
        raise failures[0]
    peer = link.peer
    told = () if peer.instructions is None or clean(peer.instructions) == peer.instructions else (_INSTRUCTIONS,)
    listing = Listing(peer.version, peer.info, peer.capabilities, peer.instructions, cleaned=told)
    for kind in kinds:
        listing = with_list(listing, kind, found[kind])
    return listing


def with_list(listing: Listing, kind: Kind, found: Found) -> Listing:
    """`listing` with one list replaced."""
    dropped = tuple(item for item in listing.dropped if item.kind is not kind) + found.dropped
    ttl = {other: seconds for other, seconds in listing.ttl.items() if other is not kind}
    if found.ttl is not None:
        ttl[kind] = found.ttl
    cleaned = tuple(item for item in listing.cleaned if item.kind != kind) + found.cleaned
    return replace(listing, items={**listing.items, kind: found.items}, ttl=ttl, dropped=dropped, cleaned=cleaned)


async def fetch_list(link: Link, kind: Kind, timeout: float) -> Found:
    """All pages of one list.

    Raises: BrokerError.
    """
    method, member = LISTS[kind].method, LISTS[kind].member
    sieve = _Sieve(link, kind)
    ttl: float | None = None
    cursors: set[str] = set()
    params: dict[str, Any] = {}
    for _ in range(MAX_PAGES):
        try:
            result = await link.request(method, params, timeout=timeout)
        except UpstreamAnsweredError as error:
            # Many servers declare resources and serve no templates.
            if error.code == METHOD_NOT_FOUND and kind is Kind.TEMPLATE:
                return Found((), ())
            raise
        page = result.get(member)
        if not is_array(page):
            raise MalformedAnswer(link.upstream, f"{method} without {member}")
        await sieve.take(page)
        ttl = _least(ttl, result.get("ttlMs"))
        cursor = result.get("nextCursor")
        if cursor is None:
            return sieve.found(ttl)
        if not isinstance(cursor, str) or len(cursor) > MAX_CURSOR or cursor in cursors:
            raise MalformedAnswer(link.upstream, f"{method} pages in a circle, or with a cursor that is none")
        cursors.add(cursor)
        params = {"cursor": cursor}
    raise MalformedAnswer(link.upstream, f"{method} has more than {MAX_PAGES} pages")


class _Sieve:
    """Keeps the items of one list that can be served, and the reasons of the others; bounded both ways."""

    def __init__(self, link: Link, kind: Kind) -> None:
        self._link, self._kind = link, kind
        self._items: list[dict[str, Any]] = []
        self._dropped: list[Dropped] = []
        self._cleaned: list[Cleaned] = []
        self._unsaid = 0
        self._size = 0
        self._values = 0
        self._judged = 0

    async def take(self, page: list[Any]) -> None:
        """Judge the items of a page, some in each turn of the event loop. Nobody sees them before all are judged."""
        for item in page:
            self._judge(item)
            self._judged += LEAST
            if self._judged >= TURN:
                self._judged = 0
                await anyio.lowlevel.checkpoint()

    def _judge(self, item: object) -> None:
        fault = self._fault(item)
        if fault is None and is_object(item):
            self._items.append(self._shown(item))
        elif len(self._dropped) < MAX_DROPPED:
            self._dropped.append(Dropped(self._kind, _name_of(self._kind, item), foreign(fault or "")))
        else:
            self._unsaid += 1

    def found(self, ttl: float | None) -> Found:
        """What is left."""
        rest = (Dropped(self._kind, "*", f"{self._unsaid} more are not served"),) if self._unsaid else ()
        return Found(tuple(self._items), (*self._dropped, *rest), ttl, tuple(self._cleaned))

    def _shown(self, item: dict[str, Any]) -> dict[str, Any]:
        """An item as it may be read by models and people."""
        own = item[LISTS[self._kind].name_key]
        shown, said = clean_item(item, has_own_name=LISTS[self._kind].name_key != "name")
        for what in said[: MAX_DROPPED - len(self._cleaned)]:
            self._cleaned.append(Cleaned(self._kind, own, what))
        return shown

    def _fault(self, item: object) -> str | None:
        """Why an item cannot be served, or None."""
        if not is_object(item):
            return "not an object"
        key = LISTS[self._kind].name_key
        own = item.get(key)
        if not isinstance(own, str) or not own:
            return f"no {key}"
        if len(own) > MAX_NAME:
            return f"its {key} is longer than {MAX_NAME} characters"
        if any(ord(character) < 0x20 or ord(character) == 0x7F for character in own):
            return f"its {key} has control characters"
        if len(self._items) >= MAX_ITEMS:
            return f"more than {MAX_ITEMS} {self._kind}"
        return self._size_fault(item) or self._tool_fault(item)

    def _size_fault(self, item: dict[str, Any]) -> str | None:
        text = wire.encode(item)
        size = len(text)
        self._judged += size
        if size > MAX_DEFINITION:
            return f"its definition is larger than {MAX_DEFINITION} bytes"
        values = wire.count_values(text)
        if values > MAX_DEFINITION_VALUES:
            return f"its definition has more than {MAX_DEFINITION_VALUES} values"
        self._judged += WEIGHT * values
        self._size += size
        self._values += values
        if self._values > MAX_VALUES:
            return f"the {self._kind} have more than {MAX_VALUES} values together"
        return f"the {self._kind} are larger than {MAX_LIST} bytes together" if self._size > MAX_LIST else None

    def _tool_fault(self, item: dict[str, Any]) -> str | None:
        if self._kind is not Kind.TOOL:
            return None
        return self._link.tool_fault(item) if is_object(item.get("inputSchema")) else "no inputSchema"


def _name_of(kind: Kind, item: object) -> str:
    own = item.get(LISTS[kind].name_key) if is_object(item) else None
    return own[:100] if isinstance(own, str) else "?"


def _least(ttl: float | None, milliseconds: object) -> float | None:
    """The shortest time that any page gave, in seconds (F-41: whatever it is, it is clamped where it is used)."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return ttl
    seconds = max(0.0, milliseconds / 1000)
    return seconds if ttl is None else min(ttl, seconds)
