"""What is exercised: one row for each feature; a row is run with a caller and the names that things have for it."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from tests.e2e.brokers import TIMEOUT
from tests.fidelity import content
from tests.fidelity.caller import Asked
from tests.fidelity.names import LEGACY, MODERN, Json, Names, Pair, Run
from tests.fidelity.watching import listen, subscribe

_LABELS = count(1)


@dataclass(frozen=True)
class Feature:
    title: str
    run: Run
    only: frozenset[Pair] | None = None
    """The pairs of eras in which there is such a thing; None: all."""
    phase: int = 1
    """Those of the second phase come when all cells have done the first: they may spoil a link for the others."""
    needs_own_link: bool = False
    """Only where no other cell shares the upstream's link."""


def call(tool: str, arguments: Json | None = None, meta: Json | None = None) -> Run:
    async def run(caller: Asked, names: Names) -> Json:
        params = {"name": names.name(tool), "arguments": arguments or {}}
        return await caller.whole("tools/call", params, meta=meta)

    return run


def read(uri: str) -> Run:
    async def run(caller: Asked, names: Names) -> Json:
        return await caller.whole("resources/read", {"uri": names.uri(uri)})

    return run


def prompt(name: str) -> Run:
    async def run(caller: Asked, names: Names) -> Json:
        arguments = {"who": content.ODD, "b": ""}
        return await caller.whole("prompts/get", {"name": names.name(name), "arguments": arguments})

    return run


def complete(kind: str, context: Json | None = None) -> Run:
    async def run(caller: Asked, names: Names) -> Json:
        if kind == "ref/prompt":
            ref = {"type": kind, "name": names.name("greet"), "title": "T"}
        else:
            ref = {"type": kind, "uri": names.uri(content.TEMPLATE)}
        more = {"context": context} if context is not None else {}
        params = {"ref": ref, "argument": {"name": "who", "value": "A\u2028"}, **more}
        return await caller.whole("completion/complete", params)

    return run


def listed(field: str) -> Run:
    async def run(caller: Asked, names: Names) -> Json:
        return await caller.all_of(field)

    return run


async def greeting(caller: Asked, names: Names) -> Json:
    return {"result": caller.greeting}


async def mirror(caller: Asked, names: Names) -> Json:
    """What the upstream got of a call."""
    params = {"name": names.name("mirror"), "arguments": {"odd": content.ODD, "uri": content.README}, "unknown": [1]}
    return await caller.whole("tools/call", params, meta={**content.META, "traceparent-like": "x"})


async def logs_at_warning(caller: Asked, names: Names) -> Json:
    if caller.is_modern:
        return await call("logs", meta={"io.modelcontextprotocol/logLevel": "warning"})(caller, names)
    await caller.ask("logging/setLevel", {"level": "warning"})
    return await call("logs")(caller, names)


async def logs_at_debug(caller: Asked, names: Names) -> Json:
    if caller.is_modern:
        return await call("logs", meta={"io.modelcontextprotocol/logLevel": "debug"})(caller, names)
    await caller.ask("logging/setLevel", {"level": "debug"})
    return await call("logs")(caller, names)


async def cancelled(caller: Asked, names: Names) -> Json:
    """The upstream's call ends, nobody is answered, and the next call works."""
    label, ident, first = f"label-{next(_LABELS)}-{id(caller)}", caller.next_id(), len(caller.notices)
    params = {"name": names.name("slow"), "arguments": {"label": label}, "_meta": {"progressToken": ident}}
    request = asyncio.create_task(caller.exchange("tools/call", params, ident=ident))
    await caller.heard("notifications/progress", caller.count("notifications/progress") + 1)
    await caller.cancel(ident, request)
    after = await call("was_cancelled", {"label": label})(caller, names)
    answer: Any = None
    done, _ = await asyncio.wait([request], timeout=0.1)
    if done:
        with suppress(asyncio.CancelledError, ConnectionError):
            answer = (await request).decode()
    else:
        request.cancel()
    assert all(one["params"].get("progressToken") in (ident, None) for one in caller.notices[first:])
    return {"answer": answer, "result": after["result"]}


async def labelled(caller: Asked, names: Names) -> Json:
    return await call("url_required", {"label": f"label-{next(_LABELS)}-{id(caller)}"})(caller, names)


async def roots_changed(caller: Asked, names: Names) -> Json:
    await caller.tell("notifications/roots/list_changed")
    return await call("roots_changed")(caller, names)


async def foreign(caller: Asked, names: Names) -> Json:
    """A method that only the extension knows; names and URIs in it are the upstream's own there."""
    params = {"uri": names.uri(content.README), "name": names.name("plain"), "odd": content.ODD, "none": None}
    return await caller.whole("probe/echo", params)


async def page(caller: Asked, names: Names) -> Json:
    """A page of MCP Apps calls its tool by the only name that it knows."""
    return await caller.whole("tools/call", {"name": "widget", "arguments": {}})


async def legacy_task(caller: Asked, names: Names) -> Json:
    """Made, looked at, waited for with a question in between, listed, and too late to be cancelled."""
    made = await caller.whole("tools/call", {**_as_task(names), "task": {"ttl": 60_000}})
    ident = made["result"]["task"]["taskId"]
    steps = [made, *[await caller.whole(f"tasks/{one}", {"taskId": ident}) for one in ("get", "result", "cancel")]]
    listed = await caller.whole("tasks/list")
    listed["result"]["tasks"] = [one for one in listed["result"]["tasks"] if one["taskId"] == ident]
    return _own_task(names, ident, [*steps, listed])


async def modern_task(caller: Asked, names: Names) -> Json:
    """Made, asked for, answered, and done."""
    made = await caller.whole("tools/call", _as_task(names))
    ident = made["result"]["taskId"]
    asked = await caller.whole("tasks/get", {"taskId": ident})
    answers = {
        key: caller.answer(one["method"], one["params"]) for key, one in asked["result"]["inputRequests"].items()
    }
    told = await caller.whole("tasks/update", {"taskId": ident, "inputResponses": answers})
    steps = [made, asked, told, *[await caller.whole(f"tasks/{one}", {"taskId": ident}) for one in ("get", "cancel")]]
    return _own_task(names, ident, steps)


def _as_task(names: Names) -> Json:
    return {"name": names.name("as_task"), "arguments": {"label": f"{next(_LABELS)}"}}


def _own_task(names: Names, ident: str, steps: list[Json]) -> Json:
    """What happened, with the id of the task and its link as the upstream has them; only where they are public."""
    mark = f"{names.key}." if names.key else ""
    for step in steps:
        step.get("result", {}).get("_meta", {}).pop("io.modelcontextprotocol/serverInfo", None)  # of one hop
    assert ident.startswith(f"{mark}task "), ident
    text = json.dumps(steps).replace(json.dumps(ident), '"the task"')
    text = text.replace(json.dumps(names.uri(content.README)), '"the readme"').replace(f"[{names.key}] Who?", "Who?")
    return {"steps": json.loads(text)}


async def ping(caller: Asked, names: Names) -> Json:
    return await asyncio.wait_for(caller.whole("ping"), TIMEOUT)


FEATURES: list[Feature] = [
    Feature("greeting", greeting),
    Feature("ping", ping, frozenset({(LEGACY, LEGACY), (LEGACY, MODERN)})),
    *(Feature(f"list {field}", listed(field)) for field in ("tools", "prompts", "resources", "resourceTemplates")),
    Feature("call: parameters as the upstream gets them", mirror),
    *(Feature(f"call: {name}", call(name)) for name in content.RESULTS),
    *(Feature(f"error: {name}", call(name)) for name in content.ERRORS),
    *(Feature(f"error: {name}", call(name)) for name in content.MODERN_ERRORS),
    Feature("prompt", prompt("greet")),
    Feature("prompt: error with data", prompt("fails")),
    *(
        Feature(f"read {uri}", read(uri))
        for uri in (content.README, content.BLOB, content.OPAQUE, content.WIDGET, content.UNLISTED)
    ),
    Feature("read: unknown", read("probe://nowhere")),
    Feature("complete a prompt", complete("ref/prompt", {"arguments": {"b": "1"}, "x": 1})),
    Feature("complete a template", complete("ref/resource")),
    Feature("progress", call("progress")),
    Feature("log messages, no level set", call("logs")),
    Feature("log messages from warning on", logs_at_warning),
    Feature("log messages from debug on", logs_at_debug),
    *(Feature(f"ask: {name}", call(f"ask_{name}")) for name in content.QUESTIONS),
    Feature("ask: twice", call("ask_twice")),
    Feature("ask: in a prompt", prompt("asks")),
    Feature("ask: in a read", read("probe://asks")),
    Feature("ask: URL required (-32042)", labelled, frozenset({(LEGACY, LEGACY), (MODERN, LEGACY), (MODERN, MODERN)})),
    Feature("elicitation complete", call("complete_url"), frozenset({(LEGACY, LEGACY), (MODERN, LEGACY)})),
    Feature("roots changed", roots_changed, frozenset({(LEGACY, LEGACY)})),
    Feature("subscribe", subscribe, frozenset({(LEGACY, LEGACY), (LEGACY, MODERN)})),
    Feature("listen", listen, frozenset({(MODERN, LEGACY), (MODERN, MODERN)})),
    Feature("extension: a method", foreign),
    Feature("extension: a notification", call("speaks")),
    Feature("extension: a request of the server", call("asks_beyond"), frozenset({(LEGACY, LEGACY)})),
    Feature("apps: a page calls its tool", page),
    Feature("task of 2025-11-25", legacy_task, frozenset({(LEGACY, LEGACY)})),
    Feature("task of the extension", modern_task, frozenset({(MODERN, MODERN)})),
    Feature("cancellation", cancelled, phase=2),
    Feature("ask after a cancellation", call("ask_bare_form"), phase=2, needs_own_link=True),
    Feature("logs after a cancellation", logs_at_debug, phase=2, needs_own_link=True),
]
PHASES = (1, 2)
