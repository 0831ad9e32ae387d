"""The load: callers that ask again as soon as they have their answer, and check every answer.

Requests are bytes made beforehand, with a hole for the id, so that the load costs little beside what it measures.
"""

import asyncio
import gc
import http.client
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

import orjson

from bench.echo import META_VERSION, MODERN
from bench.machine import environment, on_core

LEGACY: Final = "2025-11-25"
ENVELOPE: Final = {
    META_VERSION: MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
PATIENCE: Final = 30.0
"""Seconds for an answer before the run fails."""
_HOLE: Final = 9_999_999_999
_ID: Final = re.compile(rb'"id":([0-9]{10})\b')
_FIRST_ID: Final = 1_000_000_000
"""Ids have as many digits as the hole, so that the length of a request does not depend on its id."""

Check = Callable[[bytes], int]
"""The id of an answer that is right. Raises: WrongAnswer, ValueError, LookupError, TypeError."""


class WrongAnswer(Exception):
    """An answer that is not the answer: then no number of this run means anything."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request, and how to tell its right answer."""

    method: str
    params: dict[str, Any]
    check: Check

    @classmethod
    def echo(cls, tool: str, size: int) -> "Ask":
        """Call the tool with a text of `size` bytes that begins with the id of the request."""
        padding = "x" * (size - len(str(_HOLE)))

        def check(body: bytes) -> int:
            message = orjson.loads(body)
            request_id: int = message["id"]
            if message["result"]["content"][0]["text"] != f"{request_id}{padding}":
                raise WrongAnswer("not what was said")
            return request_id

        return cls("tools/call", {"name": tool, "arguments": {"text": f"{_HOLE}{padding}"}}, check)

    @classmethod
    def tools(cls, count: int) -> "Ask":
        """List the tools, `count` of them. They are counted unparsed: parsing them takes longer than serving them."""

        def check(body: bytes) -> int:
            found = _ID.search(body)
            if found is None or body.count(b'"inputSchema":') != count:
                raise WrongAnswer(f"not {count} tools")
            return int(found[1])

        return cls("tools/list", {}, check)

    def parts(self, era: str) -> list[bytes]:
        """The bytes of the request around its id."""
        params = {**self.params, "_meta": ENVELOPE} if era == MODERN else self.params
        message = {"jsonrpc": "2.0", "id": _HOLE, "method": self.method, "params": params}
        return orjson.dumps(message).split(str(_HOLE).encode())


@dataclass(slots=True)
class Sample:
    """One run. Latencies are in seconds."""

    seconds: float
    latencies: list[float]
    cpu: float
    """Seconds of CPU that the load itself took."""


class Line(Protocol):
    """A connection, ready to be asked."""

    def ask(self) -> None:
        """Send the next request."""
        ...


@dataclass(slots=True)
class Run:
    """The state that the callers of one run share."""

    check: Check
    ids: int = _FIRST_ID
    deadline: float = 0.0
    asked: dict[int, float] = field(default_factory=dict[int, float])
    latencies: list[float] = field(default_factory=list[float])
    done: "asyncio.Future[None] | None" = None

    def next_id(self) -> int:
        """The id of a request that is sent now."""
        self.ids += 1
        self.asked[self.ids] = time.perf_counter()
        return self.ids

    def answered(self, body: bytes, line: Line) -> None:
        """An answer has come: check it, and ask again while there is time."""
        now = time.perf_counter()
        try:
            self.latencies.append(now - self.asked.pop(self.check(body)))
        except (WrongAnswer, ValueError, LookupError, TypeError) as error:
            self.fail(WrongAnswer(f"{error!r}: {body[:300]!r}"))
            return
        if now < self.deadline:
            line.ask()
        elif not self.asked and self.done is not None and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """The run is worth nothing."""
        if self.done is not None and not self.done.done():
            self.done.set_exception(error)

    async def measure(self, lines: Sequence[Line], seconds: float) -> Sample:
        """Let all lines ask for so long. Raises: WrongAnswer, TimeoutError."""
        self.latencies = []
        self.done = asyncio.get_running_loop().create_future()
        gc.collect()
        gc.disable()
        cpu, started = time.process_time(), time.perf_counter()
        self.deadline = started + seconds
        try:
            for line in lines:
                line.ask()
            async with asyncio.timeout(seconds + PATIENCE):
                await self.done
        finally:
            gc.enable()
        return Sample(time.perf_counter() - started, self.latencies, time.process_time() - cpu)


class HttpLine(asyncio.Protocol):
    """One keep-alive connection of a caller."""

    def __init__(self, run: Run, head: bytes, parts: list[bytes]) -> None:
        self._run = run
        self._head = head
        self._parts = parts
        self._received = b""
        self._end = 0
        """Where the answer that is being received ends; 0 until its head is there."""
        self._body = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._run.fail(WrongAnswer(f"the connection was closed: {exc}"))

    def ask(self) -> None:
        """See `Line`."""
        digits = b"%d" % self._run.next_id()
        self._transport.write(self._head + digits.join(self._parts))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received = received = self._received + data if self._received else data
        if not self._end:
            self._body = received.find(b"\r\n\r\n") + 4
            if self._body < 4:
                return
            head = received[: self._body].lower()
            at = head.find(b"content-length:")
            if not head.startswith(b"http/1.1 200") or at < 0:
                self._run.fail(WrongAnswer(received[:500]))
                return
            self._end = self._body + int(head[at + 15 : head.index(b"\r", at)])
        if len(received) >= self._end:
            body = received[self._body : self._end]
            self._received, self._end = b"", 0
            self._run.answered(body, self)

    def close(self) -> None:
        """End it."""
        self._run.done = None
        self._transport.close()


class PipeLine(asyncio.SubprocessProtocol):
    """A server on stdio, which many callers ask at once."""

    def __init__(self, run: Run, parts: list[bytes]) -> None:
        self._run = run
        self._parts = parts
        self._chunks: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.SubprocessProtocol`."""
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """See `asyncio.SubprocessProtocol`."""
        if b"\n" not in data:
            self._chunks.append(data)
            return
        *lines, rest = (b"".join(self._chunks) + data).split(b"\n")
        self._chunks = [rest] if rest else []
        for line in lines:
            self._run.answered(line, self)

    def process_exited(self) -> None:
        """See `asyncio.SubprocessProtocol`."""
        self._run.fail(WrongAnswer("the server has ended"))

    def ask(self) -> None:
        """See `Line`."""
        digits = b"%d" % self._run.next_id()
        self._stdin.write(digits.join(self._parts) + b"\n")

    def close(self) -> None:
        """End it, with its process."""
        self._run.done = None
        self._stdin.close()
        self._transport.kill()
        self._transport.close()


class Callers:
    """So many callers of one server, connected."""

    def __init__(self, run: Run, open_lines: Sequence[HttpLine | PipeLine], callers: int) -> None:
        self._run = run
        self._open = open_lines
        self._lines: list[HttpLine | PipeLine] = list(open_lines) * (callers // len(open_lines))

    @classmethod
    async def over_http(cls, port: int, ask: Ask, era: str, callers: int, keys: Sequence[str] = ()) -> "Callers":
        """Each with a connection of its own, and one of `keys` in turn; in the legacy era they share one session."""
        session = open_session(port, keys[0] if keys else "") if era != MODERN else None
        parts, run = ask.parts(era), Run(ask.check)
        length = sum(map(len, parts)) + len(str(_HOLE)) * (len(parts) - 1)
        lines = []
        for number in range(callers):
            key = keys[number % len(keys)] if keys else ""
            head = http_head(port, headers(era, ask.method, ask.params.get("name"), session, key), length)
            _, line = await asyncio.get_running_loop().create_connection(
                lambda head=head: HttpLine(run, head, parts), "127.0.0.1", port
            )
            lines.append(line)
        return cls(run, lines, callers)

    @classmethod
    async def over_pipe(cls, argv: Sequence[str], core: int, ask: Ask, era: str, callers: int) -> "Callers":
        """All over the pipe of one server, which is started here."""
        run = Run(ask.check)
        with on_core(core):
            _, line = await asyncio.get_running_loop().subprocess_exec(
                lambda: PipeLine(run, ask.parts(era)), *argv, stderr=None, env=environment()
            )
        return cls(run, [line], callers)

    async def measure(self, seconds: float) -> Sample:
        """Ask for so long. Raises: WrongAnswer, TimeoutError."""
        return await self._run.measure(self._lines, seconds)

    def close(self) -> None:
        """Close all connections."""
        for line in self._open:
            line.close()


def headers(era: str, method: str, name: str | None, session: str | None, key: str = "") -> dict[str, str]:
    """The headers that a client of that era sends."""
    given = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    if key:
        given["authorization"] = f"Bearer {key}"
    if era == MODERN:
        given |= {"mcp-protocol-version": MODERN, "mcp-method": method}
        return given | ({"mcp-name": name} if name else {})
    return given | ({"mcp-protocol-version": LEGACY, "mcp-session-id": session} if session else {})


def http_head(port: int, given: dict[str, str], length: int) -> bytes:
    """The head of a POST."""
    lines = [
        "POST /mcp HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        *(f"{name}: {value}" for name, value in given.items()),
        f"content-length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def open_session(port: int, key: str = "") -> str | None:
    """The legacy handshake; the id of the session."""
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    session, _ = post(port, message, headers(LEGACY, "initialize", None, None, key))
    post(port, {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers(LEGACY, "", None, session, key))
    return session


def list_tools(port: int, key: str = "") -> list[dict[str, Any]]:
    """All pages of a modern `tools/list`; none if it is refused. Raises: OSError."""
    tools: list[dict[str, Any]] = []
    params: dict[str, Any] = {"_meta": ENVELOPE}
    while True:
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}
        _, answer = post(port, message, headers(MODERN, "tools/list", None, None, key))
        result = answer.get("result", {})
        tools += result.get("tools", ())
        if "nextCursor" not in result:
            return tools
        params = {**params, "cursor": result["nextCursor"]}


def post(port: int, message: dict[str, Any], given: dict[str, str]) -> tuple[str | None, dict[str, Any]]:
    """One request outside of any measurement: the session id, and the answer. Raises: OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", "/mcp", json.dumps(message), given)
        response = connection.getresponse()
        body = response.read()
        return response.headers.get("mcp-session-id"), json.loads(body) if body else {}
    finally:
        connection.close()
