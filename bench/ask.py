"""What the load asks: requests as bytes made beforehand, with a hole for the id, and how their right answer is told."""

import http.client
import json
import re
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from bench.echo import META_VERSION, MODERN

LEGACY: Final = "2025-11-25"
ENVELOPE: Final = {
    META_VERSION: MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
PATIENCE: Final = 30.0
"""Seconds for an answer before the run fails."""
FIRST_ID: Final = 1_000_000_000
"""Ids have as many digits as the hole, so that the length of a request does not depend on its id."""
HOLE: Final = b"9999999999"
"""Where the id of the request is put."""
_MORE: Final = re.compile(rb'"nextCursor":"([^"]+)"')
_ID: Final = re.compile(rb'"id":([0-9]{10})\b')


class WrongAnswer(Exception):
    """An answer that is not the answer: then no number of this run means anything."""


@dataclass(frozen=True, slots=True)
class Needle:
    """A text that an answer must have in it `times` times; with 0, at least once."""

    text: bytes
    times: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request, and how to tell its right answer."""

    method: str
    params: dict[str, Any]
    needle: Needle

    @classmethod
    def echo(cls, tool: str, size: int, more: int = 0) -> "Ask":
        """Call the tool with a text of `size` bytes that begins with the id of the request, to be said with `more`."""
        text = HOLE.decode() + "x" * (size - len(HOLE))
        arguments: dict[str, Any] = {"text": text, **({"more": more} if more else {})}
        needle = Needle(f'"text":"{text}{"x" * more}"'.encode())
        return cls("tools/call", {"name": tool, "arguments": arguments}, needle)

    @classmethod
    def tools(cls, count: int) -> "Ask":
        """List the tools, `count` of them. They are counted unparsed: parsing them takes longer than serving them."""
        return cls("tools/list", {}, Needle(b'"inputSchema":', count))

    def check(self, body: bytes) -> int:
        """The id of an answer that is right. Raises: WrongAnswer."""
        found = _ID.search(body)
        if found is not None:
            needle = self.needle.text.replace(HOLE, found[1])
            if body.count(needle) == self.needle.times if self.needle.times else needle in body:
                return int(found[1])
        raise WrongAnswer(f"not the answer: {body[:300]!r}")

    def body(self, era: str) -> bytes:
        """The bytes of the request, with its holes."""
        params = {**self.params, "_meta": ENVELOPE} if era == MODERN else self.params
        return orjson.dumps({"jsonrpc": "2.0", "id": int(HOLE), "method": self.method, "params": params})

    def http(self, port: int, era: str, session: str | None, key: str) -> bytes:
        """The bytes of the request as a POST, with its holes."""
        body = self.body(era)
        given = headers(era, self.method, self.params.get("name"), session, key)
        return http_head(port, given, len(body)) + body


@dataclass(slots=True)
class Sample:
    """One run. Latencies are in seconds."""

    seconds: float
    latencies: list[float]
    cpu: float
    """Seconds of CPU that this process took; what others of the load took is theirs."""


class Load(Protocol):
    """Callers of one server, connected."""

    async def measure(self, seconds: float) -> Sample:
        """Ask for so long. Raises: WrongAnswer, TimeoutError."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


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


def open_sessions(port: int, key: str, count: int) -> None:
    """So many legacy sessions of one key, over one connection. Raises: OSError, KeyError if one is refused."""
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        for _ in range(count):
            connection.request("POST", "/mcp", body, headers(LEGACY, "initialize", None, None, key))
            response = connection.getresponse()
            response.read()
            if "mcp-session-id" not in response.headers:
                raise KeyError(f"no session: {response.status}")


def time_of_list(port: int, key: str) -> float:
    """Seconds for all pages of a modern `tools/list`, which are not parsed. Raises: OSError."""
    given = headers(MODERN, "tools/list", None, None, key)
    params: dict[str, Any] = {"_meta": ENVELOPE}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.connect()
        begun = time.perf_counter()
        while True:
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}
            connection.request("POST", "/mcp", json.dumps(message), given)
            more = _MORE.search(connection.getresponse().read())
            if more is None:
                return time.perf_counter() - begun
            params = {**params, "cursor": more[1].decode()}


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
