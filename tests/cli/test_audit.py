"""`mcp-broker audit`, of what real calls have left, while no broker runs."""

import json
import signal
from datetime import datetime
from pathlib import Path

import pytest

from tests.cli.conftest import LIMIT, Program
from tests.cli.test_administration import Inside
from tests.cli.test_fronts import ENVELOPE
from tests.usage.trails import BEGAN, call, file_name, write


@pytest.fixture
def used(program: Program) -> Program:
    path = program.configure(one=program.plain("--name", "one"))
    path.write_text(path.read_text(encoding="utf-8") + "audit: {enabled: true}\n", encoding="utf-8")
    assert program.run("call", "one__echo", "text=hunter2").code == 0
    assert program.run("call", "one__fail").code == 1
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": ENVELOPE}}
    assert "one__echo" in program.run("stdio", stdin=json.dumps(listing) + "\n").out
    assert program.run("catalog").code == 0
    return program


def test_who_called_what_and_who_could_see_it(used: Program) -> None:
    done = used.run("audit", "--since", "1h", "--json", "--event", "call")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [(one["public"], one["outcome"], one["front"]) for one in found] == [
        ("one__echo", "done", "cli"),
        ("one__fail", "failed", "cli"),
    ]
    assert "hunter2" not in done.out
    today = datetime.now().astimezone().strftime("%Y-%m-%d")
    seen = json.loads(used.run("audit", "--who-saw", "one__echo", "--on", today, "--json").out)["seen"]
    assert [(one["principal"], one["methods"], one["times"]) for one in seen] == [("local", ["tools/list"], 1)], (
        "an operator that looks at a catalog is no caller to whom it was shown"
    )
    table = used.run("audit", "--tool", "one__fail")
    assert (table.code, table.err) == (0, "1 record\n")
    header, row = (line.split("\t") for line in table.out.splitlines())
    assert header[:5] == ["time", "event", "who", "what", "outcome"]
    assert row[1:5] == ["call", "local", "tools/call one__fail", "failed"]
    assert datetime.strptime(row[0], "%Y-%m-%d %H:%M:%S%z")
    assert used.run("org", "create", "acme").code == 0
    (made,) = (json.loads(one) for one in used.run("audit", "--event", "admin", "--json").out.splitlines())
    assert (made["principal"], made["outcome"], made["target"]) == ("local", "done", "org:acme")
    nobody = used.run("audit", "--who-saw", "one__echo", "--on", "2020-01-01")
    assert (nobody.code, nobody.out) == (0, "") and "nobody was shown one__echo on 2020-01-01" in nobody.err
    for option in (("--since", "soon"), ("--on", "Tuesday"), ("--on", today, "--since", "2h")):
        assert used.run("audit", *option).code == 2


def test_follow_prints_each_record_once_as_it_comes_and_ends_when_it_is_interrupted(program: Program) -> None:
    path = program.configure(one=program.plain("--name", "one"))
    path.write_text(path.read_text(encoding="utf-8") + "audit: {enabled: true}\n", encoding="utf-8")
    kept = Path(program.environment["XDG_STATE_HOME"]) / "mcp-broker" / "audit"
    write(kept / file_name(1), [call("key:ann", "old", at=BEGAN)])
    process = program.start("audit", "--follow", "--json", "--caller", "key:ann")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["own"] == "old"
    write(kept / file_name(1), [call("key:bob", "other", at=BEGAN + 1), call("key:ann", "new", at=BEGAN + 2)])
    assert json.loads(process.stdout.readline())["own"] == "new"
    write(kept / file_name(2), [call("key:ann", "newest", at=BEGAN + 3)])
    assert json.loads(process.stdout.readline())["own"] == "newest"
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 130


def test_the_index_is_made_anew_and_asked(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = Inside(program, monkeypatch, capsys)
    path = program.configure(one=program.plain("--name", "one"))
    path.write_text(path.read_text(encoding="utf-8") + "audit: {enabled: true}\n", encoding="utf-8")
    state = Path(program.environment["XDG_STATE_HOME"]) / "mcp-broker"
    write(state / "audit" / file_name(1), [call("key:ann", "echo", at=BEGAN), call("key:bob", "echo", at=BEGAN + 1)])
    without = inside.run("audit", "--json")
    assert not (state / "broker.db").exists(), "a question makes no database"
    done = inside.run("audit", "--rebuild-index")
    assert (done.code, done.err) == (0, "2 records in the index\n") and (state / "broker.db").exists()
    assert inside.run("audit", "--json").out == without.out != ""
    (state / "broker.db").write_bytes(b"no database at all, but a text" * 100)
    broken = inside.run("audit", "--json")
    assert (broken.code, broken.out) == (0, without.out) and "without the index, line by line" in broken.err
