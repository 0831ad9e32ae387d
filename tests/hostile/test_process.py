"""F-01..F-17: upstreams that are processes, and behave badly as such."""

import asyncio
import errno
import json
import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.allocation import give_back
from broker.core.lifecycle import Phase
from broker.upstream import child, process, stdio
from tests.hostile.conftest import BrokerOf, Puppet
from tests.hostile.cost import MIB, children, descriptors, memory, memory_below
from tests.hostile.harness import AT_ONCE, BOUND, HastyClock, Running, command, exists, needs_proc, quick, raw, until
from tests.peers import Peers, is_alive

pytestmark = needs_proc


async def test_F01_kill_9_during_50_parallel_calls_fails_them_at_once_and_the_server_comes_back(
    broker_of: BrokerOf,
) -> None:
    errors: list[dict[str, Any]] = []
    async with broker_of({"bad": raw("hang-call")}) as run:
        await run.ready("good", "bad")

        async def call() -> None:
            errors.append((await run.message("bad__boom"))["error"])

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(call)
            await until(lambda: run.pending("bad") == 50)
            os.kill(run.pid("bad"), signal.SIGKILL)
            await run.innocent()
            with anyio.fail_after(AT_ONCE):
                while len(errors) < 50:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
        assert {error["code"] for error in errors} == {-32603}
        assert all(error["data"] == {"upstream": "bad", "reason": "it was ended by signal 9"} for error in errors)
        assert "bad__ok" in await run.tools()
        assert "signal 9" in (await run.refused("bad__ok"))["message"]
        missing = (await run.ask("tools/list"))["result"]["_meta"]["broker/upstreams"]["bad"]
        assert missing == {"state": "waiting", "known": True, "reason": "it was ended by signal 9"}
        await run.innocent("bad")


async def test_F01_F02_the_breaker_is_open_while_it_waits_and_half_open_for_one_try_at_a_time(
    broker_of: BrokerOf, puppet: Puppet, tmp_path: Path
) -> None:
    """No call ever reaches a server that is not ready, however many there are; one handshake tries, and closes it."""
    log, mended = tmp_path / "log", tmp_path / "mended"
    bad = puppet({"log": str(log)})
    program = [bad["command"], *bad["args"]]
    alone = f'mkdir "{tmp_path / "alone"}" || echo two >> "{tmp_path / "tries"}"; rmdir "{tmp_path / "alone"}"'
    script = f'{alone}; echo try >> "{tmp_path / "tries"}"; [ -e "{mended}" ] && exec {" ".join(program)}; exit 3'
    async with broker_of({"bad": command(["/bin/sh", "-c", script])}, HastyClock()) as run:
        await run.ready("good")
        await until(lambda: run.upstream("bad").state.failures >= 3)
        async with anyio.create_task_group() as calls:
            for _ in range(50):
                calls.start_soon(run.refused, "bad__ok")
        await run.innocent()
        assert not log.exists(), "no call has reached it"
        assert "two" not in (tmp_path / "tries").read_text(encoding="ascii"), "one try at a time"
        mended.touch()
        await run.innocent("bad")
        assert run.upstream("bad").state.phase is Phase.READY
        tries = (tmp_path / "tries").read_text(encoding="ascii").count("try")
        assert await run.text("bad__ok", text="x") == "ok x"
        assert (tmp_path / "tries").read_text(encoding="ascii").count("try") == tries, "it stays closed"


async def test_F01_a_server_that_is_configured_to_be_hidden_when_down_leaves_the_lists(broker_of: BrokerOf) -> None:
    async with broker_of({"bad": raw("exit-mid-call", when_down="hide")}) as run:
        await run.ready("good", "bad")
        await run.refused("bad__boom")
        assert await run.tools() == ["good__ok", "good__boom"]
        await run.ready("bad")
        assert "bad__ok" in await run.tools()


async def test_F01_a_server_is_dead_when_it_has_exited_even_if_its_child_holds_the_pipe(
    broker_of: BrokerOf, puppet: Puppet, peers: Peers, tmp_path: Path
) -> None:
    pids = peers.kill_pids_of(tmp_path / "pids")
    async with broker_of({"bad": puppet({"boom": [["leave-behind", str(pids)], ["exit", 7]]})}) as run:
        await run.ready("good", "bad")
        assert "code 7" in (await run.refused("bad__boom"))["message"]
        await run.innocent("bad")
    assert not is_alive(int(pids.read_text(encoding="ascii")))


DIES = {
    "code 0": (raw("exit0"), "it exited with code 0"),
    "code 3 with a word": (command(["/bin/sh", "-c", "echo no licence >&2; exit 3"]), "code 3: no licence"),
    "by a signal": (command(["/bin/sh", "-c", "kill -SEGV $$"]), "signal 11"),
}


@pytest.mark.parametrize("case", list(DIES))
async def test_F02_a_server_that_exits_at_once_says_how(broker_of: BrokerOf, case: str) -> None:
    server, expected = DIES[case]
    async with broker_of({"bad": server}) as run:
        await run.innocent()
        assert expected in await run.trouble("bad")
        assert run.upstream("bad").state.phase in (Phase.WAITING, Phase.CONNECTING)
        assert expected in (await run.refused("bad__ok"))["message"]


async def test_F02_a_hundred_such_servers_delay_nobody(broker_of: BrokerOf) -> None:
    servers = {f"bad-{n}": command(["/bin/sh", "-c", "exit 3"]) for n in range(100)}
    async with broker_of(servers) as run:
        await run.innocent()  # bounded as every wait here; by the clock of a loaded machine a start takes what it takes
        assert await run.tools() == ["good__ok", "good__boom"]


async def test_F03_a_server_that_hangs_at_the_handshake_is_killed_and_callers_do_not_wait(
    broker_of: BrokerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with broker_of({"bad": raw("hang-init", connect_timeout=0.7)}) as run:
        await run.innocent()
        assert "it is connecting" in (await run.refused("bad__ok"))["message"]
        assert "handshake within 0.7 s" in await run.trouble("bad")
        hung = run.upstream("bad")
        await until(lambda: hung.state.phase is Phase.CONNECTING and hung.state.failures > 0)
        assert len(children()) == 2, "the one that hung is gone, `good` and the next try live"


async def test_F04_calls_that_hang_time_out_and_five_in_a_row_recycle_the_server(broker_of: BrokerOf) -> None:
    # It bounds what is answered too, and an answer that came too late on a busy machine would be one of the five.
    async with broker_of({"bad": raw("hang-call", timeout=2.5)}) as run:
        await run.ready("good", "bad")
        first = run.pid("bad")
        for _ in range(4):
            error = await run.refused("bad__boom")
            assert error["data"]["reason"] == "timeout"
        await run.innocent("bad")  # an answer: the count begins again
        for _ in range(5):
            await run.refused("bad__boom")
            await run.innocent()
        await until(lambda: not is_alive(first))
        await run.innocent("bad")
        await until(lambda: run.pending("bad") == 0)  # its lists are asked for anew, beside the calls
        gauges = run.broker.quotas.counters.gauges
        await until(lambda: all(one.value == 0 for one in gauges()))  # every place is given back
        assert run.pid("bad") != first


async def test_SP09_F05_a_server_that_ignores_eof_and_sigterm_is_gone_within_the_bound(broker_of: BrokerOf) -> None:
    async with broker_of({"bad": raw("ignore-term"), "shell": command(["/bin/sh", "-c", "trap '' TERM; cat"])}) as run:
        await run.ready("good", "bad")
        stubborn = run.pid("bad")
        began = anyio.current_time()
    assert anyio.current_time() - began < 6
    assert not is_alive(stubborn)


async def test_SP09_F06_grandchildren_and_daemons_are_gone_after_the_stop(
    broker_of: BrokerOf, peers: Peers, tmp_path: Path
) -> None:
    file = peers.kill_pids_of(tmp_path / "pids")
    async with broker_of({"bad": raw("grandchild", "--pids", file)}) as run:
        await run.ready("good", "bad")
        apart, beside = map(int, file.read_text(encoding="ascii").split())
        assert is_alive(apart) and is_alive(beside)
        child = run.pid("bad")
    assert not exists(apart, beside, child)


async def test_F06_they_are_gone_after_a_restart_too_whatever_the_old_server_left(
    broker_of: BrokerOf, peers: Peers, tmp_path: Path
) -> None:
    file = peers.kill_pids_of(tmp_path / "pids")
    async with broker_of({"bad": raw("grandchild", "--pids", file)}) as run:
        await run.ready("good", "bad")
        old = [int(pid) for pid in file.read_text(encoding="ascii").split()]
        os.kill(run.pid("bad"), signal.SIGKILL)
        await until(lambda: not exists(*old))
        await run.innocent("bad")


RESTARTS = int(os.environ.get("HOSTILE_RESTARTS", "100"))
"""More, for a longer look: each takes some hundredths of a second."""


async def test_F07_restarts_leave_no_zombie_no_descriptor_no_task_and_no_memory(broker_of: BrokerOf) -> None:
    async with broker_of({"bad": quick()}, HastyClock(), bound=BOUND + RESTARTS) as run:
        await run.innocent()
        await run.ready("bad")

        async def restart() -> None:
            before = run.pid("bad")
            await run.refused("bad__boom")
            await run.ready("bad")
            assert run.pid("bad") != before

        for _ in range(20):  # what is made once is made by then
            await restart()
        give_back()
        before = descriptors(), len(asyncio.all_tasks()), memory("VmRSS")
        for _ in range(RESTARTS):
            await restart()
        give_back()
        assert descriptors() <= before[0] + 1 and len(asyncio.all_tasks()) <= before[1] + 1
        assert memory("VmRSS") - before[2] < 3 * MIB
        assert len(children()) == 2 and "Z" not in children().values()


async def test_F07_a_daemon_that_ends_by_itself_is_reaped_while_its_server_lives(
    broker_of: BrokerOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "REAP_EVERY", 0.1)
    file, release = tmp_path / "pid", tmp_path / "release"
    daemon = f'echo $$ > "{file}.new"; mv "{file}.new" "{file}"; until [ -e "{release}" ]; do sleep 0.05; done'
    script = (
        f"(setsid sh -c '{daemon}' >/dev/null 2>&1 </dev/null &) ; exec {' '.join([raw()['command'], *raw()['args']])}"
    )
    async with broker_of({"bad": command(["/bin/sh", "-c", script])}) as run:
        await run.innocent("bad")
        await until(file.exists)
        pid = int(file.read_text(encoding="ascii"))
        assert exists(pid) and pid in children(), "it is ours now"
        theirs = run.pid("bad")
        ended = subprocess.Popen(["/bin/true"])  # noqa: ASYNC220 - somebody else's child, whom we must leave alone
        release.touch()
        await until(lambda: not exists(pid))
        assert ended.wait() == 0 and exists(theirs)
        await run.innocent("bad")


async def test_F07_a_broker_that_ends_while_its_servers_start_leaves_none(broker_of: BrokerOf) -> None:
    for turns in range(12):
        async with broker_of({f"s-{n}": raw() for n in range(3)}):
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
    assert children() == {}


async def test_F08_a_stderr_flood_is_drained_and_bounded(broker_of: BrokerOf) -> None:
    async with broker_of({"bad": raw("stderr-flood", 100_000)}) as run:
        await run.innocent("bad")
        with memory_below(20 * MIB):
            assert await run.text("bad__boom") == "100000 lines"
        await run.innocent("bad")


@pytest.mark.parametrize("fault", ["blank-flood", "empty-flood"])
async def test_F10_a_flood_of_lines_that_say_nothing_is_taken_in_turns(broker_of: BrokerOf, fault: str) -> None:
    async with broker_of({"bad": raw(fault, 32)}) as run:
        await run.innocent("bad")
        assert await run.text("bad__boom") == "after the flood"
        await run.innocent("bad")


async def test_F09_a_closed_stdout_is_death_and_a_closed_stderr_is_not(broker_of: BrokerOf, puppet: Puppet) -> None:
    servers = {
        "mute": puppet({"boom": [["close", 1], ["hang", 0]]}),
        "quiet": puppet({"boom": [["close", 2], '{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}\n']}),
    }
    async with broker_of(servers) as run:
        await run.ready("mute", "quiet")
        old = run.pid("mute")
        assert "it closed its output" in (await run.refused("mute__boom"))["message"]
        await run.call("quiet__boom")
        await until(lambda: not is_alive(old))
        await run.innocent("mute", "quiet")


async def test_F10_banners_are_tolerated_and_a_program_that_only_talks_is_recycled(
    broker_of: BrokerOf, puppet: Puppet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    chatter = puppet({"boom": [["repeat", [100, "npm warn \u001b[31m$N\n"]], ["hang", 0]]})
    async with broker_of({"banner": raw("garbage"), "chatter": chatter}) as run:
        await run.innocent("banner", "chatter")
        assert "100 lines in a row" in (await run.refused("chatter__boom"))["message"]
        await run.innocent("banner", "chatter")
    assert r"npm warn \x1b[31m0" in caplog.text and "npm warn \x1b" not in caplog.text


@pytest.mark.parametrize("where", ["first", "each"])
async def test_F11_a_byte_order_mark_is_no_part_of_a_message(broker_of: BrokerOf, puppet: Puppet, where: str) -> None:
    bad = raw("bom") if where == "each" else puppet({"start": [["hex", "efbbbf"]]})
    async with broker_of({"bad": bad}) as run:
        await run.innocent("bad")


async def test_F12_invalid_utf8_costs_that_call_only(broker_of: BrokerOf) -> None:
    async with broker_of({"bad": raw("invalid-utf8")}) as run:
        await run.ready("good", "bad")
        first = run.pid("bad")
        assert (await run.refused("bad__boom"))["data"]["reason"] == "malformed"
        await run.innocent("bad")
        assert run.pid("bad") == first


@pytest.mark.parametrize("size", ["endless", "100 MB"])
async def test_F13_a_line_without_end_costs_the_upstream_its_connection_not_us_our_memory(
    broker_of: BrokerOf, puppet: Puppet, size: str
) -> None:
    long = ['{"jsonrpc":"2.0","id":$ID,"result":{"x":"', ["repeat", [100, "a" * 1_000_000]], '"}}\n']
    async with broker_of({"bad": raw("endless-line") if size == "endless" else puppet({"boom": long})}) as run:
        await run.innocent("bad")
        with memory_below(40 * MIB):
            assert "a line of more than" in (await run.refused("bad__boom"))["message"]
            await run.innocent("bad")


async def test_F14_a_server_that_does_not_read_is_given_up(
    broker_of: BrokerOf, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdio, "WRITE_TIMEOUT", 0.5)
    async with broker_of({"bad": puppet({"boom": [["hang", 0]]})}) as run:
        await run.ready("good", "bad")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.refused, "bad__boom")
            await until(lambda: run.pending("bad") == 1)
            for _ in range(3):
                tasks.start_soon(_refused_for_not_reading, run)
            await run.innocent()
        await run.innocent("bad")


async def _refused_for_not_reading(run: Running) -> None:
    assert "it has not read its input" in (await run.refused("bad__ok", text="a" * MIB))["message"]


def wrong_programs(directory: Path) -> dict[str, tuple[str, str]]:
    plain, script = directory / "plain", directory / "script"
    plain.write_text("no program", encoding="ascii")
    script.write_bytes(b"\x7fELF but no")
    script.chmod(0o755)
    return {
        "ENOENT": ("no-such-program-anywhere", "command not found"),
        "ENOENT path": (str(directory / "nothing"), "command not found"),
        "EACCES": (str(plain), "not executable"),
        "ENOEXEC": (str(script), "Exec format error"),
        "EISDIR": (str(directory), "not executable"),
    }


@pytest.mark.parametrize("case", ["ENOENT", "ENOENT path", "EACCES", "ENOEXEC", "EISDIR"])
async def test_F15_a_command_that_cannot_be_started_says_why(broker_of: BrokerOf, tmp_path: Path, case: str) -> None:
    program, expected = wrong_programs(tmp_path)[case]
    async with broker_of({"bad": command([program])}) as run:
        assert expected in await run.trouble("bad")
        await run.innocent()
        assert expected in (await run.refused("bad__ok"))["message"]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
async def test_F15_a_fork_that_fails_for_want_of_memory_is_tried_again(
    broker_of: BrokerOf, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    start, failures = subprocess.Popen, iter(range(4))

    def fork(*args: Any, **kwargs: Any) -> Any:
        if next(failures, None) is not None:
            raise OSError(number, os.strerror(number))
        return start(*args, **kwargs)

    monkeypatch.setattr(child.subprocess, "Popen", fork)
    async with broker_of({"bad": raw()}, HastyClock()) as run:
        assert os.strerror(number) in await run.trouble("bad")
        await run.innocent("bad")


async def test_F16_what_is_written_after_the_end_disturbs_nobody(
    broker_of: BrokerOf, puppet: Puppet, caplog: pytest.LogCaptureFixture
) -> None:
    last_words = [["repeat", [2000, "x" * 1000 + "\n"]], ["stderr", "bye\n" * 1000]]
    servers = {"late": puppet({"eof": last_words}), "deaf": puppet({"boom": [["close", 0], ["hang", 0]]})}
    async with broker_of(servers) as run:
        await run.innocent("late", "deaf")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.refused, "deaf__boom")
            await until(lambda: run.pending("deaf") == 1)
            async with anyio.create_task_group() as calls:
                for _ in range(20):
                    calls.start_soon(run.refused, "deaf__ok")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_F17_a_child_gets_its_own_environment_not_ours(
    broker_of: BrokerOf, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "hunter2")
    monkeypatch.setenv("LANG", "() { :; }; echo no")
    monkeypatch.setenv("TZ", "UTC")
    bad = puppet({"boom": [["environment", "$ID"]]}, env={"API_KEY": "mine", "HOME": "/nowhere"})
    async with broker_of({"bad": bad}) as run:
        await run.innocent("bad")
        seen = json.loads(await run.text("bad__boom"))
    assert seen["API_KEY"] == "mine" and seen["HOME"] == "/nowhere" and seen["TZ"] == "UTC"
    assert "hunter2" not in str(seen) and "LANG" not in seen
    assert set(seen) <= {*process.INHERITED, process.TAG, "API_KEY", "LC_CTYPE"}
