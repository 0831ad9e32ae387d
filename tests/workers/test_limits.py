"""Limits, caps of connections and budgets hold over all workers together, also while one of them is killed."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Program, wait_until
from tests.workers.crew import STATEFUL, Caller, Serving, probe, text
from tests.workers.test_sessions import KEYS, MINE, SECRET

CALLERS = 8


def everywhere(serving: Serving, number: int = CALLERS) -> list[Caller]:
    """Callers of which each worker has half."""
    return [serving.at(1 + index % 2) for index in range(number)]


def all_at_once(callers: list[Caller], each: int, name: str, **arguments: Any) -> list[Any]:
    """The results of `each` calls of all callers."""
    results: list[Any] = []
    start = threading.Barrier(len(callers))

    def work(caller: Caller) -> None:
        start.wait(60)
        for _ in range(each):
            results.append(caller.call(name, **arguments))  # noqa: PERF401 - others append too

    threads = [threading.Thread(target=work, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


def most_at_a_time(log: Path) -> int:
    running, most = 0, 0
    for line in log.read_text(encoding="utf-8").splitlines():
        running += 1 if line.startswith("started ") else -1
        most = max(most, running)
    return most


@pytest.fixture
def limited(program: Program, tmp_path: Path) -> Serving:
    logging = probe("--log", str(tmp_path / "calls.log"))
    servers = {
        "rated": {**STATEFUL, "limits": {"rate": "50/hour"}},
        "narrow": {**logging, "limits": {"concurrency": 2, "queue": 100, "wait": 60}},
        "alone": {**probe(), "limits": {"concurrency": 1, "queue": 10, "wait": 60}},
    }
    return Serving(program, 2, servers=servers)


def test_limits_hold_exactly_over_all_workers_also_when_one_is_killed(limited: Serving, tmp_path: Path) -> None:
    callers = everywhere(limited)
    # Calls in a time: as many as allowed, whichever workers they come to.
    results = all_at_once(callers, 12, "rated__recall")
    refused = [one for one in results if one.get("isError")]
    assert len(results) == 12 * CALLERS and len(results) - len(refused) == 50
    assert "limit of 50/hour" in refused[0]["content"][0]["text"]
    assert {text(one)["pid"] for one in results if not one.get("isError")}.__len__() == 2
    # Calls at a time: no more than two, and everybody's turn comes.
    results = all_at_once(callers, 3, "narrow__slow", seconds=0.02)
    assert len(results) == 3 * CALLERS and not any(one.get("isError") for one in results)
    assert most_at_a_time(tmp_path / "calls.log") == 2
    # What a worker held that is killed is free again, and what was counted is not forgotten.
    holding, waiting = limited.at(2), limited.at(1)
    held = threading.Thread(target=_ignoring, args=(holding, "alone__slow", 600))
    held.start()
    wait_until(lambda: _is_full(limited, "alone"), "it has its place")
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(waiting.call("alone__echo", text="in turn")))
    thread.start()
    os.kill(limited.workers()[2], signal.SIGKILL)
    thread.join(60)
    held.join(60)
    assert "in turn" in got[0]["content"][0]["text"]
    wait_until(lambda: limited.log.count("workers serve") == 2, "it is back")
    for number in (1, 2):
        assert "limit of 50/hour" in limited.at(number).call("rated__recall")["content"][0]["text"]


def test_connections_are_bounded_over_all_workers(program: Program) -> None:
    serving = Serving(program, 2, server={"max_connections": 16})
    opened: list[socket.socket] = []
    try:
        answers: Counter[bytes] = Counter()
        for _ in range(30):
            one = socket.create_connection(("127.0.0.1", serving.port), timeout=30)
            opened.append(one)
            one.sendall(
                b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Accept: application/json, text/event-stream\r\nContent-Length: 2\r\n\r\n{}"
            )
            answers[one.recv(65536)[9:12]] += 1
        assert answers == {b"400": 16, b"503": 14}
        for one in opened:
            one.close()
        opened.clear()
        wait_until(lambda: _status(serving.port) == 200, "there is room again")
    finally:
        for one in opened:
            one.close()


def test_a_budget_is_spent_once_whichever_workers_its_calls_come_to(program: Program) -> None:
    key = {**KEYS["mine"], "limits": {"budget": {"month": 20}}}
    serving = Serving(
        program,
        2,
        servers={"one": {**STATEFUL, "cost": {"call": 1}}},
        identity={"key_secret": SECRET},
        organizations={"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": {"keys": {"mine": key}}}}},
    )
    mine = {"X-API-Key": MINE.text.reveal()}
    callers = [Caller(serving.port, **mine) for _ in range(CALLERS)]
    passed = 0

    def is_spent() -> bool:
        nonlocal passed
        passed += sum(not one.get("isError") for one in all_at_once(callers, 2, "one__recall"))
        return passed >= 20

    wait_until(is_spent, "all of it is spent: what one worker holds and does not use comes to the others")
    is_spent()
    assert passed == 20


def _ignoring(caller: Caller, name: str, seconds: float) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # its worker is killed
        caller.call(name, seconds=seconds)


def _is_full(serving: Serving, server: str) -> bool:
    status, _, body = serving.caller().ask("GET", "/api/v1/upstreams")
    assert status == 200, body
    return any(one["server"] == server and one["calls"] for one in json.loads(body)["items"])


def _status(port: int) -> int:
    caller = Caller(port)
    try:
        return caller.ask("GET", "/healthz")[0]
    finally:
        caller.close()
