"""Which requests belong to another worker, told from what they name: a session, a call that waits, a task.

What a worker gives out begins with its number (`workers/assignment.py`); a task has the id of its server, and is looked
for around the ring. A worker that is gone answers nothing any more, and then its sessions are unknown here, like any
other that has ended.
"""

from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import parse_qsl

from broker.core.caller import Caller
from broker.core.shape import is_array, is_object
from broker.core.tasks import MODERN_METHODS
from broker.downstream.crew import Crew
from broker.downstream.message import Incoming
from broker.downstream.session import SESSION_HEADER, SESSION_PARAMETER, LegacySession
from broker.downstream.web import Http

SESSIONS: Final = "/api/v1/sessions"

HasTask = Callable[[object, Caller], bool]
"""Whether a task of the modern era is this caller's, and known here."""
ListSessions = Callable[[], Iterable[LegacySession]]


class Elsewhere:
    """See the module. Each method: whether another worker has the request now, with its connection.

    They raise HttpError and Disconnected.
    """

    def __init__(self, crew: Crew, has_task: HasTask, sessions: ListSessions) -> None:
        self._crew = crew
        self._has_task = has_task
        self._sessions = sessions

    async def has_session_of(self, http: Http) -> bool:
        """By the session that its head names."""
        session = http.headers.get(SESSION_HEADER)
        if session is None and http.path == "/messages":
            session = dict(parse_qsl(http.query.decode("latin-1"))).get(SESSION_PARAMETER)
        return await self._crew.has_taken(http, self._crew.worker.other(session))

    async def has_named(self, http: Http, caller: Caller, incoming: Incoming) -> bool:
        """By the call that it takes up again, or by its tasks: a request of the modern era."""
        owner = self._crew.worker.other(incoming.params.get("requestState"))
        ids = [] if owner else _tasks_of(incoming)
        if not owner and (not ids or any(self._has_task(one, caller) for one in ids)):
            return False
        if owner:
            return await self._crew.has_taken(http, owner)
        return await self._crew.has_gone_on(http)

    async def has_administered(self, http: Http) -> bool:
        """By the session that an administrator ends."""
        reference = http.path.removeprefix(f"{SESSIONS}/")
        if http.method != "DELETE" or reference == http.path:
            return False
        if any(one.reference == reference for one in self._sessions()):
            return False
        return await self._crew.has_gone_on(http)


def _tasks_of(incoming: Incoming) -> list[object]:
    """The ids of tasks that a request of the modern era names."""
    if incoming.method in MODERN_METHODS:
        return [incoming.params.get("taskId")]
    asked = incoming.params.get("notifications") if incoming.method == "subscriptions/listen" else None
    ids = asked.get("taskIds") if is_object(asked) else None
    return list(ids) if is_array(ids) else []
