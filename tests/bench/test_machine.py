"""What a process has cost, as the benchmark sees it."""

import os
import threading
import time
from pathlib import Path

import pytest

from bench import machine


@pytest.mark.skipif(not machine.HAS_PROC, reason="needs /proc")
def test_what_a_thread_has_had_is_not_taken_back_when_it_ends() -> None:
    """It was: a database's thread that ended made the broker cheap, and the machine loud."""

    def work() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    thread = threading.Thread(target=work)
    before = machine.cpu_seconds(os.getpid())
    thread.start()
    thread.join()
    while Path(f"/proc/self/task/{thread.native_id}").exists():  # the system takes a moment longer than `join`
        pass
    assert machine.cpu_seconds(os.getpid()) - before >= 0.05


def test_a_process_that_is_gone_has_cost_nothing() -> None:
    assert machine.cpu_seconds(None) == 0.0
    assert machine.cpu_seconds(2**22 - 1) == 0.0
