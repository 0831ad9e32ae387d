"""A legacy stdio upstream that does what a script says: `python puppet.py SCRIPT.json`. Standard library only.

The script maps places (`start`, `initialize`, `initialized`, `tools/list`, `boom`, `eof`) to lists of actions. A
text is written as it is, with $ID and $TOKEN filled in; `["name", argument]` is a function of ACTIONS. What has no
place is answered decently, and so is the tool `ok`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
TOOLS: list[Json] = [{"name": name, "inputSchema": {"type": "object"}} for name in ("ok", "boom")]
HELLO: Json = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "puppet", "version": "1"},
}


def write(data: bytes, to: int = 1) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(to, view) :]


def hang(_: Any) -> None:
    while True:
        time.sleep(3600)


def repeat(what: Any) -> None:
    """[times, text]: $N counts."""
    times, text = what
    for number in range(times):
        write(text.replace("$N", str(number)).encode())


def say_environment(ident: Any) -> None:
    answer(ident, {"content": [{"type": "text", "text": json.dumps(dict(os.environ))}]})


def leave_behind(pids: str) -> None:
    """A child in our group that keeps our stdout open, and outlives us."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"], stdin=subprocess.DEVNULL)
    Path(pids).write_text(str(child.pid), encoding="ascii")


ACTIONS: dict[str, Callable[[Any], object]] = {
    "exit": lambda code: os._exit(code),
    "hang": hang,
    "close": os.close,
    "repeat": repeat,
    "hex": lambda digits: write(bytes.fromhex(digits)),
    "stderr": lambda text: write(text.encode(), 2),
    "environment": say_environment,
    "leave-behind": leave_behind,
}


def answer(ident: Any, result: Json) -> None:
    write(json.dumps({"jsonrpc": "2.0", "id": ident, "result": result}).encode() + b"\n")


def act(actions: list[Any], message: Json) -> None:
    ident = message.get("id")
    token = ((message.get("params") or {}).get("_meta") or {}).get("progressToken")
    for action in actions:
        if isinstance(action, str):
            write(action.replace("$ID", json.dumps(ident)).replace("$TOKEN", json.dumps(token)).encode())
        else:
            name, argument = action
            ACTIONS[name](ident if argument == "$ID" else argument)


def place(message: Json) -> str:
    method, params = message.get("method", ""), message.get("params") or {}
    if method == "notifications/initialized":
        return "initialized"
    return params.get("name", "") if method == "tools/call" else method


def respond(message: Json) -> None:
    """What a decent server says."""
    ident, where, method = message.get("id"), place(message), message.get("method")
    if method is None or ident is None:
        return
    if where == "initialize":
        answer(ident, HELLO)
    elif where == "tools/list":
        answer(ident, {"tools": TOOLS})
    elif method == "tools/call":
        text = str(message["params"].get("arguments", {}).get("text", ""))
        answer(ident, {"content": [{"type": "text", "text": f"{where} {text}"}]})
    else:
        error = {"code": -32601, "message": "Method not found"}
        write(json.dumps({"jsonrpc": "2.0", "id": ident, "error": error}).encode() + b"\n")


def main(path: str) -> None:
    script = json.loads(Path(path).read_text(encoding="utf-8"))
    act(script.get("start", []), {})
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "log" in script:
            with Path(script["log"]).open("a", encoding="utf-8") as log:
                log.write(line.decode())
        if place(message) in script:
            act(script[place(message)], message)
        else:
            respond(message)
    act(script.get("eof", []), {})


if __name__ == "__main__":
    main(sys.argv[1])
