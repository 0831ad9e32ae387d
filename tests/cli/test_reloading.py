"""SIGHUP: organizations of the file are read again, whole or not at all; connections are not touched."""

import http.client
import json
import logging
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.app import Broker
from broker.cli.reloading import reload
from broker.config import Secret, load
from broker.core.caller import Caller
from broker.identity.keys import hash_of, mint
from tests.cli.conftest import Program, wait_until

SECRET = "s" * 40
MADE = mint(b"k" * 40)
CI = Caller("key:acme/data/ci", "acme", "data", "ci")


def write(path: Path, **changes: Any) -> None:
    keys = {"ci": {"hash": hash_of(MADE.text.reveal(), Secret(SECRET))}, "other": {"hash": "b" * 64}}
    document = {
        "servers": {"one": {"command": "false"}},
        "identity": {"key_secret": SECRET},
        "organizations": {"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": {"keys": keys}}}},
        **changes,
    }
    path.write_text(yaml.safe_dump({name: value for name, value in document.items() if value}), encoding="utf-8")


def without_ci() -> dict[str, Any]:
    teams = {"data": {"keys": {"other": {"hash": "b" * 64}}}}
    return {"acme": {"allow": [{"servers": ["*"]}], "teams": teams}}


async def test_organizations_are_in_force_at_once_and_links_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "servers.yaml"
    write(path, broker={"state_dir": str(tmp_path)})
    generation = Broker(load(path, {})).generation
    pool, upstream = generation.pool, generation.pool.upstreams["one"]
    assert generation.policy.standing(CI).refusal is None
    more = {"one": {"command": "false"}, "two": {"command": "false"}}
    write(path, organizations=without_ci(), broker={"state_dir": str(tmp_path)}, servers=more)
    with caplog.at_level(logging.INFO):
        assert await reload(generation, path)
    refusal = generation.policy.standing(CI).refusal
    assert refusal is not None and refusal.rule == "key:acme/data/ci/unknown"
    assert generation.pool is pool and generation.pool.upstreams["one"] is upstream
    assert "changes of servers wait for a restart" in caplog.text


@pytest.mark.parametrize("broken", [{"organizations": {"acme": {"alow": []}}}, {"organizations": None}], ids=str)
async def test_a_broken_file_changes_nothing_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: dict[str, Any]
) -> None:
    """Nor does one without organizations: everybody on this machine would be the local user."""
    path = tmp_path / "servers.yaml"
    write(path)
    generation = Broker(load(path, {})).generation
    policy = generation.policy
    write(path, **broken)
    assert not await reload(generation, path)
    assert generation.policy is policy
    assert "in force" in caplog.text


def status(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/api/v1/openapi.json", headers={"X-API-Key": MADE.text.reveal()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 401 or json.loads(body)["openapi"] == "3.1.0"
    return answer.status


def test_a_key_that_was_taken_out_of_the_file_is_refused_after_the_signal(program: Program) -> None:
    path = program.directory / "servers.yaml"
    write(path)
    process = program.start("serve", "--port", "0")
    found: list[int] = []

    def is_up() -> bool:
        found[:] = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)/mcp", program.errors.read_text())]
        return bool(found)

    wait_until(is_up, "the broker is up")
    assert status(found[0]) == 200
    write(path, organizations=without_ci())
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: status(found[0]) == 401, "the key is refused")
