"""Merged lists, and what a view says of itself: the same bytes for the same caller, until something changes.

Everything that is computed here per view is kept until the catalog changes; a page is kept as encoded bytes, so a
warm list costs the copy of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from broker.core import cursor, wire
from broker.core.caller import Caller
from broker.core.catalog import Catalog, Entry
from broker.core.era import META_SERVER_INFO, is_modern, knows_tasks, tool_for_caller
from broker.core.instructions import Part, merge
from broker.core.policy import Policy, view_entries
from broker.core.request import LISTS, Kind, Request
from broker.core.standing import Standing
from broker.errors import BrokerError, InvalidParams
from broker.usage.marks import Marks
from broker.usage.records import Mark

PAGE_SIZE: Final = 1000
"""Entries a page: many hosts ignore `nextCursor`, so the first page holds what most people have."""
MAX_TTL: Final = 300.0
"""Seconds for which a caller may take a list as fresh, at most."""
MAX_KEPT: Final = 1024
"""Views kept: those that were not asked for longest make room, so that strangers cannot fill the memory."""
MAX_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Of their encoded pages, together; the view that was asked for last is kept also if it alone has more."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What the configuration adds to the instructions: per server None (its own text), "" (none) or a text."""

    preamble: str | None
    limit: int
    replacements: Mapping[str, str | None]
    limits: Mapping[str, int]


_REFUSED: Final = Standing()
"""Under which the views of all are kept that are refused everything: each of them has a new standing every time, under
which nothing would be found again."""

Form = tuple[bool, bool]
"""In what versions differ for lists: whether it is modern, whether it knows the tasks of 2025-11-25."""


@dataclass(slots=True)
class _View:
    """What is known of one view of one caller, for one catalog."""

    entries: dict[Kind, tuple[Entry, ...]] = field(default_factory=dict[Kind, tuple[Entry, ...]])
    pages: dict[tuple[Kind, Form, int], bytes] = field(default_factory=dict[tuple[Kind, Form, int], bytes])
    instructions: tuple[str | None] | None = None
    """None until they are made."""
    servers: Mapping[str, Entry] | None = None
    """Likewise."""
    marks: dict[tuple[Kind, ...], Mark] = field(default_factory=dict[tuple[Kind, ...], Mark])


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose view of what: `hidden` are servers that are down and configured to be hidden then."""

    caller: Caller
    view: str
    hidden: frozenset[str] = frozenset()


class Views:
    """The views of one policy over the current catalog."""

    def __init__(self, policy: Policy, texts: Texts, cursor_key: bytes) -> None:
        self._policy = policy
        """The one in force. `adopt` changes it: what is kept stands under standings, which change with their levels."""
        self._texts = texts
        self._cursor_key = cursor_key
        self._catalog: Catalog | None = None
        self._marks = Marks()
        self.hits = 0
        self.misses = 0
        """Pages that were there already, and pages that had to be made."""
        self._kept: dict[tuple[Standing, str, frozenset[str]], _View] = {}
        """In the order in which they were asked for last."""
        self._size = 0
        """Bytes of all their pages."""

    def adopt(self, policy: Policy) -> None:
        """From now on another policy is in force, with the same rules and views."""
        self._policy = policy

    def entries(self, catalog: Catalog, scope: Scope, kind: Kind) -> tuple[Entry, ...]:
        """What the caller sees of a kind, in order."""
        view = self._view(catalog, scope)
        if kind not in view.entries:
            visible = view_entries(self._policy, scope.caller, scope.view, catalog, kind)
            view.entries[kind] = tuple(entry for entry in visible if entry.server not in scope.hidden)
        return view.entries[kind]

    def servers(self, catalog: Catalog, scope: Scope) -> Mapping[str, Entry]:
        """The servers of which the caller sees something, each with the first thing that it sees."""
        view = self._view(catalog, scope)
        if view.servers is None:
            seen: dict[str, Entry] = {}
            for kind in Kind:
                for entry in self.entries(catalog, scope, kind):
                    seen.setdefault(entry.server, entry)
            view.servers = seen
        return view.servers

    def page(self, catalog: Catalog, scope: Scope, kind: Kind, request: Request) -> dict[str, Any]:
        """One page of a list: the items (pre-encoded) and `nextCursor`.

        Raises: InvalidParams, for a cursor that was not made for this caller and list.
        """
        entries = self.entries(catalog, scope, kind)
        mark = self._policy.standing(scope.caller).mark
        bound = f"{scope.caller.principal}\0{mark}\0{scope.view}\0{kind}"
        start = self._start(entries, bound, request.params)
        pages = self._view(catalog, scope).pages
        key = (kind, (is_modern(request.version), knows_tasks(request.version)), start)
        if key in pages:
            self.hits += 1
        else:
            self.misses += 1
            pages[key] = _encoded(catalog, entries[start : start + PAGE_SIZE], kind, request)
            self._size += len(pages[key])
            self._make_room()
        result: dict[str, Any] = {LISTS[kind].member: orjson.Fragment(pages[key])}
        if start + PAGE_SIZE < len(entries):
            result["nextCursor"] = cursor.seal(self._cursor_key, bound, entries[start + PAGE_SIZE - 1].public)
        return result

    def mark(self, catalog: Catalog, scope: Scope, kinds: tuple[Kind, ...]) -> Mark:
        """What the audit says of a view: made once, like the lists."""
        view = self._view(catalog, scope)
        if kinds not in view.marks:
            entries = [entry for kind in kinds for entry in self.entries(catalog, scope, kind)]
            view.marks[kinds] = self._marks.of(entries)
        return view.marks[kinds]

    def instructions(self, catalog: Catalog, scope: Scope) -> str | None:
        """The merged instructions of the servers of which the caller sees something."""
        view = self._view(catalog, scope)
        if view.instructions is None:
            parts = list(self._parts(catalog, scope))
            texts = self._texts
            view.instructions = (merge(parts, texts.preamble, texts.limit, visible=len(parts)),)
        return view.instructions[0]

    def _parts(self, catalog: Catalog, scope: Scope) -> Iterator[Part]:
        """What a caller may not use gets no public name in a text: nothing says that there is such an entry."""
        seen = self.servers(catalog, scope)
        names: dict[str, dict[str, str]] = {key: {} for key in seen}
        for kind in (Kind.PROMPT, Kind.TOOL):
            for entry in self.entries(catalog, scope, kind):
                names[entry.server][entry.own] = entry.public
        for key, shelf in catalog.shelves.items():
            if key in seen:
                replacement = self._texts.replacements.get(key)
                text = (shelf.listing.instructions or "") if replacement is None else replacement
                yield Part(key, text, names[key], self._texts.limits[key])

    def _start(self, entries: tuple[Entry, ...], bound: str, params: Mapping[str, Any]) -> int:
        given = params.get("cursor")
        if given is None:
            return 0
        last = cursor.unseal(self._cursor_key, bound, given)
        if last is not None:
            for index, entry in enumerate(entries):
                if entry.public == last:
                    return index + 1
        raise InvalidParams("Invalid cursor: list again from the beginning")

    def _view(self, catalog: Catalog, scope: Scope) -> _View:
        if catalog is not self._catalog:
            self._marks.forget()
            self._catalog, self._kept, self._size = catalog, {}, 0
        # All callers of one standing see the same, and all whose standing refuses them see nothing.
        standing = self._policy.standing(scope.caller)
        key = (standing if standing.refusal is None else _REFUSED, scope.view, scope.hidden)
        view = self._kept[key] = self._kept.pop(key, None) or _View()
        self._make_room()
        return view

    def _make_room(self) -> None:
        while len(self._kept) > MAX_KEPT or (self._size > MAX_KEPT_BYTES and len(self._kept) > 1):
            oldest = self._kept.pop(next(iter(self._kept)))
            self._size -= sum(map(len, oldest.pages.values()))


def _encoded(catalog: Catalog, entries: tuple[Entry, ...], kind: Kind, request: Request) -> bytes:
    items: list[bytes] = []
    for entry in entries:
        definition: dict[str, Any] | None = dict(entry.definition)
        if kind is Kind.TOOL:
            upstream = catalog.shelves[entry.server].listing.version
            definition = tool_for_caller(definition, upstream=upstream, caller=request.version)
        if definition is not None:
            items.append(wire.encode(definition))
    return b"[" + b",".join(items) + b"]"


def finished(
    result: dict[str, Any],
    request: Request,
    *,
    me: Mapping[str, Any],
    ttl: float,
    scope: str,
    missing: Mapping[str, Any],
) -> dict[str, Any]:
    """A result of the broker's own, with what the caller's era asks for.

    `ttl`: seconds; `scope`: "public" or "private"; `missing`: what is not there, and why, by server.
    """
    meta: dict[str, Any] = {}
    if missing:
        meta["broker/upstreams"] = missing
    if is_modern(request.version):
        result["resultType"] = "complete"
        result["ttlMs"] = int(min(ttl, MAX_TTL) * 1000)
        result["cacheScope"] = scope
        meta[META_SERVER_INFO] = me
    if meta:
        result["_meta"] = meta
    return result


class NothingKnown(BrokerError):
    """None of the visible servers was ever seen: an empty list would be a lie."""

    def __init__(self, missing: Mapping[str, Any]) -> None:
        super().__init__("None of the servers behind this broker has answered yet", {"upstreams": dict(missing)})
