"""Real guardrail processes: confined, watched, replaced, and gone at the end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.clock import FakeClock, SystemClock
from broker.core import wire
from broker.guardrails import pool as pools
from broker.guardrails import process as processes
from broker.guardrails.pool import Pool
from broker.guardrails.process import Broke
from broker.guardrails.run import judge, load
from broker.guardrails.source import Source
from broker.guardrails.verdict import PASS, Fault, Reject, Rewrite
from tests.calls import measured
from tests.guardrails.corpus import CONTEXT, source
from tests.peers import ROOT

BOUND = 30
"""Seconds for anything that must happen: a bound, not an expectation."""
PATIENT = 10.0
"""Seconds that a guardrail may take which is not about time: the machine may be loaded."""
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux")
ALLOW = "def check(ctx):\n    return {'action': 'allow'}\n"
HANG = "def check(ctx):\n    while True:\n        pass\n"


def patient(text: str) -> Source:
    return source(text, timeout=PATIENT)


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for what another process does: there is no event that it could set."""
    with anyio.fail_after(BOUND):
        while not is_true():  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def run(pool: Pool, text: str, context: Any = CONTEXT, member: str = "args", **more: Any) -> Any:
    return await judge(pool, source(text, **{"timeout": PATIENT, **more}), context, member)


async def test_a_guardrail_passes_blocks_and_rewrites(pool: Pool) -> None:
    text = (
        "def check(ctx):\n    args = ctx['args']\n    if args['do'] == 'rewrite':\n"
        "        return {'action': 'modify', 'args': {'was': args}}\n"
        "    return {'action': args['do'], 'reason': 'because'}\n"
    )
    assert await load(pool, patient(text)) == ()
    assert await run(pool, text, {"args": {"do": "allow"}}) == PASS
    assert await run(pool, text, {"args": {"do": "block"}}) == Reject("because")
    assert await run(pool, text, {"args": {"do": "rewrite"}}) == Rewrite({"was": {"do": "rewrite"}})
    assert isinstance(await run(pool, text, {}), Fault), "a KeyError is no decision"


async def test_values_come_and_go_exactly(pool: Pool) -> None:
    text = "def check(ctx):\n    return {'action': 'modify', 'args': ctx['args']}\n"
    value = {"big": 10**30, "float": 0.1, "text": "ä\u0000\U0001f642", "deep": [[[{"a": [None, True, False]}]]], "": -1}
    assert await run(pool, text, {"args": value}) == Rewrite(value)


async def test_nothing_of_one_call_is_there_in_the_next(pool: Pool) -> None:
    text = (
        "seen = []\ndef check(ctx):\n    seen.append(1)\n    ctx['args']['x'] = 1\n"
        "    return {'action': 'block', 'reason': str(len(seen))}\n"
    )
    context = {"args": {}}
    assert [await run(pool, text, context) for _ in range(4)] == [Reject("1")] * 4
    assert context == {"args": {}}
    shadow = "isinstance = len = lambda *a: True\ndef check(ctx):\n    return {'action': 'allow'}\n"
    assert await run(pool, shadow) == PASS
    assert await run(pool, "def check(ctx):\n    return {'action': 'block', 'reason': str(len('abc'))}\n") == Reject(
        "3"
    )


async def test_expressions_and_documents_are_there_and_bounded(pool: Pool) -> None:
    text = (
        "def check(ctx):\n    return {'action': 'block', 'reason': json.dumps([\n"
        "        re2.matches('^a+$', 'aaa'), re2.fullmatch('a', 'ab'), re2.search('(b)(c)?', 'abd'),\n"
        "        re2.findall('[0-9]+', 'a1b22'), re2.sub('([0-9])', '<\\\\1>', 'a1'), re2.search('x', ''),\n"
        "        json.loads('{\"a\": [1.5]}')])}\n"
    )
    assert await run(pool, text) == Reject('[true,false,["b","b",null],["1","22"],"a<1>",null,{"a":[1.5]}]')
    for expression in ("re2.matches('(a', 'a')", "re2.matches('(?=a)', 'a')", "re2.matches('a' * 5000, 'a')"):
        verdict = await run(pool, f"def check(ctx):\n    return {expression}\n")
        assert isinstance(verdict, Fault) and verdict.why == "ValueError in line 2", expression
    slow = "def check(ctx):\n    re2.matches('^(a+)+$', 'a' * 100000 + '!')\n    return {'action': 'allow'}\n"
    assert await run(pool, slow) == PASS


@pytest.mark.parametrize("where", ["module", "check"])
async def test_I07_what_does_not_end_is_killed_wherever_it_runs_and_replaced(pool: Pool, where: str) -> None:
    text = "while True:\n    pass\n" + ALLOW if where == "module" else HANG
    began = time.monotonic()
    if where == "module":
        assert "took longer than 0.25 s" in (await load(pool, source(text)))[0].message
    assert await judge(pool, source(text), CONTEXT, "args") == Fault("it took longer than 0.25 s")
    assert time.monotonic() - began < BOUND
    assert await run(pool, ALLOW) == PASS


async def test_a_loop_in_C_is_killed_too(pool: Pool) -> None:
    text = "def check(ctx):\n    x = 10 ** 1\n".replace("10 ** 1", "9999999999") + (
        "    i = 0\n    while i < 24:\n        x = x * x\n        i += 1\n    return {'action': 'allow'}\n"
    )
    assert await judge(pool, source(text), CONTEXT, "args") == Fault("it took longer than 0.25 s")


async def test_memory_beyond_the_bound_denies_and_the_process_is_replaced(pool: Pool) -> None:
    before = set(pool.pids())
    verdict = await run(pool, "def check(ctx):\n    x = 'a'\n    while True:\n        x = x + x\n", memory=16 * 2**20)
    assert verdict == Fault("it needed more memory than 16 MiB")
    await until(lambda: len(pool.pids()) == pools.WARM and set(pool.pids()) != before)


async def test_patterns_that_one_guardrail_has_made_take_no_memory_from_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one process: a hundred and fifty patterns out of what callers sent, and one that needs half of its memory."""
    monkeypatch.setattr(pools, "WARM", 1)
    monkeypatch.setattr(pools, "MAX_PROCESSES", 1)
    searching = (
        "def check(ctx):\n    for i in range(10):\n"
        "        re2.search('(?:[a-z]{1,900}' + str(ctx['args']['n']) + 'x' + str(i) + ')', 'b' * 2000)\n"
        "    return {'action': 'allow'}\n"
    )
    hungry = "def check(ctx):\n    x = ['y' * 1000 + str(i) for i in range(30000)]\n    return {'action': 'allow'}\n"
    pool = Pool(SystemClock())
    async with pool.running():
        verdicts = [await run(pool, searching, {"args": {"n": number}}) for number in range(15)]
        assert [*verdicts, await run(pool, hungry)] == [PASS] * 16


async def test_what_is_judged_and_what_is_returned_is_bounded(pool: Pool) -> None:
    assert await run(pool, ALLOW, {"args": {"x": "a" * 2000}}, size=1000) == Fault(
        "there is more to judge than 1000 bytes"
    )
    verdict = await run(pool, "def check(ctx):\n    return {'action': 'allow', 'reason': 'a' * 10000}\n", size=1000)
    assert verdict == Fault("it said more than it may")
    assert isinstance(await run(pool, ALLOW, {"args": {"x": "\ud800"}}), Fault)


async def test_an_error_names_its_kind_and_line_and_keeps_its_text_apart(pool: Pool) -> None:
    verdict = await run(pool, "def check(ctx):\n    x = 1\n    raise ValueError(ctx['args']['secret'])\n")
    assert verdict == Fault("ValueError in line 3", "arg-canary", 3)
    assert verdict.why == "ValueError in line 3", "which is all that is ever logged"


@needs_proc
async def test_a_process_has_given_up_all_that_a_process_has(pool: Pool) -> None:
    await until(lambda: len(pool._idle) == pools.WARM)
    for pid in pool.pids():
        proc = Path(f"/proc/{pid}")
        assert proc.joinpath("environ").read_bytes() == b""
        assert os.readlink(proc / "cwd") == "/"
        open_ones = {fd.name: os.readlink(fd) for fd in proc.joinpath("fd").iterdir()}
        pipes = [target for target in open_ones.values() if target.startswith(("pipe:", "socket:"))]
        assert len(pipes) == 2 and set(open_ones.values()) == {"/dev/null", *pipes}, open_ones
        limits = {
            line[:26].strip(): line[26:].split()[:2] for line in proc.joinpath("limits").read_text().splitlines()[1:]
        }
        for name in ("Max file size", "Max core file size", "Max processes", "Max open files"):
            assert limits[name] == ["0", "0"], name
        status = dict(line.split(":", 1) for line in proc.joinpath("status").read_text().splitlines())
        assert status["NoNewPrivs"].strip() == "1"
        if os.geteuid() == 0:
            assert set(status["Uid"].split()) == {str(2_000_000_000 + pid)} and status["CapEff"].strip("\t0") == ""
        assert os.getsid(pid) == pid
        assert "canary" not in proc.joinpath("cmdline").read_text()


@needs_proc
def test_processes_end_with_a_broker_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import anyio, sys\nfrom broker.clock import SystemClock\nfrom broker.guardrails.pool import Pool\n"
        "from tests.guardrails.test_pool import HANG, source, judge\n"
        "async def main():\n    pool = Pool(SystemClock())\n    async with pool.running():\n"
        "        async with anyio.create_task_group() as tasks:\n"
        "            tasks.start_soon(judge, pool, source(HANG, timeout=60.0), {}, 'args')\n"
        "            while len(pool.pids()) < 2: await anyio.sleep(0.01)\n"
        "            print(*pool.pids(), flush=True)\n            await anyio.sleep_forever()\n"
        "anyio.run(main)\n"
    )
    broker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert broker.stdout is not None
    with broker.stdout:
        pids = [int(word) for word in broker.stdout.readline().split()]
    broker.kill()
    broker.wait()
    assert len(pids) == 2
    deadline = time.monotonic() + BOUND
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_process_that_is_killed_from_outside_denies_and_is_replaced(pool: Pool) -> None:
    answers: list[Any] = []
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append(await judge(pool, source(HANG, timeout=60.0), {}, "args"))

        tasks.start_soon(ask)
        await until(lambda: bool(pool._held))
        killed = pool.pids()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
    assert answers == [Fault("its process was ended by signal 9")]
    await until(lambda: set(pool.pids()).isdisjoint(killed))
    assert await run(pool, ALLOW) == PASS


async def test_a_guardrail_that_keeps_killing_its_processes_rests_and_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    pool, hang = Pool(clock), source(HANG, timeout=0.05, name="slow")
    async with pool.running():
        for _ in range(pools.MAX_DEATHS):
            assert "took longer" in (await judge(pool, hang, {}, "args")).why  # type: ignore[union-attr]
        assert "rests for 30 s" in (await judge(pool, hang, {}, "args")).why, "not tried"  # type: ignore[union-attr]
        assert "guardrail slow: its processes ended 3 times" in caplog.text
        assert await run(pool, ALLOW) == PASS, "the others are not concerned"
        clock.advance(pools.REST)
        assert "took longer" in (await judge(pool, hang, {}, "args")).why  # type: ignore[union-attr]
        assert "rests for 30 s" in (await judge(pool, hang, {}, "args")).why, "one trial"  # type: ignore[union-attr]


async def test_one_that_hangs_on_every_call_leaves_processes_to_the_others(pool: Pool) -> None:
    hang = source(HANG, timeout=60.0)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(judge, pool, hang, {}, "args")
        await until(lambda: pool._held[hang.sha256] == pools.SHARE)
        for _ in range(20):
            assert await run(pool, ALLOW) == PASS
        assert len(pool.pids()) <= pools.MAX_PROCESSES and pool._held[hang.sha256] == pools.SHARE
        tasks.cancel_scope.cancel()


async def test_a_full_queue_and_a_long_wait_deny(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_WAITING", 3)
    monkeypatch.setattr(pools, "WAIT_TIMEOUT", 0.2)
    hang, answers = source(HANG, timeout=60.0), list[Any]()

    async def ask() -> None:
        answers.append(await judge(pool, hang, {}, "args"))

    async with anyio.create_task_group() as tasks:
        for _ in range(pools.SHARE):
            tasks.start_soon(ask)
        monkeypatch.setattr(pools, "WAIT_TIMEOUT", 60.0)
        await until(lambda: pool._held[hang.sha256] == pools.SHARE)
        monkeypatch.setattr(pools, "WAIT_TIMEOUT", 0.2)
        for _ in range(4):
            tasks.start_soon(ask)
        await until(lambda: len(answers) == 4)
        tasks.cancel_scope.cancel()
    assert sorted(answer.why for answer in answers) == [
        *["no guardrail process was free within 0.2 s"] * 3,
        "too many calls wait for guardrail processes",
    ]
    assert not pool._waiting


async def test_a_caller_that_gives_up_disturbs_nobody(pool: Pool) -> None:
    for _ in range(5):
        with anyio.move_on_after(0.001):
            await run(
                pool, "def check(ctx):\n    for i in range(100000):\n        pass\n    return {'action': 'allow'}\n"
            )
        assert await run(pool, ALLOW) == PASS
    await until(lambda: not pool._held)


async def test_no_process_is_left_after_a_stop_in_the_middle_of_everything() -> None:
    pool = Pool(SystemClock())
    answers: list[Any] = []
    async with anyio.create_task_group() as tasks, pool.running():

        async def ask() -> None:
            answers.append(await judge(pool, source(HANG, timeout=60.0), {}, "args"))

        for _ in range(10):
            tasks.start_soon(ask)
        await until(lambda: bool(pool._held))
        pids = pool.pids()
    assert len(answers) == 10 and all(isinstance(answer, Fault) for answer in answers)
    assert pids and not any(is_running(pid) for pid in pids)
    assert await judge(pool, source(ALLOW), {}, "args") == Fault("no guardrail processes are running")


LIES = {
    "silent": "import time; time.sleep(60)",
    "out of turn": "say(b'{\"ok\": null}'); say(b'{\"ok\": null}'); wait()",
    "not a greeting": 'say(b\'{"ok": {"action": "allow"}}\'); wait()',
    "not JSON": "say(b'{\"ok\": null}'); hear(); say(b'allow'); wait()",
    "endless": "say(b'{\"ok\": null}'); hear(); out.write(b'\\xff\\xff\\xff\\xff' + b'x' * 100); out.flush(); wait()",
    "twice": "say(b'{\"ok\": null}'); hear(); say(b'{\"ok\": null}'); say(ALLOW); say(ALLOW); wait()",
    "nothing and gone": "say(b'{\"ok\": null}'); hear(); sys.exit(3)",
    "at once gone": "sys.exit(4)",
    "nonsense": 'say(b\'{"ok": null}\')\nwhile True:\n    hear(); say(b\'{"ok": {"action": "allow", "x": 1}}\')',
    "error of no kind": 'say(b\'{"ok": null}\')\nwhile True:\n    hear(); say(b\'{"error": {"kind": 1}}\')',
}
LIAR = """
import struct, sys, time
out = sys.stdout.buffer
ALLOW = b'{"ok": {"action": "allow", "reason": "twice"}}'
def say(data):
    out.write(struct.pack('>I', len(data)) + data); out.flush()
def hear():
    size = struct.unpack('>I', sys.stdin.buffer.read(4))[0]; return sys.stdin.buffer.read(size)
def wait():
    sys.stdin.buffer.read()
"""


@pytest.mark.parametrize("lie", LIES)
async def test_F102_a_process_that_lies_denies_and_never_allows(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_boot", lambda program: LIAR + LIES[lie])
    monkeypatch.setattr(processes, "START_TIMEOUT", 0.5)
    monkeypatch.setattr(pools, "WAIT_TIMEOUT", 1.0)
    pool = Pool(SystemClock())
    async with pool.running():
        with anyio.fail_after(BOUND):
            verdict = await judge(pool, source(ALLOW, timeout=1.0), CONTEXT, "args")
            flaws = await load(pool, source(ALLOW, timeout=1.0))
    if lie == "twice":
        # The first answer is the answer; what comes after it is out of turn.
        assert verdict in (PASS, Fault("it spoke out of turn")), verdict
    else:
        assert isinstance(verdict, Fault), verdict
        assert flaws, lie
    assert pool.pids() == []


async def test_a_process_is_replaced_before_it_is_worn_out(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_RUNS", 5)
    seen: set[int] = set()
    for _ in range(40):
        assert await run(pool, ALLOW) == PASS
        seen |= set(pool.pids())
    assert len(seen) > pools.WARM


async def test_a_process_that_cannot_be_started_denies_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(pools, "WAIT_TIMEOUT", 0.2)
    pool = Pool(clock)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        async with pool.running():
            assert await pool.run(source(ALLOW), b"{}") == Broke("no guardrail process was free within 0.2 s")
            assert "a guardrail process cannot be started: No such file" in caplog.text
            patch.undo()
            clock.advance(pools.RETRY)
            monkeypatch.setattr(pools, "WAIT_TIMEOUT", BOUND)
            assert await run(pool, ALLOW) == PASS


async def test_a_late_loop_does_not_take_the_answer_of_a_prompt_guardrail(pool: Pool) -> None:
    assert await run(pool, ALLOW) == PASS
    ask = asyncio.ensure_future(judge(pool, source(ALLOW, timeout=1.0), CONTEXT, "args"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(1.5)  # noqa: ASYNC251 - the loop is what is late
    assert await ask == PASS


async def test_a_big_value_is_judged_in_time_and_costs_the_loop_little(pool: Pool) -> None:
    context = {"args": {"text": "x" * 900_000}}
    text = "def check(ctx):\n    return {'action': 'modify', 'args': {'n': len(ctx['args']['text'])}}\n"
    assert await run(pool, text, context) == Rewrite({"n": 900_000})
    with measured() as spent:
        body = wire.encode(context)
        assert await pool.run(patient(text), body) == {"ok": {"action": "modify", "args": {"n": 900_000}}}
    assert spent.seconds < 0.05


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": fast}) for fast in (False, True)])
async def test_F102_a_process_that_has_just_closed_its_input_takes_a_job_and_denies(pool: Pool) -> None:
    """A loop knows that the pipe is closed before it knows that the process has ended; uvloop then writes no more."""
    assert await run(pool, ALLOW) == PASS
    await until(lambda: len(pool._idle) == pools.WARM)  # one that is ready later would be the next
    dying = pool._idle[-1]
    assert dying._stdin is not None
    os.kill(dying.pid, signal.SIGSTOP)  # so that its own end comes later
    dying._stdin.abort()
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert pool._idle[-1] is dying
    with anyio.fail_after(BOUND):
        os.kill(dying.pid, signal.SIGCONT)
        assert isinstance(await run(pool, ALLOW), Fault)
        await until(lambda: len(pool._idle) >= 2)
        assert await run(pool, ALLOW) == PASS
