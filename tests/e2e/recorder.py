"""An upstream that records: every tools/call that it reads is appended to --log as the very bytes, one a line.

`python recorder.py --log FILE [--http --port-file FILE]`. Legacy, one tool `echo`, which answers with its arguments
in `structuredContent`, copied as bytes. Standard library only: no parser stands between the wire and the log.
"""

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ARGUMENTS = b'"arguments":'


def arguments_of(body: bytes) -> bytes:
    """The bytes of `params.arguments`: from the first key of that name to the end of its value."""
    text = body[body.index(ARGUMENTS) + len(ARGUMENTS) :].decode()
    # Numbers keep their text; the value is only measured here.
    _, end = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode(text.lstrip())
    return text.lstrip()[:end].encode()


def reply(body: bytes, log: str) -> bytes | None:
    message = json.loads(body, parse_int=str)
    ident = message.get("id")
    if ident is None:
        return None
    head = b'{"jsonrpc":"2.0","id":' + str(ident).encode()
    result: Any
    match message["method"]:
        case "initialize":
            info = {"name": "recorder", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        case "tools/call":
            given = arguments_of(body)
            with Path(log).open("ab") as file:
                file.write(given + b"\n")
            return head + b',"result":{"content":[],"structuredContent":' + given + b"}}"
        case _:
            return head + b',"error":{"code":-32601,"message":"Method not found"}}'
    return head + b',"result":' + json.dumps(result).encode() + b"}"


def serve_http(options: argparse.Namespace) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = reply(body, options.log)
            self.send_response(200 if answer is not None else 202)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def do_GET(self) -> None:
            self.send_response(405)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if options.port_file is not None:
        partial = Path(options.port_file + ".partial")
        partial.write_text(f"http://127.0.0.1:{server.server_port}/mcp", encoding="utf-8")
        partial.replace(options.port_file)
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True)
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--port-file")
    options = parser.parse_args()
    if options.http:
        serve_http(options)
    for line in sys.stdin.buffer:
        answer = reply(line, options.log)
        if answer is not None:
            sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
