"""A broker that runs reads its file again: by SIGHUP, or because it sees that the file has changed."""

import http.client
import json
import re
import signal
import subprocess
import sys
from typing import Any

import yaml

from broker.config import Secret
from broker.identity.keys import hash_of, mint
from tests.cli.conftest import Program, children_of, wait_until
from tests.peers import SERVERS, is_alive

SECRET = "s" * 40
MADE = mint(b"k" * 40)
STATEFUL = {"command": sys.executable, "args": ["-S", str(SERVERS / "stateful.py")]}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Served:
    """A running `serve`, and its file."""

    def __init__(self, program: Program, **changes: Any) -> None:
        self.path = program.directory / "servers.yaml"
        self.write(**changes)
        self.process: subprocess.Popen[bytes] = program.start("serve", "--port", "0")
        self.errors = program.errors
        pattern = re.compile(r"http://127\.0\.0\.1:(\d+)/mcp")
        self.saw(pattern)
        found = pattern.search(self.errors.read_text(encoding="utf-8"))
        assert found is not None
        self.port = int(found[1])

    def write(self, servers: tuple[str, ...] = ("one",), **changes: Any) -> None:
        """`broker.watch` is off unless a test says otherwise, so that it knows what caused a reload."""
        keys = {"ci": {"hash": hash_of(MADE.text.reveal(), Secret(SECRET))}, "other": {"hash": "b" * 64}}
        document = {
            "broker": {"watch": False, "first_wait": 30, **changes.pop("broker", {})},
            "servers": {key: dict(STATEFUL) for key in servers},
            "metrics": {"access": "public"},
            "identity": {"key_secret": SECRET},
            "organizations": {"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": {"keys": keys}}}},
            **changes,
        }
        written = self.path.with_suffix(".new")
        written.write_text(yaml.safe_dump(document), encoding="utf-8")
        written.replace(self.path)

    def hang_up(self, *expected: str) -> None:
        before = len(self.errors.read_text(encoding="utf-8"))
        self.process.send_signal(signal.SIGHUP)
        for words in expected or ("was read again, and is in force",):
            wait_until(lambda words=words: words in self.errors.read_text(encoding="utf-8")[before:], words)

    def saw(self, pattern: re.Pattern[str]) -> None:
        wait_until(lambda: pattern.search(self.errors.read_text(encoding="utf-8")) is not None, pattern.pattern)

    def get(self, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"X-API-Key": MADE.text.reveal(), **{name.replace("_", "-"): text for name, text in headers.items()}}
        data = None if body is None else json.dumps(body)
        connection.request("GET" if data is None else "POST", path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def ask(self, method: str, **params: Any) -> Any:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": ENVELOPE}}
        headers = {"Content_Type": "application/json", "Accept": "application/json, text/event-stream"}
        headers |= {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": method}
        headers |= {"Mcp_Name": params["name"]} if "name" in params else {}
        status, text = self.get("/mcp", message, **headers)
        assert status == 200, text
        return json.loads(text)["result"]

    def pid(self, server: str) -> int:
        result = self.ask("tools/call", name=f"{server}__recall", arguments={})
        return json.loads(result["content"][0]["text"])["pid"]

    def tools(self) -> set[str]:
        return {tool["name"].partition("__")[0] for tool in self.ask("tools/list")["tools"]}


def test_servers_come_and_go_while_the_others_keep_their_processes(program: Program) -> None:
    served = Served(program, servers=("one", "two"))
    one, two = served.pid("one"), served.pid("two")
    served.write(("one", "three"))
    served.hang_up()
    assert served.tools() == {"one", "three"}
    assert served.pid("one") == one
    wait_until(lambda: not is_alive(two), "the server that was taken out has ended")
    assert sorted(children_of(served.process.pid)) == sorted([one, served.pid("three")])
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    assert "Traceback" not in served.errors.read_text(encoding="utf-8")


def test_F101_a_broken_file_is_said_everywhere_and_the_watch_sees_when_it_is_mended(program: Program) -> None:
    served = Served(program)
    one = served.pid("one")
    assert served.get("/readyz") == (200, "ok\n")
    served.path.write_text("servers: {one: {command: [}}\n", encoding="utf-8")
    served.hang_up("what was in force before stays")
    assert re.search(r"servers\.yaml:1: ", served.errors.read_text(encoding="utf-8")), "the file and the line"
    assert served.get("/readyz") == (200, "reload: failed\n")
    metrics = served.get("/metrics")[1]
    assert "mcp_broker_reload_failed 1.0" in metrics and 'mcp_broker_reloads_total{outcome="failed"} 1.0' in metrics
    served.write(broker={"watch": True})
    served.hang_up()
    assert served.get("/readyz") == (200, "ok\n")
    served.write(("one", "two"), broker={"watch": True})
    wait_until(lambda: served.tools() == {"one", "two"}, "the change is seen without a signal")
    assert served.pid("one") == one


def test_a_key_that_was_taken_out_of_the_file_is_refused_after_the_signal(program: Program) -> None:
    served = Served(program)
    path = "/api/v1/openapi.json"
    assert served.get(path)[0] == 200
    teams = {"data": {"keys": {"other": {"hash": "b" * 64}}}}
    served.write(organizations={"acme": {"allow": [{"servers": ["*"]}], "teams": teams}})
    served.hang_up()
    assert served.get(path)[0] == 401
    served.write(organizations={})
    served.hang_up("it has no organizations and no issuers any more: that needs a restart")
    assert served.get(path)[0] == 401


def test_on_stdio_a_server_that_is_added_is_announced(program: Program) -> None:
    path = program.directory / "servers.yaml"

    def write(*servers: str) -> None:
        document = {"broker": {"first_wait": 30}, "servers": {key: dict(STATEFUL) for key in servers}}
        path.write_text(yaml.safe_dump(document), encoding="utf-8")

    def say(**message: Any) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        process.stdin.flush()

    def hear() -> Any:
        assert process.stdout is not None
        return json.loads(process.stdout.readline())

    write("one")
    process = program.start("stdio")
    info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "host", "version": "1"}}
    say(id=1, method="initialize", params=info)
    assert hear()["id"] == 1
    say(method="notifications/initialized")
    say(id=2, method="tools/list")
    assert len(hear()["result"]["tools"]) == 4
    write("one", "two")
    process.send_signal(signal.SIGHUP)
    assert hear()["method"] == "notifications/tools/list_changed"
    say(id=3, method="tools/list")
    tools = hear()["result"]["tools"]
    assert {tool["name"].partition("__")[0] for tool in tools} == {"one", "two"}


def test_F92_F93_readyz_names_what_is_not_well_and_nothing_more(program: Program) -> None:
    state = program.directory / "state"
    state.mkdir()
    (state / "audit").write_text("a file where the directory should be", encoding="utf-8")
    served = Served(program, broker={"state_dir": str(state)})
    assert served.pid("one")
    wait_until(lambda: served.get("/readyz") == (200, "audit: failing\n"), "the audit fails, and is not required")
    (state / "broker.db").write_bytes(b"this is no database" * 100)
    wait_until(lambda: served.get("/readyz") == (503, "store: unusable\naudit: failing\n"), "the store too")
    assert served.get("/healthz") == (200, "ok\n")
    (state / "audit").unlink()
    (state / "broker.db").unlink()
    wait_until(lambda: served.get("/readyz")[1].startswith("store: down"), "the audit recovers by itself")
