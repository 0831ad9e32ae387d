"""What one caller wants to hear of on one stream: resources and tasks, counted at their upstreams."""

from typing import Final

from broker.errors import InvalidParams
from broker.relay.tasks import Task
from broker.upstream.listening import Topic, resource, task
from broker.upstream.pool import Watching

MAX_WATCHES: Final = 1000
"""Resources and tasks that one caller may watch on one stream; each costs its upstream a subscription."""


class Watches:
    """See the module. What is watched is given back at the end."""

    def __init__(self) -> None:
        self._watched: dict[tuple[str, Topic], Watching] = {}
        """By server."""
        self._tasks: dict[str, Task] = {}
        """Those of it that are tasks, by public id."""
        self._coming = 0
        self._is_over = False

    def __len__(self) -> int:
        return len(self._watched)

    async def add(self, place: Watching, own: str) -> None:
        """Watch a resource. Twice is once. Raises: BrokerError, if the upstream refuses, or there are too many."""
        await self._add(place, resource(own))

    async def add_task(self, found: Task, place: Watching) -> None:
        """Hear of a task, likewise."""
        await self._add(place, task(found.own))
        self._tasks[found.public] = found

    def has_task(self, found: Task) -> bool:
        """Whether it is heard of."""
        return self._tasks.get(found.public) is found

    async def remove(self, key: str, own: str) -> None:
        """Watch a resource of that server no more. What is not watched is no error."""
        place = self._watched.pop((key, resource(own)), None)
        if place is not None:
            place.unwatch(resource(own))

    def covers(self, server: str, own: str) -> bool:
        """Whether a resource is watched, or lies below one that is.

        Spec: 2025-11-25 schema, ResourceUpdatedNotification: it "might be a sub-resource of the one that the client
        actually subscribed to".
        """
        return any(
            server == key and topic == resource(topic.own) and own.startswith(topic.own) for key, topic in self._watched
        )

    def clear(self) -> None:
        """The caller is gone."""
        self._is_over = True
        for (_, topic), place in self._watched.items():
            place.unwatch(topic)
        self._watched.clear()
        self._tasks.clear()

    async def _add(self, place: Watching, topic: Topic) -> None:
        mark = place.key, topic
        known = self._watched.get(mark)
        if known is not None and not known.is_lost:
            return
        if len(self) + self._coming >= MAX_WATCHES:
            raise InvalidParams(f"more than {MAX_WATCHES} resources and tasks are subscribed")
        self._coming += 1
        try:
            await place.watch(topic)
        finally:
            self._coming -= 1
        if self._is_over or self._watched.get(mark) is not known:
            place.unwatch(topic)  # another request for the same was quicker, or the caller has gone meanwhile
        else:
            self._watched[mark] = place
