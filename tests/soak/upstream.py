"""The upstream of the soak: `python -m tests.soak.upstream --transport stdio|http|sse --era legacy|modern`.

The tool `chat` sends back the canary of its arguments in everything: progress, log messages, a question, the result.
"""

import argparse
import asyncio
from contextlib import suppress

from tests.fidelity.raw import Call, Json, Refused, Server

CAPABILITIES: Json = {"tools": {}, "logging": {}}


class Chat(Server):
    def greeting(self) -> Json:
        return {"capabilities": CAPABILITIES, "instructions": ""}

    async def answer(self, call: Call) -> Json:
        if call.method == "tools/list":
            caching = {"ttlMs": 60_000, "cacheScope": "public"} if call.is_modern else {}
            return {"tools": [{"name": "chat", "inputSchema": {"type": "object"}}], **caching}
        if call.method != "tools/call":
            raise Refused(-32601, "Method not found")
        arguments: Json = call.params["arguments"]
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
        if arguments["fails"]:
            raise Refused(-32000, canary, {"canary": canary})
        return {"content": [{"type": "text", "text": f"{canary}{said}"}], "_meta": {"canary": canary}}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=["stdio", "http", "sse"], default="stdio")
    parser.add_argument("--era", choices=["legacy", "modern"], default="legacy")
    parser.add_argument("--port-file")
    options = parser.parse_args()
    server = Chat(options.era)
    if options.transport == "stdio":
        await server.stdio()
    else:
        await server.http(options.port_file, is_sse=options.transport == "sse")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
