"""The upstream of the benchmarks: an MCP server so lean that whatever stands in front of it is what is measured.

`python -m bench.echo --port 8000` serves streamable HTTP, without `--port` it serves stdio. Both eras, decided by each
request. It trusts its callers, so it is no example of a server. Its first tool, `echo`, says the text of its
argument, with `more` letters if it is told so; the others are there to be listed.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any, Final, cast

import orjson

SERVER_INFO: Final = {"name": "echo", "version": "1"}
META_SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
MODERN: Final = "2026-07-28"
SESSION: Final = b"mcp-session-id: bench\r\n"


class Echo:
    """From the bytes of a message to the bytes of its answer."""

    def __init__(self, tools: int) -> None:
        self._tools = orjson.Fragment(orjson.dumps([tool(number) for number in range(tools)]))

    def answer(self, data: bytes) -> tuple[str, bytes | None]:
        """The method, and the answer; None if there is none to give."""
        message: dict[str, Any] = orjson.loads(data)
        method = message.get("method", "")
        if "id" not in message:
            return method, None
        params = message.get("params") or {}
        result = self._result(method, params)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if result is None:
            answer["error"] = {"code": -32601, "message": "Method not found"}
        else:
            if META_VERSION in (params.get("_meta") or ()):
                result["resultType"] = "complete"
                result["_meta"] = {META_SERVER_INFO: SERVER_INFO}
            answer["result"] = result
        return method, orjson.dumps(answer)

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        match method:
            case "tools/call":
                arguments = params["arguments"]
                text = arguments["text"] + "x" * arguments.get("more", 0)
                return {"content": [{"type": "text", "text": text}], "isError": False}
            case "tools/list":
                return {"tools": self._tools, "ttlMs": 300_000, "cacheScope": "public"}
            case "initialize":
                version = params["protocolVersion"]
                return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": SERVER_INFO}
            case "server/discover":
                cache = {"ttlMs": 300_000, "cacheScope": "public"}
                return {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, **cache}
            case "ping":
                return {}
            case _:
                return None


def tool(number: int) -> dict[str, Any]:
    """A definition of the size that real servers have: 600 bytes."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"text": {"type": "string", "description": "What to say."}, "more": {"type": "integer"}},
        "required": ["text"],
    }
    if number == 0:
        return {"name": "echo", "description": "Say it again.", "inputSchema": schema}
    schema["properties"]["count"] = {"type": "integer", "minimum": 0, "maximum": 1000, "default": 10}
    schema["properties"]["mode"] = {"type": "string", "enum": ["brief", "full", "raw"], "description": "How to say it."}
    description = f"Tool number {number}, which looks like the tools that people have. " + "It explains itself. " * 10
    return {"name": f"tool_{number:04d}", "description": description, "inputSchema": schema}


def serve_stdio(echo: Echo) -> None:
    """One line in, one line out."""
    for line in sys.stdin.buffer:
        _, answer = echo.answer(line)
        if answer is not None:
            sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.buffer.flush()


async def serve_http(echo: Echo, port: int) -> None:
    """Until it is killed, on loopback."""
    import httptools  # the stdio server is started by tens, and starts faster without it

    class Connection(asyncio.Protocol):
        """One connection of a caller, which sends its next request when it has the answer to the last one."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
            self._parser = httptools.HttpRequestParser(self)
            self._body = b""

        def data_received(self, data: bytes) -> None:
            self._parser.feed_data(data)

        def on_body(self, body: bytes) -> None:
            self._body = self._body + body if self._body else body

        def on_message_complete(self) -> None:
            body, self._body = self._body, b""
            if self._parser.get_method() != b"POST":
                status = b"200 OK" if self._parser.get_method() == b"DELETE" else b"405 Method Not Allowed"
                self._transport.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
                return
            method, answer = echo.answer(body)
            if answer is None:
                self._transport.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
                return
            session = SESSION if method == "initialize" else b""
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
            self._transport.write(head % (session, len(answer)) + answer)

    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.echo", description="A lean MCP server to measure with.")
    parser.add_argument("--port", type=int, help="serve HTTP on this port of 127.0.0.1; without it, stdio")
    parser.add_argument("--tools", type=int, default=1, help="how many tools to list")
    parser.add_argument("--core", type=int, help="run on this core only")
    parser.add_argument("--hang-if", type=Path, help="answer nothing, if this file exists")
    arguments = parser.parse_args()
    if arguments.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})
    if arguments.hang_if is not None and arguments.hang_if.exists():
        sys.stdin.buffer.read()
    elif arguments.port is None:
        serve_stdio(Echo(arguments.tools))
    else:
        import uvloop  # likewise

        uvloop.run(serve_http(Echo(arguments.tools), arguments.port))


if __name__ == "__main__":
    main()
