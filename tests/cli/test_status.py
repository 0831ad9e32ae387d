"""`mcp-broker status`: a broker that runs is asked, and what its servers said is shown harmless."""

import json
import re
import sys
from typing import Any

import pytest
import yaml

from broker.cli.condition import show
from broker.cli.exits import Stop
from broker.config import Secret
from broker.identity.keys import hash_of, mint
from tests.cli.conftest import Program, wait_until
from tests.peers import SERVERS

SECRET = "s" * 40
ADMIN, MEMBER = mint(b"a" * 40), mint(b"m" * 40)
STATEFUL = {"command": sys.executable, "args": ["-S", str(SERVERS / "stateful.py")]}
LOUD = {"command": "sh", "args": ["-c", "printf 'no \\033[31mdatabase\\n' >&2; exit 3"]}


def serve(program: Program, **more: Any) -> str:
    document = {"servers": {"good": STATEFUL, "loud": LOUD, "lazy": {**STATEFUL, "start": "lazy"}}, **more}
    (program.directory / "servers.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    program.start("serve", "--port", "0")
    pattern = re.compile(r"on (http://[\d.]+:\d+)/mcp")
    for words in (pattern, re.compile("good: ready"), re.compile("loud: not available")):
        wait_until(lambda words=words: words.search(program.errors.read_text()) is not None, words.pattern)
    found = pattern.search(program.errors.read_text())
    assert found is not None
    return found[1]


def test_states_errors_and_the_end_of_stderr_are_shown_and_escaped(program: Program) -> None:
    url = serve(program)
    done = program.run("status", "--url", url)
    assert done.code == 0, done.err
    assert done.out.startswith("ready: ok\nserver\tstate\tfor\topened\tcalls\tlast error\n")
    rows = {row[0]: row for row in (text.split("\t") for text in done.out.splitlines()[2:]) if len(row) > 1}
    assert rows["good"][1] == "ready" and rows["good"][3:] == ["1", "0", ""]
    assert rows["lazy"][1] == "idle" and rows["lazy"][3] == "0"
    assert rows["loud"][1] in ("waiting", "connecting") and "exited with code 3" in rows["loud"][5]
    assert "loud: no \\x1b[31mdatabase" in done.out and "\x1b" not in done.out
    found = json.loads(program.run("status", "--url", url, "--json").out)
    servers = {one["server"]: one for one in found["servers"]}
    assert found["ready"] == ["ok"] and servers.keys() == {"good", "loud", "lazy"}
    loud = servers["loud"]
    assert loud["last_error_at"] >= 1_600_000_000 and loud["stderr"][-1] == "no \\x1b[31mdatabase"


def test_who_is_no_admin_sees_what_is_served_to_it_and_no_stderr(program: Program) -> None:
    keys = {
        "boss": {"hash": hash_of(ADMIN.text.reveal(), Secret(SECRET)), "role": "admin"},
        "ci": {"hash": hash_of(MEMBER.text.reveal(), Secret(SECRET))},
    }
    acme = {"allow": [{"servers": ["good", "loud"]}], "teams": {"data": {"keys": keys}}}
    url = serve(program, identity={"key_secret": SECRET}, organizations={"acme": acme})
    refused = program.run("status", "--url", url)
    assert refused.code == 1 and "status 401" in refused.err and "MCP_BROKER_KEY" in refused.err
    boss = json.loads(program.run("status", "--url", url, "--json", env={"MCP_BROKER_KEY": ADMIN.text.reveal()}).out)
    assert len(boss["servers"]) == 3 and any(one["stderr"] for one in boss["servers"])
    ci = json.loads(program.run("status", "--url", url, "--json", env={"MCP_BROKER_KEY": MEMBER.text.reveal()}).out)
    assert "lazy" not in {one["server"] for one in ci["servers"]} and not any(one["stderr"] for one in ci["servers"])


def test_what_does_not_answer_is_said(free_port: int) -> None:
    with pytest.raises(Stop, match=r"does not answer: Connection refused\. Is the broker running\?") as nobody:
        show(f"http://127.0.0.1:{free_port}", "error", as_json=False)
    assert nobody.value.code == 1
    for url in ("127.0.0.1:8787", "http://", "ftp://host", "http://host:port", "http://host/mcp"):
        with pytest.raises(Stop, match="is not the URL of a broker") as refused:
            show(url, "error", as_json=False)
        assert refused.value.code == 2, url
