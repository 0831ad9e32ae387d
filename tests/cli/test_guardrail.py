"""`mcp-broker guardrail`, and what the other commands say of a guardrail that cannot be used."""

import json
import signal
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import LIMIT, Program, children_of, wait_until
from tests.guardrails.corpus import CANARY
from tests.peers import is_alive

RULE = """\
def check(ctx):
    args = ctx["args"]
    if args["do"] == "crash":
        raise ValueError("\\x1b[2J" + args["text"])
    if args["do"] == "hang":
        while True:
            pass
    if args["do"] == "rewrite":
        return {"action": "modify", "args": {"do": "less"}}
    if args["do"] == "nonsense":
        return True
    return {"action": args["do"], "reason": "as you say"}
"""
BAD = "import os\n\ndef check(ctx):\n    return os.environ['CANARY']\n"


@pytest.fixture
def rule(program: Program) -> Program:
    program.environment["CANARY"] = CANARY
    (program.directory / "rule.py").write_text(RULE, encoding="utf-8")
    (program.directory / "bad.py").write_text(BAD, encoding="utf-8")
    return program


def test_check_says_whether_a_text_is_a_guardrail(rule: Program) -> None:
    done = rule.run("guardrail", "check", "rule.py")
    assert (done.code, done.err) == (0, "") and done.out.startswith("rule.py: a guardrail (sha256 ")
    done = rule.run("guardrail", "check", "bad.py")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        "bad.py:1: Import may not be used in a guardrail",
        "bad.py:4: .environ may not be used",
        "bad.py:4: there is no name 'os' here",
        "bad.py: 3 problems",
    ]
    done = rule.run("guardrail", "check", "bad.py", "--json")
    found = json.loads(done.out)
    assert done.code == 2 and found["ok"] is False and found["problems"][0]["line"] == 1
    assert json.loads(rule.run("guardrail", "check", "rule.py", "--json").out)["ok"] is True


@pytest.mark.parametrize(
    ("do", "code", "document"),
    [
        ("allow", 0, {"action": "allow"}),
        ("block", 0, {"action": "block", "reason": "as you say"}),
        ("rewrite", 0, {"action": "modify", "args": {"do": "less"}}),
        ("crash", 1, {"action": "error", "reason": "ValueError in line 4: \x1b[2Jboo"}),
        ("hang", 1, {"action": "error", "reason": "it took longer than 0.25 s"}),
        ("nonsense", 1, {"action": "error", "reason": "it returned no object with an action"}),
    ],
)
def test_test_prints_what_a_call_would_get(rule: Program, do: str, code: int, document: dict[str, object]) -> None:
    given = {"args": {"do": do, "text": "boo"}}
    done = rule.run("guardrail", "test", "rule.py", "--input", "-", "--json", stdin=json.dumps(given))
    assert (done.code, json.loads(done.out)) == (code, document), done.err
    (rule.directory / "in.json").write_text(json.dumps(given), encoding="utf-8")
    done = rule.run("guardrail", "test", "rule.py", "--input", "in.json")
    assert done.code == code and done.out.startswith(f"action: {document['action']}\n") and "\x1b" not in done.out


def test_test_refuses_what_it_cannot_use(rule: Program) -> None:
    for words, said in (
        (["bad.py", "-i", "-"], "bad.py:1: Import may not be used"),
        (["rule.py", "-i", "none.json"], "--input none.json cannot be read: no such file"),
        (["none.py", "-i", "-"], "none.py cannot be read: no such file"),
        ([".", "-i", "-"], ". cannot be read: is a directory"),
    ):
        done = rule.run("guardrail", "test", *words, stdin='{"args": {}}')
        assert done.code == 2 and done.out == "" and said in done.err, done.err
    for given in ("", "[]", '{"phase": "request"', '{"phase": "later"}', '{"x": 1}', '{"args": {}, "result": {}}'):
        assert rule.run("guardrail", "test", "rule.py", "-i", "-", stdin=given).code == 2, given
    done = rule.run("guardrail", "test", "bad.py", "-i", "-", "--json", stdin='{"args": {}}')
    assert done.code == 2 and json.loads(done.out)["action"] == "error" and CANARY not in done.out


def configure(program: Program, file: str) -> Path:
    path = program.configure(one=program.plain())
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["guardrails"] = {"rule": {"file": file, "phases": ["request"]}}
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "command", [["check"], ["serve", "--port", "0"], ["stdio"], ["catalog"], ["call", "one__echo"]]
)
def test_F101_no_command_starts_with_a_guardrail_that_cannot_be_used(rule: Program, command: list[str]) -> None:
    configure(rule, "bad.py")
    done = rule.run(*command)
    assert (done.code, done.out) == (2, "")
    assert "bad.py:1: guardrails.rule: Import may not be used in a guardrail\n" in done.err
    assert "nothing was started" in done.err and "Traceback" not in done.err and CANARY not in done.err


def test_a_guardrail_judges_calls_of_the_command_line_too(rule: Program) -> None:
    configure(rule, "rule.py")
    assert rule.run("check").code == 0
    done = rule.run("call", "one__echo", "do=block", "text=x")
    assert (done.code, done.out) == (1, "blocked by guardrail rule\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux")
@pytest.mark.parametrize("end", ["the host closes the pipe", "SIGTERM", "SIGKILL"])
def test_no_guardrail_process_outlives_the_broker(rule: Program, end: str) -> None:
    configure(rule, "rule.py")
    broker = rule.start("stdio")
    # Two processes for guardrails, and the server.
    wait_until(lambda: len(children_of(broker.pid)) >= 3, "the processes are there")
    children = children_of(broker.pid)
    if end == "the host closes the pipe":
        assert broker.stdin is not None
        broker.stdin.close()
    else:
        broker.send_signal(getattr(signal, end))
    assert broker.wait(LIMIT) == (-signal.SIGKILL if end == "SIGKILL" else 0)
    guards = [pid for pid in children if is_guard(pid)] if end == "SIGKILL" else children
    wait_until(lambda: not any(is_alive(pid) for pid in guards), "the processes are gone")


def is_guard(pid: int) -> bool:
    try:
        return b"broker.guardrails" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
