"""The transports of a handwritten upstream, without an SDK that would clean up what it sends: stdio, HTTP and HTTP+SSE.

A `Server` says what is answered; a `Call` is one request of it. Both eras are served from the same handlers: a legacy
question is a request to the client, a modern one an `input_required` result.
"""

import asyncio
import itertools
import json
import os
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from tests.servers.rawhttp import MODERN, Out, Request, announce, requests

Json = dict[str, Any]
Write = Callable[[Json], Awaitable[None]]
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
META = "io.modelcontextprotocol/"


class Refused(Exception):
    """An error to answer with."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error: Json = {"code": code, "message": message, **({"data": data} if data is not None else {})}


class NeedsInput(Exception):
    """What a modern call answers when it has questions."""

    def __init__(self, questions: Mapping[str, Json], state: str) -> None:
        self.result = {"resultType": "input_required", "inputRequests": dict(questions), "requestState": state}


class Connection:
    """One legacy session or pipe; each modern HTTP request has one of its own."""

    def __init__(self) -> None:
        self.pending: dict[str, asyncio.Future[Json]] = {}
        self.running: dict[Any, asyncio.Task[None]] = {}
        self.level: str | None = "debug"
        self.capabilities: Json = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.watched: set[str] = set()
        self.push: Write | None = None
        """Sends what belongs to no request, while there is a stream for it."""


class Call:
    """One request in hand."""

    def __init__(self, connection: Connection, write: Write, message: Json, era: str, serial: str) -> None:
        self.connection, self.write, self.era, self.serial = connection, write, era, serial
        self.id, self.method = message["id"], message["method"]
        self.params: Json = message.get("params") or {}
        self.meta: Json = self.params.get("_meta") or {}
        self._questions = itertools.count(1)

    @property
    def is_modern(self) -> bool:
        return self.era == "modern"

    async def notify(self, method: str, params: Json) -> None:
        await self.write({"jsonrpc": "2.0", "method": method, "params": params})

    async def progress(self, **params: Any) -> None:
        if "progressToken" in self.meta:
            await self.notify("notifications/progress", {"progressToken": self.meta["progressToken"], **params})

    async def log(self, level: str, **params: Any) -> None:
        least = self.meta.get(META + "logLevel") if self.is_modern else self.connection.level
        if least is not None and LEVELS.index(level) >= LEVELS.index(least):
            await self.notify("notifications/message", {"level": level, **params})

    async def ask(self, questions: Mapping[str, Json], state: str) -> dict[str, Json]:
        """The answers by key: results, or `{"error": ...}`. A modern caller must bring back the state, to the byte."""
        if not self.is_modern:
            answers = await asyncio.gather(*(self._ask(question) for question in questions.values()))
            return dict(zip(questions, answers, strict=True))
        if "inputResponses" not in self.params:
            raise NeedsInput(questions, state)
        if self.params.get("requestState") != state:
            raise Refused(-32602, "the state was changed", {"got": self.params.get("requestState"), "sent": state})
        return self.params["inputResponses"]

    async def _ask(self, question: Json) -> Json:
        ident = f"{self.serial}-{next(self._questions)}"
        answer = self.connection.pending[ident] = asyncio.get_running_loop().create_future()
        try:
            await self.write({"jsonrpc": "2.0", "id": ident, **question})
            message = await answer
        finally:
            del self.connection.pending[ident]
        return {"error": message["error"]} if "error" in message else message["result"]


class Server:
    """Subclasses answer; see `answer`, `greeting` and `heard`."""

    def __init__(self, era: str) -> None:
        self.era = era
        self.sessions: dict[str, Connection] = {}
        """Those of HTTP, by id; the one of a pipe has none."""
        self._serials = itertools.count(1)

    async def answer(self, call: Call) -> Json:
        """The result. Raises: Refused, NeedsInput."""
        raise NotImplementedError

    def greeting(self) -> Json:
        """Capabilities, instructions, and whatever else both kinds of greeting carry."""
        raise NotImplementedError

    def heard(self, method: str, params: Json) -> None:
        """A notification of the client's."""

    # --- messages ---

    def take(self, connection: Connection, message: Json, write: Write) -> asyncio.Task[None] | None:
        """Begin what a message asks for; the task is that of a request."""
        if "method" not in message:
            waiter = connection.pending.get(str(message.get("id")))
            if waiter is not None and not waiter.done():
                waiter.set_result(message)
            return None
        if "id" not in message:
            params = message.get("params") or {}
            if message["method"] == "notifications/cancelled" and params.get("requestId") in connection.running:
                connection.running[params["requestId"]].cancel()
            self.heard(message["method"], params)
            return None
        task = asyncio.create_task(self._run(connection, message, write))
        connection.running[message["id"]] = task
        connection.tasks.add(task)
        task.add_done_callback(lambda done: connection.tasks.discard(done))
        return task

    async def _run(self, connection: Connection, message: Json, write: Write) -> None:
        call = Call(connection, write, message, self.era, f"s{next(self._serials)}")
        answer: Json = {"jsonrpc": "2.0", "id": call.id}
        try:
            answer["result"] = await self._result(call)
        except NeedsInput as needs:
            answer["result"] = needs.result
        except Refused as refused:
            answer["error"] = refused.error
        finally:
            connection.running.pop(call.id, None)
        if self.era == "modern" and "result" in answer:
            info = {META + "serverInfo": {"name": "upstream", "version": "1"}}
            answer["result"]["_meta"] = {**answer["result"].get("_meta", {}), **info}
            answer["result"].setdefault("resultType", "complete")
        await write(answer)

    async def _result(self, call: Call) -> Json:
        match call.method:
            case "initialize" if not call.is_modern:
                call.connection.capabilities = call.params["capabilities"]
                head = {"protocolVersion": call.params["protocolVersion"]}
                return {**head, "serverInfo": {"name": "upstream", "version": "1"}, **self.greeting()}
            case "server/discover" if call.is_modern:
                caching = {"ttlMs": 1000, "cacheScope": "public"}
                return {"supportedVersions": [MODERN], **caching, **self.greeting()}
            case "ping" if not call.is_modern:
                return {}
            case "logging/setLevel" if not call.is_modern:
                call.connection.level = call.params["level"]
                return {}
            case _:
                if call.is_modern and call.meta.get(META + "protocolVersion") != MODERN:
                    raise Refused(-32022, "Unsupported protocol version", {"supported": [MODERN], "requested": ""})
                return await self.answer(call)

    # --- transports ---

    async def stdio(self) -> None:
        reader = asyncio.StreamReader(limit=2**24)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        connection = self.sessions[""] = Connection()

        async def write(message: Json) -> None:
            view = memoryview(json.dumps(message).encode() + b"\n")
            while view:
                view = view[os.write(1, view) :]

        connection.push = write
        while line := await reader.readline():
            if line.strip():
                self.take(connection, json.loads(line), write)

    async def http(self, port_file: str | None, *, is_sse: bool, port: int = 0) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                async for request in requests(reader):
                    # One request on a connection: whatever comes after it is its end.
                    await (self._on_sse if is_sse else self._on_http)(reader, Out(writer), request)
                    break
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        announce(f"http://127.0.0.1:{port}/{'sse' if is_sse else 'mcp'}", port_file)
        await asyncio.Event().wait()

    async def _on_http(self, reader: asyncio.StreamReader, out: Out, request: Request) -> None:
        if request.method == "DELETE" and self.era == "legacy":
            self.sessions.pop(request.headers.get("mcp-session-id", ""), None)
            return await out.whole(200, b"", {"Connection": "close"})
        session = request.headers.get("mcp-session-id")
        if request.method == "GET" and self.era == "legacy" and session in self.sessions:
            return await self._on_get(reader, out, self.sessions[session or ""])
        if request.method != "POST":
            return await out.whole(405, b"", {"Allow": "POST", "Connection": "close"})
        message = json.loads(request.body)
        headers = {"Connection": "close"}
        if self.era == "legacy":
            if message.get("method") == "initialize":
                session = uuid.uuid4().hex
                self.sessions[session] = Connection()
                headers["Mcp-Session-Id"] = session
            elif session not in self.sessions:
                error = {"jsonrpc": "2.0", "id": message.get("id"), "error": {"code": -32600, "message": "No session"}}
                return await out.json(error, 404 if session else 400, headers)
            connection = self.sessions[session or ""]
        else:
            connection = Connection()
        streams = False

        async def write(sent: Json) -> None:
            nonlocal streams
            if not streams and "method" not in sent:
                await out.json(sent, headers=headers)
                return
            if not streams:
                streams = True
                await out.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **headers})
            await out.chunk(b"event: message\ndata: " + json.dumps(sent).encode() + b"\n\n")
            if "method" not in sent:
                await out.raw(b"0\r\n\r\n")

        task = self.take(connection, message, write)
        if task is None:
            return await out.whole(202, b"", headers)
        end = asyncio.ensure_future(reader.read(1))
        await asyncio.wait([task, end], return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and self.era == "modern":
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            # A legacy call that was taken back: the stream ends without an answer.
            await (out.raw(b"0\r\n\r\n") if streams else out.whole(202, b"", headers))
        finally:
            end.cancel()
        return None

    async def _on_get(self, reader: asyncio.StreamReader, out: Out, connection: Connection) -> None:
        """The stream of a session, until its reader goes."""

        async def push(message: Json) -> None:
            with suppress(ConnectionError):
                await out.chunk(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n")

        await out.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        connection.push = push
        await reader.read(1)
        if connection.push is push:
            connection.push = None

    async def _on_sse(self, reader: asyncio.StreamReader, out: Out, request: Request) -> None:
        path, _, session = request.path.partition("?")
        if path == "/messages" and session in self.sessions:
            await out.whole(202, b"", {"Connection": "close"})
            connection = self.sessions[session]
            assert connection.push is not None
            self.take(connection, json.loads(request.body), connection.push)
            return
        if path != "/sse" or request.method != "GET":
            return await out.whole(405, b"", {"Connection": "close"})
        session = uuid.uuid4().hex
        connection = self.sessions[session] = Connection()
        lock = asyncio.Lock()

        async def event(name: bytes, data: bytes) -> None:
            async with lock:
                await out.chunk(b"event: " + name + b"\ndata: " + data + b"\n\n")

        async def write(message: Json) -> None:
            with suppress(ConnectionError):
                await event(b"message", json.dumps(message).encode())

        connection.push = write
        await out.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        await event(b"endpoint", f"/messages?{session}".encode())
        await reader.read(1)
        del self.sessions[session]
        for task in tuple(connection.tasks):
            task.cancel()
