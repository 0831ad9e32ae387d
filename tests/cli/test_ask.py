"""`call`, `read` and `prompt` against real servers."""

import json
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Program, children_of, wait_until
from tests.peers import is_alive


@pytest.fixture
def served(program: Program) -> Program:
    """`one`; and `other`, which would hold up whoever started it."""
    program.configure(one=program.plain("--name", "one"), other=program.plain("--slow-start", "600"))
    return program


@pytest.mark.parametrize(
    "arguments", [["text=hallo"], ['{"text": "hallo"}'], ["-"]], ids=["pairs", "an object", "on stdin"]
)
def test_a_tool_is_called(served: Program, arguments: list[str]) -> None:
    done = served.run("call", "one__echo", *arguments, stdin='{"text": "hallo"}')
    assert (done.code, done.out, done.err) == (0, "one:hallo\n", "")


def test_values_of_pairs_are_json_where_they_can_be(served: Program) -> None:
    done = served.run("call", "one__add", "a=1.5", "b=2", "--json")
    result = json.loads(done.out)
    assert done.code == 0
    assert result["structuredContent"] == {"sum": 3.5}
    assert result["probeUnknownField"] == {"from": "one"}


def test_a_result_that_is_an_error_ends_with_1(served: Program) -> None:
    done = served.run("call", "one__fail")
    assert (done.code, done.out) == (1, "one:this tool always fails\n")


def test_what_is_no_text_is_named(served: Program) -> None:
    done = served.run("call", "one__link")
    assert "[link one+probe://static/blob (blob, application/octet-stream)]" in done.out
    assert "[resource one+probe://static/readme]\none:readme" in done.out


def test_an_unknown_tool_is_answered_with_the_nearest(served: Program) -> None:
    done = served.run("call", "one__ecko")
    assert done.code == 1
    assert done.out == ""
    assert "Unknown tool: one__ecko. Did you mean one__echo" in done.err


def test_an_error_is_readable_by_machines(served: Program) -> None:
    done = served.run("call", "one__ecko", "--json")
    assert done.code == 1
    assert json.loads(done.out)["error"]["code"] == -32602


def test_a_name_of_nobody_asks_all_and_names_who_is_not_there(program: Program) -> None:
    program.configure(one=program.plain(), gone={"command": "not-there-at-all"})
    done = program.run("call", "nobody__x")
    assert done.code == 1
    assert "Unknown tool: nobody__x" in done.err
    assert "gone is not available: command not found: not-there-at-all" in done.err


def test_a_server_that_does_not_come_is_said(program: Program) -> None:
    program.configure(gone={"command": "not-there-at-all"}, off={"command": "x", "enabled": False})
    gone, off = program.run("call", "gone__x"), program.run("call", "off__x")
    assert (gone.code, off.code) == (1, 1)
    assert gone.err.startswith("server gone is not available: command not found")
    assert off.err == "server off is disabled in servers.yaml\n"


def test_a_resource_is_read(served: Program) -> None:
    assert served.run("read", "one+probe://static/readme").out == "one:probe://static/readme\n"
    blob = served.run("read", "one+probe://static/blob")
    assert blob.out == "[data application/octet-stream, 256 bytes: use --json to have it]\n"
    assert served.run("read", "one+probe://nothing").code == 1


def test_a_prompt_is_got(served: Program) -> None:
    assert served.run("prompt", "one__greet", "name=1").out == "user: one:hello 1\n"
    assert json.loads(served.run("prompt", "one__greet", "name=Ada", "--json").out)["messages"]


@pytest.mark.parametrize("given", ["text", '{"a": NaN}', '{"a": 1, "a": 2}', "=x"])
def test_arguments_that_are_none_are_refused_before_anything_starts(served: Program, given: str) -> None:
    assert served.run("call", "one__echo", given).code == 2


def test_control_characters_of_a_server_are_shown_not_obeyed(served: Program) -> None:
    text = json.dumps({"text": "a\x1b[8mb\x9bc\u202ed\te\nf[red]g"})
    assert served.run("call", "one__echo", text).out == "one:a\\x1b[8mb\\x9bc\\u202ed\te\nf[red]g\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_call_and_leaves_no_process(
    program: Program, tmp_path: Path, number: signal.Signals
) -> None:
    notes = tmp_path / "log"
    program.configure(one=program.plain("--log", str(notes)))
    process = program.start("call", "one__slow", "seconds=600", "label=x")
    wait_until(lambda: notes.exists() and "started x" in notes.read_text(encoding="utf-8"), "the call began")
    children = children_of(process.pid)
    assert children
    process.send_signal(number)
    assert process.wait(30) == 130
    assert not any(is_alive(pid) for pid in children)
    assert "Traceback" not in program.errors.read_text(encoding="utf-8")
