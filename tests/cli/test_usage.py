"""`usage` as people and scripts use it: the real program, a real store, a real terminal."""

import json
import os
import pty
import re
import subprocess
import sys
import time

import anyio
import pytest
import yaml

from broker.core.amount import UNIT
from broker.core.tally import Sums, Use
from broker.stores.location import Location
from broker.stores.opening import open_usage
from tests.cli.conftest import LIMIT, Program

ORGANIZATIONS = {
    "acme": {
        "allow": [{"servers": ["*"]}],
        "limits": {"budget": {"day": 500}},
        "teams": {"data": {"limits": {"budget": {"hour": 20}}}},
    }
}


@pytest.fixture
def used(program: Program) -> Program:
    """Two teams have used two tools in this hour."""
    state = program.directory / "state"
    document = {
        "broker": {"state_dir": str(state)},
        "servers": {"sql": {"command": "sql", "cost": 1}},
        "organizations": ORGANIZATIONS,
    }
    (program.directory / "servers.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")

    async def fill() -> None:
        store = await open_usage(Location(state, state / "broker.db"), "broker-1")
        hour = int(time.time()) // 3600 * 3600
        uses = {
            Use("acme", "data", "key:ci", "sql", "tools", "query"): Sums(30, 2, 1, 30 * UNIT, 3_000_000, 250_000),
            Use("acme", "web", "key:bot", "sql", "tools", "\x1b[31mred"): Sums(10, 0, 0, 10 * UNIT, 1_000_000, 9),
        }
        await store.add(1, {(hour, use): sums for use, sums in uses.items()}, hour)
        await store.database.aclose()

    anyio.run(fill)
    return program


def test_usage_is_told_apart_as_it_is_asked_and_budgets_are_beside_it(used: Program) -> None:
    done = used.run("usage", "--by", "team", "--since", "2h")
    assert done.code == 0, done.err
    lines = [row.split("\t") for row in done.out.splitlines()]
    assert lines[:3] == [
        ["team", "calls", "failed", "refused", "cost", "mean ms", "max ms"],
        ["acme/data", "30", "2", "1", "30", "100.0", "250.0"],
        ["acme/web", "10", "0", "0", "10", "100.0", "0.0"],
    ]
    assert [(row[0], row[1], *row[3:]) for row in lines[4:]] == [
        ("org:acme", "day", "0", "0", "500"),
        ("team:acme/data", "hour", "0", "0", "20"),
    ]
    assert done.err.startswith("40 calls since ")


def test_usage_as_json_is_one_value_and_exact(used: Program) -> None:
    done = used.run("usage", "--json", "--since", "2h")
    found = json.loads(done.out)
    assert (done.code, found["by"]) == (0, "tool")
    assert [(one["name"], one["calls"], one["cost"]) for one in found["usage"]] == [
        ("\x1b[31mred", 10, "10"),
        ("query", 30, "30"),
    ]
    assert [one["level"] for one in found["budgets"]] == ["org:acme", "team:acme/data"]


def test_a_terminal_gets_bars_and_nothing_that_a_name_makes_of_it(used: Program) -> None:
    outer, inner = pty.openpty()
    environment = {**used.environment, "TERM": "xterm", "COLUMNS": "120", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        [sys.executable, "-m", "broker", "usage", "--since", "2h"],
        cwd=used.directory,
        env=environment,
        stdout=inner,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    ) as process:
        os.close(inner)
        said = b""
        try:
            while chunk := os.read(outer, 65_536):
                said += chunk
        except OSError:  # the terminal is gone with its program
            pass
        assert process.wait(LIMIT) == 0
    os.close(outer)
    text = said.decode()
    assert "\x1b[31mred" not in text and "\\x1b[31mred" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    rows = {row.split()[1]: row.count("█") for row in plain.splitlines() if row.startswith("sql")}
    assert rows["query"] > 2 * rows["\\x1b[31mred"] > 0
    assert "hour (UTC)" in plain and "org:acme" in plain


@pytest.mark.parametrize("wrong", [["--since", "soon"], ["--since", "1h", "--until", "2h"], ["--by", "cost"]])
def test_a_question_that_is_none_is_bad_input(used: Program, wrong: list[str]) -> None:
    done = used.run("usage", *wrong)
    assert (done.code, done.out) == (2, "")


def test_where_nothing_was_stored_nothing_was_used_and_nothing_is_made(program: Program) -> None:
    program.configure(one=program.plain())
    done = program.run("usage", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["usage"] == []
    assert "there is no database yet" in done.err
    assert not list(program.directory.parent.rglob("broker.db"))
