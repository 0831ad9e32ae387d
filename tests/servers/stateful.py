"""A legacy stdio upstream that keeps state for whoever is connected: `python stateful.py [--pids FILE]`.

Tools: `remember` keeps a text, `recall` says it, with the process id and what the handshake declared; `ask` asks its
caller a form, naming no call, and answers with the answer; `hang` never answers. Roots that are declared it asks for at
once, before any call. `--pids`: every process that starts
appends its id.
"""

import argparse
import itertools
import json
import os
import sys
from typing import Any

Json = dict[str, Any]
TOOLS: list[Json] = [
    {"name": name, "inputSchema": {"type": "object"}} for name in ("remember", "recall", "ask", "hang")
]
FORM: Json = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"who": {"type": "string"}}}}


class Stateful:
    def __init__(self) -> None:
        self.text = ""
        self.declared: Json = {}
        self.roots: Any = None
        """What its client said when it was asked, without a call, as soon as hands were shaken."""
        self.ids = itertools.count(1)
        self.asked: dict[str, Any] = {}
        """Our questions, and the calls that wait for them."""

    def write(self, **message: Any) -> None:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()

    def say(self, ident: Any, said: Any) -> None:
        self.write(id=ident, result={"content": [{"type": "text", "text": json.dumps(said)}]})

    def call(self, ident: Any, name: str, arguments: Json) -> None:
        if name == "remember":
            self.text = arguments["text"]
            self.say(ident, "kept")
        elif name == "recall":
            self.say(ident, {"text": self.text, "pid": os.getpid(), "declared": self.declared, "roots": self.roots})
        elif name == "ask":
            question = f"q{next(self.ids)}"
            self.asked[question] = ident
            self.write(id=question, method="elicitation/create", params=FORM)

    def handle(self, message: Json) -> None:
        method, ident, params = message.get("method"), message.get("id"), message.get("params") or {}
        if method is None and ident == "roots":
            self.roots = message.get("result") or message.get("error")
        elif method == "notifications/initialized" and "roots" in self.declared:
            self.write(id="roots", method="roots/list")
        elif method is None:
            self.say(self.asked.pop(str(ident)), message.get("result") or message.get("error"))
        elif method == "initialize":
            self.declared = params["capabilities"]
            info = {"name": "stateful", "version": "1"}
            self.write(
                id=ident, result={"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            )
        elif method == "tools/list":
            self.write(id=ident, result={"tools": TOOLS})
        elif method == "tools/call":
            self.call(ident, params["name"], params.get("arguments") or {})
        elif ident is not None:
            self.write(id=ident, error={"code": -32601, "message": "Method not found"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pids")
    options = parser.parse_args()
    if options.pids:
        with open(options.pids, "a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    server = Stateful()
    for line in sys.stdin:
        server.handle(json.loads(line))


if __name__ == "__main__":
    main()
