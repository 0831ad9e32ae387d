"""One loaded configuration, alive: built whole, run whole, swapped whole.

`build` makes all values and starts nothing (`check` is that); `running` starts the upstreams. The catalog is the
one thing in it that is replaced while it lives: by a whole new one, whenever an upstream's list changes.
"""

import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from broker import __version__
from broker.clock import Clock
from broker.compiled import (
    NOBODY,
    catalog_directory,
    enabled,
    guards_of,
    has_same_links,
    naming_of,
    policy_of,
    texts_of,
)
from broker.config import Loaded, Server, directory_of, prices_of, server_limits_of
from broker.core.caller import LOCAL, Caller
from broker.core.catalog import Catalog, Entry, Listing, shelve
from broker.core.directory import Directory, Merger
from broker.core.era import passing_params
from broker.core.extensions import is_foreign
from broker.core.limits import LimitRules
from broker.core.pins import Mode
from broker.core.request import Kind
from broker.core.standing import Standing
from broker.errors import printable
from broker.guardrails.chain import Record, record_nothing
from broker.guardrails.definitions import judged
from broker.guardrails.guards import Guards, NoGuards
from broker.relay.home import OPENS_WITHIN, StreamHome
from broker.relay.listing import Scope, Views
from broker.relay.notify import Concerns, Hub, concerns_all
from broker.secrecy import scrubbed_report
from broker.upstream.handshake import Declare
from broker.upstream.isolated import Isolated
from broker.upstream.lease import Owner
from broker.upstream.link import Link
from broker.upstream.pool import Pool, Swap
from broker.upstream.snapshot import Snapshots
from broker.upstream.supervise import Upstream
from broker.upstream.supplies import Supplies


@dataclass(frozen=True, slots=True)
class OnlyCaller:
    """A front with one caller in all: every link is that caller's own. `declare`: what it can be asked, and that it can
    be reached outside of its calls; None: it asks, and is never asked.
    """

    declare: Declare | None = None


log = logging.getLogger(__name__)

TASK_CONTENT: Final = frozenset({"result", "error", "inputRequests"})
"""What the notification of a modern task may hold of its tool's words."""
MAX_SHOWN: Final = 1024
"""Answers kept to which servers a standing is shown in a view; then all are made anew. A call looks here once."""


Pinned = Callable[[str, Mode, Listing], Awaitable[Listing]]
"""What of a listing may be served by the pins of its server: server, mode, listing."""


async def pins_nothing(server: str, mode: Mode, listing: Listing) -> Listing:
    """For who pins nothing."""
    return listing


class Generation:
    """See the module."""

    def __init__(
        self,
        loaded: Loaded,
        clock: Clock,
        hub: Hub,
        only: OnlyCaller | None,
        record: Record,
        before: "Generation | None",
        pinned: Pinned = pins_nothing,
    ) -> None:
        config = loaded.config
        self._pinned = pinned
        self.config = config
        self._before = before
        self.file = directory_of(config.organizations, config.identity.jwt)
        self._merger = Merger(self.file)
        """What the file says of organizations; the policy has that of the store too."""
        self._database = NOBODY if before is None else before._database
        self.naming = naming_of(config)
        self.policy = policy_of(config, self._merger.merge(self._database)[0])
        self.limits = self._limits()
        """How much may be asked. Another object when that has changed."""
        self.prices = {key: prices_of(server.cost, server.tool_costs) for key, server in config.servers.items()}
        """What calls cost, by server."""
        self.me: Mapping[str, Any] = {"name": config.broker.name, "version": __version__}
        """The broker's own `serverInfo`."""
        self.first_wait = config.broker.first_wait
        self._cursor_key = secrets.token_bytes(32) if before is None else before._cursor_key
        self.views = Views(self.policy, texts_of(config), self._cursor_key)
        self._shown: dict[tuple[Standing, str], tuple[str, ...]] = {}
        self.catalog = Catalog.empty(self.naming)
        self.guards = self._guards(loaded, clock, record)
        self._hub = hub
        self._clock = clock
        self._supplies = Supplies(
            clock,
            Snapshots(catalog_directory(config)),
            self._on_listing,
            on_updated=self._on_updated,
            on_said=self._on_said,
            on_turn=self._on_turn,
            judge=self._judged,
            needs=lambda key: hub.tasks.has_any(key, clock.now()),
        )
        if only is not None and only.declare is not None:
            self._supplies = replace(self._supplies, declare=only.declare, home_of=self._home_of_only_caller)
        upstreams = [self._upstream(loaded, key, server) for key, server in enabled(config).items()]
        # An only caller shares its links with nobody.
        apart = [one for one in upstreams if one.server.isolation != "shared" and only is None]
        self.pool = Pool(upstreams, {one.key: self._isolated(one) for one in apart})
        for key, upstream in self.pool.upstreams.items():
            if upstream.listing is not None:
                self._shelve(key, upstream.listing)
        self._hiding = frozenset(key for key, server in enabled(config).items() if server.when_down == "hide")

    @classmethod
    def build(
        cls,
        loaded: Loaded,
        clock: Clock,
        hub: Hub,
        only: "OnlyCaller | None" = None,
        record: Record = record_nothing,
        before: "Generation | None" = None,
        pinned: Pinned = pins_nothing,
    ) -> "Generation":
        """The generation of a configuration; nothing is started.

        `only`: the front has one caller in all; `record`: takes what guardrails say of what belongs to no call;
        `before`: the one in force, whose upstreams and guardrails it has too where nothing of them has changed. They
        stay with that one until `take_over`. `pinned`: what of a listing may be served, by its pins.
        """
        return cls(loaded, clock, hub, only, record, before, pinned)

    def take_over(self) -> Swap:
        """From now on this one is in force, and what it has of the one before is its own: at once, without a wait.

        Callers whose lists are others now are told. Returns what is to be started and what to be stopped.
        """
        before, self._before = self._before, None
        assert before is not None
        if self._database is not before._database:  # a change of the store came while this one was built
            self._database = before._database
            self.adopt(self._database)
        for key, upstream in self.pool.upstreams.items():
            if before.pool.upstreams.get(key) is upstream:
                self._move(key, upstream)
        self._hub.swapped(before, self)
        swap = Swap.of(before.pool, self.pool)
        swap.pass_wishes()
        return swap

    def _move(self, key: str, upstream: Upstream) -> None:
        upstream.move(self.config.servers[key], self._supplies)
        if (isolated := self.pool.isolated.get(key)) is not None:
            isolated.move(self._home_of, self._on_own_updated, self._on_own_said)
        shelf = self.catalog.shelves.get(key)
        if upstream.listing is not None and (shelf is None or shelf.listing is not upstream.listing):
            self._shelve(key, upstream.listing)  # it was refreshed while this one was built

    def _guards(self, loaded: Loaded, clock: Clock, record: Record) -> Guards | NoGuards:
        """Those of before, if they are the same: their processes are warm, and calls are in them."""
        guards = guards_of(loaded, clock, record)
        if self._before is not None and guards.is_same(self._before.guards):
            return self._before.guards
        return guards

    def _upstream(self, loaded: Loaded, key: str, server: Server) -> Upstream:
        """The one of before, if it is reached as before, and its definitions are judged by the same."""
        fingerprint = self._fingerprint(loaded.fingerprints[key], key)
        known = None if self._before is None else self._before.pool.upstreams.get(key)
        if known is not None and known.fingerprint == fingerprint and has_same_links(known.server, server):
            return known
        return Upstream(key, server, fingerprint, self._supplies)

    def _isolated(self, upstream: Upstream) -> Isolated:
        known = None if self._before is None else self._before.pool.isolated.get(upstream.key)
        if known is not None and self._before is not None and self._before.pool.upstreams[upstream.key] is upstream:
            return known
        return Isolated(
            upstream,
            self._clock,
            self._home_of,
            self._on_own_updated,
            self._on_own_said,
            # Links outlive this configuration, which must not be kept for them.
            lambda link, tasks=self._hub.tasks, clock=self._clock: tasks.are_on(link, clock.now()),
        )

    def adopt(self, database: Directory) -> tuple[str, ...]:
        """Put what the database says in force, beside what the file says: at once, for every request and open stream.

        The new policy is built whole before it takes the old one's place: if that raises, nothing has changed. Callers
        whose lists are others now are told, their views are made anew, and cursors of them are good no more.

        Returns what of the database is not in force, as sentences.
        """
        self._database = database
        directory, said = self._merger.merge(database)
        before, policy = self.policy, self.policy.with_directory(directory)
        self.policy = policy
        self.limits = self._limits()
        self.views.adopt(policy)
        self._shown.clear()
        self._hub.adopted(before, policy, self.catalog)
        for sentence in said:
            log.warning("%s", sentence)
        return said

    @property
    def directory(self) -> Directory:
        """Everybody, and what they may spend."""
        return self.policy.directory

    def unserved(self, key: str) -> tuple[str, ...]:
        """Tools of a server that have a price, and are not there."""
        shelf = self.catalog.shelves.get(key)
        entries = () if shelf is None else shelf.entries.get(Kind.TOOL, ())
        return () if shelf is None else self.prices[key].unserved({entry.own for entry in entries})

    def _limits(self) -> LimitRules:
        servers = {key: server_limits_of(server.limits) for key, server in self.config.servers.items()}
        return LimitRules(self.policy.directory, servers)

    @property
    def cache_scope(self) -> str:
        """`cacheScope` of what the broker lists: public only while no rule could make two callers differ (SP-41)."""
        return "public" if self.policy.is_same_for_all else "private"

    def shown(self, view: str, caller: Caller) -> tuple[str, ...]:
        """See `Served`. To who has no levels above it, everything is shown, also what is all denied."""
        standing = self.policy.standing(caller)
        if standing.refusal is not None:
            return ()
        found = self._shown.get((standing, view))
        if found is None:
            if len(self._shown) >= MAX_SHOWN:
                self._shown.clear()
            found = self._shown[standing, view] = self._shown_to(caller, view)
        return found

    def _shown_to(self, caller: Caller, view: str) -> tuple[str, ...]:
        shown = (key for key in self.pool.upstreams if self.policy.shows(view, key))
        if not self.policy.has_levels(caller):
            return tuple(shown)
        seen = self.views.servers(self.catalog, Scope(caller, view))
        return tuple(key for key in shown if key in seen or (self._is_open(key) and self.policy.reaches(caller, key)))

    def _is_open(self, key: str) -> bool:
        """Whether nothing is known of what a server serves, or it serves nothing."""
        shelf = self.catalog.shelves.get(key)
        return shelf is None or not any(shelf.entries.values())

    def listed(self, caller: Caller, view: str, kind: Kind) -> tuple[Entry, ...]:
        """What a list of this caller has."""
        return self.views.entries(self.catalog, Scope(caller, view, self.hidden()), kind)

    def hidden(self) -> frozenset[str]:
        """Servers that are down, and configured to be hidden then."""
        if not self._hiding:
            return self._hiding
        return frozenset(key for key in self._hiding if self.pool.upstreams[key].is_down)

    async def _judged(self, key: str, listing: Listing) -> Listing:
        """Pins are of what the server itself says; what guardrails make of it is the operator's own."""
        listing = await self._pinned(key, self.config.servers[key].pins, listing)
        return await judged(self.guards, key, listing)

    def _fingerprint(self, of_definition: str, key: str) -> str:
        """What a listing of a server is remembered under: judged by other guardrails, it is another listing."""
        judges = self.guards.judges_definitions(key)
        return hashlib.sha256(f"{of_definition},{judges}".encode()).hexdigest() if judges else of_definition

    def _on_listing(self, key: str, listing: Listing, changed: frozenset[Kind]) -> None:
        before = self.catalog
        self._shelve(key, listing)
        for own in self.unserved(key) if listing.items.get(Kind.TOOL) is not None else ():
            log.warning("servers.%s.tool_costs.%s: the server serves no tool of this name", key, printable(own))
        self._hub.changed(self.policy, key, changed, before, self.catalog)

    def _on_updated(self, key: str, params: dict[str, Any]) -> None:
        """Told by the supervised link. If callers have links of their own, none of them watches anything on this."""
        if key not in self.pool.isolated:
            self._updated(key, params, concerns_all)

    def _on_own_updated(self, key: str, owner: Owner, params: dict[str, Any]) -> None:
        """Told by the link of one owner, and its business alone."""
        self._updated(key, params, self._is_owner(key, owner))

    def _on_own_said(self, key: str, owner: Owner, link: Link, method: str, params: dict[str, Any]) -> None:
        """Likewise."""
        self._said(key, link, method, params, self._is_owner(key, owner), owner.principal)

    def _is_owner(self, key: str, owner: Owner) -> Concerns:
        isolated = self.pool.isolated[key]
        return lambda one: isolated.owner(one.caller.principal, one.session) == owner

    def _updated(self, key: str, params: dict[str, Any], concerns: Concerns) -> None:
        own: str = params["uri"]
        shelf = self.catalog.shelves.get(key)
        if shelf is not None:
            public = shelf.publish(own)
            entry = self.catalog.lookup(Kind.RESOURCE, public)
            if entry is None or entry.server != key:
                entry = Entry(Kind.RESOURCE, public, key, own)  # a link into the web has none
            # No guardrail sees a notification, so nothing passes here that one would judge in a result.
            more = {} if self.guards.judges_results(key) else passing_params(params)
            if self.config.servers[key].redact == "results":
                more = scrubbed_report(dict(more))
            self._hub.updated(self.policy, entry, more, concerns)

    def _home_of(self, key: str, owner: Owner, may_open: bool) -> StreamHome:
        """Where the owner of a link is found outside of its calls. `may_open`: its stream may be about to open."""
        patience = OPENS_WITHIN if may_open else 0.0
        has_roots = self.config.servers[key].roots
        return StreamHome(
            key,
            owner.principal,
            owner.session,
            has_roots,
            patience,
            self._hub,
            self._clock.token,
            self.shown,
            self.guards,
        )

    def _home_of_only_caller(self, key: str) -> StreamHome:
        return self._home_of(key, Owner(LOCAL.principal), may_open=True)

    def _on_said(self, key: str, link: Link, method: str, params: dict[str, Any]) -> None:
        """Told by the supervised link. If callers have links of their own, no task of theirs is on this."""
        if key in self.pool.isolated and not is_foreign(method):
            return
        self._said(key, link, method, params, concerns_all)

    def _said(
        self,
        key: str,
        link: Link,
        method: str,
        params: dict[str, Any],
        concerns: Concerns,
        owner: str | None = None,
    ) -> None:
        shelf = self.catalog.shelves.get(key)
        if TASK_CONTENT & params.keys() and self.guards.judges_results(key):
            return  # what it holds is judged when it is asked for
        if shelf is not None:
            passing = passing_params(params)
            if self.config.servers[key].redact == "results":
                passing = scrubbed_report(passing)
            if is_foreign(method):
                self._hub.extended(self.policy, shelf, method, passing, self._clock.now(), concerns)
            else:
                self._hub.task_changed(self.policy, shelf, link, method, passing, self._clock.now(), owner)

    def _on_turn(self, key: str) -> None:
        """A server has come or gone: where it is hidden meanwhile, its lists have changed."""
        if key in self._hiding:
            self._hub.turned(self.policy, key, self.catalog)

    def _shelve(self, key: str, listing: Listing) -> None:
        mount = next(mount for mount in self.naming.mounts if mount.key == key)
        self.catalog = self.catalog.with_shelf(shelve(self.naming, mount, listing))
        self._shown.clear()
