"""What a broker loads before it answers, and what it does not: every module costs time and memory at each start."""

import contextlib
import http.client
import json
import os
import re
import signal
import sys
import types
from typing import Any

import typer

from broker.cli.narrowing import narrow
from tests.cli.conftest import Program, wait_until
from tests.cli.test_fronts import ENVELOPE, serving
from tests.downstream.raw_http import modern, modern_headers
from tests.peers import SERVERS, Peers

SDK = {"mcp", "mcp_types"}
DRIVERS = {"sqlalchemy", "alembic", "aiosqlite", "asyncpg", "aiohttp"}
OPTIONAL = DRIVERS | {"opentelemetry", "RestrictedPython", "jwt", "starlette"}
"""What only some configurations need."""
FOR_TERMINALS = {"rich"}


def loaded(program: Program) -> set[str]:
    """The packages that were loaded, by `-X importtime`."""
    said = program.errors.read_text(encoding="utf-8")
    found = set(re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+([\w.]+)$", said, re.MULTILINE))
    assert "broker.cli" in found
    return {name.partition(".")[0] for name in found}


def test_the_command_that_is_named_is_built_alone_and_without_one_all_are() -> None:
    def program() -> typer.Typer:
        app, group = typer.Typer(), typer.Typer()
        for name in ("stdio", "serve"):
            app.command()(types.FunctionType((lambda: None).__code__, {}, name))
        app.add_typer(group, name="group")
        return app

    def built(*words: str) -> tuple[list[str], int]:
        one = narrow(app, words)
        return [getattr(it.callback, "__name__", "") for it in one.registered_commands], len(one.registered_groups)

    app = program()
    assert built("stdio", "--help") == (["stdio"], 0)
    for words in ((), ("--help",), ("group", "stdio"), ("stdi",)):
        assert built(*words) == (["stdio", "serve"], 1)


def test_a_plugin_of_pydantic_that_is_installed_beside_the_broker_is_not_loaded(program: Program) -> None:
    beside = program.directory / "beside"
    facts = beside / "spy-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: spy\nVersion: 1\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text("[pydantic]\nspy = spy:plugin\n", encoding="utf-8")
    (beside / "spy.py").write_text("print('a spy')\nplugin = None\n", encoding="utf-8")
    path = os.pathsep.join([str(beside), program.environment["PYTHONPATH"]])
    program.configure(raw={"command": "true"})
    checked = program.run("check", env={"PYTHONPATH": path})
    assert checked.code == 0
    assert "spy" not in checked.out + checked.err


def configure(program: Program, peers: Peers) -> None:
    raw = {"command": sys.executable, "args": [str(SERVERS / "raw.py")]}
    modern, legacy = (peers.start("probe", "--transport", "http", "--era", era).url for era in ("modern", "legacy"))
    program.configure(raw=raw, modern={"url": modern}, legacy={"url": legacy})
    program.options = ("-X", "importtime")


def names(result: dict[str, Any]) -> set[str]:
    return {tool["name"].partition("__")[0] for tool in result["tools"]}


def test_stdio_with_servers_of_both_transports_loads_neither_the_sdk_nor_what_is_optional(
    program: Program, peers: Peers
) -> None:
    configure(program, peers)
    process = program.start("stdio")
    assert process.stdin is not None and process.stdout is not None
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": ENVELOPE}}
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    assert names(json.loads(process.stdout.readline())["result"]) == {"raw", "modern", "legacy"}
    process.stdin.close()
    assert process.wait(30) == 0
    assert loaded(program) & (SDK | OPTIONAL | FOR_TERMINALS) == set()


def test_serve_with_servers_of_both_transports_loads_neither_the_sdk_nor_what_is_optional(
    program: Program, peers: Peers
) -> None:
    configure(program, peers)
    process, port = serving(program)

    def listed() -> bool:
        body = modern("tools/list", {})
        accept = ("Accept", "application/json, text/event-stream")
        headers = dict([*modern_headers(body), accept, ("Content-Type", "application/json")])
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as caller:
            caller.request("POST", "/mcp", json.dumps(body), headers)
            return names(json.loads(caller.getresponse().read())["result"]) == {"raw", "modern", "legacy"}

    wait_until(listed, "all servers are listed")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert loaded(program) & (SDK | OPTIONAL | FOR_TERMINALS) == set()
