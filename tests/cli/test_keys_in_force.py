"""What is made beside a running broker is in force without a restart: rules too; and a store that cannot be read."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.cli.conftest import LIMIT, Program, wait_until
from tests.cli.test_fronts import ENVELOPE, serving


def tools(port: int, key: str = "") -> tuple[int, list[str]]:
    """The status of `tools/list`, and the names in it."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": ENVELOPE}}).encode()
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/list",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    request = urllib.request.Request(f"http://127.0.0.1:{port}/mcp", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, [tool["name"] for tool in json.loads(response.read())["result"]["tools"]]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, []


@pytest.fixture
def house(program: Program) -> Program:
    program.configure(one=program.plain("--name", "one"), two=program.plain("--name", "two"))
    return program


def test_rules_that_are_changed_beside_a_running_broker_are_in_force(house: Program) -> None:
    assert house.run("org", "create", "acme", "--allow", "{servers: ['*']}").code == 0
    assert house.run("team", "create", "acme/data", "--allow", "{servers: [one]}").code == 0
    done = house.run("key", "create", "--team", "acme/data", "--name", "ci", "--json")
    key = json.loads(done.out)["key"]
    _, port = serving(house)
    wait_until(lambda: tools(port, key)[1][:1] == ["one__echo"], "the server is there")
    assert all(name.startswith("one__") for name in tools(port, key)[1])
    assert house.run("team", "grant", "acme/data", "--allow", "{servers: [two]}").code == 0
    wait_until(lambda: tools(port, key)[1][:1] == ["two__echo"], "the new rules are in force")
    assert all(name.startswith("two__") for name in tools(port, key)[1])
    assert key not in house.errors.read_text(encoding="utf-8")


def test_F94_a_store_that_can_be_read_no_more_lets_in_whom_it_had_and_nobody_else(house: Program) -> None:
    assert house.run("org", "create", "acme", "--allow", "{servers: ['*']}").code == 0
    assert house.run("team", "create", "acme/data").code == 0
    key = json.loads(house.run("key", "create", "--team", "acme/data", "--name", "ci", "--json").out)["key"]
    _, port = serving(house)
    assert tools(port, key)[0] == 200
    stranger = "mcpb_" + "a" * 12 + "_" + "b" * 43
    assert tools(port, stranger)[0] == 401
    state = house.directory.parent / "state" / "mcp-broker"
    for name in ("broker.db-wal", "broker.db-shm"):
        (state / name).unlink(missing_ok=True)
    (state / "broker.db").write_bytes(b"no database" * 1000)
    wait_until(lambda: tools(port, stranger)[0] == 503, "nobody can say who that is")
    assert tools(port)[0] == 401
    assert "broker.db" in house.errors.read_text(encoding="utf-8")


def test_the_fronts_do_not_load_the_driver_of_a_store(house: Program) -> None:
    script = (
        "import sys, broker.cli.piping, broker.cli.serving\n"
        "print(sorted({'sqlalchemy', 'alembic', 'aiosqlite', 'asyncpg'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=house.environment, capture_output=True, timeout=LIMIT, check=True
    )
    assert done.stdout.decode().strip() == "[]"
