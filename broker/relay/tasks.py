"""Whose task is whose: each is known to the principal whose call made it, and for anybody else does not exist.

Public ids carry no proof of their own (they are published as `<key>.<id>`, nothing more), so the binding is kept here:
bounded for each principal, and for as long as the server says that the task may live. It lives in one process; what it
does not hold is unknown (SP-68, SP-69, I-32).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary, ref

from broker.core.catalog import Entry
from broker.core.logs import LogGate
from broker.core.tasks import STATUS, publish_related, publish_task, related_task, ttl_of
from broker.errors import InvalidParams
from broker.upstream.link import Link

MAX_TASKS: Final = 1000
"""Tasks of one principal that are known at a time; then the oldest is forgotten, and is unknown from there on."""
MAX_TASKS_IN_ALL: Final = 100_000
"""Likewise of all principals together."""


class UnknownTask(InvalidParams):
    """The one answer for every id that is not this caller's: it says nothing, not even the id."""

    def __init__(self) -> None:
        super().__init__("Failed to retrieve task: Task not found")


class Listener(Protocol):
    """A request in flight that waits for a task."""

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """A notification that belongs to it: under its own token, from the level that its caller reads."""
        ...

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """A notification on its stream, as it is."""
        ...


@dataclass(slots=True, eq=False)
class Task:
    """One task. `entry` is the tool whose call made it, without its definition: who may not call that any more has no
    task of it either.
    """

    principal: str
    entry: Entry
    own: str
    is_modern: bool
    link: "ref[Link]"
    """Where it was made, or was last found: what another link says of an equal id is not about it."""
    expires: float
    gate: LogGate
    session: str = ""
    """The session that asked about it last."""
    token: str | int | None = None
    """The progress token of the call that made it."""
    waiting: list[Listener] = field(default_factory=list[Listener])
    """Calls of `tasks/result`: they are told first."""
    is_over: bool = False
    """Whether its caller has all of it: nothing more will come of it."""

    @property
    def public(self) -> str:
        """Its public id."""
        return publish_task(self.entry.server, self.own)


class Tasks:
    """The known tasks of all principals."""

    def __init__(self) -> None:
        self._tasks: dict[str, dict[str, Task]] = {}
        """By principal and public id, the oldest first."""
        self._principals: dict[str, set[str]] = {}
        """By public id: two links of one caller each may give the same id."""
        self._on: WeakKeyDictionary[Link, set[Task]] = WeakKeyDictionary()
        """By the link where they are."""
        self._count = 0
        self._to_look_at: list[str] = []
        """Principals, one of whom is looked at with each task that is made."""

    def __len__(self) -> int:
        return self._count

    def bind(
        self,
        made: Mapping[str, Any],
        entry: Entry,
        principal: str,
        *,
        is_modern: bool,
        link: Link,
        session: str,
        token: str | int | None,
        now: float,
    ) -> Task:
        """A server has made a task for a call. `made` is the task as it came, with an id that can be kept."""
        task = Task(
            principal,
            entry.kept(),
            made["taskId"],
            is_modern,
            ref(link),
            now + ttl_of(made),
            LogGate(now),
            session,
            token,
        )
        self._forget(principal, task.public)
        self._look_back(now)
        self._make_room(principal, now)
        self._tasks.setdefault(principal, {})[task.public] = task
        self._principals.setdefault(task.public, set()).add(principal)
        self._on.setdefault(link, set()).add(task)
        self._count += 1
        return task

    def find(self, principal: str, public: object, *, is_modern: bool, now: float) -> Task:
        """The task of that id, if it is this principal's, of its era. Raises: UnknownTask."""
        task = self._tasks.get(principal, {}).get(public) if isinstance(public, str) else None
        if task is not None and task.expires <= now:
            self._forget(principal, task.public)
            task = None
        if task is None or task.is_modern != is_modern:
            raise UnknownTask
        return task

    def renew(self, task: Task, seen: Mapping[str, Any], link: Link, session: str, now: float) -> None:
        """Its caller has asked about it, and `seen` is what its server says now."""
        if task.link() is not link:
            self._leave(task)
            self._on.setdefault(link, set()).add(task)
        task.link, task.session = ref(link), session
        if "ttl" in seen or "ttlMs" in seen:
            task.expires = now + ttl_of(seen)

    def are_on(self, link: Link, now: float) -> bool:
        """Whether there is a task on a link of which something may still come."""
        return any(not task.is_over and task.expires > now for task in self._on.get(link, ()))

    def known(self, principal: str, server: str, public: str) -> Task | None:
        """The task of that id, if it is this principal's, at this server."""
        task = self._tasks.get(principal, {}).get(public)
        return task if task is not None and task.entry.server == server else None

    def own_id(self, principal: str, server: str, public: str) -> str | None:
        """A server's own id for a public one of this principal; None for any other."""
        task = self.known(principal, server, public)
        return None if task is None else task.own

    def about(self, server: str, own: str, link: Link, owner: str | None = None) -> Iterator[Task]:
        """Those that a message of `link` about its own id concerns. `owner`: the principal whose link it is, None if it
        is shared; on links of their own two callers may have tasks with equal ids.
        """
        public = publish_task(server, own)
        for principal in tuple(self._principals.get(public, ())):
            if owner not in (None, principal):
                continue
            task = self._tasks[principal][public]
            if task.is_modern or task.link() is link:
                yield task

    def has_any(self, server: str, now: float) -> bool:
        """Whether a server has a task that may still run."""
        return any(
            task.entry.server == server and task.expires > now for own in self._tasks.values() for task in own.values()
        )

    def _look_back(self, now: float) -> None:
        """At the tasks of one principal after the other: who makes none any more would keep old ones for ever."""
        self._to_look_at = self._to_look_at or list(self._tasks)
        if self._to_look_at:
            self._forget_expired(self._to_look_at.pop(), now)

    def _forget_expired(self, principal: str, now: float) -> None:
        """But for those that somebody waits for: a server may take longer, and what it says goes there."""
        for public, task in tuple(self._tasks.get(principal, {}).items()):
            if task.expires <= now and not task.waiting:
                self._forget(principal, public)

    def _make_room(self, principal: str, now: float) -> None:
        own = self._tasks.get(principal, {})
        if len(own) >= MAX_TASKS:
            self._forget_expired(principal, now)
        if len(own) >= MAX_TASKS:
            self._forget(principal, next(iter(own)))
        elif self._count >= MAX_TASKS_IN_ALL:
            stranger = next(iter(self._tasks))
            self._forget(stranger, next(iter(self._tasks[stranger])))

    def _forget(self, principal: str, public: str) -> None:
        own = self._tasks.get(principal, {})
        task = own.pop(public, None)
        if task is None:
            return
        self._leave(task)
        self._count -= 1
        if not own:
            del self._tasks[principal]
        self._principals[public].discard(principal)
        if not self._principals[public]:
            del self._principals[public]

    def _leave(self, task: Task) -> None:
        """It is not on its link any more."""
        link = task.link()
        if link is not None:
            self._on.get(link, set[Task]()).discard(task)


def news_of(server: str, method: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The own id of the task that a notification is about, and its parameters under the public id; None if of none."""
    if method in STATUS:
        own = params.get("taskId")
        return (own, {**params, "taskId": publish_task(server, own)}) if isinstance(own, str) else None
    own = related_task(params)
    return None if own is None else (own, publish_related(params, server))
