"""`subscriptions/listen` at a modern upstream: one stream of changes, and another in its place when more is wanted.

A stream is closed only once the next one is acknowledged, so that no change falls in between.
Spec: 2026-07-28 basic/patterns/subscriptions.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import anyio

from broker.clock import Clock
from broker.core.era import TASKS
from broker.core.shape import is_array, is_object
from broker.errors import BrokerError
from broker.upstream.link import ACKNOWLEDGED, Link

log = logging.getLogger(__name__)

LISTEN_RETRY: Final = 30.0
"""Seconds between attempts to subscribe to an upstream's announcements."""


SHRINK_AFTER: Final = 60.0
"""Seconds for which a stream may bring more than is wanted: while another one takes its place, and both are open, a
change may be told twice."""


class Topic(NamedTuple):
    """One thing to hear of: the filter's field, and the upstream's own URI or id in it."""

    field: str
    own: str


RESOURCES: Final = "resourceSubscriptions"
TASK_IDS: Final = "taskIds"
TOPICS: Final = (RESOURCES, TASK_IDS)


def resource(uri: str) -> Topic:
    """Changes of a resource."""
    return Topic(RESOURCES, uri)


def task(own: str) -> Topic:
    """Changes of a task."""
    return Topic(TASK_IDS, own)


def filter_of(topics: Iterable[Topic]) -> dict[str, list[str]]:
    """The `notifications` of a request that asks for `topics`."""
    found: dict[str, list[str]] = {}
    for one in sorted(topics):
        found.setdefault(one.field, []).append(one.own)
    return found


def topics_of(notifications: object) -> frozenset[Topic]:
    """The topics of an acknowledgement; what is none is left out."""
    found: set[Topic] = set()
    for name in TOPICS:
        owns = notifications.get(name) if is_object(notifications) else None
        found |= {Topic(name, own) for own in owns if isinstance(own, str)} if is_array(owns) else set()
    return frozenset(found)


@dataclass(slots=True, eq=False)
class Stream:
    """One filter, asked for until `scope` is cancelled: again after each end, since ends are not what is wanted."""

    link: Link
    clock: Clock
    wanted: Mapping[str, Any]
    before: "Stream | None"
    """Whose place it takes, once it is acknowledged; until then that one goes on."""
    on_settled: Callable[["Stream"], None]
    """Told each time that the upstream has acknowledged it, or that an attempt has ended."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    settled: anyio.Event = field(default_factory=anyio.Event)
    agreed: frozenset[Topic] = frozenset()
    """What the upstream has agreed to tell."""
    is_live: bool = False
    """Whether it is acknowledged, and has not ended."""

    def brings(self, topic: Topic) -> bool:
        """Whether the upstream has agreed to tell of a topic: on this stream, or on that which still stands for it."""
        return topic in self.agreed or (self.before is not None and self.before.brings(topic))

    def suffices(self, wanted: Mapping[str, Any]) -> bool:
        """Whether it brings all of another filter, and perhaps more."""
        topics = topics_of(wanted)
        others = [{name: one for name, one in each.items() if name not in TOPICS} for each in (wanted, self.wanted)]
        return self.is_live and topics <= self.agreed and others[0] == others[1]

    def end(self) -> None:
        """Nothing of it is wanted any more."""
        self.scope.cancel()
        if self.before is not None:
            self.before.end()
            self.before = None

    async def run(self) -> None:
        """Listen, until cancelled."""
        with self.scope:
            while True:
                try:
                    await self.link.request(
                        "subscriptions/listen",
                        {"notifications": self.wanted},
                        timeout=float("inf"),
                        on_notice=self._on_notice,
                        # Only who knows the extension may hear of tasks; those for whom we ask do.
                        capabilities={"extensions": {TASKS: {}}} if TASK_IDS in self.wanted else None,
                    )
                except BrokerError as error:
                    log.debug("%s: no announcements: %s", self.link.upstream, error.message)
                self.is_live = False
                self.settle()
                await self.clock.sleep(LISTEN_RETRY)

    def settle(self) -> None:
        """It brings what it will bring, for now."""
        self.settled.set()
        self.on_settled(self)

    def _on_notice(self, method: str, params: dict[str, Any]) -> None:
        if method != ACKNOWLEDGED:
            return self.link.on_event(method, params)
        self.agreed, self.is_live = topics_of(params.get("notifications")), True
        if self.before is not None:
            self.before.end()
            self.before = None
        self.settle()
