"""The supervisor of `serve --workers N`: it starts workers, replaces those that die, and ends with them."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Program, wait_until
from tests.peers import is_alive
from tests.workers.crew import PLAIN, STATEFUL, Serving, Session, probe, text

STUBBORN = {"command": "/bin/sh", "args": ["-c", "trap '' HUP TERM PIPE; while :; do sleep 1; done"]}
"""A server that ends by SIGKILL only."""


def test_workers_serve_one_port_and_sigterm_ends_all_of_them(program: Program) -> None:
    serving = Serving(program, 2)
    workers = serving.workers()
    assert set(workers) == {1, 2}
    assert serving.log.count("1 server on http://") == 1
    assert "worker 1: broker.cli.serving" in serving.log and "worker 2: broker.cli.serving: serving" in serving.log
    assert serving.caller().ask("GET", "/readyz")[0] == 200
    assert serving.end() == 0
    assert not any(map(is_alive, workers.values()))
    assert "Traceback" not in serving.log


def test_connections_are_shared_out(program: Program) -> None:
    """To whoever is free first: each gets its third, though on a busy machine that may take some more of them."""
    serving = Serving(program, 2)
    found: Counter[int] = Counter()
    for count in range(1, 97):
        found[Session(serving.caller(), {}).worker] += 1
        if count >= 24 and min(found[1], found[2]) * 3 >= count:
            return
    raise AssertionError(found)


def test_metrics_are_those_of_all_workers(program: Program) -> None:
    serving = Serving(program, 2, metrics={"access": "public"})
    for number in (1, 2):
        serving.at(number).call("one__recall")
    page = serving.caller().ask("GET", "/metrics")[2].decode()
    for number in (1, 2):
        assert f'mcp_broker_calls_total{{worker="{number}",' in page
        assert f'mcp_broker_requests_in_flight{{worker="{number}"}}' in page
        assert f'mcp_broker_upstream_up{{worker="{number}",upstream="one"}} 1.0' in page
    names = [line.split(" ")[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), "each family is said once"
    samples = [line for line in page.splitlines() if not line.startswith("#")]
    assert len(samples) == len({line.rpartition(" ")[0] for line in samples}), "no sample comes twice"
    os.kill(serving.workers()[2], signal.SIGSTOP)
    try:
        page = serving.at(1).ask("GET", "/metrics")[2].decode()  # one that hangs is left out
    finally:
        os.kill(serving.workers()[2], signal.SIGCONT)
    assert 'worker="1"' in page and 'worker="2"' not in page


def test_the_supervisor_is_small_and_knows_nothing_of_mcp(program: Program) -> None:
    serving = Serving(program, 2)
    maps = Path(f"/proc/{serving.process.pid}/maps").read_text(encoding="ascii")
    assert not re.search(r"uvloop|httptools|pydantic|orjson", maps)
    assert re.search(r"uvloop", Path(f"/proc/{serving.workers()[1]}/maps").read_text(encoding="ascii"))


def test_a_wrong_configuration_ends_everything_with_the_mistake_said_once(program: Program) -> None:
    program.configure(one={"command": "x", "colour": "red"})
    done = program.run("serve", "--port", "0", "--workers", "2")
    assert done.code == 2
    assert done.err.count("colour") == 1 and "nothing was started" in done.err


def test_what_only_a_broker_finds_is_said_once_by_the_first_worker(program: Program) -> None:
    guardrail = program.directory / "wrong.py"
    guardrail.write_text("import os\n", encoding="utf-8")
    document = {"guardrails": {"no": {"file": str(guardrail)}}, "servers": {"one": {**STATEFUL, "guardrails": ["no"]}}}
    (program.directory / "servers.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    done = program.run("serve", "--port", "0", "--workers", "3")
    assert done.code == 2, done.err
    assert done.err.count("nothing was started") == 1


def test_a_port_in_use_is_said_before_any_worker_starts(program: Program) -> None:
    program.configure(one=STATEFUL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = program.run("serve", "--workers", "2", "--port", str(taken.getsockname()[1]))
    assert done.code == 1
    assert "cannot listen on" in done.err and "worker" not in done.err


def test_the_number_of_workers_may_stand_in_the_file(program: Program) -> None:
    (program.directory / "servers.yaml").write_text("server: {workers: 2}\nservers: {}\n", encoding="utf-8")
    program.start("serve", "--port", "0")
    wait_until(lambda: "2 workers serve" in program.errors.read_text(encoding="utf-8"), "both serve")


def test_sighup_reloads_every_worker(program: Program) -> None:
    serving = Serving(program, 2)
    callers = {number: serving.at(number) for number in (1, 2)}
    serving.write({"one": dict(STATEFUL), "two": dict(STATEFUL)})
    serving.process.send_signal(signal.SIGHUP)
    for number in (1, 2):
        serving.says(f"worker {number}: broker.reload: ")
    wait_until(lambda: serving.log.count("was read again, and is in force") == 2, "both have read it")
    for caller in callers.values():
        assert text(caller.call("two__recall"))["pid"]
    assert len({text(caller.call("two__recall"))["pid"] for caller in callers.values()}) == 2


def test_a_sighup_that_comes_while_workers_start_is_not_lost_and_ends_none(program: Program) -> None:
    serving = Serving(program, 2, settles=False)
    serving.says("worker 1: broker.cli.serving: serving mcp-broker")
    serving.write({"one": dict(STATEFUL), "two": dict(STATEFUL)})
    for _ in range(5):
        serving.process.send_signal(signal.SIGHUP)
    serving.settle(2)
    for number in (1, 2):
        caller = serving.at(number)
        wait_until(
            lambda caller=caller: "result" in caller.modern("tools/call", "two__recall", arguments={})[1], "read again"
        )
    assert "is started again" not in serving.log


def test_a_broken_file_leaves_every_worker_as_it_was_and_none_is_lost(program: Program) -> None:
    serving = Serving(program, 2)
    workers = serving.workers()
    serving.path.write_text("servers: [", encoding="utf-8")
    serving.process.send_signal(signal.SIGHUP)
    wait_until(lambda: serving.log.count("what was in force before stays") == 2, "both have said so")
    assert serving.workers() == workers
    assert text(serving.caller().call("one__recall"))["pid"]


def test_a_supervisor_that_is_killed_takes_its_workers_and_their_servers_with_it(program: Program) -> None:
    serving = Serving(program, 2)
    workers = list(serving.workers().values())
    servers = [text(serving.at(number).call("one__recall"))["pid"] for number in (1, 2)]
    serving.process.kill()
    wait_until(lambda: not any(map(is_alive, [*workers, *servers])), "all of them have ended")
    assert "the supervisor is gone" in serving.log
    with socket.create_server(("127.0.0.1", serving.port)):
        pass  # the port is free again


def test_what_a_killed_worker_has_started_is_ended_by_the_supervisor(program: Program) -> None:
    serving = Serving(program, 2, servers={"one": dict(STATEFUL), "two": STUBBORN}, broker={"first_wait": 0})
    before = serving.workers()
    ours = _descendants(before[2])
    assert ours
    os.kill(before[2], signal.SIGKILL)
    wait_until(lambda: serving.workers().get(2, before[2]) != before[2], "it is started again")
    wait_until(lambda: not any(map(is_alive, ours)), "nothing is left of the dead one")
    assert serving.workers()[1] == before[1]


def test_a_worker_that_hangs_at_the_end_is_killed(program: Program) -> None:
    servers = {"one": dict(STATEFUL), "two": STUBBORN}
    serving = Serving(program, 2, servers=servers, broker={"drain": 0, "first_wait": 0})
    worker = serving.workers()[2]
    wait_until(lambda: bool(_descendants(worker)), "it has servers")
    ours = _descendants(worker)
    os.kill(worker, signal.SIGSTOP)
    assert serving.end() == 1
    assert "worker 2 does not end: it is killed" in serving.log
    assert not any(map(is_alive, [worker, *ours])), "the supervisor ends after them"


CLOCK = """
import sys, time
if "broker.workers.supervisor" in sys.orig_argv:
    from pathlib import Path
    here, looks, real = Path(__file__).parent, 0, time.monotonic
    def monotonic():
        global looks
        looks += 1
        (here / "looks").write_text(str(looks))
        return real() + float((here / "seconds").read_text())
    time.monotonic = monotonic
"""


class Clock:
    """That of the supervisor, which is ahead by what a file says."""

    def __init__(self, program: Program, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
        self._write(0)
        program.environment["PYTHONPATH"] = f"{directory}{os.pathsep}{program.environment['PYTHONPATH']}"

    def _write(self, seconds: float) -> None:
        written = self._directory / "new"
        written.write_text(str(seconds), encoding="ascii")
        written.replace(self._directory / "seconds")

    def set(self, seconds: float, serving: Serving) -> None:
        """It has done what is due by then, and what it was told before."""
        self._write(seconds)
        for _ in range(3):  # the first time it may be in the middle
            looks = self._looks()
            serving.process.send_signal(signal.SIGCHLD)
            wait_until(lambda looks=looks: self._looks() > looks or serving.process.poll() is not None, "it has looked")

    def _looks(self) -> int:
        return int((self._directory / "looks").read_text(encoding="ascii") or 0)


def test_a_drain_that_a_reload_has_made_longer_is_kept_to_and_a_second_signal_cuts_it(
    program: Program, tmp_path: Path
) -> None:
    clock = Clock(program, tmp_path / "clock")
    servers = {"probe": probe()}
    serving = Serving(program, 2, servers=servers, broker={"drain": 0})
    serving.write(servers=servers, broker={"drain": 300})
    serving.process.send_signal(signal.SIGHUP)
    wait_until(lambda: serving.log.count("was read again, and is in force") == 2, "both have read it")
    session = serving.session(2)
    message = session.message("tools/call", {"name": "probe__slow", "arguments": {"seconds": 600, "steps": 6000}})
    message["params"]["_meta"] = {"progressToken": 7}
    session.caller.connection.request("POST", "/mcp", json.dumps(message), {**PLAIN, **session.headers})
    assert session.caller.connection.getresponse().read1(65536), "it is in flight"
    worker = serving.workers()[2]
    serving.process.send_signal(signal.SIGTERM)
    serving.says("calls in flight have 300 s to end")
    clock.set(200, serving)
    assert is_alive(worker) and "is killed" not in serving.log
    os.kill(worker, signal.SIGSTOP)
    serving.process.send_signal(signal.SIGTERM)
    clock.set(200, serving)
    clock.set(220, serving)
    assert serving.process.wait(60) == 1
    assert "worker 2 does not end: it is killed" in serving.log


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path leaves room for that of a socket, which pytest's own need not."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def test_the_directory_of_the_sockets_is_private_and_goes_with_the_broker(program: Program, short: Path) -> None:
    program.environment["TMPDIR"] = str(short)
    serving = Serving(program, 2)
    (directory,) = short.glob("mcp-broker-*")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in directory.iterdir()) == ["1.sock", "2.sock"]
    serving.end()
    assert not directory.exists()
    again = Serving(program, 2)
    (directory,) = short.glob("mcp-broker-*")
    again.process.kill()
    wait_until(lambda: not directory.exists(), "the last worker has removed it")


def _descendants(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]
