"""Links that callers do not share: one for each caller, or for each session (`isolation` of a server).

The supervised `Upstream` discovers the server, follows its announcements, and carries what no caller owns. These links
carry calls: each is opened at its owner's first call, with the capabilities of that call, and closed when nobody has
used it for long, when its session ends, or when another owner needs the place. There is no retry: a link that dies
fails its calls, and the next one opens another. `slots.py` decides; here is what it takes to do it.

| isolation | the owner of a link | whose calls |
|---|---|---|
| `caller` | a principal | all of that principal |
| `session` | a legacy session | that session's |
| `session` | a principal | those of its modern requests, which have no session |
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.abc

from broker.clock import Clock
from broker.core.era import LATEST_LEGACY, declared_upstream, is_modern
from broker.core.extensions import is_foreign
from broker.core.request import Kind
from broker.core.tasks import STATUS, related_task
from broker.errors import BrokerError, UpstreamUnavailable
from broker.secrecy import scrubbed
from broker.upstream.connect import connect, reason, shake_hands
from broker.upstream.home import Home
from broker.upstream.lease import Asker, Lease, Owner
from broker.upstream.link import Link
from broker.upstream.listening import Topic
from broker.upstream.slots import Full, Slot, Slots
from broker.upstream.supervise import GONE, Upstream, told_as_trouble
from broker.upstream.wishes import Wishes

log = logging.getLogger(__name__)

MAX_WISHES: Final = 1000
"""Owners of whom is remembered what they want to be told, without a link; of the oldest it is forgotten."""

OnUpdated = Callable[[str, Owner, dict[str, Any]], None]
"""Told that a resource has changed, by the link of one owner: server, owner, parameters with the own URI."""
OnSaid = Callable[[str, Owner, Link, str, dict[str, Any]], None]
"""Told what a server says of a task, or in words of an extension: server, owner, link, method, parameters."""


def ignore_own_update(server: str, owner: Owner, params: dict[str, Any]) -> None:
    """For links that a reload has left behind."""


def ignore_own_said(server: str, owner: Owner, link: Link, method: str, params: dict[str, Any]) -> None:
    """Likewise."""


HomeOf = Callable[[str, Owner, bool], Home]
"""Where a link's owner is found outside of its calls: server, owner, whether its stream may be about to open."""
HasTasks = Callable[[Link], bool]
"""Whether a task that was made on a link may still run, or its result still be asked for."""


@dataclass(slots=True, eq=False)
class _Line:
    """The link of a slot, from its reservation to its end."""

    slot: Slot[Owner]
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    settled: anyio.Event = field(default_factory=anyio.Event)
    """Set once its link is open, or it is clear that it will not be."""
    gone: anyio.Event = field(default_factory=anyio.Event)
    link: Link | None = None
    failure: str = "its link was closed"
    learned: object = None
    """The listing that the link was told of."""


class Isolated:
    """The links of one server's callers. `start` before use."""

    def __init__(
        self,
        upstream: Upstream,
        clock: Clock,
        home_of: HomeOf,
        on_updated: OnUpdated,
        on_said: OnSaid,
        has_tasks: HasTasks,
    ) -> None:
        self._upstream = upstream
        self._has_tasks = has_tasks
        self._clock = clock
        self._home_of = home_of
        self._on_updated = on_updated
        self._on_said = on_said
        self._slots = Slots[Owner](upstream.server.isolation_max, upstream.server.isolation_idle, self._is_held)
        self._lines: dict[Slot[Owner], _Line] = {}
        self._wishes: dict[Owner, Wishes] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._looking: anyio.CancelScope | None = None
        """The look for links that nobody uses, while it goes on; a scope is made in an event loop only."""
        self._is_stopped = False

    def __repr__(self) -> str:
        return f"<Isolated {self._upstream.key} {self._slots!r}>"

    def __len__(self) -> int:
        """How many links there are, those included that are opening or closing."""
        return self._slots.places

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Open links in `tasks` from now on, and close those that nobody uses. All end with `tasks`."""
        self._tasks = tasks
        tasks.start_soon(self._close_idle, name=f"idle links {self._upstream.key}")

    def move(self, home_of: HomeOf, on_updated: OnUpdated, on_said: OnSaid) -> None:
        """A new configuration, which its upstream has been given already (`Upstream.move`): all links go on."""
        self._home_of, self._on_updated, self._on_said = home_of, on_updated, on_said
        self._slots.resize(self._upstream.server.isolation_max, self._upstream.server.isolation_idle)
        for wishes in self._wishes.values():
            wishes.timeout = self._upstream.server.timeout
        for slot, line in self._lines.items():
            if line.link is not None:
                line.link.home = home_of(self._upstream.key, slot.owner, False)

    def pass_to(self, heir: "Isolated") -> None:
        """The server is reached in another way from now on: what callers want to hear of is asked for there, from the
        next call of each on.
        """
        for owner, wishes in self._wishes.items():
            wishes.pass_to(heir._wishes_of(owner))

    def has_heir(self, asker: Asker) -> bool:
        """Whether what the asker wants to hear of is asked for elsewhere."""
        wishes = self._wishes.get(self.owner(asker.principal, asker.session))
        return wishes is not None and wishes.has_heir

    @property
    def is_retired(self) -> bool:
        """Whether a reload has left it behind."""
        return self._upstream.is_retired

    def retire(self) -> None:
        """Its links tell nobody anything any more."""
        self._on_updated, self._on_said = ignore_own_update, ignore_own_said

    def lose(self, why: str) -> None:
        """What is in flight on its links fails now."""
        self._is_stopped = True
        for line in self._lines.values():
            if line.link is not None:
                line.link.lose(why)

    async def stop(self) -> None:
        """Close all links, and wait until nothing of them is left."""
        self._is_stopped = True
        if self._looking is not None:
            self._looking.cancel()
        for slot in self._slots:
            self._close(slot, GONE)
        for line in tuple(self._lines.values()):
            await line.gone.wait()

    def owner(self, principal: str, session: str) -> Owner:
        """Whose link serves this principal in this session; "" is none."""
        return Owner(principal, session if self._upstream.server.isolation == "session" else "")

    async def lease(self, asker: Asker) -> Lease:
        """The asker's own link, opened if it must be; within the connect time-out.

        Raises: UpstreamUnavailable: it cannot be opened, or all places are taken by links in use.
        """
        line = self._take(asker)
        try:
            await line.settled.wait()
        except BaseException:
            self._give_back(line.slot)
            raise
        if line.link is None:
            self._give_back(line.slot)
            raise UpstreamUnavailable(self._upstream.key, line.failure)
        self._learn(line, line.link)
        return Lease(line.link, line.slot, self._give_back)

    def _give_back(self, slot: Slot[Owner]) -> None:
        self._slots.give_back(slot, self._clock.now())

    def want_logs(self, asker: Asker, level: str) -> None:
        """The asker wants to read what its own link's upstream logs from `level` on."""
        self._wishes_of(self.owner(asker.principal, asker.session)).want_logs(level)

    def tell(self, asker: Asker, method: str) -> None:
        """Send a notification on the asker's link, if there is one."""
        owner = self.owner(asker.principal, asker.session)
        if self._slots.of(owner) is not None:
            self._wishes_of(owner).tell(method)

    def pass_on(self, asker: Asker, method: str, params: dict[str, Any]) -> None:
        """A notification of an extension, likewise."""
        owner = self.owner(asker.principal, asker.session)
        if self._slots.of(owner) is not None:
            self._wishes_of(owner).pass_on(method, params)

    async def watch(self, asker: Asker, topic: Topic) -> None:
        """Hear of something on the asker's link, which stays open for it. Raises: BrokerError."""
        lease = await self.lease(asker)
        try:
            await self._wishes_of(self.owner(asker.principal, asker.session)).watch(lease.link, topic)
        finally:
            lease.give_back()

    def unwatch(self, asker: Asker, topic: Topic) -> None:
        """Hear of it no more."""
        wishes = self._wishes.get(self.owner(asker.principal, asker.session))
        if wishes is not None:
            wishes.unwatch(topic)

    def end(self, session: str) -> None:
        """A session has ended: so does its link, with what is in flight on it."""
        for owner in [owner for owner in self._wishes if owner.session == session]:
            del self._wishes[owner]
        for slot in self._slots:
            if slot.owner.session == session:
                self._close(slot, "its session has ended")

    # -- opening ------------------------------------------------------------------------------------------------------

    def _take(self, asker: Asker) -> _Line:
        if self._is_stopped:
            raise UpstreamUnavailable(self._upstream.key, GONE)
        owner, now = self.owner(asker.principal, asker.session), self._clock.now()
        slot = self._slots.of(owner)
        if slot is not None and (link := self._lines[slot].link) is not None and link.lost is not None:
            self._slots.closing(slot)  # it died a moment ago, and its task has not noticed yet
        try:
            taken = self._slots.take(owner, now)
        except Full:
            raise UpstreamUnavailable(self._upstream.key, self._all_in_use()) from None
        if taken.open:
            assert self._tasks is not None
            line = self._lines[taken.slot] = _Line(taken.slot)
            if taken.close and taken.after is not None:
                log.info("%s: the link of %s makes room", self._upstream.key, taken.after.owner)
                self._close(taken.after, "it made room for another caller's link")
            self._tasks.start_soon(self._live, line, asker, name=f"link of {owner} to {self._upstream.key}")
        return self._lines[taken.slot]

    def _all_in_use(self) -> str:
        most = self._upstream.server.isolation_max
        return (
            f"all {most} links of its callers are in use: try again when a call has ended, or raise"
            f" servers.{self._upstream.key}.isolation_max"
        )

    async def _live(self, line: _Line, asker: Asker) -> None:
        """One link, from opening to its end. A fault of ours costs this link, and nobody else anything (F-104)."""
        try:
            await self._live_and_close(line, asker)
        except Exception as fault:
            self._fail(line, told_as_trouble(self._upstream.key, self._clock.token(), fault))
        finally:
            self._slots.gone(line.slot)
            del self._lines[line.slot]
            line.gone.set()

    async def _live_and_close(self, line: _Line, asker: Asker) -> None:
        link: Link | None = None
        try:
            with line.scope:
                link = await self._opened(line)
                if link is not None:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(link.serve)
                        await self._use(line, link, asker, tasks)
                        tasks.cancel_scope.cancel()
        except Exception as fault:
            self._fail(line, told_as_trouble(self._upstream.key, self._clock.token(), fault))
        finally:
            self._fail(line, line.failure)
            if link is not None:
                with anyio.CancelScope(shield=True):  # bounded inside: `aclose` of every transport is
                    await link.aclose()

    async def _opened(self, line: _Line) -> Link | None:
        """A link that nobody has spoken on yet, once there is room for it; None if there can be none."""
        timeout = self._upstream.server.connect_timeout
        try:
            with anyio.move_on_after(timeout):
                while (before := self._slots.before(line.slot)) is not None:
                    await self._lines[before].gone.wait()
                return await connect(self._upstream.key, self._upstream.server)
            self._fail(line, f"it did not connect within {timeout:g} s")
        except BrokerError as error:
            self._fail(line, reason(error))
        except OSError as error:
            self._fail(line, str(error))
        return None

    async def _use(self, line: _Line, link: Link, asker: Asker, tasks: anyio.abc.TaskGroup) -> None:
        owner = line.slot.owner
        link.home = self._home_of(self._upstream.key, owner, bool(asker.session))
        link.on_event, link.strays = self._listener(owner, link), self._upstream.strays

        async def declare() -> Mapping[str, Any]:
            return declared_upstream(asker.capabilities, LATEST_LEGACY)

        try:
            await shake_hands(link, self._upstream.server, declare, is_legacy=self._upstream.is_legacy)
        except BrokerError as error:
            return self._fail(line, link.lost or reason(error))
        if line.settled.is_set():
            return  # closed in this very moment: its scope ends it at the next
        self._learn(line, link)
        link.home = self._home_of(self._upstream.key, owner, bool(asker.session))  # a reload may have come meanwhile
        self._slots.opened(line.slot)
        line.link = link
        line.settled.set()
        log.info("%s: a link for %s (%s)", self._upstream.key, owner, link.version)
        wishes = self._wishes_of(owner)
        if is_modern(link.version):
            tasks.start_soon(wishes.listen, link)
        else:
            tasks.start_soon(wishes.speak, link)
        log.info("%s: the link of %s has ended: %s", self._upstream.key, owner, await link.gone())

    def _listener(self, owner: Owner, link: Link) -> Callable[[str, dict[str, Any]], None]:
        def on_event(method: str, params: dict[str, Any]) -> None:
            """Lists are those of the supervised link: what changes on this one is none of the others' business."""
            if method == "notifications/resources/updated" and isinstance(params.get("uri"), str):
                self._on_updated(self._upstream.key, owner, params)
            if method in STATUS or is_foreign(method) or related_task(params) is not None:
                self._on_said(self._upstream.key, owner, link, method, params)

        return on_event

    def _learn(self, line: _Line, link: Link) -> None:
        """Which tools there are, as the supervised link knows it now."""
        listing = self._upstream.listing
        if listing is not None and listing is not line.learned:
            line.learned = listing
            link.learn_tools(listing.items.get(Kind.TOOL, ()))

    # -- closing ------------------------------------------------------------------------------------------------------

    def _fail(self, line: _Line, why: str) -> None:
        """There is no link, or none any more: who waits is told at once, however long clearing it away may take."""
        self._slots.closing(line.slot)
        if not line.settled.is_set():
            line.failure = scrubbed(why)
            line.settled.set()

    def _close(self, slot: Slot[Owner], why: str) -> None:
        line = self._lines[slot]
        self._fail(line, why)
        line.scope.cancel()

    async def _close_idle(self) -> None:
        with anyio.CancelScope() as self._looking:
            while not self._is_stopped:
                await self._clock.sleep(self._slots.due(self._clock.now()))
                for slot in self._slots.idle(self._clock.now()):
                    self._close(slot, "nobody used it")

    def _is_held(self, slot: Slot[Owner]) -> bool:
        """Whether a link is in use without a call: a resource is watched on it, its owner is asked, or a task that was
        made on it would end with it.
        """
        link, wishes = self._lines[slot].link, self._wishes.get(slot.owner)
        if wishes is not None and wishes.has_watches:
            return True
        return link is not None and (link.is_asking or self._has_tasks(link))

    def _wishes_of(self, owner: Owner) -> Wishes:
        if owner not in self._wishes:
            if len(self._wishes) >= MAX_WISHES:
                self._forget_oldest()
            self._wishes[owner] = Wishes(self._clock, self._upstream.server.timeout)
        return self._wishes[owner]

    def _forget_oldest(self) -> None:
        for owner, wishes in self._wishes.items():
            if self._slots.of(owner) is None and not wishes.has_watches:
                del self._wishes[owner]
                return
