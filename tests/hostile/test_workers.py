"""One of several workers is killed while all of them work: the others, and who comes after, notice nothing (F-96)."""

import contextlib
import http.client
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Program, running, wait_until
from tests.hostile.harness import needs_proc
from tests.workers.crew import OPENED, STATEFUL, Serving, Session, text

CALLS = 40


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running(tmp_path_factory.mktemp("workers")) as program:
        yield program
    while OPENED:
        OPENED.pop().close()


@needs_proc
def test_F96_a_worker_that_is_killed_under_load_costs_nobody_else_a_call(program: Program) -> None:
    serving = Serving(program, 3, servers={"one": {**STATEFUL, "limits": {"rate": f"{8 * CALLS}/hour"}}})
    before = serving.workers()
    sessions = [serving.session(1 + number % 3) for number in range(9)]
    pids = {session.id: text(session.call("one__recall"))["pid"] for session in sessions}
    answers: dict[str, list[int]] = {session.id: [] for session in sessions}

    def work(session: Session) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # of the one that is killed
            for _ in range(CALLS):
                status, answer = session.ask("tools/call", name="one__recall", arguments={})
                if status != 200:
                    return
                answers[session.id].append(text(answer["result"])["pid"])

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(len(one) > 3 for one in answers.values()), "all of them work")
    os.kill(before[2], signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    for session in sessions:
        if session.worker != 2:
            assert answers[session.id] == [pids[session.id]] * CALLS
    wait_until(lambda: serving.log.count("workers serve") == 2, "it is back")
    after = serving.workers()
    assert after[2] != before[2] and (after[1], after[3]) == (before[1], before[3])
    for session in sessions:
        assert session.ask("ping", serving.caller())[0] == (404 if session.worker == 2 else 200)
    # What was counted is not forgotten with it: of the calls that are allowed those of the dead are gone.
    done = sum(len(one) for one in answers.values()) + len(sessions)
    more = [serving.at(1 + number % 3).call("one__recall") for number in range(8 * CALLS - done + 3)]
    passed = sum(not one.get("isError") for one in more)
    assert 8 * CALLS - 3 <= done + passed <= 8 * CALLS, "three calls were in flight, counted and not answered, at most"
    assert serving.end() == 0
    assert "Traceback" not in serving.log and "internal error" not in serving.log
