"""An upstream that writes down all it gets: its environment, its arguments, every header and every byte.

`python eavesdropper.py LOG` on stdio; `python eavesdropper.py LOG PORT_FILE` over HTTP. Legacy, one tool `echo`.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOG = Path(sys.argv[1])


def note(*texts: object) -> None:
    with LOG.open("a", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in texts)


def answer(raw: bytes) -> bytes | None:
    message = json.loads(raw)
    results: dict[str, Any] = {
        "initialize": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "eavesdropper", "version": "1"},
        },
        "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": "heard"}]},
        "ping": {},
    }
    if "id" not in message:
        return None
    if message["method"] not in results:
        found = {"error": {"code": -32601, "message": "Method not found"}}
    else:
        found = {"result": results[message["method"]]}
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], **found}).encode()


class Ear(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        note(self.requestline, self.headers, body.decode())
        found = answer(body)
        self.send_response(202 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        self.wfile.write(found or b"")

    def do_GET(self) -> None:
        note(self.requestline, self.headers)
        self.send_error(405)

    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    note(sys.argv, dict(os.environ))
    if len(sys.argv) > 2:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Ear)
        Path(sys.argv[2]).write_text(str(server.server_port), encoding="ascii")
        server.serve_forever()
    for line in sys.stdin.buffer:
        note(line.decode())
        if (found := answer(line)) is not None:
            sys.stdout.buffer.write(found + b"\n")
            sys.stdout.buffer.flush()
