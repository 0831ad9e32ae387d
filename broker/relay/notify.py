"""Who is told of changes: of a list, those who see something of it and can see the change; of a resource, those who
asked to be told.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import anyio

from broker.core.caller import Caller
from broker.core.catalog import Catalog, Entry, Shelf
from broker.core.era import LATEST_LEGACY, Version
from broker.core.extensions import share
from broker.core.logs import LogGate
from broker.core.policy import Permit, Policy, decide
from broker.core.questions import labelled, questions_of, requests_of, unanswerable
from broker.core.request import Kind
from broker.core.rewrite import rewrite_foreign
from broker.core.standing import Standing
from broker.core.tasks import STATUS, publish_task_content
from broker.relay.exchange import Exchange
from broker.relay.tasks import Task, Tasks, news_of
from broker.relay.watches import Watches
from broker.upstream.link import Link

LIST_CHANGED: Final = {
    Kind.TOOL: "notifications/tools/list_changed",
    Kind.PROMPT: "notifications/prompts/list_changed",
    Kind.RESOURCE: "notifications/resources/list_changed",
    Kind.TEMPLATE: "notifications/resources/list_changed",
}

Deliver = Callable[[str, dict[str, Any]], None]
"""Told method and parameters of a notification. Must neither block nor raise."""
UPDATED: Final = "notifications/resources/updated"
PROGRESS: Final = "notifications/progress"
MESSAGE: Final = "notifications/message"


class Stream(Protocol):
    """The open stream of a legacy session: the way to it outside of its calls."""

    @property
    def version(self) -> Version:
        """What the session speaks."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the session can be asked: its handshake is complete.

        Spec: 2025-11-25 basic/lifecycle, "Initialization": "The server SHOULD NOT send requests other than pings and
        logging before receiving the initialized notification".
        """
        ...

    def talk(self) -> Exchange:
        """Asks and tells it, as of now: with the capabilities and the log level that it has."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Subscriber:
    """One stream to one caller; `session` and `stream` are those of a legacy session."""

    caller: Caller
    view: str
    deliver: Deliver
    watches: Watches = field(default_factory=Watches)
    session: str = ""
    """The legacy session whose stream it is; "" for a modern one, which hears only of what it asked for."""
    capabilities: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What its caller can be asked, and which extensions it knows."""
    is_one_of_many: bool = False
    """Whether its view has several servers, so that a question must say which one asks."""
    stream: Stream | None = None


class Shelves(Protocol):
    """What the lists of a configuration are made of."""

    @property
    def policy(self) -> Policy:
        """Compiled rules."""
        ...

    def listed(self, caller: Caller, view: str, kind: Kind) -> tuple[Entry, ...]:
        """What a list of this caller has."""
        ...


Concerns = Callable[[Subscriber], bool]
"""Whether a change is a subscriber's business."""


def concerns_all(subscriber: Subscriber) -> bool:
    """What a link tells that all share."""
    return True


class Hub:
    """The open streams of all callers, whatever their front and era."""

    def __init__(self) -> None:
        self._subscribers: set[Subscriber] = set()
        self._gates: dict[str, LogGate] = {}
        """By server: how much it may say to all."""
        self.tasks = Tasks()
        """Whose task is whose: nobody else hears of it."""
        self._opened = anyio.Event()

    def __len__(self) -> int:
        return len(self._subscribers)

    def add(self, subscriber: Subscriber) -> None:
        """From now on it is told."""
        self._subscribers.add(subscriber)
        self.wake()

    def remove(self, subscriber: Subscriber) -> None:
        """It is told no more. Twice is no error."""
        self._subscribers.discard(subscriber)

    def wake(self) -> None:
        """A stream may have opened."""
        self._opened.set()
        self._opened = anyio.Event()

    async def opened(self) -> None:
        """Wait until a stream may have opened."""
        await self._opened.wait()

    def streams(self, principal: str) -> list[tuple[Subscriber, Stream]]:
        """The open streams of a principal's legacy sessions."""
        return [
            (subscriber, subscriber.stream)
            for subscriber in self._subscribers
            if subscriber.caller.principal == principal and subscriber.stream is not None and subscriber.stream.is_open
        ]

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

    def turned(self, policy: Policy, server: str, catalog: Catalog) -> None:
        """A server that is hidden while it is down has come or gone: tell those who see something of it."""
        for method in sorted(set(LIST_CHANGED.values())):
            kinds = [kind for kind in Kind if LIST_CHANGED[kind] == method]
            for subscriber in tuple(self._subscribers):
                if any(_visible(policy, subscriber, _entries(catalog, server, kind)) for kind in kinds):
                    subscriber.deliver(method, {})

    def adopted(self, before: Policy, after: Policy, catalog: Catalog) -> None:
        """Another policy is in force: tell those who see other lists now."""
        differs: dict[tuple[Standing, Standing, str, Kind], bool] = {}
        for subscriber in tuple(self._subscribers):
            standings = before.standing(subscriber.caller), after.standing(subscriber.caller)
            if standings[0] is standings[1]:
                continue
            told: set[str] = set()
            for kind in Kind:
                key = (*standings, subscriber.view, kind)
                if key not in differs:
                    entries = tuple(catalog.entries(kind))
                    differs[key] = _visible(before, subscriber, entries) != _visible(after, subscriber, entries)
                if differs[key] and LIST_CHANGED[kind] not in told:
                    told.add(LIST_CHANGED[kind])
                    subscriber.deliver(LIST_CHANGED[kind], {})

    def swapped(self, before: "Shelves", after: "Shelves") -> None:
        """Another configuration is in force: tell those who see other lists in it."""
        differs: dict[tuple[Standing, Standing, str, Kind], bool] = {}
        for subscriber in tuple(self._subscribers):
            caller, view = subscriber.caller, subscriber.view
            standings = before.policy.standing(caller), after.policy.standing(caller)
            told: set[str] = set()
            for kind in Kind:
                key = (*standings, view, kind)
                if key not in differs:
                    seen = [_definitions(one.listed(caller, view, kind)) for one in (before, after)]
                    differs[key] = seen[0] != seen[1]
                if differs[key] and LIST_CHANGED[kind] not in told:
                    told.add(LIST_CHANGED[kind])
                    subscriber.deliver(LIST_CHANGED[kind], {})

    def updated(
        self, policy: Policy, entry: Entry, params: Mapping[str, Any], concerns: Concerns = concerns_all
    ) -> None:
        """A resource has changed: tell those who watch it, and may (still) read it (SP-38). `params`: what else its
        server says of that.
        """
        for subscriber in tuple(self._subscribers):
            is_watched = subscriber.watches.covers(entry.server, entry.own) and concerns(subscriber)
            if is_watched and _visible(policy, subscriber, (entry,)):
                subscriber.deliver(UPDATED, {**params, "uri": entry.public})

    def task_changed(
        self,
        policy: Policy,
        shelf: Shelf,
        link: Link,
        method: str,
        params: dict[str, Any],
        now: float,
        owner: str | None = None,
    ) -> None:
        """A server has said something about a task: tell whoever's it is, and nobody else (I-32).

        `owner`: the principal whose link it came on, None if that is shared.

        On the stream of the `tasks/result` that waits for it, else on that of the session that asked about it last, or
        on those that listen for it.
        """
        news = news_of(shelf.mount.key, method, params)
        if news is None:
            return
        own, published = news
        for task in self.tasks.about(shelf.mount.key, own, link, owner):
            told = {**published, "progressToken": task.token} if method == PROGRESS else dict(published)
            if (method == PROGRESS and task.token is None) or not task.gate.admits(now):
                continue
            if method in STATUS:
                publish_task_content(told, shelf.mount.key, shelf.publish)
            for listener in tuple(task.waiting):
                (listener.notice if method == MESSAGE else listener.tell)(method, told)
            if not task.waiting and method != MESSAGE:
                self._tell_of_task(policy, task, method, told)

    def extended(
        self,
        policy: Policy,
        shelf: Shelf,
        method: str,
        params: dict[str, Any],
        now: float,
        concerns: Concerns = concerns_all,
    ) -> None:
        """A server says something in the words of an extension, and to no call: those are told who know the extension,
        and see something of the server. A modern stream brings what was asked for, and there is no asking for this.
        """
        if not self._gates.setdefault(shelf.mount.key, LogGate(now)).admits(now):
            return
        rewrite_foreign(params, shelf.publish, shelf.public_of_own)
        for subscriber in tuple(self._subscribers):
            knows = bool(subscriber.session) and share(shelf.listing, subscriber.capabilities, LATEST_LEGACY)
            if (
                knows
                and concerns(subscriber)
                and any(_visible(policy, subscriber, entries) for entries in shelf.entries.values())
            ):
                subscriber.deliver(method, params)

    def _tell_of_task(self, policy: Policy, task: Task, method: str, params: dict[str, Any]) -> None:
        for subscriber in tuple(self._subscribers):
            if subscriber.caller.principal != task.principal or not _hears_of(subscriber, task):
                continue
            if isinstance(decide(policy, subscriber.caller, subscriber.view, task.entry), Permit):
                asked = _asked_by_task(params, subscriber, task.entry.server)
                if asked is not None:
                    subscriber.deliver(method, asked)


def _hears_of(subscriber: Subscriber, task: Task) -> bool:
    if task.is_modern:
        return subscriber.watches.has_task(task)
    return bool(subscriber.session) and subscriber.session == task.session


def _asked_by_task(params: dict[str, Any], subscriber: Subscriber, server: str) -> dict[str, Any] | None:
    """A task with its questions as this subscriber is asked them; None if it offers no answer to one of them."""
    if "inputRequests" not in params:
        return params
    questions = questions_of(params)
    if questions is None or any(unanswerable(one, subscriber.capabilities) for one in questions.values()):
        return None
    if subscriber.is_one_of_many:
        questions = {key: labelled(question, server) for key, question in questions.items()}
    return {**params, "inputRequests": requests_of(questions)}


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
