"""A handwritten streamable-HTTP upstream without any framework, which can misbehave: `python rawhttp.py --fault NAME`.

The tool `ok` always works. The fault acts on the tool `boom`; with `--at handshake` it acts on `initialize` or
`server/discover`, with `--at list` on `tools/list`. The URL goes to stderr and to `--port-file`.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Headers = dict[str, str]
LEGACY, MODERN = "2025-11-25", "2026-07-28"
BLOCK = b"a" * 2**20
"""One mebibyte of a JSON string."""
TOOLS: list[Json] = [
    {"name": name, "description": text, "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
    for name, text in [("ok", "Works."), ("boom", "Does not.")]
]
TYPED: list[Json] = [
    TOOLS[0],
    TOOLS[1] | {"outputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
]
REASONS = {200: "OK", 202: "Accepted", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized"} | {
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


class Request:
    def __init__(self, method: str, path: str, headers: Headers, body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body


class State:
    """What the connections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sessions: set[str] = set()
        self.expired = False
        self.fits = True
        """`misfit`: whether the last result fitted the schema of its tool."""
        self.elsewhere = ""
        """URL of the other origin, where `redirect` points."""

    def log(self, line: str) -> None:
        if self.options.log is not None:
            with Path(self.options.log).open("a", encoding="utf-8") as file:
                file.write(line + "\n")


class Out:
    """The answer's side of one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def head(self, status: int, headers: Headers) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS[status]}", *(f"{name}: {value}" for name, value in headers.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self.writer.drain()

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def whole(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        await self.head(status, {"Content-Length": str(len(body)), **(headers or {})})
        await self.raw(body)

    async def json(self, message: Json, status: int = 200, headers: Headers | None = None) -> None:
        body = json.dumps(message).encode()
        await self.whole(status, body, {"Content-Type": "application/json", **(headers or {})})


def around(ident: Any) -> tuple[bytes, bytes]:
    """What stands before and after the text of a result."""
    head = b'{"jsonrpc":"2.0","id":' + json.dumps(ident).encode()
    tail = b'"}],"resultType":"complete"}}'
    return head + b',"result":{"content":[{"type":"text","text":"', tail


# --- the faults ----------------------------------------------------------------------------------------------------


async def gzip_bomb(state: State, out: Out, ident: Any) -> None:
    """A valid gzip of --bytes (1 GiB), a thousandth of that on the wire."""
    await out.head(
        200, {"Content-Type": "application/json", "Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
    )
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head, tail = around(ident)
    await out.chunk(packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH))
    for _ in range(max(1, state.options.bytes // len(BLOCK))):
        if data := packer.compress(BLOCK):
            await out.chunk(data)
    await out.chunk(packer.compress(tail) + packer.flush())
    await out.raw(b"0\r\n\r\n")


async def endless_body(state: State, out: Out, ident: Any) -> None:
    await out.head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
    await out.chunk(around(ident)[0])
    while True:
        await out.chunk(BLOCK)


async def huge_json(state: State, out: Out, ident: Any) -> None:
    """A well-formed answer of --bytes, with its length declared."""
    head, tail = around(ident)
    blocks = max(1, state.options.bytes // len(BLOCK))
    length = len(head) + blocks * len(BLOCK) + len(tail)
    await out.head(200, {"Content-Type": "application/json", "Content-Length": str(length)})
    await out.raw(head)
    for _ in range(blocks):
        await out.raw(BLOCK)
    await out.raw(tail)


async def drip(state: State, out: Out, ident: Any) -> None:
    """One byte every --interval seconds: each read succeeds, the answer never comes."""
    await out.head(200, {"Content-Type": "application/json", "Content-Length": "1000000"})
    for byte in around(ident)[0] + b"a" * 1_000_000:
        await out.raw(bytes([byte]))
        await asyncio.sleep(state.options.interval)


async def sse_endless_event(state: State, out: Out, ident: Any) -> None:
    await out.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
    await out.chunk(b"event: message\ndata: ")
    while True:
        await out.chunk(BLOCK)


async def sse_blank_flood(state: State, out: Out, ident: Any) -> None:
    """An event stream of --bytes of empty lines before the answer."""
    await flood(out, b"\n", state.options.bytes, ident)


async def sse_empty_flood(state: State, out: Out, ident: Any) -> None:
    """An event stream of --bytes of messages that say nothing before the answer."""
    await flood(out, b"data:{}\n\n", state.options.bytes, ident)


async def flood(out: Out, event: bytes, size: int, ident: Any) -> None:
    await out.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
    for _ in range(max(1, size // len(BLOCK))):
        await out.chunk(event * (len(BLOCK) // len(event)))
    head, tail = around(ident)
    await out.chunk(b"data: " + head + b"after the flood" + tail + b"\n\n")
    await out.raw(b"0\r\n\r\n")


async def html_error(state: State, out: Out, ident: Any) -> None:
    page = b"<!doctype html><title>502</title><script>alert(1)</script><h1>Bad gateway</h1>"
    await out.whole(502, page, {"Content-Type": "text/html"})


async def empty_200(state: State, out: Out, ident: Any) -> None:
    await out.whole(200, b"", {"Content-Type": "application/json"})


async def redirect(state: State, out: Out, ident: Any) -> None:
    """To another origin, which logs what it was sent (`elsewhere <method> authorization=<value>`)."""
    await out.whole(307, b"", {"Location": state.elsewhere})


async def refused_401(state: State, out: Out, ident: Any) -> None:
    await out.whole(401, b"", {"WWW-Authenticate": 'Bearer realm="rawhttp", error="invalid_token"'})


async def refused_429(state: State, out: Out, ident: Any) -> None:
    await out.whole(429, b"slow down", {"Content-Type": "text/plain", "Retry-After": "7"})


async def refused_503(state: State, out: Out, ident: Any) -> None:
    await out.whole(503, b"later", {"Content-Type": "text/plain", "Retry-After": "7"})


async def hang(state: State, out: Out, ident: Any) -> None:
    await asyncio.Event().wait()


async def session_expired(state: State, out: Out, ident: Any) -> None:
    """Forget every session and answer 404, once."""
    if state.expired:
        await answer(state, out, ident, text("boom, but politely"))
        return
    state.expired = True
    state.sessions.clear()
    await out.json(error(ident, -32600, "Session not found"), 404)


async def polite(state: State, out: Out, ident: Any) -> None:
    await answer(state, out, ident, text("boom, but politely"))


async def misfit(state: State, out: Out, ident: Any) -> None:
    """Every other result of `boom` does not fit the tool's own schema."""
    state.fits = not state.fits
    await answer(state, out, ident, {**text("n"), "structuredContent": {"n": 1 if state.fits else "one", "more": []}})


FAULTS: dict[str, Callable[[State, Out, Any], Awaitable[None]]] = {
    "misfit": misfit,
    "none": polite,
    "gzip-bomb": gzip_bomb,
    "endless-body": endless_body,
    "drip": drip,
    "html-error": html_error,
    "empty-200": empty_200,
    "redirect": redirect,
    "401": refused_401,
    "429": refused_429,
    "503": refused_503,
    "hang": hang,
    "sse-endless-event": sse_endless_event,
    "sse-blank-flood": sse_blank_flood,
    "sse-empty-flood": sse_empty_flood,
    "session-expired": session_expired,
    "huge-json": huge_json,
}

# --- the polite part -----------------------------------------------------------------------------------------------


def text(value: str) -> Json:
    return {"content": [{"type": "text", "text": value}]}


def error(ident: Any, code: int, message: str, data: Any = None) -> Json:
    body = {"code": code, "message": message, **({"data": data} if data is not None else {})}
    return {"jsonrpc": "2.0", "id": ident, "error": body}


async def answer(state: State, out: Out, ident: Any, result: Json, headers: Headers | None = None) -> None:
    if state.options.era == "modern":
        meta = {"io.modelcontextprotocol/serverInfo": {"name": "rawhttp", "version": "1"}}
        result = {**result, "resultType": "complete", "_meta": meta}
    await out.json({"jsonrpc": "2.0", "id": ident, "result": result}, headers=headers)


def place(message: Json) -> str | None:
    """The name that --at knows this request by."""
    method, params = message.get("method"), message.get("params") or {}
    if method in {"initialize", "server/discover"}:
        return "handshake"
    if method == "tools/list":
        return "list"
    return "boom" if method == "tools/call" and params.get("name") == "boom" else None


async def initialize(state: State, out: Out, ident: Any) -> None:
    session = uuid.uuid4().hex
    state.sessions.add(session)
    result = {
        "protocolVersion": LEGACY,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "rawhttp", "version": "1"},
        "instructions": "Call `ok`; never `boom`.",
    }
    await answer(state, out, ident, result, {"Mcp-Session-Id": session})


async def discover(state: State, out: Out, ident: Any) -> None:
    result: Json = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}
    await answer(state, out, ident, {**result, "instructions": "Call `ok`; never `boom`."})


async def handle(state: State, out: Out, request: Request) -> None:
    if request.method == "DELETE" and state.options.era == "legacy":
        state.sessions.discard(request.headers.get("mcp-session-id", ""))
        await out.whole(200, b"")
        return
    if request.method != "POST":
        await out.whole(405, b"", {"Allow": "POST"})
        return
    message = json.loads(request.body)
    if await turned_away(state, out, request, message):
        return
    if place(message) == state.options.at and state.options.fault != "none":
        await FAULTS[state.options.fault](state, out, message.get("id"))
        return
    await serve(state, out, message)


async def turned_away(state: State, out: Out, request: Request, message: Json) -> bool:
    """What this era does not answer, in the manner of the servers of that era."""
    ident, method = message.get("id"), message.get("method")
    if state.options.era == "modern":
        meta = (message.get("params") or {}).get("_meta") or {}
        if ident is not None and meta.get("io.modelcontextprotocol/protocolVersion") != MODERN:
            data = {"supported": [MODERN], "requested": (message.get("params") or {}).get("protocolVersion", "")}
            await out.json(error(ident, -32022, "Unsupported protocol version", data), 400)
            return True
        return False
    session = request.headers.get("mcp-session-id")
    if method == "initialize" or session in state.sessions:
        return False
    if session is None:
        await out.json(error(ident, -32600, "Bad Request: Missing session ID"), 400)
    else:
        await out.json(error(ident, -32600, "Session not found"), 404)
    return True


async def serve(state: State, out: Out, message: Json) -> None:
    ident, method, params = message.get("id"), message.get("method"), message.get("params") or {}
    if ident is None:
        await out.whole(202, b"")
    elif method == "initialize":
        await initialize(state, out, ident)
    elif method == "server/discover" and state.options.era == "modern":
        await discover(state, out, ident)
    elif method == "ping" and state.options.era == "legacy":
        await answer(state, out, ident, {})
    elif method == "tools/list":
        caching: Json = {"ttlMs": 0, "cacheScope": "private"} if state.options.era == "modern" else {}
        await answer(state, out, ident, {"tools": TYPED if state.options.fault == "misfit" else TOOLS, **caching})
    elif method == "tools/call" and params.get("name") == "ok":
        await answer(state, out, ident, text("ok " + str((params.get("arguments") or {}).get("text", ""))))
    elif method == "tools/call" and params.get("name") == "boom":
        await polite(state, out, ident)
    elif method == "tools/call":
        await out.json(error(ident, -32602, f"Unknown tool: {params.get('name')}"))
    else:
        await out.json(error(ident, -32601, "Method not found"), 404 if state.options.era == "modern" else 200)


# --- HTTP/1.1, as much as is needed --------------------------------------------------------------------------------


async def requests(reader: asyncio.StreamReader) -> AsyncIterator[Request]:
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return
        first, *lines = head.rstrip().split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        yield Request(method, path, headers, await body_of(reader, headers))


async def body_of(reader: asyncio.StreamReader, headers: Headers) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


async def connection(state: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async for request in requests(reader):
            await handle(state, Out(writer), request)
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


async def other_origin(state: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async for request in requests(reader):
            state.log(f"elsewhere {request.method} authorization={request.headers.get('authorization', '')}")
            await Out(writer).json(error(None, -32600, "you should not be here"), 400)
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


def announce(url: str, port_file: str | None) -> None:
    """Say where we listen; the file appears whole."""
    if port_file is not None:
        partial = Path(port_file + ".partial")
        partial.write_text(url, encoding="utf-8")
        partial.replace(port_file)
    print(f"listening on {url}", file=sys.stderr, flush=True)


async def main(options: argparse.Namespace) -> None:
    state = State(options)
    second = await asyncio.start_server(lambda r, w: other_origin(state, r, w), "127.0.0.1", 0)
    state.elsewhere = f"http://127.0.0.1:{second.sockets[0].getsockname()[1]}/mcp"
    server = await asyncio.start_server(lambda r, w: connection(state, r, w), "127.0.0.1", options.port)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    announce(url, options.port_file)
    await asyncio.Event().wait()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=list(FAULTS), default="none")
    parser.add_argument("--at", choices=["handshake", "list", "boom"], default="boom")
    parser.add_argument("--era", choices=["legacy", "modern"], default="legacy")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--port-file", help="the URL is written here when the socket listens")
    parser.add_argument("--bytes", type=int, default=2**30, help="gzip-bomb, huge-json: size of the decoded body")
    parser.add_argument("--interval", type=float, default=0.5, help="drip: seconds between two bytes")
    parser.add_argument("--log", help="redirect: requests that reached the other origin")
    return parser.parse_args()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parse()))
