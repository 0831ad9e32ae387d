"""The probe upstream: `python -m tests.fidelity.upstream --transport stdio|http|sse --era legacy|modern`."""

import argparse
import asyncio
import copy
from contextlib import suppress
from typing import Any

from tests.fidelity import content
from tests.fidelity.raw import META, Call, Json, Refused, Server

READ_CACHING = {"ttlMs": 5000, "cacheScope": "public"}
UPDATED = "notifications/resources/updated"
PATIENCE = 5.0
"""Seconds that a tool waits for what another message must bring."""


class Upstream(Server):
    """Says what is in content.py."""

    def __init__(self, era: str) -> None:
        super().__init__(era)
        self.cancelled: set[str] = set()
        self.tasks: dict[str, Json] = {}
        self.visited: set[str] = set()
        self.listening: dict[Call, Json] = {}
        """Open streams of changes, and what each brings."""
        self.roots_changes = 0
        self.changed = asyncio.Event()

    def greeting(self) -> Json:
        capabilities = {**content.CAPABILITIES, **content.OF_ERA[self.era]}
        return {"capabilities": capabilities, "instructions": content.INSTRUCTIONS}

    def heard(self, method: str, params: Json) -> None:
        if method == "notifications/roots/list_changed":
            self.roots_changes += 1
            self.changed.set()

    async def answer(self, call: Call) -> Json:
        result = copy.deepcopy(await self._answer(call))
        if call.is_modern and (call.method.endswith("/list") or call.method == "resources/read"):
            result = {**READ_CACHING, **result}
        return result

    async def _answer(self, call: Call) -> Json:
        match call.method:
            case "tools/list":
                return self._page(call, "tools", content.TOOLS)
            case "prompts/list":
                return self._page(call, "prompts", content.PROMPTS)
            case "resources/list":
                return self._page(call, "resources", content.RESOURCES)
            case "resources/templates/list":
                return self._page(call, "resourceTemplates", content.TEMPLATES)
            case "resources/read":
                return await self._read(call, call.params["uri"])
            case "prompts/get":
                return await self._prompt(call, call.params["name"])
            case "completion/complete":
                argument, context = call.params["argument"], call.params.get("context")
                values = [argument["value"] + "1", content.ODD, str(call.params["ref"]), str(context)]
                return {"completion": {"values": values, "total": 7, "hasMore": True, "x": 1}, "_meta": content.META}
            case "probe/echo":
                given = {name: value for name, value in call.params.items() if name != "_meta"}
                return {"given": given, "uri": given["uri"], "_meta": content.META, **content.UNKNOWN}
            case "resources/subscribe" | "resources/unsubscribe" if not call.is_modern:
                return self._watch(call, call.params["uri"])
            case "subscriptions/listen" if call.is_modern:
                return await self._listen(call, call.params["notifications"])
            case "tasks/list" if not call.is_modern:
                return {"tasks": list(self.tasks.values())}
            case "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel" if call.params["taskId"] in self.tasks:
                return await self._task(call, self.tasks[call.params["taskId"]])
            case "tools/call":
                return await self._tool(call, call.params["name"])
            case _:
                raise Refused(-32601, "Method not found")

    def _page(self, call: Call, field: str, items: list[Json]) -> Json:
        """Three items on a page."""
        start = int(call.params.get("cursor", "0"))
        more = {"nextCursor": str(start + 3)} if start + 3 < len(items) else {}
        return {field: items[start : start + 3], **more}

    async def _read(self, call: Call, uri: str) -> Json:
        if uri == "probe://asks":
            return {"contents": [{"uri": uri, "text": str(await call.ask(content.QUESTIONS["form"], content.STATE))}]}
        contents = content.contents_of(uri)
        if contents is None:
            data = {"data": {"uri": uri}} if call.is_modern else {}
            raise Refused(-32602 if call.is_modern else -32002, "Resource not found", **data)
        return {"contents": contents, "_meta": content.META, **content.UNKNOWN}

    def _watch(self, call: Call, uri: str) -> Json:
        if call.method == "resources/unsubscribe":
            call.connection.watched.discard(uri)
        elif content.contents_of(uri) is None:
            raise Refused(-32002, "Resource not found")
        else:
            call.connection.watched.add(uri)
        return {}

    async def _listen(self, call: Call, wanted: Json) -> Json:
        """A stream of what is asked for, and is there."""
        known = [uri for uri in wanted.get("resourceSubscriptions", []) if content.contents_of(uri) is not None]
        agreed = {"resourceSubscriptions": known} if known else {}
        tag = {"_meta": {META + "subscriptionId": call.id}}
        await call.notify("notifications/subscriptions/acknowledged", {"notifications": agreed, **tag})
        self.listening[call] = agreed
        try:
            await asyncio.Event().wait()
        finally:
            del self.listening[call]
        return {}

    async def _do_touch(self, call: Call, arguments: Json) -> Json:
        """Resources have changed: all are told who wanted to know."""
        for uri in arguments["uris"]:
            params = {"uri": uri, "_meta": content.META, "x": [1]}
            for connection in self.sessions.values():
                if uri in connection.watched and connection.push is not None:
                    await connection.push({"jsonrpc": "2.0", "method": UPDATED, "params": params})
            for listening, agreed in tuple(self.listening.items()):
                if uri in agreed.get("resourceSubscriptions", []):
                    tag = {**content.META, META + "subscriptionId": listening.id}
                    with suppress(ConnectionError):  # its reader goes this moment
                        await listening.notify(UPDATED, {**params, "_meta": tag})
        return {"content": []}

    async def _prompt(self, call: Call, name: str) -> Json:
        if name == "asks":
            answers = await call.ask(content.QUESTIONS["form"], content.STATE)
            return {"messages": [{"role": "user", "content": {"type": "text", "text": str(answers)}}]}
        if name != "greet":
            raise Refused(-32602, "No such prompt", {"name": name, "x": [None]})
        return {**content.PROMPT, "arguments": call.params.get("arguments")}

    async def _tool(self, call: Call, name: str) -> Json:
        errors = {**content.ERRORS, **content.MODERN_ERRORS}
        if name in errors:
            raise Refused(**errors[name])
        if name in content.RESULTS:
            return content.RESULTS[name]
        if name == "ask_twice":
            return await self._ask_twice(call)
        if name.startswith("ask_"):
            answers = await call.ask(questions(name.removeprefix("ask_"), call.era), content.STATE)
            return {"content": [], "structuredContent": {"answers": answers}}
        if name == "widget":
            return {"content": [{"type": "text", "text": "shown"}]}
        if name == "as_task":
            return self._make_task(call, call.params["arguments"]["label"])
        if name in content.DEEDS:
            return await getattr(self, f"_do_{name}")(call, call.params.get("arguments") or {})
        raise Refused(-32602, f"Unknown tool: {name}")

    def _make_task(self, call: Call, label: str) -> Json:
        task = {"taskId": f"task {label}", "status": "working", "createdAt": "2026-01-01T00:00:00Z", "x": [None]}
        task |= {"ttlMs": 60_000, "pollIntervalMs": 5} if call.is_modern else {"ttl": None, "pollInterval": 5}
        self.tasks[task["taskId"]] = task
        return {"resultType": "task", **task, "_meta": content.META} if call.is_modern else {"task": task}

    async def _task(self, call: Call, task: Json) -> Json:
        related = {
            "_meta": {"io.modelcontextprotocol/related-task": {"taskId": task["taskId"], "x": 1}, **content.META}
        }
        final = {"content": [{"type": "resource_link", "name": "r", "uri": content.README}]}
        match call.method:
            case "tasks/update":
                task |= {"status": "completed", "result": {**final, "structuredContent": call.params["inputResponses"]}}
                return {}
            case "tasks/cancel" if not call.is_modern:
                raise Refused(-32602, "Cannot cancel task", {"status": task["status"]})
            case "tasks/get" if call.is_modern and task["status"] == "working":
                return {**task, "status": "input_required", "inputRequests": content.QUESTIONS["bare_form"]}
            case "tasks/result":
                await call.progress(progress=1, **related)
                await call.notify("notifications/tasks/status", {**task, "statusMessage": content.ODD})
                await call.log("error", data=1, **related)
                question = content.QUESTIONS["bare_form"]["a"]
                question = {**question, "params": {**question["params"], **related}}
                return {**final, **related, "structuredContent": await call.ask({"a": question}, "task")}
            case _:
                return task

    async def _do_speaks(self, call: Call, arguments: Json) -> Json:
        await call.notify(
            "notifications/probe/said", {"uri": content.README, "odd": content.ODD, "_meta": content.META}
        )
        return {"content": []}

    async def _do_asks_beyond(self, call: Call, arguments: Json) -> Json:
        params = {"uri": content.README, "odd": content.ODD, "_meta": content.META, **content.UNKNOWN}
        answer = await call.ask({"a": {"method": "probe/ask", "params": params}}, "beyond")
        return {"content": [], "structuredContent": answer["a"]}

    async def _ask_twice(self, call: Call) -> Json:
        """Two rounds; a modern caller brings the answers of the first back in the state."""
        first, second = content.QUESTIONS["bare_form"], content.QUESTIONS["roots"]
        if not call.is_modern:
            await call.ask(first, "1")
            return {"content": [], "structuredContent": {"answers": await call.ask(second, "2")}}
        if call.params.get("requestState") != "second":
            await call.ask(first, "first")
            call.params.pop("inputResponses")
        return {"content": [], "structuredContent": {"answers": await call.ask(second, "second")}}

    async def _do_mirror(self, call: Call, arguments: Json) -> Json:
        return {"content": [], "structuredContent": {"params": call.params}}

    async def _do_progress(self, call: Call, arguments: Json) -> Json:
        await call.progress(progress=0.5, total=3, message=content.ODD, x=1, _meta=content.META)
        await call.progress(progress=1)
        await call.progress(progress=3, total=None, message="")
        return {"content": []}

    async def _do_logs(self, call: Call, arguments: Json) -> Json:
        for level in ("debug", "info", "warning", "error"):
            await call.log(level, logger="probe", data={"odd": content.ODD, "l": [1]}, x=1, _meta=content.META)
        await call.log("emergency", data=None)
        return {"content": []}

    async def _do_slow(self, call: Call, arguments: Json) -> Json:
        try:
            await call.progress(progress=1, message="begun")
            await asyncio.Event().wait()
        finally:
            self.cancelled.add(arguments["label"])
            self.changed.set()
        return {}

    async def _wait(self, is_true: Any) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not is_true():
                    self.changed.clear()
                    await self.changed.wait()
        return is_true()

    async def _do_was_cancelled(self, call: Call, arguments: Json) -> Json:
        return {"content": [], "isError": not await self._wait(lambda: arguments["label"] in self.cancelled)}

    async def _do_roots_changed(self, call: Call, arguments: Json) -> Json:
        heard = await self._wait(lambda: self.roots_changes > 0)
        self.roots_changes = 0
        return {"content": [], "isError": not heard}

    async def _do_url_required(self, call: Call, arguments: Json) -> Json:
        question = questions("url", call.era)["a"]
        if call.is_modern:
            return {"content": [], "structuredContent": {"done": bool(await call.ask({"a": question}, "url"))}}
        if arguments["label"] in self.visited:
            return {"content": [], "structuredContent": {"done": True}}
        self.visited.add(arguments["label"])
        raise Refused(-32042, "Go there first", {"elicitations": [question["params"]], "x": 1})

    async def _do_complete_url(self, call: Call, arguments: Json) -> Json:
        if not call.is_modern:
            await call.notify("notifications/elicitation/complete", {"elicitationId": "e-1", "x": 1})
        return {"content": []}


def questions(name: str, era: str) -> dict[str, Json]:
    """Questions as an era has them: the modern one knows no `elicitationId`."""
    asked = copy.deepcopy(content.QUESTIONS[name])
    for question in asked.values():
        if era == "modern" and "params" in question:
            question["params"].pop("elicitationId", None)
    return asked


class Decoy(Upstream):
    """Another server, whose things have the same names."""

    def greeting(self) -> Json:
        return {"capabilities": content.CAPABILITIES, "instructions": "Use `plain` of the decoy."}

    async def _answer(self, call: Call) -> Json:
        if call.method == "tools/list":
            # A page of MCP Apps that two servers have is nobody's.
            tools = [{name: value for name, value in tool.items() if name != "_meta"} for tool in content.TOOLS]
            return self._page(call, "tools", tools)
        if call.method.endswith("/list"):
            return await super()._answer(call)
        raise Refused(-32099, "the decoy was called")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=["stdio", "http", "sse"], default="stdio")
    parser.add_argument("--era", choices=["legacy", "modern"], default="legacy")
    parser.add_argument("--decoy", action="store_true")
    parser.add_argument("--port-file")
    options = parser.parse_args()
    server = (Decoy if options.decoy else Upstream)(options.era)
    if options.transport == "stdio":
        await server.stdio()
    else:
        await server.http(options.port_file, is_sse=options.transport == "sse")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
