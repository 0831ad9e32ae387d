"""The immutable merged snapshot of what all upstreams serve, under public names.

A `Listing` is what one upstream said of itself. `shelve` turns it into a `Shelf`, its entries under public names;
a `Catalog` is all shelves in configuration order. One upstream's change makes one new shelf and a new catalog
around the old others. A call looks its name up here: the cost does not depend on the size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from broker.core import wire
from broker.core.era import LATEST_LEGACY, Version, is_modern, needs_task
from broker.core.match import template_covers, template_pattern
from broker.core.names import Mount, Naming
from broker.core.request import LISTS, Kind
from broker.core.rewrite import names_app, rewrite_app_meta


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that is not served, and why; for `check`, `catalog` and the log."""

    kind: Kind
    own: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was changed in an item before it is served (`core/cleaning.py`), or in the `instructions` of its server."""

    kind: str
    own: str
    what: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What an upstream said of itself, as last known. `items` are definitions as they came, per kind."""

    version: Version = LATEST_LEGACY
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    capabilities: Mapping[str, Any] = field(default_factory=dict[str, Any])
    instructions: str | None = None
    items: Mapping[Kind, tuple[dict[str, Any], ...]] = field(default_factory=dict[Kind, tuple[dict[str, Any], ...]])
    ttl: Mapping[Kind, float] = field(default_factory=dict[Kind, float])
    """Seconds for which a list may be taken as fresh, where the upstream gave one."""
    dropped: tuple[Dropped, ...] = ()
    """Items that were malformed when they were discovered."""
    cleaned: tuple[Cleaned, ...] = ()
    """What of the items is not served as it came."""


WHOLE_LIST: Final = "*"
"""`Dropped.own` of a list that could not be had at all."""


def failed_list(listing: Listing, kind: Kind | None) -> str | None:
    """Why a list could not be had (of `kind`, or of any), or None."""
    failures = (item for item in listing.dropped if item.own == WHOLE_LIST and kind in (None, item.kind))
    return next((item.reason for item in failures), None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the catalog.

    `definition` is the item as it is listed, under its public name. An entry that is not listed (a URI under a known
    prefix) has an empty one; `template` is then the own form of the first template that covers it, if any, and
    `templates` are all that it could be an expansion of, strictly (`match.template_covers`).
    """

    kind: Kind
    public: str
    server: str
    own: str
    definition: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    template: str | None = None
    templates: tuple[str, ...] = ()

    mirrors_arguments: bool = field(default=False, compare=False)
    """Whether a tool's schema asks callers to mirror arguments into `Mcp-Param-*` headers."""
    needs_task: bool = field(default=False, compare=False)
    """Whether a tool can be called as a task of 2025-11-25 only."""
    judged_by: tuple[object, ...] = field(init=False, repr=False, compare=False)
    """All that rules look at: entries with the same are ruled on alike."""

    def __post_init__(self) -> None:
        unlisted = () if self.definition else (self.template, self.templates)
        object.__setattr__(self, "judged_by", (self.server, self.kind, self.own, *unlisted))

    @property
    def listed(self) -> bool:
        """Whether the upstream lists it."""
        return bool(self.definition)

    def kept(self) -> "Entry":
        """The same to rules, without what its server says of it: for who keeps it for longer than a catalog lives."""
        return replace(self, definition={"name": self.own}) if self.listed else self


MAX_TEMPLATES: Final = 16
"""Templates that a URI which nobody lists is compared with in detail; a server with thousands that fit everything would
hold the broker at each read."""

_MIRROR_KEYS: Final = (b'{"x-mcp-header":', b',"x-mcp-header":')
_WEB: Final = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class UriPublisher:
    """The URIs of one server, from its own form to the public one: `shelf.publish(own)`.

    An http(s) URI that no listing and no template of that server covers is a link into the web, not a resource of
    the server: it stays as it is. So does a form that belongs to another server, which this one may not claim.
    """

    naming: Naming
    mount: Mount
    web_uris: frozenset[str]
    web_templates: tuple[str, ...]

    @classmethod
    def of(cls, naming: Naming, mount: Mount, listing: Listing) -> "UriPublisher":
        """The publisher of a server that lists these resources and templates."""
        uris: list[str] = [item["uri"] for item in listing.items.get(Kind.RESOURCE, ())]
        templates: list[str] = [item["uriTemplate"] for item in listing.items.get(Kind.TEMPLATE, ())]
        return cls(
            naming,
            mount,
            frozenset(uri for uri in uris if uri.startswith(_WEB)),
            tuple(template for template in templates if _may_be_web(template)),
        )

    def is_web_link(self, own: str) -> bool:
        """Whether this http(s) URI is none of the server's resources."""
        if not own.startswith(_WEB) or own in self.web_uris:
            return False
        return not any(template_pattern(template).matches(own) for template in self.web_templates)

    def __call__(self, own: str) -> str:
        """The public form of `own`."""
        return own if self.is_web_link(own) else self.naming.publish_uri(self.mount, own) or own


@dataclass(frozen=True, slots=True)
class Shelf:
    """One server's part of the catalog."""

    mount: Mount
    listing: Listing
    publish: UriPublisher
    entries: Mapping[Kind, tuple[Entry, ...]]
    dropped: tuple[Dropped, ...] = ()
    public_of_own: Mapping[str, str] = field(default_factory=dict[str, str])
    """Own name of a tool or prompt -> public name, for the rewriting of what extensions say."""


def shelve(naming: Naming, mount: Mount, listing: Listing) -> Shelf:
    """A listing under public names. Twins and names that belong to another server are dropped and reported."""
    dropped = list(listing.dropped)
    entries: dict[Kind, tuple[Entry, ...]] = {}
    publish = UriPublisher.of(naming, mount, listing)
    for kind, listed in LISTS.items():
        seen: dict[str, Entry] = {}
        for item in listing.items.get(kind, ()):
            own: str = item[listed.name_key]
            is_uri = kind in (Kind.RESOURCE, Kind.TEMPLATE)
            public = naming.publish_uri(mount, own) if is_uri else naming.publish_name(mount, own)
            if public is None:
                dropped.append(Dropped(kind, own, "the form of its name belongs to another server"))
            elif public in seen:
                dropped.append(Dropped(kind, own, f"a twin of {seen[public].own!r}, which is served"))
            else:
                definition = {**item, listed.name_key: public}
                if kind is Kind.TOOL:
                    definition = rewrite_app_meta(definition, publish)
                seen[public] = Entry(
                    kind,
                    public,
                    mount.key,
                    own,
                    definition,
                    mirrors_arguments=kind is Kind.TOOL and _asks_to_mirror(item["inputSchema"]),
                    needs_task=kind is Kind.TOOL and not is_modern(listing.version) and needs_task(item),
                )
        entries[kind] = tuple(seen.values())
    names = {entry.own: entry.public for kind in (Kind.PROMPT, Kind.TOOL) for entry in entries[kind]}
    return Shelf(mount, listing, publish, MappingProxyType(entries), tuple(dropped), MappingProxyType(names))


@dataclass(frozen=True, slots=True)
class Catalog:
    """All shelves, in configuration order, and the tables that calls look names up in."""

    naming: Naming
    shelves: Mapping[str, Shelf]
    _tables: Mapping[Kind, Mapping[str, Entry]] = field(init=False, repr=False, compare=False)
    _apps: Mapping[str, tuple[Entry, ...]] = field(init=False, repr=False, compare=False)
    has_mirrors: bool = field(init=False, repr=False, compare=False)
    """Whether there is any tool whose callers mirror arguments into headers."""

    def __post_init__(self) -> None:
        tables: dict[Kind, dict[str, Entry]] = {kind: {} for kind in Kind}
        for shelf in self.shelves.values():
            for kind, entries in shelf.entries.items():
                tables[kind].update((entry.public, entry) for entry in entries)
        apps: dict[str, tuple[Entry, ...]] = {}
        for tool in tables[Kind.TOOL].values():
            if names_app(tool.definition):
                apps[tool.own] = (*apps.get(tool.own, ()), tool)
        object.__setattr__(self, "_tables", tables)
        object.__setattr__(self, "_apps", apps)
        object.__setattr__(self, "has_mirrors", any(tool.mirrors_arguments for tool in tables[Kind.TOOL].values()))

    @classmethod
    def empty(cls, naming: Naming) -> "Catalog":
        """A catalog in which nothing is known of anybody."""
        return cls(naming, {})

    def with_shelf(self, shelf: Shelf) -> "Catalog":
        """This catalog with one server's shelf put in place; the order stays the configuration's."""
        shelves = {**self.shelves, shelf.mount.key: shelf}
        return Catalog(
            self.naming, {mount.key: shelves[mount.key] for mount in self.naming.mounts if mount.key in shelves}
        )

    def entries(self, kind: Kind) -> Iterator[Entry]:
        """Every listed entry of a kind, in order."""
        for shelf in self.shelves.values():
            yield from shelf.entries[kind]

    def app_tools(self, own: str) -> tuple[Entry, ...]:
        """The tools of that own name which have a page of MCP Apps: the page knows no other name for them."""
        return self._apps.get(own, ())

    def lookup(self, kind: Kind, public: str) -> Entry | None:
        """The entry of a public name.

        A resource that nobody lists still belongs to a server by the form of its URI: links in results point to such
        resources, and every URI that the broker hands out can be handed back to it.
        """
        entry = self._tables[kind].get(public)
        if entry is not None or kind is not Kind.RESOURCE:
            return entry
        resolved = self.naming.resolve_uri(public)
        if resolved is None:
            return None
        mount, own = resolved
        shelf = self.shelves.get(mount.key)
        if not mount.prefix and shelf is not None and shelf.publish.is_web_link(own):
            return None
        wide = [template for template in _templates(shelf) if template_pattern(template).matches(own)]
        strict = tuple(template for template in wide[:MAX_TEMPLATES] if template_covers(template, own))
        return Entry(Kind.RESOURCE, public, mount.key, own, template=next(iter(wide), None), templates=strict)


def _templates(shelf: Shelf | None) -> Iterator[str]:
    return (entry.own for entry in shelf.entries[Kind.TEMPLATE]) if shelf is not None else iter(())


def _may_be_web(template: str) -> bool:
    """Whether a template could expand to an http(s) URI: `http{s}://...` can."""
    literal = template.partition("{")[0]
    return any(literal.startswith(scheme) or scheme.startswith(literal) for scheme in _WEB)


def _asks_to_mirror(schema: dict[str, Any]) -> bool:
    """Whether any object of a schema has the key; once per definition, so that no call has to look."""
    # A quote within a string has a backslash before it: these bytes are a key. To encode costs a fraction of a walk.
    text = wire.encode(schema)
    first, later = _MIRROR_KEYS
    return first in text or later in text
