"""`check --connect` and `catalog`: what is there, and what is not and why."""

import json

import pytest

from tests.cli.conftest import Program


@pytest.fixture
def mixed(program: Program) -> Program:
    program.configure(
        modern=program.probe("--name", "modern", tools={"deny": ["crash"]}),
        legacy=program.probe("--name", "legacy", "--era", "legacy"),
        gone={"command": "not-there-at-all"},
        away={"url": "http://127.0.0.1:9/mcp"},
        off={"command": "x", "enabled": False},
    )
    return program


def test_check_connect_says_how_each_server_is(mixed: Program) -> None:
    done = mixed.run("check", "--connect", "--json")
    report = json.loads(done.out)
    servers = report["servers"]
    assert done.code == 1
    assert report["ok"] is False
    assert {key: row["state"] for key, row in servers.items()} == {
        "modern": "ready",
        "legacy": "ready",
        "gone": "failed",
        "away": "failed",
        "off": "disabled",
    }
    assert (servers["modern"]["version"], servers["legacy"]["version"]) == ("2026-07-28", "2025-11-25")
    assert servers["modern"]["tools"] == servers["legacy"]["tools"] - 1
    assert servers["modern"]["tokens"] > 100
    assert servers["modern"]["seconds"] > 0
    assert "command not found: not-there-at-all" in servers["gone"]["reason"]
    assert "refused" in servers["away"]["reason"]


def test_check_connect_prints_fields_between_tabs_where_nobody_looks(mixed: Program) -> None:
    rows = [row.split("\t") for row in mixed.run("check", "--connect").out.splitlines()[1:]]
    assert rows[0][:3] == ["server", "state", "version"]
    assert [row[:2] for row in rows[1:]] == [
        ["modern", "ready"],
        ["legacy", "ready"],
        ["gone", "failed"],
        ["away", "failed"],
        ["off", "disabled"],
    ]


def test_check_connect_succeeds_when_all_answer_and_waits_no_longer_than_told(program: Program) -> None:
    program.configure(one=program.probe())
    assert program.run("check", "--connect").code == 0
    program.configure(one=program.probe("--slow-start", "600"))
    done = program.run("check", "--connect", "--wait", "0.2")
    assert done.code == 1
    assert "connecting" in done.out
    assert "no answer within 0.2 s" in done.out


def test_the_catalog_is_what_a_caller_gets(mixed: Program) -> None:
    done = mixed.run("catalog", "--json")
    document = json.loads(done.out)
    names = [tool["name"] for tool in document["tools"]]
    assert done.code == 0
    assert "modern__echo" in names
    assert "modern__crash" not in names
    assert "legacy__crash" in names
    assert {"modern+probe://static/readme", "legacy+mailto:a@b.c"} <= {one["uri"] for one in document["resources"]}
    assert [one["uriTemplate"] for one in document["resourceTemplates"]] == [
        "modern+probe://docs/{id}",
        "legacy+probe://docs/{id}",
    ]
    assert [one["name"] for one in document["prompts"]][:1] == ["modern__greet"]
    assert '<instructions server="modern">' in document["instructions"]
    assert set(document["missing"]) == {"gone", "away"}
    assert document["servers"]["modern"]["own"]["modern__admin_tools_list-all_" + suffix(names)] == (
        "admin.tools.list-all"
    )
    tokens = document["tokens"]
    assert tokens["total"] >= tokens["servers"]["modern"] > tokens["instructions"] > 0


def suffix(names: list[str]) -> str:
    return next(name for name in names if name.startswith("modern__admin")).rpartition("_")[2]


def test_a_view_shows_its_servers_only(mixed: Program) -> None:
    out = mixed.run("catalog", "--view", "legacy").out
    assert "legacy__echo  Say it again." in out
    assert "modern" not in out
    assert "gone" not in out


def test_the_tree_names_what_is_missing_and_why(mixed: Program) -> None:
    out = mixed.run("catalog").out
    assert "gone  failed: command not found: not-there-at-all" in out
    assert "(admin.tools.list-all)" in out
    assert "tokens in all" in out


def test_a_catalog_of_nobody_is_a_failure(program: Program) -> None:
    program.configure(gone={"command": "not-there-at-all"})
    done = program.run("catalog", "--json")
    assert done.code == 1
    assert set(json.loads(done.out)["missing"]) == {"gone"}
