"""An upstream over stdio that tells everybody what it knows. The standard library only: it starts at once.

    leaky.py HOLE TOKEN ARGUMENT

It knows its environment, its arguments, and a TOKEN of its own. HOLE is a file to which it appends all of it and every
message that it gets, so that a test can see that what it looks for had been there.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

HOLE, TOKEN = Path(sys.argv[1]), sys.argv[2]
KNOWN = f"{dict(os.environ)} {sys.argv[2:]}"
SCHEMA = {"type": "object"}


def note(text: str) -> None:
    with HOLE.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def tell() -> None:
    """On stderr, and as a line that is no message."""
    print(f"token={TOKEN} {KNOWN}", file=sys.stderr, flush=True)
    print(f"not a message: {KNOWN}", flush=True)


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    match method:
        case "initialize":
            greeting = {"protocolVersion": "2025-11-25", "serverInfo": {"name": "leaky", "version": "1"}}
            return {
                "result": {**greeting, "capabilities": {"tools": {}, "resources": {}, "prompts": {}, "logging": {}}}
            }
        case "tools/list":
            return {
                "result": {
                    "tools": [{"name": name, "inputSchema": SCHEMA} for name in ("say", "fail", "die", "guarded")]
                }
            }
        case "resources/list":
            return {"result": {"resources": [{"uri": "leak://x", "name": "x"}]}}
        case "prompts/list":
            return {"result": {"prompts": [{"name": "p"}]}}
        case "tools/call" if params["name"] == "say":
            return {"result": {"content": [{"type": "text", "text": "said"}], "structuredContent": params["arguments"]}}
        case "tools/call" if params["name"] == "die":
            tell()
            os._exit(3)
        case _:
            said = f"cannot do {method}: {KNOWN}"
            return {"error": {"code": 1001, "message": said, "data": {"known": KNOWN, "deep": [{"token": TOKEN}]}}}


note(KNOWN)
tell()
for line in sys.stdin:
    note(line.rstrip())
    message = json.loads(line)
    if "id" in message and "method" in message:
        found = answer(message["method"], message.get("params", {}))
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **found}), flush=True)
