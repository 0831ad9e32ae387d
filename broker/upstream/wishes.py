"""What callers want of an upstream between their calls: a log level, resources to watch, to know that roots changed.

A new connection begins with none of it, so all of it is said again to each. A legacy upstream is told by requests and
notifications; a modern one by `subscriptions/listen` alone (a log level goes with each request there).
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio

from broker.clock import Clock
from broker.core.era import TASKS, is_modern
from broker.core.logs import more_verbose
from broker.errors import BrokerError
from broker.upstream.connect import reason
from broker.upstream.link import Link

log = logging.getLogger(__name__)

MAX_TO_PASS: Final = 100
"""Notifications of callers that may wait for one upstream; the oldest go first, since nobody waits for them."""
LISTEN_RETRY: Final = 30.0
"""Seconds between attempts to subscribe to an upstream's announcements."""


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
        self._watched: Counter[str] = Counter()
        """Own URIs of resources that callers watch, and how many do."""
        self._watched_tasks: Counter[str] = Counter()
        """Own ids of tasks of a modern upstream, likewise."""
        self._subscribed: set[str] = set()
        """Those that `_link` has been asked for."""
        self._link: Link | None = None
        """The connection that we last spoke on."""
        self._to_tell: set[str] = set()
        self._to_pass: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_TO_PASS)
        self._said = anyio.Event()

    @property
    def has_watches(self) -> bool:
        """Whether any resource or task is watched."""
        return bool(self._watched or self._watched_tasks)

    def want_logs(self, level: str) -> None:
        """Somebody wants to read what the upstream logs from `level` on. A legacy one is told, if it is quieter."""
        wanted = more_verbose(self._log_level, level)
        if wanted != self._log_level:
            self._log_level = wanted
            self._said.set()

    async def watch(self, link: Link, uri: str) -> None:
        """Somebody wants to know when a resource changes. The first to ask makes us ask the upstream.

        Raises: BrokerError, if that fails.
        """
        if not self._watched[uri] and not is_modern(link.version):
            await link.request("resources/subscribe", {"uri": uri}, timeout=self.timeout)
            self._speaks_on(link)
            self._subscribed.add(uri)
        self._watched[uri] += 1
        self._said.set()

    def unwatch(self, uri: str) -> None:
        """One less wants to know; the last one makes us say so to the upstream, soon."""
        self._watched[uri] -= 1
        if self._watched[uri] <= 0:
            del self._watched[uri]
        self._said.set()

    def watch_task(self, own: str) -> None:
        """Somebody wants to hear of a task of a modern upstream."""
        self._watched_tasks[own] += 1
        self._said.set()

    def unwatch_task(self, own: str) -> None:
        """One less does."""
        self._watched_tasks[own] -= 1
        if self._watched_tasks[own] <= 0:
            del self._watched_tasks[own]
        self._said.set()

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
            for uri in self._watched.keys() - self._subscribed:
                self._subscribed.add(uri)
                await self._say(link, "resources/subscribe", {"uri": uri})
            for uri in self._subscribed - self._watched.keys():
                self._subscribed.discard(uri)
                await self._say(link, "resources/unsubscribe", {"uri": uri})
            while self._to_tell:
                await link.notify(self._to_tell.pop())
            while self._to_pass:
                await link.notify(*self._to_pass.popleft())
            await self._said.wait()

    def _speaks_on(self, link: Link) -> None:
        if self._link is not link:
            self._link = link
            self._subscribed.clear()

    async def _say(self, link: Link, method: str, params: dict[str, Any]) -> None:
        try:
            await link.request(method, params, timeout=self.timeout)
        except BrokerError as error:
            log.debug("%s: %s failed: %s", link.upstream, method, reason(error))

    async def listen(
        self, link: Link, lists: Mapping[str, Any] = NO_LISTS, on_settled: Callable[[], None] = ignore_acknowledgement
    ) -> None:
        """Ask a modern upstream to announce changes of `lists` and of what is watched; again when that ends, or when
        other resources are watched. `on_settled`: called when there is nothing to ask for, or an attempt has ended.
        """
        while link.lost is None:
            self._said = anyio.Event()
            watched = self._everything_watched()
            wanted = {**lists, **watched}
            if not wanted:
                on_settled()
                await self._said.wait()
                continue
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._subscribe, link, wanted, on_settled)
                while self._everything_watched() == watched:
                    await self._said.wait()
                    self._said = anyio.Event()
                tasks.cancel_scope.cancel()

    def _everything_watched(self) -> dict[str, list[str]]:
        every = {"resourceSubscriptions": sorted(self._watched), "taskIds": sorted(self._watched_tasks)}
        return {name: watched for name, watched in every.items() if watched}

    async def _subscribe(self, link: Link, wanted: Mapping[str, Any], on_settled: Callable[[], None]) -> None:
        while True:
            try:
                await link.request(
                    "subscriptions/listen",
                    {"notifications": wanted},
                    timeout=float("inf"),
                    on_notice=link.on_event,
                    # Only who knows the extension may hear of tasks; those for whom we ask do.
                    capabilities={"extensions": {TASKS: {}}} if "taskIds" in wanted else None,
                )
            except BrokerError as error:
                log.debug("%s: no announcements: %s", link.upstream, error.message)
            on_settled()
            await self._clock.sleep(LISTEN_RETRY)
