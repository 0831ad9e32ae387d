"""Methods of extensions, which the broker does not understand: whom they go to, and what they may name.

The server is the one visible that declares an extension which the caller declared too. What the broker knows in the
parameters is judged like anywhere else: an extension is no way around the rules.
"""

from typing import Any

from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.era import is_modern
from broker.core.extensions import is_foreign, share
from broker.core.policy import Permit, decide
from broker.core.request import Kind, Request
from broker.core.shape import is_object
from broker.errors import INVALID_PARAMS, RESOURCE_NOT_FOUND, UnknownName, UnknownResource
from broker.relay.listing import Scope
from broker.relay.served import Served
from broker.relay.tasks import Tasks, UnknownTask

_NAMED = (Kind.TOOL, Kind.PROMPT)


def extended_server(now: Served, request: Request, caller: Caller, declared: dict[str, Any]) -> Permit | None:
    """The permit for the server that a method of an extension can only mean; None if there is none, or another one.

    Who sees something of a server may speak to it: the permit is that of the first thing that the caller sees there.
    """
    if not is_foreign(request.method):
        return None
    seen = now.views.servers(now.catalog, Scope(caller, request.view, now.hidden()))
    found = [
        entry
        for key, entry in seen.items()
        if key in now.pool.upstreams and share(now.catalog.shelves[key].listing, declared, request.version)
    ]
    decision = decide(now.policy, caller, request.view, found[0]) if len(found) == 1 else None
    return decision if isinstance(decision, Permit) else None


def own_params(now: Served, request: Request, permit: Permit, tasks: Tasks) -> dict[str, Any]:
    """The parameters as the server has them: names, URIs and task ids that the broker has published, in its own form.

    Raises: UnknownName, UnknownResource, UnknownTask, for what the caller may not use, in either form.
    """
    params = dict(request.params)
    for holder in (params, params.get("ref")):
        if is_object(holder):
            own = {**holder, **_own(now, request, permit, holder)}
            params = own if holder is params else {**params, "ref": own}
    if isinstance(task_id := params.get("taskId"), str):
        task = tasks.known(permit.caller.principal, permit.entry.server, task_id)
        if task is None or not _may_use(now, request, permit, task.entry):
            raise UnknownTask
        params["taskId"] = task.own
    return params


def _own(now: Served, request: Request, permit: Permit, holder: dict[str, Any]) -> dict[str, str]:
    own: dict[str, str] = {}
    if isinstance(uri := holder.get("uri"), str):
        own["uri"] = _own_uri(now, request, permit, uri)
    if isinstance(name := holder.get("name"), str):
        own["name"] = _own_name(now, request, permit, name)
    return own


def _own_uri(now: Served, request: Request, permit: Permit, uri: str) -> str:
    server = permit.entry.server
    for spelled in (uri, now.catalog.shelves[server].publish(uri)):
        entry = now.catalog.lookup(Kind.RESOURCE, spelled)
        if entry is not None and entry.server == server:
            if not _may_use(now, request, permit, entry):
                raise _unknown_resource(request, uri)
            return entry.own
    if not _sees_all(now, request, permit):
        raise _unknown_resource(request, uri)
    return uri  # a link into the web


def _own_name(now: Served, request: Request, permit: Permit, name: str) -> str:
    server = permit.entry.server
    entries = [entry for kind in _NAMED if (entry := now.catalog.lookup(kind, name)) and entry.server == server]
    entries = entries or [
        entry for kind in _NAMED for entry in now.catalog.shelves[server].entries[kind] if entry.own == name
    ]
    # Where there are two, nobody knows whether the tool or the prompt is meant.
    may_pass = all(_may_use(now, request, permit, entry) for entry in entries) if entries else None
    if may_pass is None:
        may_pass = _sees_all(now, request, permit)  # of something that the broker does not know
    if not may_pass:
        raise UnknownName("name", name)
    return entries[0].own if entries else name


def _unknown_resource(request: Request, uri: str) -> UnknownResource:
    return UnknownResource(uri, INVALID_PARAMS if is_modern(request.version) else RESOURCE_NOT_FOUND)


def _sees_all(now: Served, request: Request, permit: Permit) -> bool:
    """Whether nothing of the server is hidden from the caller. Where something is, what the broker does not know must
    be refused as that is: if it passed, the difference would name what is hidden (I-13).
    """
    entries = now.catalog.shelves[permit.entry.server].entries
    return all(_may_use(now, request, permit, entry) for kind in Kind for entry in entries[kind])


def _may_use(now: Served, request: Request, permit: Permit, entry: Entry) -> bool:
    return isinstance(decide(now.policy, permit.caller, request.view, entry), Permit)
