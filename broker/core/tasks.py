"""Where task ids stand in messages, and their public form there: `<key>.<id>`.

Keys of servers have no dot, so a public id has one owner; it is looked up (`relay/tasks.py`), never split.
Spec: 2025-11-25 basic/utilities/tasks; the extension `io.modelcontextprotocol/tasks` in the modern era.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from broker.core.era import RELATED_TASK, is_modern, knows_tasks
from broker.core.rewrite import Publish, rewrite_error_data, rewrite_result
from broker.core.shape import is_array, is_object

MAX_TASK_ID: Final = 1024
"""Characters of a server's own id: each is kept for as long as its task may live."""
MAX_TTL: Final = 24 * 3600.0
"""Seconds for which a task is known at most, also where its server says "for ever"; each look at it begins anew."""

MODERN_METHODS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
LEGACY_METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/list"})
TASK_METHODS: Final = MODERN_METHODS | LEGACY_METHODS
STATUS: Final = frozenset({"notifications/tasks", "notifications/tasks/status"})
"""What tells of a change of a task, by its id: the former in the modern era, the latter before."""


ENDED: Final = frozenset({"completed", "failed", "cancelled"})
"""A task with one of these for its status does not change any more."""
_WITHOUT_RESULT: Final = frozenset({"cancelled"})


def task_methods(version: str) -> frozenset[str]:
    """The requests about tasks that a version knows."""
    if is_modern(version):
        return MODERN_METHODS
    return LEGACY_METHODS if knows_tasks(version) else frozenset()


def is_task_id(value: object) -> bool:
    """Whether a server's own id can be kept."""
    return isinstance(value, str) and 0 < len(value) <= MAX_TASK_ID


def publish_task(server: str, own: str) -> str:
    """The public form of a server's own id."""
    return f"{server}.{own}"


def ttl_of(task: Mapping[str, Any]) -> float:
    """Seconds for which a task is kept, by its `ttl` (2025-11-25) or `ttlMs`, both in milliseconds; null: no limit."""
    given = task.get("ttlMs", task.get("ttl"))
    if isinstance(given, bool) or not isinstance(given, int | float):
        return MAX_TTL
    return min(MAX_TTL, max(0.0, given / 1000))


def tells_all(method: str, result: Mapping[str, Any], version: str) -> bool:
    """Whether the result of a request about a task is the last that can be known of it.

    In the legacy era one that has completed, or failed, has a result that `tasks/result` asks for; in the modern one
    `tasks/get` brings that along.
    """
    ended = ENDED if is_modern(version) else _WITHOUT_RESULT
    status = result.get("status")
    return method == "tasks/result" or (isinstance(status, str) and status in ended)


def created_task(result: Mapping[str, Any], version: str) -> dict[str, Any] | None:
    """The task that a result creates: the result itself in the modern era, its `task` before."""
    if is_modern(version):
        return dict(result) if result.get("resultType") == "task" else None
    task = result.get("task")
    return task if is_object(task) else None


def related_task(holder: Mapping[str, Any]) -> str | None:
    """The own id of the task that parameters or a result say they belong to."""
    meta = holder.get("_meta")
    related = meta.get(RELATED_TASK) if is_object(meta) else None
    own = related.get("taskId") if is_object(related) else None
    return own if isinstance(own, str) else None


def publish_related(holder: dict[str, Any], server: str) -> dict[str, Any]:
    """Parameters or a result of a server, with the task they belong to under its public id."""
    own = related_task(holder)
    return holder if own is None else _with_related(holder, publish_task(server, own))


def own_related(holder: dict[str, Any], resolve: Callable[[str], str | None]) -> dict[str, Any]:
    """Parameters or a result of a caller, with the task under its own id.

    `resolve` knows the public ids of that caller at that server; any other is left out: on a link that many share, the
    server could take it for another caller's.
    """
    public = related_task(holder)
    return holder if public is None else _with_related(holder, resolve(public))


def _with_related(holder: dict[str, Any], task_id: str | None) -> dict[str, Any]:
    meta = dict(holder["_meta"])
    if task_id is None:
        del meta[RELATED_TASK]
    else:
        meta[RELATED_TASK] = {**meta[RELATED_TASK], "taskId": task_id}
    return {**holder, "_meta": meta}


def publish_task_content(task: dict[str, Any], server: str, publish: Publish) -> None:
    """What a task of the modern era carries inside, its result or its error, in public form; in place."""
    if is_object(task.get("result")):
        rewrite_result("tools/call", task["result"], publish)
        task["result"] = publish_related(task["result"], server)
    if is_object(task.get("error")) and "data" in task["error"]:
        task["error"] = {**task["error"], "data": rewrite_error_data(task["error"]["data"], publish)}


def listed_tasks(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tasks of a `tasks/list` result; what is none is left out."""
    tasks = result.get("tasks")
    return [task for task in tasks if is_object(task) and is_task_id(task.get("taskId"))] if is_array(tasks) else []
