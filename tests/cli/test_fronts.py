"""`serve` and `stdio` as processes: when they start, what they say, and what they leave behind."""

import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Program, children_of, wait_until
from tests.peers import accepts, is_alive

ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def test_a_port_in_use_is_said_and_nothing_is_started(program: Program, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    program.configure(one={"command": "touch", "args": [str(mark)]})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = program.run("serve", "--port", port)
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in done.err
    assert "Traceback" not in done.err
    assert not mark.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_SP02_SP03_a_host_that_others_can_reach_is_refused(program: Program, host: str) -> None:
    program.configure(one=program.plain())
    done = program.run("serve", "--host", host, "--port", "0")
    assert done.code == 2
    assert "no credential source is configured" in done.err


def serving(program: Program, *args: str) -> tuple[subprocess.Popen[bytes], int]:
    process = program.start("serve", "--port", "0", *args)
    pattern = re.compile(r"on http://[\d.]+:(\d+)/mcp")
    wait_until(lambda: pattern.search(program.errors.read_text(encoding="utf-8")) is not None, "the URL")
    found = pattern.search(program.errors.read_text(encoding="utf-8"))
    assert found is not None
    return process, int(found[1])


def test_serve_says_where_and_for_whom_and_an_interrupt_leaves_no_child(program: Program) -> None:
    program.configure(
        one=program.plain(),
        # It ends for neither a closed pipe nor SIGTERM.
        stubborn={"command": "sh", "args": ["-c", "trap '' TERM INT; while :; do sleep 1; done"]},
        gone={"command": "not-there-at-all"},
    )
    process, port = serving(program)
    assert accepts(port)
    wait_until(lambda: len(children_of(process.pid)) == 2, "the servers run")
    for words in ("gone: not available", "one: ready"):
        wait_until(lambda words=words: words in program.errors.read_text(encoding="utf-8"), words)
    children = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not any(is_alive(pid) for pid in children)
    said = program.errors.read_text(encoding="utf-8")
    assert "one: ready in" in said
    assert "3 servers on http://" in said
    assert "no credential source is configured: every caller is 'local'" in said
    assert "Traceback" not in said


def test_the_port_is_said_at_every_log_level(program: Program) -> None:
    program.configure(one={"command": "not-there-at-all"})
    process, port = serving(program, "--log-level", "error")
    assert accepts(port)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_on_stdio_nothing_but_protocol_is_on_stdout(program: Program) -> None:
    program.configure(one=program.plain(), gone={"command": "not-there-at-all"})
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": ENVELOPE}},
        {"jsonrpc": "2.0", "id": 2, "method": "nonsense", "params": {"_meta": ENVELOPE}},
    ]
    process = program.start("stdio", "--log-level", "debug")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages) + b"not json\n")
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(3)]
    children = children_of(process.pid)
    process.stdin.close()
    assert process.stdout.read() == b""
    assert process.wait(30) == 0
    assert {answer["id"] for answer in answers} == {1, 2, None}
    tools = next(answer for answer in answers if answer["id"] == 1)["result"]["tools"]
    assert "one__echo" in {tool["name"] for tool in tools}
    assert "gone: not available" in program.errors.read_text(encoding="utf-8")
    assert not any(is_alive(pid) for pid in children)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_stdio_also_while_the_host_keeps_the_pipe(program: Program, number: signal.Signals) -> None:
    program.configure(one=program.plain())
    process = program.start("stdio")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == 1
    wait_until(lambda: bool(children_of(process.pid)), "the server runs")
    children = children_of(process.pid)
    process.send_signal(number)
    assert process.wait(30) == 0
    assert not any(is_alive(pid) for pid in children)
