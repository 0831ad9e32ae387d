"""What is measured is what calls cost: not what a start has left to be done once, and all that was done in threads."""

import subprocess
import sys

import pytest

from bench.gateways import AT_REST, LOOK, READY_TIMEOUT, NotReady, rested
from bench.machine import HAS_PROC, cpu_seconds

_A_THREAD_THAT_WORKS = """
import threading, time
def work():
    while time.thread_time() < 0.3: pass
thread = threading.Thread(target=work)
thread.start()
thread.join()
print("ended", flush=True)
input()
"""


class Machine:
    """A process that works for so many seconds of CPU, at half a core, and then by the clock only."""

    def __init__(self, left: float) -> None:
        self.left = left
        self.used = 0.0
        self.time = 0.0

    def cpu(self, _pid: int) -> float:
        return self.used

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        done = min(self.left, seconds / 2)
        self.left -= done
        self.used += done + seconds * AT_REST / 2


async def test_calls_are_measured_once_a_broker_has_done_what_its_start_left_to_be_done() -> None:
    machine = Machine(left=3.0)
    await rested(1, machine.cpu, machine.sleep, machine.now)
    assert machine.left == 0


async def test_a_broker_that_has_nothing_to_do_is_looked_at_once() -> None:
    machine = Machine(left=0)
    await rested(1, machine.cpu, machine.sleep, machine.now)
    assert machine.time == LOOK


async def test_a_broker_that_never_rests_is_not_measured() -> None:
    machine = Machine(left=READY_TIMEOUT)
    with pytest.raises(NotReady, match="works by itself"):
        await rested(1, machine.cpu, machine.sleep, machine.now)


@pytest.mark.skipif(not HAS_PROC, reason="there is no CPU time of another process here")
def test_the_cpu_time_of_a_thread_that_has_ended_counts() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _A_THREAD_THAT_WORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ended\n"
        assert cpu_seconds(process.pid) >= 0.3
        process.stdin.write(b"\n")
