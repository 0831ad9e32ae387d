"""Child processes: what they inherit, how they are found, and how they end."""

import errno
import fcntl
import gc
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import anyio
import pytest

from broker.upstream import child as children
from broker.upstream import process
from broker.upstream.child import PipeChild
from broker.upstream.process import CannotStart, Process, child_environment, find_program
from broker.workers.orphans import become_subreaper
from tests.hostile.harness import exists, needs_proc, until
from tests.patience import PATIENCE
from tests.peers import is_alive
from tests.upstream.heard import Heard

pytestmark = needs_proc


def test_a_child_inherits_what_is_harmless_and_no_shell_functions() -> None:
    ours = {"PATH": "/bin", "HOME": "() { :; }", "AWS_SECRET_ACCESS_KEY": "x", "PYTHONPATH": "/x", "LANG": "C"}
    assert child_environment(ours) == {"PATH": "/bin", "LANG": "C"}


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="ascii")
    path.chmod(0o755)
    return path


def test_a_command_is_looked_up_beside_the_interpreter_then_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, on_path = executable(tmp_path / "venv/tool"), executable(tmp_path / "bin/tool")
    other = executable(tmp_path / "bin/other")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_program("tool") == str(beside)
    assert find_program("other") == str(other)
    assert find_program(str(on_path)) == str(on_path)
    assert find_program("nothing") is None and find_program("./nothing") is None


STUBBORN = {
    "ends with its input": ("cat", 0.9),
    "ignores SIGTERM": ("trap '' TERM; while :; do sleep 0.1; done", 3.5),
    "ignores everything": ("trap '' TERM INT HUP; exec 0</dev/null; while :; do sleep 0.1; done", 3.5),
    "leaves a child in the group": ("sleep 1000 & cat", 2.5),
    "leaves a daemon": ("setsid sleep 1000 & cat", 2.5),
    "leaves a daemon that holds the pipes": ("setsid sh -c 'sleep 1000' 2>&1 & exit 0", 2.5),
    "has ended already": ("exit 3", 0.9),
}


@pytest.mark.parametrize("case", list(STUBBORN))
async def test_a_stop_is_bounded_and_leaves_nothing(case: str) -> None:
    script, bound = STUBBORN[case]
    with anyio.fail_after(PATIENCE):
        child = await Process.start(["/bin/sh", "-c", f"echo up; {script}"], {}, None)
        become_subreaper()
        assert await Heard(child.stdout).line() == b"up\n"
        began = time.monotonic()
        await child.stop()
        assert time.monotonic() - began < bound + 1
        assert not exists(child.pid)
        assert process.descendants(child.pid, child._tag) == []
        await child.stop()  # twice is harmless


async def test_a_daemon_that_is_becoming_another_program_while_it_is_looked_for_is_found_by_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a moment it has neither its old environment nor its new one."""
    looks, look = 0, process.descendants

    def blind_at_first(session: int, tag: str) -> list[int]:
        nonlocal looks
        looks += 1
        return look(session, tag) if looks > 1 else []

    monkeypatch.setattr(process, "descendants", blind_at_first)
    with anyio.fail_after(PATIENCE):
        child = await Process.start(["/bin/sh", "-c", "setsid sleep 1000 & echo up; cat"], {}, None)
        become_subreaper()
        assert await Heard(child.stdout).line() == b"up\n"
        await child.stop()
        assert look(child.pid, child._tag) == []


async def test_the_end_of_a_child_is_told_even_while_a_descendant_holds_its_pipes() -> None:
    with anyio.fail_after(PATIENCE):
        child = await Process.start(["/bin/sh", "-c", "sleep 1000 & exit 7"], {}, None)
        with anyio.fail_after(PATIENCE):
            assert await child.wait() == 7
        await child.stop()


async def test_a_child_starts_in_its_directory_with_its_environment(tmp_path: Path) -> None:
    child = await Process.start(["/bin/sh", "-c", "pwd; echo $A; echo $HOME"], {"A": "b", "HOME": "/h"}, str(tmp_path))
    with anyio.fail_after(PATIENCE):
        heard = Heard(child.stdout)
        said = [(await heard.line()).decode().strip() for _ in range(3)]
        await child.stop()
    assert said == [os.path.realpath(tmp_path), "b", "/h"]  # noqa: ASYNC240


async def test_a_directory_that_is_not_there_is_a_reason() -> None:
    with pytest.raises(CannotStart, match="No such file or directory"):
        await Process.start(["/bin/sh"], {}, "/nowhere/at/all")


async def test_descendants_are_found_by_session_and_by_tag() -> None:
    with anyio.fail_after(PATIENCE):
        child = await Process.start(["/bin/sh", "-c", "sleep 1000 & setsid sleep 1000 & cat"], {}, None)
        await until(lambda: len(process.descendants(child.pid, child._tag)) >= 2)
        found = process.descendants(child.pid, child._tag)
        await child.stop()
        assert child.pid not in found and not any(is_alive(pid) for pid in found)
    assert os.getpid() not in found


LOOPS = {"asyncio": False, "uvloop": True}


@pytest.mark.parametrize("loop", LOOPS)
def test_F09_F16_one_pipe_that_closes_alone_is_noticed_at_once_on_every_loop(loop: str) -> None:
    async def mute() -> None:
        child = await Process.start(["/bin/sh", "-c", "echo up; exec 1>&-; exec cat >&2"], {}, None)
        heard = Heard(child.stdout)
        assert await heard.line() == b"up\n"
        with anyio.fail_after(PATIENCE):
            assert await heard.rest() == b"", "its end, while it lives on"
        child.stdin.write(b"still there\n")
        with anyio.fail_after(PATIENCE):
            assert await Heard(child.stderr).line() == b"still there\n"
        await child.stop()

    async def deaf() -> None:
        child = await Process.start(["/bin/sh", "-c", "exec 0<&-; echo up; exec sleep 1000"], {}, None)
        assert await Heard(child.stdout).line() == b"up\n"
        with anyio.fail_after(PATIENCE):
            while not child.stdin.is_closing():
                child.stdin.write(b"x\n")
                await anyio.sleep(0.01)
        await child.stop()

    async def ended() -> None:
        child = await Process.start(["/bin/sh", "-c", "sleep 1000 & exit 7"], {}, None)
        with anyio.fail_after(PATIENCE):
            assert await child.wait() == 7
        await child.stop()
        assert process.descendants(child.pid, child._tag) == []

    async def large() -> None:
        child = await Process.start(["/bin/cat"], {}, None)
        data = b"x" * 1_000_000 + b"\n"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write, child, data)
            with anyio.fail_after(PATIENCE):
                assert await Heard(child.stdout).exactly(len(data)) == data
        await child.stop()

    for scenario in (mute, deaf, ended, large):
        anyio.run(scenario, backend="asyncio", backend_options={"use_uvloop": LOOPS[loop]})


async def _write(child: Process, data: bytes) -> None:
    child.stdin.write(data)
    await child.stdin.drain()


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_loop_closes_itself_is_not_closed_again_when_its_number_is_somebody_elses(loop: str) -> None:
    async def scenario() -> None:
        started = await PipeChild.start(["/bin/cat"], {}, None)
        ends = [transport.get_extra_info("pipe") for transport in (started.stdin.transport, *started._readers)]
        numbers = [end.fileno() for end in ends]
        assert len(set(numbers)) == 3
        started._process.kill()
        with anyio.fail_after(PATIENCE):
            await started.exited.wait()
            started.close()
            while any(is_open(number) for number in numbers):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        strangers = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        assert set(numbers) <= set(strangers), "the numbers are given again"
        for end in ends:
            end.close()
        del ends, started
        gc.collect()
        assert all(is_open(stranger) for stranger in strangers)
        for stranger in strangers:
            os.close(stranger)

    async def handed_over() -> None:
        """uvloop has closed the descriptor before it calls `close`: a thread may have it again in between."""
        started = await PipeChild.start(["/bin/cat"], {}, None)
        end = started.stdin.transport.get_extra_info("pipe")
        end.close()
        assert is_open(end.fileno()) is LOOPS[loop], "whose loop does not close it, closes it here"
        started._process.kill()
        await started.exited.wait()
        started.close()

    anyio.run(scenario, backend="asyncio", backend_options={"use_uvloop": LOOPS[loop]})
    if LOOPS[loop]:
        anyio.run(handed_over, backend="asyncio", backend_options={"use_uvloop": True})


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


async def test_a_stop_and_a_look_for_zombies_outlive_a_process_table_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F-100: to look takes a descriptor, and there may be none."""
    monkeypatch.setattr(process, "REAP_EVERY", 0.01)
    looks = 0

    def scandir(path: str) -> NoReturn:
        nonlocal looks
        looks += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    child = await Process.start(["/bin/cat"], {}, None)
    with monkeypatch.context() as patch:
        patch.setattr(process.os, "scandir", scandir)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.reap_orphans)
            with anyio.fail_after(PATIENCE):
                await child.stop()
                before = looks
                while looks < before + 2:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert not exists(child.pid)


@needs_proc
async def test_few_children_have_large_pipes_and_one_that_ends_makes_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def room(one: Process) -> list[int]:
        found: list[int] = []
        for number in (0, 1):
            with open(f"/proc/{one.pid}/fd/{number}", "rb" if number == 0 else "wb", buffering=0) as pipe:
                found.append(fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ))
        return found

    monkeypatch.setattr(children, "MAX_ROOMY", len(PipeChild.roomy) + 1)
    first = await Process.start(["/bin/cat"], {}, None)
    second = await Process.start(["/bin/cat"], {}, None)
    assert room(first) == [children.ROOM] * 2 and max(room(second)) < children.ROOM
    await first.stop()
    third = await Process.start(["/bin/cat"], {}, None)
    assert room(third) == [children.ROOM] * 2
    for one in (second, third):
        await one.stop()


async def test_without_a_pidfd_a_thread_waits_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    child = await Process.start(["/bin/sh", "-c", "exit 3"], {}, None)
    with anyio.fail_after(PATIENCE):
        assert await child.wait() == 3
        await child.stop()
