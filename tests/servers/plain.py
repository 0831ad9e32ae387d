"""A legacy stdio upstream without an SDK, for tests of the broker's own commands: `python plain.py --name NAME`.

It has the names of probe.py that those tests ask for, and starts in a twentieth of its CPU: where each of hundreds of
commands starts a server of its own, the SDK's import is most of what they take. What a server can be, probe.py shows.
`slow` tells --log that it began, and never answers.
"""

import argparse
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
README_URI = "probe://static/readme"
BLOB_URI = "probe://static/blob"
TEXT: Json = {"text": {"type": "string"}}
NUMBERS: Json = {"a": {"type": "number"}, "b": {"type": "number"}}
SLOW: Json = {"seconds": {"type": "number"}, "label": {"type": "string"}}


def tool(name: str, description: str, properties: Json | None = None, **more: Any) -> Json:
    schema: Json = {"type": "object", "properties": properties or {}}
    return {"name": name, "description": description, "inputSchema": schema, **more}


TOOLS = [
    tool("echo", "Say it again.", TEXT),
    tool("add", "Add two numbers.", NUMBERS),
    tool("slow", "Never answer.", SLOW),
    tool("fail", "Answer with isError."),
    tool("link", "Link to a resource and embed another."),
]
PROMPTS = [{"name": "greet", "description": "Greet somebody.", "arguments": [{"name": "name", "required": True}]}]
RESOURCES = [
    {"name": "readme", "uri": README_URI, "mimeType": "text/plain"},
    {"name": "blob", "uri": BLOB_URI, "mimeType": "application/octet-stream"},
]
CAPABILITIES: Json = {"tools": {}, "prompts": {}, "resources": {}}


class Refused(Exception):
    """`args`: a code and a text."""


class Plain:
    """One connection. Every text begins with the name, so that a test can tell whose it is."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.name: str = options.name
        self.log: str | None = options.log
        self.tools = TOOLS + [
            tool(f"extra_{number}", f"Extra tool number {number}.") for number in range(options.tools)
        ]

    def answer(self, method: str, params: Json) -> Json | None:
        """None: never. Raises: Refused."""
        match method:
            case "initialize":
                info = {"name": self.name, "version": "1.2.3"}
                instructions = f"This is {self.name}. Use `echo` to hear yourself."
                greeting: Json = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": info}
                return {**greeting, "instructions": instructions}
            case "ping":
                return {}
            case "tools/list":
                return {"tools": self.tools}
            case "tools/call":
                return self.call(params["name"], params.get("arguments") or {})
            case "prompts/list":
                return {"prompts": PROMPTS}
            case "prompts/get" if params["name"] == "greet":
                text = self.text(f"hello {params.get('arguments', {}).get('name', '')}")
                return {"messages": [{"role": "user", "content": text}]}
            case "resources/list":
                return {"resources": RESOURCES}
            case "resources/templates/list":
                return {"resourceTemplates": [{"name": "doc", "uriTemplate": "probe://docs/{id}"}]}
            case "resources/read" if params["uri"] in (README_URI, BLOB_URI):
                return {"contents": [self.contents(params["uri"])]}
            case "resources/read":
                raise Refused(-32002, f"Unknown resource: {params['uri']}")
            case _:
                raise Refused(-32601, "Method not found")

    def call(self, name: str, arguments: Json) -> Json | None:
        match name:
            case "echo":
                return self.result(self.text(str(arguments.get("text", ""))))
            case "add":
                total = arguments["a"] + arguments["b"]
                return self.result(self.text(str(total)), structuredContent={"sum": total})
            case "fail":
                return self.result(self.text("this tool always fails"), isError=True)
            case "link":
                link = {
                    "type": "resource_link",
                    "name": "blob",
                    "uri": BLOB_URI,
                    "mimeType": "application/octet-stream",
                }
                resource = {**self.contents(README_URI), "text": f"{self.name}:readme"}
                return self.result(link, {"type": "resource", "resource": resource})
            case "slow":
                if self.log is not None:
                    with Path(self.log).open("a", encoding="utf-8") as file:
                        file.write(f"started {arguments.get('label', 'slow')}\n")
                return None
            case _:
                raise Refused(-32602, f"Unknown tool: {name}")

    def result(self, *content: Json, **more: Any) -> Json:
        return {"content": list(content), **more, "probeUnknownField": {"from": self.name}}

    def text(self, value: str) -> Json:
        return {"type": "text", "text": f"{self.name}:{value}"}

    def contents(self, uri: str) -> Json:
        if uri == BLOB_URI:
            blob = base64.b64encode(bytes(range(256))).decode()
            return {"uri": uri, "mimeType": "application/octet-stream", "blob": blob}
        return {"uri": uri, "mimeType": "text/plain", "text": f"{self.name}:{uri}"}

    def handle(self, message: Json) -> None:
        if "method" not in message or "id" not in message:
            return
        reply: Json = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            result = self.answer(message["method"], message.get("params") or {})
        except Refused as refused:
            code, text = refused.args
            reply["error"] = {"code": code, "message": text}
        else:
            if result is None:
                return
            reply["result"] = result
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="probe")
    parser.add_argument("--tools", type=int, default=0, help="how many extra tools (extra_0, ...)")
    parser.add_argument("--slow-start", type=float, default=0, help="seconds before anything is read")
    parser.add_argument("--log", help="`started <label>` is appended here")
    options = parser.parse_args()
    time.sleep(options.slow_start)
    server = Plain(options)
    for line in sys.stdin:
        server.handle(json.loads(line))


if __name__ == "__main__":
    main()
