"""Requests about tasks: which a caller may make, which task it means, and what all its tasks are."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import anyio

from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.era import TASKS, is_modern
from broker.core.extensions import has_tasks
from broker.core.policy import Denied, Permit, decide
from broker.core.request import Request
from broker.core.shape import is_object
from broker.core.tasks import task_methods
from broker.errors import BrokerError, InvalidParams, MethodNotFound, MissingCapability
from broker.relay.exchange import Exchange
from broker.relay.greeting import capabilities
from broker.relay.listing import Scope
from broker.relay.served import Served
from broker.relay.tasks import Task, Tasks, UnknownTask

MAX_PAGES: Final = 50
"""Pages of one server's tasks: its list has those of all callers, whom we must pass over to find one's own."""

Send = Callable[[Permit, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Sends the request upstream with these parameters. Raises: BrokerError."""


def refuse_unless_offered(now: Served, request: Request, exchange: Exchange) -> None:
    """Only what the view declares is served, and only to who can use it.

    Raises: MethodNotFound; MissingCapability, for a modern caller that did not declare the extension: so says the
    extension, "Protocol Errors".
    """
    offered = capabilities(now, request.view, exchange.who.caller, request.version)
    if request.method not in task_methods(request.version):
        raise MethodNotFound(request.method)
    if is_modern(request.version):
        if TASKS not in offered.get("extensions", {}):
            raise MethodNotFound(request.method)
        refuse_without_tasks(exchange.capabilities)
    elif "tasks" not in offered or not (_part(request.method) is None or _part(request.method) in offered["tasks"]):
        raise MethodNotFound(request.method)


def refuse_without_tasks(declared: dict[str, Any]) -> None:
    """Raises: MissingCapability, if a modern caller did not declare the tasks extension."""
    extensions = declared.get("extensions")
    if not is_object(extensions) or TASKS not in extensions:
        raise MissingCapability({"extensions": {TASKS: {}}})


def find_task(now: Served, tasks: Tasks, request: Request, caller: Caller, clock: float) -> tuple[Task, Permit]:
    """The task that a request means, if it is the caller's, and it may still use the tool that made it.

    Raises: UnknownTask, for any other: of somebody else, of another view, gone, or never made.
    """
    task = tasks.find(caller.principal, request.params.get("taskId"), is_modern=is_modern(request.version), now=clock)
    decision = decide(now.policy, caller, request.view, task.entry)
    if isinstance(decision, Denied) or task.entry.server not in now.pool.upstreams:
        raise UnknownTask
    return task, decision


async def list_tasks(
    served: Callable[[], Served], tasks: Tasks, request: Request, caller: Caller, clock: float, send: Send
) -> dict[str, Any]:
    """The caller's own tasks at the servers that it sees, on one page: there are no more than it may have.

    Of a tool that it may not use any more there is none, as `find_task` has it. `served` is what is in force: it may
    be replaced between two pages of a server.

    A server that cannot be asked is left out, as long as another one can.

    Raises: InvalidParams, for a cursor: none was given out; BrokerError, if no server can be asked.
    """
    if request.params.get("cursor") is not None:
        raise InvalidParams("Invalid cursor: list again from the beginning")
    found: dict[str, list[Any]] = {}
    failures: list[BrokerError] = []

    async def ask(key: str, entry: Entry) -> None:
        try:
            found[key] = await _all_pages(lambda: decide(served().policy, caller, request.view, entry), request, send)
        except BrokerError as error:
            failures.append(error)

    now = served()
    async with anyio.create_task_group() as asking:
        for key, entry in now.views.servers(now.catalog, Scope(caller, request.view, now.hidden())).items():
            decision = decide(now.policy, caller, request.view, entry)
            if isinstance(decision, Permit) and has_tasks(now.catalog.shelves[key].listing, "list"):
                asking.start_soon(ask, key, entry)
    if failures and not found:
        raise failures[0]
    now = served()
    listed = [task for key in now.pool.upstreams for task in found.get(key, ())]
    return {"tasks": [task for task in listed if _is_there(now, tasks, request, caller, task["taskId"], clock)]}


def _is_there(now: Served, tasks: Tasks, request: Request, caller: Caller, public: str, clock: float) -> bool:
    try:
        find_task(now, tasks, replace(request, params={"taskId": public}), caller, clock)
    except UnknownTask:
        return False
    return True


async def _all_pages(decided: Callable[[], Permit | Denied], request: Request, send: Send) -> list[Any]:
    """The decision is made anew for each page: fifty of them may take long."""
    tasks: list[Any] = []
    params = {name: value for name, value in request.params.items() if name != "cursor"}
    for _ in range(MAX_PAGES):
        decision = decided()
        if isinstance(decision, Denied):
            break
        result = await send(decision, params)
        tasks += result["tasks"]
        cursor = result.get("nextCursor")
        if not isinstance(cursor, str) or cursor == params.get("cursor"):
            break
        params = {**params, "cursor": cursor}
    return tasks


def _part(method: str) -> str | None:
    """The part of the `tasks` capability without which a method is not served."""
    return {"tasks/list": "list", "tasks/cancel": "cancel"}.get(method)
