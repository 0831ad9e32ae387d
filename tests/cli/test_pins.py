"""`mcp-broker pin`, as an operator uses it: see what has changed, and accept it."""

import json

from broker.core.pins import Pin, Was
from broker.upstream.pins import PinFiles
from tests.cli.conftest import Program

PINS = {
    ("tools", "read"): Pin(Was("a" * 64, 0.0), Was("b" * 64, 60.0, "changed")),
    ("tools", "write"): Pin(Was("c" * 64, 0.0), Was("d" * 64, 60.0, "changed")),
    ("instructions", ""): Pin(Was("e" * 64, 0.0)),
}


def test_what_has_changed_is_shown_accepted_by_name_and_recorded(program: Program) -> None:
    program.configure(one={"command": "true", "pins": "hold"}, two={"command": "true"})
    assert "nothing is pinned" in program.run("pin", "list").out
    files = PinFiles(program.directory.parent / "state" / "mcp-broker" / "pins")
    files.write("one", PINS)
    assert len(program.run("pin", "list").out.splitlines()) == 3
    changed = program.run("pin", "list", "one", "--changed").out.splitlines()
    assert changed[0].startswith("one  tools  read  aaaaaaaaaaaaaaaa  first seen  1970-01-01")
    done = program.run("pin", "accept", "one", "read", "--json")
    assert json.loads(done.out) == {"accepted": [{"kind": "tools", "name": "read"}]}
    shown = json.loads(program.run("pin", "list", "--changed", "--json").out)["pins"]
    assert [one["name"] for one in shown] == ["write"]
    assert files.read("one")[("tools", "read")].history == (Was("a" * 64, 0.0),)
    assert "pin.accept" in program.run("audit").out
    assert program.run("pin", "accept", "one").out == "one: 1 definition accepted\n"


def test_a_server_or_a_name_that_is_not_there_and_a_damaged_file_are_said(program: Program) -> None:
    program.configure(one={"command": "true"})
    for args in (["list", "x"], ["accept", "x"], ["accept", "one", "x"]):
        done = program.run("pin", *args)
        assert done.code == 2 and "x" in done.err and not done.out
    files = PinFiles(program.directory.parent / "state" / "mcp-broker" / "pins")
    files.write("one", {})
    files.path("one").write_text("{", encoding="utf-8")
    for args in (["list"], ["accept", "one"]):
        done = program.run("pin", *args)
        assert done.code == 1 and "remove it to pin anew" in done.err
