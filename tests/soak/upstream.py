"""The upstream of the soaks: `python -m tests.soak.upstream --transport stdio|http|sse --era legacy|modern`.

The tool `chat` sends back the canary of its arguments in everything: progress, log messages, a question, the result;
`troubles` are what it can be told to do wrong. `touch` changes the resource `note:///<canary>`; `work` makes a task.
"""

import argparse
import asyncio
import os
from contextlib import suppress
from typing import NoReturn

from tests.fidelity.raw import META, Call, Json, Refused, Server

CAPABILITIES: Json = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}
TASKS: Json = {
    "legacy": {"tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}},
    "modern": {"extensions": {META + "tasks": {}}},
}
UPDATED = "notifications/resources/updated"
TTL = 3000
"""Milliseconds for which a task is known: at the end of a soak none is left."""


class Chat(Server):
    def __init__(self, era: str, *, keeps: bool = False) -> None:
        super().__init__(era)
        self.keeps = keeps
        """Whether this process says whom it has served: only a server that callers do not share may."""
        self.served: list[str] = []
        self.listening: dict[Call, list[str]] = {}
        self.made: dict[str, Json] = {}

    def greeting(self) -> Json:
        return {"capabilities": {**CAPABILITIES, **TASKS[self.era]}, "instructions": ""}

    async def answer(self, call: Call) -> Json:
        result = await self._answer(call)
        if call.is_modern and (call.method.endswith("/list") or call.method == "resources/read"):
            return {"ttlMs": 60_000, "cacheScope": "public", **result}
        return result

    async def _answer(self, call: Call) -> Json:
        match call.method:
            case "tools/list":
                task = {"execution": {"taskSupport": "optional"}}
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("chat", "touch")]
                return {"tools": [*tools, {"name": "work", "inputSchema": {"type": "object"}, **task}]}
            case "resources/list":
                return {"resources": []}
            case "resources/templates/list":
                return {"resourceTemplates": [{"uriTemplate": "note:///{canary}", "name": "note"}]}
            case "resources/read":
                uri = call.params["uri"]
                return {"contents": [{"uri": uri, "text": uri}]}
            case "resources/subscribe" if not call.is_modern:
                call.connection.watched.add(call.params["uri"])
                return {}
            case "resources/unsubscribe" if not call.is_modern:
                call.connection.watched.discard(call.params["uri"])
                return {}
            case "subscriptions/listen" if call.is_modern:
                return await self._listen(call)
            case "tasks/get" | "tasks/result" | "tasks/cancel" if call.params["taskId"] in self.made:
                return self._task(call, self.made[call.params["taskId"]])
            case "tasks/get" | "tasks/result" | "tasks/cancel":
                raise Refused(-32602, "Task not found")
            case "tools/call":
                arguments: Json = call.params["arguments"]
                match call.params["name"]:
                    case "touch":
                        return await self._touch(f"note:///{arguments['canary']}")
                    case "work":
                        return self._work(call, arguments["canary"])
                    case _:
                        return await self._chat(call, arguments)
            case _:
                raise Refused(-32601, "Method not found")

    async def _chat(self, call: Call, arguments: Json) -> Json:
        canary, is_retry = arguments["canary"], "inputResponses" in call.params
        for step in range(0 if is_retry else arguments["steps"]):
            await asyncio.sleep(arguments["delay"])
            await call.progress(progress=step + 1, message=canary)
            await call.log("warning", data=canary)
        await asyncio.sleep(arguments["delay"])
        said = ""
        if arguments["asks"]:
            params = {"message": f"Who are you? {canary}", "requestedSchema": {"type": "object", "properties": {}}}
            answers = await call.ask({"who": {"method": "elicitation/create", "params": params}}, f"state of {canary}")
            answer = answers["who"]
            said = " refused" if "error" in answer else " answered"
            if "error" not in answer and answer["content"]["canary"] != canary:
                # A stranger's answer: what it says is a foreign canary for whoever reads this.
                said = f" CROSSED {answer['content']['canary']}"
        await self._misbehave(call, arguments.get("trouble", ""))
        if arguments["fails"]:
            raise Refused(-32000, canary, {"canary": canary})
        meta: Json = {"canary": canary}
        if self.keeps:
            self.served = [*self.served[-9:], canary]
            meta["served"] = self.served
        filling = [{"type": "text", "text": canary * 1000}] * arguments.get("size", 0)
        return {"content": [{"type": "text", "text": f"{canary}{said}"}, *filling], "_meta": meta}

    async def _misbehave(self, call: Call, trouble: str) -> None:
        match trouble:
            case "exit":
                os._exit(3)
            case "hang":
                await asyncio.Event().wait()
            case "malformed":
                await call.write({"jsonrpc": "2.0", "id": call.id, "result": 7})
                give_up()
            case "twice":
                await call.write({"jsonrpc": "2.0", "id": call.id, "result": {"content": [], "isError": True}})
            case "stray":
                await call.write({"jsonrpc": "2.0", "id": 10**9, "result": {"content": []}})

    async def _listen(self, call: Call) -> Json:
        wanted: Json = call.params["notifications"]
        tag = {"_meta": {META + "subscriptionId": call.id}}
        await call.notify("notifications/subscriptions/acknowledged", {"notifications": wanted, **tag})
        self.listening[call] = wanted.get("resourceSubscriptions", [])
        try:
            await asyncio.Event().wait()
        finally:
            del self.listening[call]
        return {}

    async def _touch(self, uri: str) -> Json:
        for connection in tuple(self.sessions.values()):
            if uri in connection.watched and connection.push is not None:
                with suppress(ConnectionError):
                    await connection.push({"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": uri}})
        for listening, uris in tuple(self.listening.items()):
            if uri in uris:
                with suppress(ConnectionError):
                    await listening.notify(UPDATED, {"uri": uri, "_meta": {META + "subscriptionId": listening.id}})
        return {"content": [{"type": "text", "text": uri.removeprefix("note:///")}]}

    def _work(self, call: Call, canary: str) -> Json:
        if not call.is_modern and "task" not in call.params:
            return {"content": [{"type": "text", "text": canary}]}
        ident = f"{canary} {call.serial} {os.urandom(4).hex()}"
        task = {"taskId": ident, "status": "completed", "createdAt": "2026-01-01T00:00:00Z"}
        task |= {"ttlMs": TTL, "pollIntervalMs": 5} if call.is_modern else {"ttl": TTL, "pollInterval": 5}
        while len(self.made) > 1000:
            del self.made[next(iter(self.made))]
        self.made[ident] = task
        return {"resultType": "task", **task} if call.is_modern else {"task": task}

    def _task(self, call: Call, task: Json) -> Json:
        content = {"content": [{"type": "text", "text": task["taskId"].split()[0]}]}
        if call.method == "tasks/result":
            return content
        return {**task, "result": content} if call.is_modern else task


def give_up() -> NoReturn:
    """No answer from here: another one was given."""
    raise asyncio.CancelledError


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=["stdio", "http", "sse"], default="stdio")
    parser.add_argument("--era", choices=["legacy", "modern"], default="legacy")
    parser.add_argument("--keeps", action="store_true")
    parser.add_argument("--number", help="whatever: another one makes another command of it")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file")
    options = parser.parse_args()
    server = Chat(options.era, keeps=options.keeps)
    if options.transport == "stdio":
        await server.stdio()
    else:
        await server.http(options.port_file, is_sse=options.transport == "sse", port=options.port)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
