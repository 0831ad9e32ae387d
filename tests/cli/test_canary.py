"""The secrets canary: secrets are planted wherever one can be, and everything that the broker says or keeps is read.

`Planted` says where; `OUTPUTS` says what is read. A command without a row in `COMMANDS`, or a route of the API that
nobody asked, fails: a new way out must be looked at. Whatever is planted has to have been where it was meant to be
(`reached`), so that nothing is missed only because it was never there.
"""

import contextlib
import http.client
import io
import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker import cli
from broker.admin.routes import ROUTES
from tests.cli.conftest import LIMIT
from tests.cli.test_program import COMMANDS as ALL_COMMANDS
from tests.downstream.raw_http import LEGACY, modern, modern_headers
from tests.peers import ROOT

LEAKY = Path(__file__).with_name("leaky.py")


@dataclass(frozen=True)
class Planted:
    """Where a secret is, and what it is. None is part of another."""

    environment_of_a_child: str = "canary-env-7f3a9c"
    argument_by_reference: str = "canary-argv-7f3a9c"
    header_of_a_server: str = "canary-header-7f3a9c"
    url_of_a_server: str = "canary-url-7f3a9c"
    key_secret: str = "canary-keysecret-" + "7f3a9c" * 5
    environment_of_the_broker: str = "canary-own-7f3a9c"
    token_that_a_server_tells: str = "ghp_" + "a1B2" * 9
    credential_that_is_wrong: str = "canary-guess-7f3a9c"
    key_that_is_wrong: str = "mcpb_abcdefghij23_" + "7f3a9c-" * 6 + "7"
    token_that_is_wrong: str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"
    header_of_a_caller: str = "canary-callers-header-7f3a9c"
    argument_of_a_caller: str = "canary-argument-7f3a9c"
    baggage_of_a_caller: str = "canary-baggage-7f3a9c"
    literal_in_a_guardrail: str = "canary-guardrail-7f3a9c"


PLANTED = Planted()
SECRETS = {one.name.replace("_", " "): str(getattr(PLANTED, one.name)) for one in fields(PLANTED)}

GUARDRAIL = f'''
def check(ctx):
    secret = "{PLANTED.literal_in_a_guardrail}"
    raise ValueError(secret + str(ctx))
'''

COMMANDS: dict[str, list[list[str]]] = {
    "check": [[], ["--connect"]],
    "catalog": [[], ["--as", "canary/team/k"], ["--as", PLANTED.key_that_is_wrong]],
    "explain": [["leaky__say"], ["leaky__say", "--as", "canary/team/k"], ["nothing"]],
    "call": [
        ["leaky__fail", json.dumps({"password": PLANTED.argument_of_a_caller})],
        ["leaky__die"],
        ["leaky__guarded", json.dumps({"password": PLANTED.argument_of_a_caller})],
        ["web__x"],
        ["nothing", "{"],
    ],
    "read": [["leaky+leak://x"], ["nothing"]],
    "prompt": [["leaky__p"], ["nothing"]],
    "org create": [["another"], ["another"], ["\x1b[31m"]],
    "org list": [[]],
    "org show": [["another"], ["nothing"]],
    "org grant": [["another", "--allow", '{"servers": ["leaky"]}'], ["nothing"]],
    "team create": [["another/team"], ["nothing/x"]],
    "team list": [["--org", "another"], ["--org", "nothing"]],
    "team show": [["another/team"], ["another/nothing"]],
    "team grant": [["another/team", "--allow", '{"servers": ["leaky"]}'], ["nothing/x"]],
    "member grant": [
        ["jwt:x|y", "--role", "member", "--team", "another/team"],
        ["?", "--role", "x", "--org", "another"],
    ],
    "member list": [["--team", "another/team"], ["--team", "nothing/x"]],
    "member delete": [["jwt:x|y", "--team", "another/team", "--yes"], ["jwt:x|y", "--team", "another/team", "--yes"]],
    "key create": [["--team", "another/team", "--name", "n"], ["--team", "nothing/x", "--name", "n"]],
    "key list": [[], ["--team", "another/team"]],
    "key show": [["another/team/n"], ["nothing"]],
    "key grant": [["another/team/n", "--allow", '{"servers": ["leaky"]}'], ["nothing"]],
    "key rotate": [["another/team/n"], ["nothing"]],
    "key revoke": [["another/team/n", "--yes"], ["nothing", "--yes"]],
    "key move": [["another/team/n", "--team", "canary/team"], ["nothing", "--team", "canary/team"]],
    "key delete": [["canary/team/n", "--yes"], ["nothing", "--yes"]],
    "team delete": [["another/team", "--yes"], ["nothing/x", "--yes"]],
    "org delete": [["another", "--yes"], ["nothing", "--yes"]],
    "guardrail check": [["nosy.py"], ["nothing.py"]],
    "guardrail test": [["nosy.py", "--input", "ctx.json"], ["nosy.py", "--input", "nothing.json"]],
    "pin list": [[], ["leaky"], ["--changed"], ["nothing"]],
    "pin accept": [["leaky"], ["leaky", "say"], ["leaky", "nothing"], ["nothing"]],
    "status": [["--url", "http://127.0.0.1:1"], ["--url", "nothing"]],
    "usage": [[], ["--by", "tool"], ["--since", "?"]],
    "audit": [[], ["--tool", "leaky__*"], ["--who-saw", "leaky__say"], ["--since", "?"]],
}
"""Every command, with arguments that work and some that do not, in an order in which each has something to act on."""
SERVING = {"serve": "the log of serve", "stdio": "the log of stdio"}
"""Commands that do not end: the output in which what they say is read."""
STARTING = frozenset({"check", "catalog", "explain", "call", "read", "prompt"})
"""Commands that start servers: each row of theirs is run once, every other one with --json. The others: both ways."""
UNCONFIGURED = "guardrail", "status"
"""Commands that read no configuration."""
KEYED = "key create", "key rotate"
"""Commands that show a key, once: the one that they have made."""


class Web(BaseHTTPRequestHandler):
    """A server over HTTP that refuses everybody, and quotes what it was sent; and a collector of traces."""

    heard: list[str]
    traces: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode("latin-1")
        said = f"{self.path} {self.headers} {body}"
        if self.path == "/v1/traces":
            type(self).traces.append(said)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        type(self).heard.append(said)
        answer = f"<html>401 {said} {PLANTED.token_that_a_server_tells}</html>".encode("latin-1")
        self.send_response(401)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Retry-After", PLANTED.token_that_a_server_tells)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on our stderr."""


@dataclass
class World:
    """One broker's place, and all that was read of it: output -> text."""

    directory: Path
    web: ThreadingHTTPServer
    environment: dict[str, str]
    secrets: dict[str, str] = field(default_factory=lambda: dict(SECRETS))
    said: dict[str, str] = field(default_factory=dict[str, str])
    asked: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    codes: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    @property
    def hole(self) -> Path:
        return self.directory.parent / "hole"

    def add(self, output: str, text: str) -> None:
        self.said[output] = self.said.get(output, "") + text

    def configure(self) -> None:
        leaky = {
            "command": sys.executable,
            "args": [
                "-I",
                "-S",
                str(LEAKY),
                str(self.hole),
                PLANTED.token_that_a_server_tells,
                "${env:CANARY_ARGUMENT}",
            ],
            "env": {"TOKEN": PLANTED.environment_of_a_child},
            "pins": "warn",
        }
        web = {
            "url": f"http://127.0.0.1:{self.web.server_port}/${{env:CANARY_URL}}/mcp",
            "headers": {"Authorization": "Bearer ${env:CANARY_HEADER}"},
        }
        document = {
            "broker": {"first_wait": LIMIT / 2, "state_dir": str(self.directory / "state")},
            "identity": {"key_secret": "${env:CANARY_KEY_SECRET}"},
            "metrics": {"access": "admin"},
            "traces": {"enabled": True, "endpoint": f"http://127.0.0.1:{self.web.server_port}/v1/traces"},
            "audit": {"arguments": {"leaky__say": {"password": "hash"}, "leaky__fail": {"password": "mask"}}},
            "servers": {"leaky": leaky, "web": web},
        }
        guardrails = {"nosy": {"file": "nosy.py", "phases": ["request"], "names": ["leaky__guarded"]}}
        for name, written in (("bare.yaml", document), ("servers.yaml", {**document, "guardrails": guardrails})):
            (self.directory / name).write_text(yaml.safe_dump(written), encoding="utf-8")
        (self.directory / "nosy.py").write_text(GUARDRAIL, encoding="utf-8")
        (self.directory / "ctx.json").write_text(
            json.dumps({"args": {"password": PLANTED.argument_of_a_caller}}), encoding="utf-8"
        )

    def command(self, *args: str) -> str:
        """Run a command in this process: a start of Python for each of a hundred would take minutes."""
        out = io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(SystemExit) as ended,
        ):
            patch.setattr(sys, "argv", ["mcp-broker", *args])
            cli.main()
        self.codes.setdefault(" ".join(args[:2]), []).append(int(ended.value.code or 0))
        return out.getvalue()

    def key(self, name: str, *args: str) -> None:
        made = json.loads(self.command("key", "create", "--config", "bare.yaml", "--json", *args))
        self.secrets[name] = made["key"]

    def start(self, *args: str, output: str) -> subprocess.Popen[bytes]:
        with self.log(output).open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "broker", *args, "--log-level", "debug"],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def log(self, output: str) -> Path:
        return self.directory.parent / f"{output}.log"


def run_commands(world: World) -> None:
    for command, rows in COMMANDS.items():
        for number, row in enumerate(rows):
            config = [] if command.startswith(UNCONFIGURED) else ["--config", "bare.yaml"]
            both = [[], ["--json", "--log-level", "debug"]]
            for way in both[number % 2 :][:1] if command in STARTING else both:
                said = world.command(*command.split(), *row, *config, *way)
                if command in KEYED:
                    said = re.sub(r"mcpb_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", "", said, count=1)
                world.add(f"mcp-broker {command}", said)


@dataclass
class Caller:
    """Somebody over HTTP, with a credential."""

    port: int
    credential: str

    def ask(self, method: str, path: str, body: Any = None, headers: Any = ()) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body).encode()
            given = {
                "Content-Type": "application/json",
                "Accept": "application/json, text/event-stream",
                **dict(headers),
            }
            connection.request(method, path, data, {"Authorization": f"Bearer {self.credential}", **given})
            response = connection.getresponse()
            return response.status, f"{response.status} {response.headers} {response.read().decode()}"

    def mcp(self, method: str, params: Any = None, **headers: str) -> str:
        body = modern(method, params)
        body["params"]["_meta"]["baggage"] = f"key={PLANTED.baggage_of_a_caller}"
        return self.ask("POST", "/mcp", body, [*modern_headers(body), *headers.items()])[1]


CALLS: list[tuple[str, Any]] = [
    ("tools/list", None),
    ("resources/list", None),
    ("tools/call", {"name": "leaky__fail", "arguments": {}}),
    ("resources/read", {"uri": "leaky+leak://x"}),
    ("prompts/get", {"name": "leaky__p"}),
    ("tools/call", {"name": "leaky__guarded", "arguments": {}}),
    ("tools/call", {"name": "web__x", "arguments": {}}),
    ("tools/call", {"name": "leaky__die", "arguments": {}}),
    ("tools/call", {"name": "leaky__fail", "arguments": {}}),
    ("tools/list", None),
]


def serve(world: World) -> None:
    """Everything over HTTP; then the broker is made to crash."""
    process = world.start("serve", "--port", "0", output="serve")
    try:
        port = port_of(world, process)
        ann, boss = Caller(port, world.secrets["key of a caller"]), Caller(port, world.secrets["key of an admin"])
        for name in ("say", "fail", "guarded"):
            params = {"name": f"leaky__{name}", "arguments": {"password": PLANTED.argument_of_a_caller}}
            ann.mcp("tools/call", params, **{"X-Secret": PLANTED.header_of_a_caller})
        for guess in (PLANTED.credential_that_is_wrong, PLANTED.key_that_is_wrong, PLANTED.token_that_is_wrong):
            world.add("answers to bad credentials", Caller(port, guess).mcp("tools/list"))
        for method, params in CALLS:
            world.add("answers to another caller", boss.mcp(method, params))
        ask_api(world, boss)
        world.add("/metrics", boss.ask("GET", "/metrics")[1])
        process.send_signal(signal.SIGABRT)
        process.wait(LIMIT)
    finally:
        process.kill()
        process.wait(LIMIT)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
    world.add("the log of serve", world.log("serve").read_text(encoding="utf-8"))


def port_of(world: World, process: subprocess.Popen[bytes]) -> int:
    with contextlib.suppress(StopIteration):
        for _ in polled(LIMIT):
            found = re.search(r"http://127\.0\.0\.1:(\d+)/mcp", world.log("serve").read_text(encoding="utf-8"))
            if found is not None:
                return int(found[1])
            assert process.poll() is None, world.log("serve").read_text(encoding="utf-8")
    raise AssertionError("serve does not listen")


def polled(seconds: float) -> Iterator[None]:
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        yield
        pause.wait(0.02)


def ask_api(world: World, boss: Caller) -> None:
    bodies: dict[str, Any] = {
        "POST /organizations": {"name": "api"},
        "POST /organizations/{organization}/teams": {"name": "team"},
        "POST /organizations/{organization}/members": {"principal": "jwt:x|y", "role": "member"},
        "POST /organizations/{organization}/teams/{team}/members": {"principal": "jwt:x|y", "role": "member"},
        "POST /explain": {"as": "canary/team/k", "name": "leaky__say"},
        "POST /keys/{key}/move": {"organization": "canary"},
    }
    # What takes away comes last, and the key is the one that this caller does not come with.
    for route in sorted(
        ROUTES, key=lambda one: (one.method == "DELETE", -len(one.path) if one.method == "DELETE" else 0)
    ):
        key = world.secrets["key of a caller"].split("_")[1]
        path = route.path.format(organization="api", team="team", key=key, server="leaky", session="x")
        query = {"/views": "?as=canary/team/k", "/keys": ""}.get(path, "")
        world.asked.add((route.method, route.path))
        good = bodies.get(f"{route.method} {route.path}", {} if route.method in ("POST", "PATCH") else None)
        for body in (good, {"unknown": PLANTED.argument_of_a_caller}):
            world.add("/api/v1", boss.ask(route.method, f"/api/v1{path}{query}", body)[1])
    for server in ("leaky", "web"):
        world.add("/api/v1", boss.ask("GET", f"/api/v1/upstreams/{server}")[1])


def stdio(world: World) -> None:
    process = world.start("stdio", "--log-format", "json", output="stdio")
    initialize = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    sent = [("initialize", initialize), *CALLS]
    messages = [{"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}} for method, params in sent]
    try:
        assert process.stdin is not None and process.stdout is not None
        for line in messages:
            process.stdin.write(json.dumps(line).encode() + b"\n")
            process.stdin.flush()
            world.add("answers over stdio", process.stdout.readline().decode())
        process.stdin.close()
        assert process.wait(LIMIT) == 0
    finally:
        process.kill()
        process.wait(LIMIT)
        assert process.stdout is not None
        process.stdout.close()
    world.add("the log of stdio", world.log("stdio").read_text(encoding="utf-8"))


def read_files(world: World) -> None:
    state = world.directory / "state"
    with contextlib.closing(sqlite3.connect(state / "broker.db")) as database:
        world.add("the database", "\n".join(database.iterdump()))
    for path in sorted(state.rglob("*")):
        if path.is_file():
            output = path.relative_to(state).parts[0]
            world.add("the audit" if output == "audit" else "the state directory", path.read_bytes().decode("latin-1"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("canary") / "here"
    directory.mkdir()
    handler = type("Heard", (Web,), {"heard": [], "traces": []})
    web = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    planted = {
        "CANARY_ARGUMENT": PLANTED.argument_by_reference,
        "CANARY_HEADER": PLANTED.header_of_a_server,
        "CANARY_URL": PLANTED.url_of_a_server,
        "CANARY_KEY_SECRET": PLANTED.key_secret,
        "MCP_BROKER_KEY": PLANTED.key_that_is_wrong,
        "CANARY_OWN": PLANTED.environment_of_the_broker,
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    with pytest.MonkeyPatch.context() as patch, unchanged_logging(patch):
        for name, value in planted.items():
            patch.setenv(name, value)
        patch.chdir(directory)
        found = World(directory, web, dict(os.environ))
        found.configure()
        try:
            found.command("org", "create", "canary", "--allow", '{"servers": ["*"]}', "--config", "bare.yaml")
            found.command("team", "create", "canary/team", "--config", "bare.yaml")
            found.key("key of a caller", "--team", "canary/team", "--name", "k")
            found.key("key of an admin", "--org", "canary", "--name", "boss", "--role", "admin")
            run_commands(found)
            stdio(found)
            serve(found)
            read_files(found)
            found.add("traces", "\n".join(handler.traces))
        finally:
            web.shutdown()
            web.server_close()
            thread.join()
        yield found
    shutil.rmtree(directory)


@contextlib.contextmanager
def unchanged_logging(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands set up logs, and hooks for what nobody catches."""
    root, ours = logging.getLogger(), logging.getLogger("broker")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    for owner, hook in ((sys, "excepthook"), (threading, "excepthook"), (sys, "unraisablehook")):
        patch.setattr(owner, hook, getattr(owner, hook))
    yield
    root.handlers[:], logging.raiseExceptions = before[0], before[3]
    root.setLevel(before[1])
    ours.setLevel(before[2])


OWN = {"mcp-broker guardrail test": {"argument of a caller", "literal in a guardrail"}}
"""What an output may say: whoever tries a guardrail has its text, and what it is tried on, and asks for its fault."""
OUTPUTS = [
    *(f"mcp-broker {command}" for command in COMMANDS),
    *SERVING.values(),
    *("answers to another caller", "answers to bad credentials", "answers over stdio"),
    *("/metrics", "/api/v1", "traces", "the audit", "the database", "the state directory"),
]


@pytest.mark.parametrize("output", OUTPUTS)
def test_no_planted_secret_is_read_anywhere(world: World, output: str) -> None:
    said = world.said[output]
    assert said
    found = {name for name, secret in world.secrets.items() if secret in said}
    assert found - OWN.get(output, set()) == set()


def test_every_output_is_read(world: World) -> None:
    assert world.said.keys() == set(OUTPUTS)
    assert set(ALL_COMMANDS) == COMMANDS.keys() | SERVING.keys(), "a command has no row here"
    assert {(one.method, one.path) for one in ROUTES} == world.asked


def test_what_was_planted_had_been_there(world: World) -> None:
    """A secret that was never where it could leak is no proof."""
    hole, heard = world.hole.read_text(encoding="utf-8"), "".join(world.web.RequestHandlerClass.heard)  # pyright: ignore
    for secret in (PLANTED.environment_of_a_child, PLANTED.argument_by_reference, PLANTED.argument_of_a_caller):
        assert secret in hole
    assert PLANTED.baggage_of_a_caller in hole and PLANTED.token_that_a_server_tells in hole
    assert PLANTED.header_of_a_server in heard and PLANTED.url_of_a_server in heard
    assert PLANTED.environment_of_the_broker not in hole and PLANTED.header_of_a_caller not in hole
    assert not any(secret in hole + heard for secret in (PLANTED.key_secret, world.secrets["key of a caller"]))


def test_what_was_hidden_was_told_apart_from_it(world: World) -> None:
    """The outputs say what they are for: an empty one would hide everything."""
    assert "exited with code 3: token=********" in world.said["the log of serve"]
    assert "exited with code 3: token=********" in world.said["the log of stdio"]
    assert "cannot do tools/call" in world.said["answers to another caller"]
    assert "cannot do resources/read" in world.said["mcp-broker read"]
    assert "HTTP 401" in world.said["mcp-broker check"] and "HTTP 401" in world.said["/api/v1"]
    assert 'upstream="leaky"' in world.said["/metrics"]
    assert '"leaky__fail"' in world.said["the audit"] and "INSERT INTO" in world.said["the database"]
    assert "tools/call" in world.said["traces"] and "leaky__fail" in world.said["traces"]
    assert "nosy" in world.said["the log of serve"]
