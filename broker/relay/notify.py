"""Who is told of changes: of a list, those who see something of it and can see the change; of a resource, those who
asked to be told.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from broker.core.caller import Caller
from broker.core.catalog import Catalog, Entry
from broker.core.policy import Permit, Policy, decide
from broker.core.request import Kind
from broker.core.standing import Standing
from broker.errors import InvalidParams
from broker.upstream.supervise import Upstream

MAX_WATCHES: Final = 1000
"""Resources that one caller may watch on one stream; each costs its upstream a subscription."""

LIST_CHANGED: Final = {
    Kind.TOOL: "notifications/tools/list_changed",
    Kind.PROMPT: "notifications/prompts/list_changed",
    Kind.RESOURCE: "notifications/resources/list_changed",
    Kind.TEMPLATE: "notifications/resources/list_changed",
}

Deliver = Callable[[str, dict[str, Any]], None]
"""Told method and parameters of a notification. Must neither block nor raise."""
UPDATED: Final = "notifications/resources/updated"


class Watches:
    """The resources that one caller wants to hear of: counted at their upstreams, given back at the end."""

    def __init__(self) -> None:
        self._watched: dict[tuple[str, str], Upstream] = {}

    def __len__(self) -> int:
        return len(self._watched)

    async def add(self, upstream: Upstream, own: str) -> None:
        """Watch a resource. Twice is once. Raises: BrokerError, if the upstream refuses, or there are too many."""
        if (upstream.key, own) in self._watched:
            return
        if len(self._watched) >= MAX_WATCHES:
            raise InvalidParams(f"more than {MAX_WATCHES} resources are subscribed")
        await upstream.watch(own)
        self._watched[upstream.key, own] = upstream

    async def remove(self, upstream: Upstream, own: str) -> None:
        """Watch it no more. What is not watched is no error."""
        if self._watched.pop((upstream.key, own), None) is not None:
            upstream.unwatch(own)

    def covers(self, server: str, own: str) -> bool:
        """Whether a resource is watched, or lies below one that is.

        Spec: 2025-11-25 schema, ResourceUpdatedNotification: it "might be a sub-resource of the one that the client
        actually subscribed to".
        """
        return any(server == key and own.startswith(watched) for key, watched in self._watched)

    def clear(self) -> None:
        """The caller is gone."""
        for (_, own), upstream in self._watched.items():
            upstream.unwatch(own)
        self._watched.clear()


@dataclass(frozen=True, slots=True, eq=False)
class Subscriber:
    """One stream to one caller."""

    caller: Caller
    view: str
    deliver: Deliver
    watches: Watches = field(default_factory=Watches)


class Hub:
    """The open streams of all callers, whatever their front and era."""

    def __init__(self) -> None:
        self._subscribers: set[Subscriber] = set()

    def __len__(self) -> int:
        return len(self._subscribers)

    def add(self, subscriber: Subscriber) -> None:
        """From now on it is told."""
        self._subscribers.add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """It is told no more. Twice is no error."""
        self._subscribers.discard(subscriber)

    def changed(self, policy: Policy, server: str, kinds: Iterable[Kind], before: Catalog, after: Catalog) -> None:
        """Lists of `server` were refreshed: tell whoever may know."""
        told: set[tuple[Subscriber, str]] = set()
        for kind in kinds:
            old, new = _entries(before, server, kind), _entries(after, server, kind)
            for subscriber in tuple(self._subscribers):
                key = (subscriber, LIST_CHANGED[kind])
                if key not in told and _may_know(policy, subscriber, old, new):
                    told.add(key)
                    subscriber.deliver(LIST_CHANGED[kind], {})

    def adopted(self, before: Policy, after: Policy, catalog: Catalog) -> None:
        """Another policy is in force: tell those who see other lists now."""
        differs: dict[tuple[Standing, Standing, str, Kind], bool] = {}
        for subscriber in tuple(self._subscribers):
            standings = before.standing(subscriber.caller), after.standing(subscriber.caller)
            told: set[str] = set()
            for kind in Kind:
                key = (*standings, subscriber.view, kind)
                if key not in differs:
                    entries = tuple(catalog.entries(kind))
                    differs[key] = _visible(before, subscriber, entries) != _visible(after, subscriber, entries)
                if differs[key] and LIST_CHANGED[kind] not in told:
                    told.add(LIST_CHANGED[kind])
                    subscriber.deliver(LIST_CHANGED[kind], {})

    def updated(self, policy: Policy, entry: Entry) -> None:
        """A resource has changed: tell those who watch it, and may (still) read it (SP-38)."""
        for subscriber in tuple(self._subscribers):
            if subscriber.watches.covers(entry.server, entry.own) and _visible(policy, subscriber, (entry,)):
                subscriber.deliver(UPDATED, {"uri": entry.public})


def _may_know(policy: Policy, subscriber: Subscriber, old: tuple[Entry, ...], new: tuple[Entry, ...]) -> bool:
    """Withheld only from those who see nothing of it, or from whom every difference is hidden."""
    seen_before, seen_after = _visible(policy, subscriber, old), _visible(policy, subscriber, new)
    if _definitions(old) == _definitions(new):
        return bool(seen_after)
    return _definitions(seen_before) != _definitions(seen_after)


def _visible(policy: Policy, subscriber: Subscriber, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    return tuple(
        entry for entry in entries if isinstance(decide(policy, subscriber.caller, subscriber.view, entry), Permit)
    )


def _definitions(entries: tuple[Entry, ...]) -> list[object]:
    return [entry.definition for entry in entries]


def _entries(catalog: Catalog, server: str, kind: Kind) -> tuple[Entry, ...]:
    shelf = catalog.shelves.get(server)
    return shelf.entries[kind] if shelf is not None else ()
