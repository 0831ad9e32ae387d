"""One upstream, kept alive in a task of its own: connect, discover, watch, retry.

Nothing that an upstream does reaches beyond its `Upstream`: its faults end in `state` and `trouble`, which the rest
reads, and in errors of the calls that were on it. `core/lifecycle.py` decides what comes next.
"""

import logging
from collections import Counter
from functools import partial
from typing import Any, Final

import anyio
import anyio.abc

from broker.config import Server
from broker.core.catalog import Listing
from broker.core.era import is_modern
from broker.core.extensions import is_foreign
from broker.core.lifecycle import Event, LinkState, Phase, step
from broker.core.request import Kind
from broker.core.tasks import STATUS, related_task
from broker.errors import BrokerError, UpstreamUnavailable
from broker.in_use import InUse
from broker.logs import internal_error
from broker.outputs.tally import Tally
from broker.secrecy import scrubbed
from broker.upstream.connect import connect, reason, shake_hands
from broker.upstream.demand import RESTS, Demand, until_idle
from broker.upstream.discover import discover, fetch_list, with_list
from broker.upstream.fresh import Freshness, announced_by, announcements_of, lifetime
from broker.upstream.heard import Heard
from broker.upstream.history import History
from broker.upstream.link import Link
from broker.upstream.listening import Topic
from broker.upstream.supplies import Supplies
from broker.upstream.wishes import Wishes

log = logging.getLogger(__name__)

REFRESH_SPACING: Final = 1.0
"""Seconds between two refreshes of one list that its upstream caused: 20 000 announcements cost one each (F-26)."""
LISTEN_FIRST: Final = 1.0
"""Seconds that discovery waits until announcements can reach us: one that is made in between would be lost."""

GONE: Final = "it is not configured any more"
"""Why a server that a reload has left out, or changed, is not ready."""


def told_as_trouble(server: str, error_id: str, fault: Exception) -> str:
    """Why a link is lost to a fault of ours (F-104), for a person; the cause goes to the log, under its id."""
    error = internal_error(log, error_id, fault, server)
    return f"internal error {error.data['errorId']} of the broker; its log has the cause"


class Upstream:
    """See the module."""

    def __init__(self, key: str, server: Server, fingerprint: str, supplies: Supplies) -> None:
        self.key = key
        self.server = server
        self.state = LinkState()
        self.listing: Listing | None = supplies.snapshots.load(fingerprint)
        """What it serves, as last known; None if it was never seen."""
        self.trouble: str | None = RESTS if server.start == "lazy" else None
        """Why it is not ready, in words for a person."""
        self.connect_seconds: float | None = None
        """How long the last successful connection took, with its discovery."""
        self.first_try = anyio.Event()
        """Set once the first attempt has ended, either way: its lists are known, or it has failed."""
        self._first_outcome = anyio.Event()
        """Set as soon as the first attempt has opened the link, or has failed."""
        self._patience: float | None = None
        self.heard = Heard(self)
        self.fingerprint = fingerprint
        """What its listing is remembered under."""
        self.in_use = InUse()
        """The calls that need it, from the decision to the answer; parked ones too."""
        self.demand = Demand(server)
        self.history = History(supplies.clock.wall())
        self.strays: Counter[str] = Counter()
        """See `Link`: of all its links."""
        self.outputs = Tally()
        """How many of its results fit the schemas of its tools."""
        self._is_retired = False
        self._farewell = GONE
        self.supplies = supplies
        """What it is given, as of now."""
        self.live: Link | None = None
        """The live link that all share, if there is one now."""
        self._acknowledged = anyio.Event()
        """Set once a modern upstream has acknowledged our subscription, or has none to offer."""
        self._fresh = {kind: Freshness() for kind in Kind}
        self.wishes = Wishes(supplies.clock, server.timeout)
        """What callers want of it between their calls."""

    def __repr__(self) -> str:
        return f"<Upstream {self.key} {self.state.phase} {self.trouble or ''}>"

    @property
    def is_ready(self) -> bool:
        """Whether a call can be made now."""
        return self.live is not None

    @property
    def is_down(self) -> bool:
        """Whether it is not there, though it should be: one that nobody needs now is not down."""
        return not self.is_ready and not self.demand.is_asleep

    def last_words(self) -> tuple[str, ...]:
        """What its process has logged last, a line each."""
        return () if self.live is None else self.live.last_words()

    @property
    def is_needed(self) -> bool:
        """Whether something of it goes on: a call, a subscription, a task."""
        return bool(self.in_use.count) or self.wishes.has_watches or self.supplies.needs(self.key)

    @property
    def is_legacy(self) -> bool:
        """Whether it is known, by a live link, to speak the legacy era."""
        link = self.live
        return link is not None and not is_modern(link.version)

    def link(self) -> Link:
        """The live link.

        Raises: UpstreamUnavailable, at once, if there is none.
        """
        link = self.live
        if link is None:
            raise UpstreamUnavailable(self.key, self.trouble or f"it is {self.state.phase}")
        return link

    async def first_link(self, timeout: float) -> Link:
        """The live link; while the very first attempt to connect is under way, that is waited for.

        A host lists from what was known of old and calls at once: a server that is merely starting is not down. At most
        until `timeout` seconds after anybody first had to wait, so that one that hangs costs its callers one wait. One
        that is started by this has the time that it may take for that.

        Raises: UpstreamUnavailable.
        """
        if not self.is_ready:
            self.demand.want()
            if not self._first_outcome.is_set():
                timeout = self.server.connect_timeout if self.state.phase is Phase.IDLE else timeout
                self._patience = self._patience or anyio.current_time() + timeout
                with anyio.CancelScope(deadline=self._patience):
                    await self._first_outcome.wait()
        return self.link()

    async def run(self) -> None:
        """Keep it alive until cancelled. Never raises."""
        clock = self.supplies.clock
        try:
            if not self.demand.is_asleep:
                self.demand.want()
            while not self._is_retired:
                if self.state.phase is Phase.IDLE:
                    await self.demand.wanted()
                    self.trouble = None
                    self._step(Event.STARTED)
                self.demand.forget()
                await self._live_guarded()
                if self.state.phase is Phase.WAITING and not self._is_retired:
                    await clock.sleep(self.state.delay)
                    self._retry_or_rest()
        finally:
            self._step(Event.STOPPED)
            if self._is_retired:
                self.trouble = self._farewell
            # Nobody waits for what will not come.
            self._first_outcome.set()
            self.first_try.set()

    def _retry_or_rest(self) -> None:
        """A lazy server is tried again only if somebody has called it meanwhile."""
        if self.server.start == "lazy" and not self.demand.is_wanted:
            self._rest()
        else:
            self._step(Event.RETRY_DUE)

    def _rest(self) -> None:
        """From now on the next call starts it, and waits for it."""
        self.demand.forget()
        self._first_outcome, self._patience = anyio.Event(), None
        self._step(Event.RESTED)

    async def _rest_when_idle(self, link: Link) -> None:
        await until_idle(self, self.supplies.clock)
        if link.lost is None:
            log.info("%s: stopped: nobody has used it for %g s", self.key, self.server.idle_stop)
            self.trouble, self.demand.is_asleep = RESTS, True
            self._rest()
            link.lose(RESTS)

    def move(self, server: Server, supplies: Supplies) -> None:
        """A new configuration in which nothing has changed of how it is reached: the link goes on, and tells that one.

        At once: what the upstream says from now on reaches the new configuration only.
        """
        self.server, self.supplies = server, supplies
        self.wishes.timeout = server.timeout
        if server.start == "eager" and server.idle_stop is None:
            self.demand.want()
        if self.live is not None:
            self.live.home = supplies.home_of(self.key)

    @property
    def is_retired(self) -> bool:
        """Whether a reload has left it behind."""
        return self._is_retired

    def lose(self, why: str) -> None:
        """What is in flight on its link fails now."""
        if self.live is not None:
            self.live.lose(why)

    def retire(self, why: str = GONE) -> None:
        """Whoever uses it may end; it tells nobody anything any more, and does not come back once its link is lost."""
        self._is_retired, self._farewell = True, why
        self.supplies = self.supplies.mute()

    async def watch(self, topic: Topic) -> None:
        """Somebody wants to hear of something. Raises: BrokerError."""
        with self.in_use:
            asleep = self.demand.is_asleep
            link = await self.first_link(self.server.connect_timeout) if asleep else self.link()
            await self.wishes.watch(link, topic)

    def unwatch(self, topic: Topic) -> None:
        """One less does."""
        self.wishes.unwatch(topic)

    def touch(self, kind: Kind) -> None:
        """Somebody asked for this list: refresh it if it is older than its time to live."""
        if self.listing is None or not self.is_ready:
            return
        if self.remaining(kind) <= 0:
            self._fresh[kind].wanted.set()

    def remaining(self, kind: Kind) -> float:
        """Seconds for which the known list still counts as fresh; 0 while it is not known to be."""
        if self.listing is None or self.is_down:
            return 0.0
        ttl = self.listing.ttl.get(kind)
        if not self.is_ready:
            return lifetime(ttl)  # whatever changes while it is not started is announced once it is
        return self._fresh[kind].remaining(ttl, self.supplies.clock.now())

    def _step(self, event: Event) -> None:
        clock = self.supplies.clock
        self.state = step(self.state, event, clock.now(), clock.chance())
        self.history.note(event, clock.wall())

    def _ended(self, why: str, words: tuple[str, ...] = ()) -> None:
        """The connection is lost, or came to nothing: said at once, however long clearing it away may take."""
        was_ready = self.state.phase is Phase.READY
        was_there = was_ready or self.demand.is_asleep
        self.demand.is_asleep = False
        self.history.ended(scrubbed(why), words, self.supplies.clock.wall())
        if self.state.phase in (Phase.CONNECTING, Phase.READY):
            self.live, self.trouble = None, scrubbed(why)
            self._step(Event.LOST if was_ready else Event.FAILED)
        if was_there:
            self.supplies.on_turn(self.key)
        self._first_outcome.set()
        self.first_try.set()

    async def _live_guarded(self) -> None:
        """`_live_once`; a fault of ours in it costs this upstream a connection, and nobody else anything (F-104)."""
        try:
            await self._live_once()
        except Exception as fault:
            self._ended(told_as_trouble(self.key, self.supplies.clock.token(), fault))

    async def _live_once(self) -> None:
        """One connection, from opening to its end."""
        clock = self.supplies.clock
        started = clock.now()
        self.trouble = self.trouble or "it is connecting"
        try:
            link = await connect(self.key, self.server)
        except BrokerError as error:
            return self._failed(reason(error))
        except OSError as error:
            return self._failed(str(error))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(link.serve)
                await self._use(link, tasks, started)
                tasks.cancel_scope.cancel()
        finally:
            self.live = None
            if self._is_retired:
                link.lose(self._farewell)
            with anyio.CancelScope(shield=True):  # bounded inside: `aclose` of every transport is
                await link.aclose()

    async def _use(self, link: Link, tasks: anyio.abc.TaskGroup, started: float) -> None:
        link.on_event, link.on_lost, link.strays = partial(self._on_event, link), self._on_lost, self.strays
        link.home = self.supplies.home_of(self.key)
        try:
            await shake_hands(link, self.server, self.supplies.declare)
        except BrokerError as error:
            return self._failed(link.lost or reason(error), link.last_words())
        link.home = self.supplies.home_of(self.key)  # a reload may have come meanwhile
        self.live, self.trouble = link if link.lost is None else None, None
        self._step(Event.OPENED)
        self._first_outcome.set()
        if not self.demand.is_asleep:
            self.supplies.on_turn(self.key)
        self.demand.is_asleep = False
        if self.listing is not None:
            link.learn_tools(self.listing.items.get(Kind.TOOL, ()))
        # Discovery must not delay the loss of a link, nor outlive it.
        tasks.start_soon(self._keep_fresh, link, tasks, started)
        if not is_modern(link.version):
            tasks.start_soon(self.wishes.speak, link)
        tasks.start_soon(self._rest_when_idle, link)
        why = await link.gone()
        if self.state.phase is Phase.IDLE:
            return
        self._ended(why, link.last_words())
        log.warning("%s: connection lost: %s", self.key, self.trouble)

    async def _discover(self, link: Link, started: float) -> None:
        try:
            listing = await discover(link, self.server.timeout, self.heard.listing or self.listing)
        except BrokerError as error:
            link.lose(f"its lists cannot be had: {reason(error)}")
            return
        now = self.supplies.clock.now()
        self.connect_seconds = now - started
        for fresh in self._fresh.values():
            fresh.renew(now)
        link.learn_tools(listing.items.get(Kind.TOOL, ()))
        await self.heard.publish(listing)
        self.first_try.set()
        counts = ", ".join(f"{len(items)} {kind}" for kind, items in listing.items.items()) or "nothing listed"
        log.info("%s: ready in %.1f s: %s (%s)", self.key, self.connect_seconds, counts, listing.version)

    async def _keep_fresh(self, link: Link, tasks: anyio.abc.TaskGroup, started: float) -> None:
        """Discover, then follow announcements. One that comes meanwhile is followed afterwards: nobody knows whether
        the page that it is about had been read by then.
        """
        for fresh in self._fresh.values():
            fresh.begin()
        self._acknowledged = anyio.Event()
        if is_modern(link.version):
            lists = announcements_of(link.peer)
            tasks.start_soon(self.wishes.listen, link, lists, self._acknowledged.set)
        with anyio.move_on_after(LISTEN_FIRST):
            await (self._acknowledged if is_modern(link.version) else link.listening).wait()
        await self._discover(link, started)
        tasks.start_soon(self.heard.rejudge_when_wanted)
        for kind in Kind:
            tasks.start_soon(self._refresh_when_wanted, link, kind)

    async def _refresh_when_wanted(self, link: Link, kind: Kind) -> None:
        """Single flight for one list, and never more often than `REFRESH_SPACING`."""
        fresh, clock = self._fresh[kind], self.supplies.clock
        while True:
            await fresh.wanted.wait()
            announced = fresh.take()
            try:
                found = await fetch_list(link, kind, self.server.timeout)
            except BrokerError as error:
                log.warning("%s: %s could not be refreshed: %s", self.key, kind, reason(error))
                fresh.fetched = float("-inf")  # tried again as soon as somebody asks
            else:
                fresh.fetched = clock.now()
                listing = with_list(self.heard.listing or self.listing or Listing(link.version), kind, found)
                link.learn_tools(listing.items.get(Kind.TOOL, ()))
                await self.heard.publish(listing, frozenset({kind}) if announced else frozenset())
            await clock.sleep(REFRESH_SPACING)

    def _on_lost(self) -> None:
        """No call is begun on it from now on, though it takes a moment until its task finds out."""
        self.live = None

    def _on_event(self, link: Link, method: str, params: dict[str, Any]) -> None:
        if method in STATUS or is_foreign(method) or related_task(params) is not None:
            self.supplies.on_said(self.key, link, method, params)
        if method == "notifications/resources/updated" and isinstance(params.get("uri"), str):
            self.supplies.on_updated(self.key, params)
        for kind in announced_by(method):
            self._fresh[kind].announce()

    def _failed(self, why: str, words: tuple[str, ...] = ()) -> None:
        if self.trouble != scrubbed(why):
            log.warning("%s: not available: %s", self.key, why)
        self._ended(why, words)
