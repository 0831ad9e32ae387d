"""What callers want of an upstream between their calls: a log level, resources to watch, to know that roots changed.

A new connection begins with none of it, so all of it is said again to each. A legacy upstream is told by requests and
notifications; a modern one by `subscriptions/listen` alone (a log level goes with each request there).
"""

import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from weakref import ref as Ref

import anyio
import anyio.abc

from broker.clock import Clock
from broker.core.era import is_modern
from broker.core.logs import more_verbose
from broker.errors import BrokerError, NotWatched, UpstreamTimedOut, UpstreamUnavailable
from broker.upstream.connect import reason
from broker.upstream.link import Link
from broker.upstream.listening import RESOURCES, SHRINK_AFTER, Stream, Topic, filter_of, topics_of

log = logging.getLogger(__name__)

MAX_TO_PASS: Final = 100
"""Notifications of callers that may wait for one upstream; the oldest go first, since nobody waits for them."""

NO_LISTS: Final[Mapping[str, Any]] = {}


def ignore_acknowledgement() -> None:
    """For who does not wait until announcements can come."""


class Wishes:
    """See the module. `timeout`: seconds for each request."""

    def __init__(self, clock: Clock, timeout: float) -> None:
        self._clock = clock
        self.timeout = timeout
        self._log_level: str | None = None
        """The most verbose level that anybody asked for."""
        self._watched: Counter[Topic] = Counter()
        """What callers watch, and how many do; tasks are watched at a modern upstream alone."""
        self._subscribed: set[Topic] = set()
        """What `_link` has been asked for, in the legacy era."""
        self._link: Ref[Link] | None = None
        """The connection that we last spoke on. One that is closed is not kept alive, with the configuration behind it:
        what is wanted outlives both."""
        self._locks: dict[Topic, anyio.Lock] = {}
        """Held while a legacy upstream is asked, or asked no more, for a resource: on HTTP two requests may overtake
        each other, and an upstream that hears the opposite last would say nothing from there on."""
        self._told: dict[Topic, bool] = {}
        """What a modern upstream was asked for, and whether it has agreed."""
        self._asks_again = False
        """Whether a modern upstream is to be asked even if nothing else is wanted."""
        self._over: Ref[Link] | None = None
        """The last connection on which nobody listens any more; likewise."""
        self._settled = anyio.Event()
        self._to_tell: set[str] = set()
        self._to_pass: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_TO_PASS)
        self._said = anyio.Event()
        self._heir: Wishes | None = None

    def pass_to(self, heir: "Wishes") -> None:
        """The server is reached in another way from now on: `heir` asks there for what is watched here. Its tasks are
        gone with it.
        """
        heir._log_level = self._log_level
        heir._watched.update({topic: n for topic, n in self._watched.items() if topic.field == RESOURCES})
        heir._said.set()
        self._heir = heir

    @property
    def has_heir(self) -> bool:
        """Whether another connection asks for what is watched."""
        return self._heir is not None

    @property
    def has_watches(self) -> bool:
        """Whether any resource or task is watched."""
        return bool(self._watched)

    def want_logs(self, level: str) -> None:
        """Somebody wants to read what the upstream logs from `level` on. A legacy one is told, if it is quieter."""
        wanted = more_verbose(self._log_level, level)
        if wanted != self._log_level:
            self._log_level = wanted
            self._said.set()

    async def watch(self, link: Link, topic: Topic) -> None:
        """Somebody wants to hear of something. The first to ask makes us ask the upstream; once this returns, no change
        is missed.

        Raises: BrokerError, if the upstream cannot be asked, or does not agree.
        """
        if is_modern(link.version):
            if self._told.get(topic) is False:  # it was refused: perhaps it is there now
                del self._told[topic]
                self._asks_again = True
            self._watched[topic] += 1
            self._said.set()
            try:
                await self._agreement(link, topic)
            except BaseException:
                self.unwatch(topic)
                raise
            return
        async with self._alone(topic):
            if not _is(self._link, link) or topic not in self._subscribed:
                await link.request("resources/subscribe", {"uri": topic.own}, timeout=self.timeout)
                self._speaks_on(link)
                self._subscribed.add(topic)
            self._watched[topic] += 1

    def unwatch(self, topic: Topic) -> None:
        """One less wants to hear of it; the last one makes us say so to the upstream, soon."""
        if self._heir is not None and topic.field == RESOURCES:
            while self._heir._heir is not None:
                self._heir = self._heir._heir
            return self._heir.unwatch(topic)
        self._watched[topic] -= 1
        if self._watched[topic] <= 0:
            del self._watched[topic]
        self._said.set()

    async def _agreement(self, link: Link, topic: Topic) -> None:
        """Wait until a modern upstream has answered. Raises: BrokerError, if it does not agree."""
        with anyio.move_on_after(self.timeout):
            while topic not in self._told:
                if _is(self._over, link):
                    break
                await self._settled.wait()
            if self._told.get(topic):
                return
            if link.lost is not None or topic not in self._told:  # its stream ended with the link, and refused nothing
                raise UpstreamUnavailable(link.upstream, link.lost or "its link was closed")
            raise NotWatched(link.upstream)
        raise UpstreamTimedOut(link.upstream, self.timeout)

    @asynccontextmanager
    async def _alone(self, topic: Topic) -> AsyncGenerator[None, None]:
        """One at a time for each topic."""
        lock = self._locks.setdefault(topic, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(topic) is lock:
                del self._locks[topic]

    def tell(self, method: str) -> None:
        """Send a notification, soon, if the upstream is there and of the era that knows it."""
        self._to_tell.add(method)
        self._said.set()

    def pass_on(self, method: str, params: dict[str, Any]) -> None:
        """A caller's notification of an extension, likewise."""
        self._to_pass.append((method, params))
        self._said.set()

    async def speak(self, link: Link) -> None:
        """Say it to a legacy upstream, while the link lives."""
        level: str | None = None
        self._speaks_on(link)
        while True:
            self._said = anyio.Event()
            if self._log_level != level and link.peer.has("logging"):
                level = self._log_level
                await self._say(link, "logging/setLevel", {"level": level})
            for topic in self._watched.keys() ^ self._subscribed:
                await self._bring_in_line(link, topic)
            while self._to_tell:
                await link.notify(self._to_tell.pop())
            while self._to_pass:
                await link.notify(*self._to_pass.popleft())
            await self._said.wait()

    async def _bring_in_line(self, link: Link, topic: Topic) -> None:
        """Ask a legacy upstream for what is watched, and no more for what is not: as it is now, not as it was."""
        async with self._alone(topic):
            is_wanted = topic in self._watched
            if topic.field != RESOURCES or is_wanted == (topic in self._subscribed):
                return
            (self._subscribed.add if is_wanted else self._subscribed.discard)(topic)
            method = "resources/subscribe" if is_wanted else "resources/unsubscribe"
            await self._say(link, method, {"uri": topic.own})

    def _speaks_on(self, link: Link) -> None:
        if not _is(self._link, link):
            self._link = Ref(link)
            self._subscribed.clear()

    async def _say(self, link: Link, method: str, params: dict[str, Any]) -> None:
        try:
            await link.request(method, params, timeout=self.timeout)
        except BrokerError as error:
            log.debug("%s: %s failed: %s", link.upstream, method, reason(error))

    async def listen(
        self, link: Link, lists: Mapping[str, Any] = NO_LISTS, on_settled: Callable[[], None] = ignore_acknowledgement
    ) -> None:
        """Ask a modern upstream to announce changes of `lists` and of what is watched; again when that is something
        else. `on_settled`: called when there is nothing to ask for, or an attempt was acknowledged, or has ended.
        """

        def settled(stream: Stream | None) -> None:
            asked = topics_of(stream.wanted) if stream is not None else ()
            self._learn({topic: stream is not None and stream.brings(topic) for topic in asked})
            on_settled()

        try:
            async with anyio.create_task_group() as streams:
                await self._follow(link, lists, settled, streams)
                streams.cancel_scope.cancel()
        finally:
            self._over = Ref(link)
            self._learn({})

    async def _follow(
        self,
        link: Link,
        lists: Mapping[str, Any],
        on_settled: Callable[[Stream | None], None],
        streams: anyio.abc.TaskGroup,
    ) -> None:
        current: Stream | None = None
        too_much_until = float("inf")
        """When a stream that brings more than is wanted gives way to a smaller one."""
        while link.lost is None:
            self._said = anyio.Event()
            wanted, now = {**lists, **filter_of(self._watched)}, anyio.current_time()
            if not wanted:
                if current is not None:
                    current.end()
                current, too_much_until = None, float("inf")
                on_settled(None)
            elif current is not None and wanted == current.wanted and not self._asks_again:
                too_much_until = float("inf")
            elif current is not None and current.suffices(wanted) and not self._asks_again and now < too_much_until:
                too_much_until = min(too_much_until, now + SHRINK_AFTER)
            else:
                current, too_much_until = await self._another(link, wanted, current, on_settled, streams), float("inf")
            with anyio.CancelScope(deadline=too_much_until):
                await self._said.wait()

    async def _another(
        self,
        link: Link,
        wanted: Mapping[str, Any],
        before: Stream | None,
        on_settled: Callable[[Stream | None], None],
        streams: anyio.abc.TaskGroup,
    ) -> Stream:
        """A stream in the place of the one before, once it has settled; that one ends when it is acknowledged."""
        self._asks_again = False
        # What is asked for no more may be asked for again before the new stream is there: that waits for it.
        self._learn({topic: told for topic, told in self._told.items() if topic in topics_of(wanted)})
        if before is not None and not before.is_live:
            before.scope.cancel()
            before = before.before
        stream = Stream(link, self._clock, wanted, before, on_settled)
        streams.start_soon(stream.run)
        with anyio.move_on_after(self.timeout):
            await stream.settled.wait()
        if not stream.settled.is_set():
            stream.settle()
        return stream

    def _learn(self, told: dict[Topic, bool]) -> None:
        self._told = told
        self._settled.set()
        self._settled = anyio.Event()


def _is(known: Ref[Link] | None, link: Link) -> bool:
    return known is not None and known() is link
