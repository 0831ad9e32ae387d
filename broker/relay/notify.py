"""Who is told that a list has changed: those who see something of it, and can see the change."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from broker.core.caller import Caller
from broker.core.catalog import Catalog, Entry
from broker.core.policy import Permit, Policy, decide
from broker.core.request import Kind

LIST_CHANGED: Final = {
    Kind.TOOL: "notifications/tools/list_changed",
    Kind.PROMPT: "notifications/prompts/list_changed",
    Kind.RESOURCE: "notifications/resources/list_changed",
    Kind.TEMPLATE: "notifications/resources/list_changed",
}

Deliver = Callable[[str], None]
"""Told the method of a notification. Must neither block nor raise."""


@dataclass(frozen=True, slots=True, eq=False)
class Subscriber:
    """One stream to one caller."""

    caller: Caller
    view: str
    deliver: Deliver


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
                    subscriber.deliver(LIST_CHANGED[kind])


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
