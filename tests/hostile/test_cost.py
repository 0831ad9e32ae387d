"""What holds every hostile test to its bounds finds what is beyond them, and nothing else."""

import subprocess
import sys
from pathlib import Path

from tests.hostile.harness import needs_proc
from tests.peers import ROOT

pytestmark = needs_proc

TESTS = """
import asyncio, json, os, subprocess, sys, time
import anyio, pytest
from tests.hostile.cost import MIB, apart, belongs_to_the_test
from tests.hostile.conftest import costs_are_bounded

KEPT = []

def burn():
    end = time.thread_time() + 0.3  # the timer counts in ticks, of which a busy machine loses some
    while time.thread_time() < end:
        pass

async def test_of_a_callback_that_burns():
    asyncio.get_running_loop().call_soon(burn)
    await anyio.sleep(0)

async def test_of_a_task_that_burns():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.lowlevel.checkpoint)
        burn()

@pytest.mark.costs("time for it", callback=2)
async def test_of_memory_that_stays():
    KEPT.append(b"x" * 90 * MIB)

@pytest.mark.costs("time for it", callback=2)
async def test_of_memory_that_was_needed_for_a_moment():
    len(b"x" * 90 * MIB)

async def test_of_a_process_that_stays():
    KEPT.append(subprocess.Popen(["sleep", "60"]))

async def test_of_descriptors_that_stay():
    KEPT.extend(os.dup(0) for _ in range(9))

@pytest.mark.costs("time for it", callback=2)
async def test_whose_memory_stays_with_the_allocator():
    pieces = [b"x" * 2**16 for _ in range(60 * 16)]
    KEPT.append(pieces[-1])

@pytest.mark.costs("time for it", callback=2, memory=50 * MIB)
async def test_of_memory_that_an_earlier_one_has_freed():
    len([b"x" * 2**16 for _ in range(60 * 16)])

async def test_that_is_modest():
    asyncio.get_running_loop().call_soon(sum, range(1000))
    KEPT.append(b"x" * MIB)
    await anyio.sleep(0.01)

async def test_that_burns_itself():
    with apart():
        burn()

async def test_whose_server_burns():
    async def serve():
        belongs_to_the_test()
        await anyio.sleep(0)
        burn()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)

@pytest.mark.costs("it says so", callback=2, memory=120 * MIB)
async def test_that_says_what_it_needs():
    burn()
    KEPT.append(b"x" * 90 * MIB)

def test_that_was_not_killed():
    [one.kill() or one.wait() for one in KEPT if isinstance(one, subprocess.Popen)]
"""


def test_what_costs_too_much_is_found_whatever_the_test_asserts(tmp_path: Path) -> None:
    file = tmp_path / "test_costs.py"
    file.write_text(TESTS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = {line.partition("::")[2].partition("[")[0] for line in done.stdout.splitlines() if line.startswith("ERROR")}
    assert found == {
        "test_of_a_callback_that_burns",
        "test_of_a_task_that_burns",
        "test_of_memory_that_stays",
        "test_of_memory_that_was_needed_for_a_moment",
        "test_of_memory_that_an_earlier_one_has_freed",
        "test_of_a_process_that_stays",
        "test_of_descriptors_that_stay",
    }, done.stdout
    assert done.stdout.count("in burn") >= 2, "where it burned is said"
    assert done.stdout.count("memory grew by 9") >= 2
    assert "13 passed" in done.stdout
