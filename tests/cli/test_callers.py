"""Callers of the real program: keys that are made and revoked beside it, tokens of a real issuer, and what it says."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import yaml

from tests.cli.conftest import LIMIT, Program, wait_until
from tests.downstream.raw_http import message, modern, modern_headers
from tests.identity.issuer import AUDIENCE, Issuer
from tests.outbound.site import authority, site

LISTING = modern("tools/list")
_PLACE = re.compile(r"on http://[0-9.]+:(\d+)/mcp")


def serve(program: Program, *args: str) -> int:
    """The port."""
    program.start("serve", "--port", "0", *args)
    said = program.errors
    wait_until(lambda: _PLACE.search(said.read_text(encoding="utf-8")) is not None, "the URL")
    found = _PLACE.search(said.read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1])


def exchange(port: int, credential: str | None, method: str = "POST", path: str = "/mcp") -> tuple[int, str, Any]:
    """Status, head and JSON of the answer to a listing."""
    headers = [("Authorization", f"Bearer {credential}")] if credential is not None else []
    if method == "GET":
        return send(port, headers, b"", method, path)
    return send(port, [*headers, *modern_headers(LISTING)], json.dumps(LISTING).encode(), method, path)


def send(
    port: int, more: list[tuple[str, str]], body: bytes, method: str = "POST", path: str = "/mcp"
) -> tuple[int, str, Any]:
    headers = [
        *(("Host", f"127.0.0.1:{port}"), ("Content-Type", "application/json"), ("Connection", "close")),
        ("Accept", "application/json, text/event-stream"),
        *more,
        ("Content-Length", str(len(body))),
    ]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)])
    with closing(socket.create_connection(("127.0.0.1", port), timeout=LIMIT)) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        raw = b""
        while chunk := connection.recv(65536):
            raw += chunk
    answer, _, content = raw.partition(b"\r\n\r\n")
    return int(answer.split()[1]), answer.decode(), json.loads(content) if content else None


def status(port: int, credential: str | None) -> int:
    return exchange(port, credential)[0]


def made_key(program: Program, *args: str) -> dict[str, str]:
    done = program.run("key", "create", "--json", *args)
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.fixture
def configured(program: Program) -> Iterator[Program]:
    program.configure(one={"command": "not-there-at-all"})
    yield program


def configure(program: Program, **sections: Any) -> None:
    path = program.directory / "servers.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**document, **sections}, sort_keys=False), encoding="utf-8")


def test_keys_made_and_revoked_beside_a_running_broker_count_at_once(configured: Program) -> None:
    """From nobody's broker, on loopback, to one that asks for a key; and every credential ends with its key."""
    port = serve(configured)
    assert status(port, None) == 200
    assert "every caller is 'local'" in configured.errors.read_text(encoding="utf-8")
    assert configured.run("org", "create", "acme", "--allow", '[{"servers": ["*"]}]').code == 0
    wait_until(lambda: status(port, None) == 401, "organizations are known")
    assert configured.run("team", "create", "acme/data").code == 0
    key = made_key(configured, "--team", "acme/data", "--name", "ci")
    wait_until(lambda: status(port, key["key"]) == 200, "the key is known")
    assert status(port, None) == 401
    assert configured.run("key", "revoke", key["id"], "--yes").code == 0
    revoked = time.monotonic()
    wait_until(lambda: status(port, key["key"]) == 401, "the key is revoked")
    assert time.monotonic() - revoked < 5
    assert key["key"] not in configured.errors.read_text(encoding="utf-8")


def test_SP02_with_a_key_it_listens_for_others_too_and_without_one_it_does_not(
    configured: Program,
) -> None:
    refused = configured.run("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.code == 2
    assert "no credential source is configured" in refused.err
    made = json.loads(configured.run("key", "create", "--for-file", "--name", "ci", "--json").out)
    keys = {"ci": {"hash": made["hash"]}}
    teams = {"data": {"keys": keys}}
    configure(configured, organizations={"acme": {"allow": [{"servers": ["*"]}], "teams": teams}})
    port = serve(configured, "--host", "0.0.0.0")
    assert status(port, made["key"]) == 200
    assert status(port, None) == 401
    assert "every request needs a credential" in configured.errors.read_text(encoding="utf-8")
    assert "every caller is 'local'" not in configured.errors.read_text(encoding="utf-8")


def test_a_key_secret_that_others_can_read_is_refused(configured: Program, tmp_path: Path) -> None:
    state = tmp_path / "state" / "mcp-broker"
    state.mkdir(parents=True)
    (state / "key_secret").write_text("x" * 40)
    (state / "key_secret").chmod(0o644)
    done = configured.run("serve", "--port", "0")
    assert done.code == 2
    assert "chmod 600" in done.err
    assert "xxxx" not in done.err


def test_check_says_when_nobody_could_come_in_with_a_key(configured: Program) -> None:
    keys = {"ci": {"hash": "0" * 64}}
    configure(configured, organizations={"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": {"keys": keys}}}})
    said = configured.run("check")
    assert said.code == 0
    assert "identity.key_secret: there are keys, and nothing to verify them with" in said.out + said.err
    assert configured.run("key", "create", "--for-file", "--name", "x").code == 0
    said = json.loads(configured.run("check", "--json").out)
    assert not [one for one in said["warnings"] if one["key"] == "identity.key_secret"]


async def test_SP74_a_token_of_an_issuer_behind_https_and_the_way_to_it(configured: Program, tmp_path: Path) -> None:
    """Discovery, keys and certificate are real; a caller without a token is told where to get one."""
    made = authority(tmp_path)
    configured.environment["SSL_CERT_FILE"] = str(made.file)
    async with site(made.server) as started:
        issuer = Issuer.new(started.url)
        issuer.publish(started)
        jwt = {"issuer": issuer.url, "audience": AUDIENCE, "organization": "acme", "allow_private": True}
        configure(
            configured,
            organizations={"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": {}}}},
            identity={"public_url": "https://broker.example", "jwt": [{**jwt, "team_claim": "groups"}]},
        )
        now = time.time()
        times = {"iat": now - 1, "exp": now + 60}
        port = await anyio.to_thread.run_sync(serve, configured, "--log-level", "debug")
        shown: list[str] = []

        async def ask(credential: str | None) -> tuple[int, str, Any]:
            shown.append(credential or "-" * 40)
            return await anyio.to_thread.run_sync(exchange, port, credential)

        assert (await ask(issuer.token(**times, groups=["data"])))[0] == 200
        assert (await ask(issuer.token(**times, groups=["ops"])))[0] == 403
        assert (await ask(issuer.token(**{**times, "exp": now - 1}, groups=["data"])))[0] == 401
        assert (await ask(Issuer.new(started.url).token(**times, groups=["data"])))[0] == 401
        code, head, _ = await ask(None)
        assert code == 401
        found = re.search(r'resource_metadata="https://broker\.example(/[^"]+)"', head)
        assert found is not None
        metadata = await anyio.to_thread.run_sync(exchange, port, None, "GET", found[1])
        assert metadata[2]["authorization_servers"] == [issuer.url]
        assert started.asked.count("/keys") == 1
        said = configured.errors.read_text(encoding="utf-8")
        assert "has no place here: ada" in said
        for token in shown:  # SP-82: no part of a token that could be used
            assert not [part for part in token.split(".") if part in said]


def test_SP71_SP72_nothing_of_a_caller_but_its_message_reaches_an_upstream(program: Program, tmp_path: Path) -> None:
    """Over HTTP and on stdio, in both eras: no header, no key, no session, no address."""
    program.environment["PLANTED_IN_THE_ENVIRONMENT"] = "canary-environment"
    heard, port_file = tmp_path / "heard", tmp_path / "port"
    ear = [sys.executable, str(Path(__file__).with_name("eavesdropper.py")), str(heard)]
    web = subprocess.Popen([*ear, str(port_file)], env=program.environment)
    try:
        wait_until(lambda: port_file.exists() and port_file.read_text() != "", "the upstream listens")
        program.configure(
            web={"url": f"http://127.0.0.1:{port_file.read_text()}/mcp"}, pipe={"command": ear[0], "args": ear[1:]}
        )
        made = json.loads(program.run("key", "create", "--for-file", "--name", "ci", "--json").out)
        acme = {"allow": [{"servers": ["*"]}], "teams": {"data": {"keys": {"ci": {"hash": made["hash"]}}}}}
        configure(program, organizations={"acme": acme})
        heard.write_text("")
        port = serve(program)
        names = [
            *("Cookie", "X-Forwarded-For", "X-Forwarded-User", "Forwarded", "X-Real-IP", "Proxy-Authorization"),
            *("User-Agent", "Referer", "X-Custom", "Mcp-Param-Tenant", "X-Api-Version", "Via"),
        ]
        planted = [(name, f"canary-{name.lower()}") for name in names]
        credential = [("Authorization", f"Bearer {made['key']}")]
        for server in ("web", "pipe"):
            called = modern("tools/call", {"name": f"{server}__echo", "arguments": {"said": f"hello {server}"}})
            _, _, reply = send(port, [*credential, *planted, *modern_headers(called)], json.dumps(called).encode())
            assert reply["result"]["content"][0]["text"] == "heard"
        opened = message("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
        _, head, _ = send(port, [*credential, *planted], json.dumps(opened).encode())
        found = re.search(r"(?i)mcp-session-id: (\S+)", head)
        assert found is not None
        session = [("Mcp-Session-Id", found[1]), ("MCP-Protocol-Version", "2025-11-25")]
        for server in ("web", "pipe"):
            called = message("tools/call", {"name": f"{server}__echo", "arguments": {"said": f"again {server}"}})
            code, _, _ = send(port, [*credential, *planted, *session], json.dumps(called).encode())
            assert code == 200
        text = heard.read_text(encoding="utf-8")
    finally:
        web.kill()
        web.wait()
    for said in ("hello web", "hello pipe", "again web", "again pipe"):
        assert said in text
    assert "canary" not in text
    for secret in (made["key"], made["hash"], found[1], made["key"].removeprefix("mcpb_")):
        assert secret not in text


def test_F93_a_store_that_is_no_database_is_refused_at_the_start(configured: Program, tmp_path: Path) -> None:
    state = tmp_path / "state" / "mcp-broker"
    state.mkdir(parents=True)
    (state / "broker.db").write_text("this is no database at all" * 100)
    done = configured.run("serve", "--port", "0")
    assert done.code == 1
    assert "broker.db" in done.err
    assert "Traceback" not in done.err


def test_I08_a_stream_of_a_real_program_ends_within_30_seconds(configured: Program) -> None:
    for command in (["org", "create", "acme", "--allow", '[{"servers": ["*"]}]'], ["team", "create", "acme/data"]):
        assert configured.run(*command).code == 0
    key = made_key(configured, "--team", "acme/data", "--name", "ci")
    port = serve(configured)
    with closing(socket.create_connection(("127.0.0.1", port), timeout=LIMIT)) as connection:
        head = f"GET /sse HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key['key']}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert configured.run("key", "revoke", key["id"], "--yes").code == 0
        revoked = time.monotonic()
        while not connection.recv(65536).endswith(b"0\r\n\r\n"):
            assert time.monotonic() - revoked < 30
    assert status(port, key["key"]) == 401
