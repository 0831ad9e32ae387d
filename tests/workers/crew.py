"""`mcp-broker serve --workers N` as a process, and callers of it that know which worker they speak to."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cli.conftest import Program, children_of, wait_until
from tests.peers import SERVERS, server

Json = dict[str, Any]
STATEFUL = {"command": sys.executable, "args": ["-S", str(SERVERS / "stateful.py")]}
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
}
_URL = re.compile(r"http://127\.0\.0\.1:(\d+)/mcp")
PLAIN = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


OPENED: "list[Caller]" = []
"""Connections of the test that runs; its fixture closes them."""


def probe(*args: str) -> Json:
    """tests/servers/probe.py, as a server of a configuration."""
    command, *rest = server("probe", *args)
    return {"command": command, "args": rest}


class Serving:
    """A broker with several workers."""

    def __init__(self, program: Program, workers: int = 2, *, settles: bool = True, **document: Any) -> None:
        self.program = program
        self.path = program.directory / "servers.yaml"
        self.write(**document)
        self.process: subprocess.Popen[bytes] = program.start("serve", "--port", "0", "--workers", str(workers))
        self.port = 0
        if settles:
            self.settle(workers)

    def settle(self, workers: int) -> None:
        """Wait until all serve."""
        wait_until(lambda: f"{workers} workers serve" in self.log or self.process.poll() is not None, "all serve")
        assert self.process.poll() is None, self.log
        found = _URL.search(self.log)
        assert found is not None
        self.port = int(found[1])

    def write(self, servers: Json | None = None, **more: Any) -> None:
        broker = {"watch": False, "first_wait": 30, **more.pop("broker", {})}
        document = {"broker": broker, "servers": servers or {"one": dict(STATEFUL)}, **more}
        written = self.path.with_suffix(".new")
        written.write_text(yaml.safe_dump(document), encoding="utf-8")
        written.replace(self.path)

    @property
    def log(self) -> str:
        return self.program.errors.read_text(encoding="utf-8")

    def says(self, words: str, since: int = 0) -> None:
        wait_until(lambda: words in self.log[since:], words)

    def workers(self) -> dict[int, int]:
        """Process ids of the workers that run, by number."""
        found: dict[int, int] = {}
        for pid in children_of(self.process.pid):
            said = re.search(rb'"number": (\d+)', Path(f"/proc/{pid}/cmdline").read_bytes())
            if said:
                found[int(said[1])] = pid
        return found

    def caller(self) -> "Caller":
        return Caller(self.port)

    def session(self, worker: int, **capabilities: Any) -> "Session":
        """A session that this worker holds."""
        others: list[Caller] = []
        try:
            for _ in range(200):
                session = Session(self.caller(), capabilities)
                if session.worker == worker:
                    return session
                others.append(session.caller)  # open until then: who has many connections takes fewer new ones
        finally:
            for caller in others:
                caller.close()
        raise AssertionError(f"no session of 200 came to worker {worker}")

    def at(self, worker: int) -> "Caller":
        """A connection that this worker holds: a session was opened on it, which is of no use."""
        return self.session(worker).caller

    def kill(self, worker: int) -> None:
        """It is dead when this returns: until then what it has is there, and nobody answers for it."""
        since = len(self.log)
        os.kill(self.workers()[worker], signal.SIGKILL)
        self.says(f"worker {worker} was ended by signal 9", since)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


class Caller:
    """One connection."""

    def __init__(self, port: int, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = headers
        OPENED.append(self)

    def close(self) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, data, {**self.headers, **headers})
        answer = self.connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def post(self, message: Json, **headers: str) -> tuple[int, dict[str, str], Any]:
        status, found, body = self.ask("POST", "/mcp", message, **PLAIN, **headers)
        return status, found, message_of(body)

    def modern(self, method: str, name: str | None = None, **params: Any) -> tuple[int, Any]:
        """Status, and the response."""
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": ENVELOPE}}
        if name is not None and method != "tasks/get":
            message["params"]["name"] = name
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method} | ({"Mcp-Name": name} if name else {})
        status, _, answer = self.post(message, **headers)
        return status, answer

    def call(self, name: str, **arguments: Any) -> Any:
        """The result."""
        status, answer = self.modern("tools/call", name, arguments=arguments)
        assert status == 200, answer
        return answer["result"]


class Session:
    """A legacy session, on a connection that may be another one each time."""

    def __init__(self, caller: Caller, capabilities: Json) -> None:
        self.caller = caller
        self._count = 0
        params = {
            "protocolVersion": LEGACY,
            "capabilities": capabilities,
            "clientInfo": {"name": "test", "version": "1"},
        }
        status, headers, answer = caller.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        assert status == 200, answer
        self.id = headers["mcp-session-id"]
        self.worker = int(self.id.partition(".")[0])
        self.notify("notifications/initialized")

    @property
    def headers(self) -> dict[str, str]:
        return {"Mcp-Session-Id": self.id, "MCP-Protocol-Version": LEGACY}

    def notify(self, method: str, **params: Any) -> None:
        message: Json = {"jsonrpc": "2.0", "method": method, "params": params}
        assert self.caller.post(message, **self.headers)[0] == 202

    def message(self, method: str, params: Json) -> Json:
        self._count += 1
        return {"jsonrpc": "2.0", "id": self._count, "method": method, "params": params}

    def ask(self, method: str, caller: Caller | None = None, **params: Any) -> tuple[int, Any]:
        status, _, answer = (caller or self.caller).post(self.message(method, params), **self.headers)
        return status, answer

    def call(self, name: str, caller: Caller | None = None, **arguments: Any) -> Any:
        status, answer = self.ask("tools/call", caller, name=name, arguments=arguments)
        assert status == 200, answer
        return answer["result"]


def message_of(body: bytes) -> Any:
    """The response in a body: JSON, or the last event of a stream."""
    if not body:
        return None
    if body.lstrip().startswith(b"{"):
        return json.loads(body)
    return events(body)[-1]


def events(body: bytes) -> list[Any]:
    """The messages of an event stream."""
    lines = (line[6:] for line in body.decode().splitlines() if line.startswith("data: "))
    return [json.loads(line) for line in lines if line]


def text(result: Json) -> Any:
    """What a tool says, as JSON."""
    return json.loads(result["content"][0]["text"])


@contextmanager
def stream(port: int, path: str, **headers: str) -> Iterator["Stream"]:
    opened = Stream(port, path, headers)
    try:
        yield opened
    finally:
        opened.socket.close()


class Stream:
    """A GET that stays open."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.got = b""

    def until(self, words: bytes) -> bytes:
        while words not in self.got:
            data = self.socket.recv(65536)
            assert data, f"the stream ended: {self.got!r}"
            self.got += data
        return self.got
