"""The rows of "Where they fail" about processes, time and death. Time is never slept, and measured only as a bound."""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.callers.caller import Failed
from tests.callers.pipe import pipe
from tests.callers.web import Web
from tests.e2e.brokers import TIMEOUT, Brokers, Json, children, command, lines, until
from tests.peers import Peers, free_port, is_alive
from tests.servers import probe

LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="counts processes by /proc")
GONE_WITHIN: float = 5 + 5
"""Seconds after EOF: five that are promised, and a margin for a loaded machine."""
AT_ONCE: float = 3
"""Seconds that count as no wait at all: far below the 8 and 30 seconds that would be waited otherwise."""
SLOW_START: float = 8
NOTICED_WITHIN: float = 10
"""Seconds until lists name a server that refuses connections."""


async def ready(caller: Web, *keys: str) -> None:
    """Wait until these servers are up: until a list has their tools, and no longer names them as missing."""
    with anyio.fail_after(TIMEOUT):
        while not await are_ready(caller, keys):
            await anyio.lowlevel.checkpoint()


async def are_ready(caller: Web, keys: Iterable[str]) -> bool:
    try:
        result, missing = await missing_of(caller)
    except Failed as failure:
        assert failure.code == -32603 and "upstreams" in failure.data
        return False
    return all(has_tools_of(result, key) and key not in missing for key in keys)


async def missing_of(caller: Web) -> tuple[Json, Json]:
    result = await caller.ask("tools/list")
    return result, result.get("_meta", {}).get("broker/upstreams", {})


def has_tools_of(result: Json, key: str) -> bool:
    return any(name.startswith(f"{key}__") for name in names_of(result))


def names_of(result: Json) -> set[str]:
    return {tool["name"] for tool in result["tools"]}


@LINUX
async def test_no_process_is_started_per_call_and_state_stays_between_calls(peers: Peers, brokers: Brokers) -> None:
    peers.is_forked = brokers.is_forked = False
    servers = {key: command(peers.command("probe", "--name", key)) for key in ("one", "two")}
    served = await brokers.aserve(brokers.configure(servers))
    caller = await Web(served.url, "modern").greet()
    await ready(caller, "one", "two")
    before, pids = children(served.process.pid), set[tuple[str, int]]()

    async def call(key: str) -> None:
        pids.add((key, (await caller.call(f"{key}__pid"))["structuredContent"]["pid"]))

    for _ in range(15):
        await call("one")
        await call("two")
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(call, "one")
            tasks.start_soon(call, "two")
    assert {key for key, _ in pids} == {"one", "two"} and len(pids) == 2
    assert {pid for _, pid in pids} <= before
    assert children(served.process.pid) == before
    added = [(await caller.call("one__add_tool"))["structuredContent"]["name"] for _ in range(3)]
    assert added == ["added_1", "added_2", "added_3"]


async def test_a_slow_and_a_dead_upstream_cost_the_others_nothing(peers: Peers, brokers: Brokers) -> None:
    servers: dict[str, Json] = {
        "slow": command(peers.command("probe", "--slow-start", SLOW_START)),
        "dead": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
        "gone": command(peers.command("raw", "--fault", "exit0")),
        "fine": command(peers.command("raw")),
    }
    served = await brokers.aserve(brokers.configure(servers, broker={"first_wait": 1}))
    caller = await Web(served.url, "legacy").greet()
    # The first list waits for what nobody ever saw, once, and not longer than first_wait.
    await ready(caller, "fine")
    result, missing = await missing_of(caller)
    assert set(missing) == {"slow", "dead", "gone"}
    assert names_of(result) == {"fine__ok", "fine__boom"}
    assert (await caller.call("fine__ok"))["content"][0]["text"] == "ok "
    for key in ("slow", "dead", "gone"):
        assert missing[key]["known"] is False and missing[key]["reason"]
    text = str(missing)
    assert str(peers.directory) not in text and "Traceback" not in text


async def test_every_list_has_the_tools_of_a_server_or_names_it_as_missing(peers: Peers, brokers: Brokers) -> None:
    servers: dict[str, Json] = {
        "fine": command(peers.command("raw")),
        # Many pages: its discovery takes a while after its handshake.
        "long": command(peers.command("probe", "--slow-start", 1, "--tools", 300, "--page-size", 10)),
    }
    served = await brokers.aserve(brokers.configure(servers, broker={"first_wait": 0}))
    caller = await Web(served.url, "legacy").greet()
    await ready(caller, "fine")
    with anyio.fail_after(TIMEOUT):
        while True:
            result, missing = await missing_of(caller)
            assert has_tools_of(result, "long") or "long" in missing
            if "long" not in missing:
                return


async def test_a_list_that_its_server_could_not_give_is_named_as_missing(peers: Peers, brokers: Brokers) -> None:
    # Its tools are on more pages than the broker reads; its prompts are fine.
    servers = {"long": command(peers.command("probe", "--tools", 100, "--page-size", 1))}
    served = await brokers.aserve(brokers.configure(servers))
    caller = await Web(served.url, "legacy").greet()
    prompts = [prompt["name"] for prompt in await caller.list("prompts")]
    assert prompts == [f"long__{prompt.name}" for prompt in probe.PROMPTS]
    result, missing = await missing_of(caller)
    assert has_tools_of(result, "long") or "long" in missing


async def test_calls_are_answered_while_another_upstream_hangs(peers: Peers, brokers: Brokers) -> None:
    servers = {
        "hung": command(peers.command("raw", "--fault", "hang-init")),
        "deaf": command(peers.command("raw", "--fault", "hang-call")),
        "fine": command(peers.command("probe", "--era", "legacy")),
    }
    served = await brokers.aserve(brokers.configure(servers, broker={"first_wait": 0}))
    caller = await Web(served.url, "legacy").greet()
    await ready(caller, "fine", "deaf")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller.call, "deaf__boom")
        for _ in range(20):
            assert (await caller.call("fine__echo", {"text": "x"}))["content"][0]["text"] == "probe:x"
            assert "hung" in (await missing_of(caller))[1]
            assert (await caller.call("deaf__ok"))["content"][0]["text"] == "ok "
        tasks.cancel_scope.cancel()


async def test_an_upstream_that_was_seen_before_is_never_waited_for(peers: Peers, brokers: Brokers) -> None:
    script = peers.directory / "sometimes.py"
    hangs = peers.directory / "hangs"
    raw = peers.command("raw", "--fault", "none")
    # The same definition both times, so that the snapshot is its own; a file says whether it hangs.
    script.write_text(
        f"import os, sys, pathlib\nif pathlib.Path({str(hangs)!r}).exists(): sys.stdin.read()\n"
        f"else: os.execv({raw[0]!r}, {raw!r})\n",
        encoding="utf-8",
    )
    servers = {"moody": command([raw[0], str(script)])}
    state = peers.directory / "state"
    config = brokers.configure(servers, state=state)
    hurried = brokers.configure(servers, state=state, broker={"first_wait": 1})
    async with pipe(brokers.stdio(config), "legacy") as caller:
        known, greeting = await caller.ask("tools/list"), caller.greeting
    hangs.touch()
    for era in ("legacy", "modern"):
        async with pipe(brokers.stdio(hurried), "legacy", greets=False) as caller:
            await caller.ask("ping")  # the broker itself is up
            caller.era = era
            started = time.monotonic()
            await caller.greet()
            result = await caller.ask("tools/list")
            assert time.monotonic() - started < AT_ONCE
            assert caller.greeting["instructions"] == greeting["instructions"]
            assert result["tools"] == known["tools"]
            assert result["_meta"]["broker/upstreams"]["moody"]["known"] is True
            with pytest.raises(Failed) as failure:
                await caller.call("moody__ok")
            assert failure.value.code == -32603 and failure.value.data["upstream"] == "moody"


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_list_is_an_error_when_nothing_is_known_of_any_server(peers: Peers, brokers: Brokers, era: str) -> None:
    config = brokers.configure(
        {"hung": command(peers.command("raw", "--fault", "hang-init"))}, broker={"first_wait": 0.5}
    )
    async with pipe(brokers.stdio(config), era) as caller:
        started = time.monotonic()
        for method in ("tools/list", "prompts/list", "resources/list"):
            with pytest.raises(Failed) as failure:
                await caller.ask(method)
            assert "hung" in failure.value.data["upstreams"]
        assert time.monotonic() - started < AT_ONCE + 3 * 0.5


@LINUX
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_end_of_stdin_ends_the_broker_and_every_process_under_it(
    peers: Peers, brokers: Brokers, era: str
) -> None:
    peers.is_forked = brokers.is_forked = False
    pids = peers.kill_pids_of(peers.directory / "grandchildren")
    servers = {
        "plain": command(peers.command("raw")),
        "stubborn": command(peers.command("raw", "--fault", "ignore-term")),
        "parent": command(peers.command("raw", "--fault", "grandchild", "--pids", pids)),
        "silent": command(peers.command("raw", "--fault", "hang-init")),
        "typed": command(peers.command("probe", "--era", "modern")),
    }
    config = brokers.configure(servers, broker={"first_wait": 2})
    async with pipe(brokers.stdio(config), era) as caller:
        await until(pids.exists, "grandchildren")
        await caller.ask("tools/list")
        family = children(caller.process.pid) | {int(pid) for pid in pids.read_text(encoding="ascii").split()}
        assert len(family) >= len(servers) + 2
        started = time.monotonic()
        caller.hang_up()
        with anyio.fail_after(TIMEOUT):
            await caller.process.wait()
        await until(lambda: not any(is_alive(pid) for pid in family), "all of them gone")
        assert time.monotonic() - started < GONE_WITHIN
        assert caller.process.returncode == 0


async def test_parallel_calls_of_one_session_run_in_parallel(peers: Peers, brokers: Brokers) -> None:
    log = peers.directory / "log"
    servers: dict[str, Json] = {
        "pipe": command(peers.command("probe", "--era", "legacy", "--log", log)),
        "web": {"url": (await peers.astart("probe", "--transport", "http", "--era", "legacy", "--log", log)).url},
    }
    served = await brokers.aserve(brokers.configure(servers))
    for era in ("legacy", "modern"):
        caller = await Web(served.url, era).greet()
        await ready(caller, *servers)
        for key in servers:
            labels = [f"{era}-{key}-{number}" for number in range(8)]
            async with anyio.create_task_group() as tasks:
                for label in labels:
                    tasks.start_soon(caller.call, f"{key}__slow", {"seconds": 600, "label": label})
                # None can have finished: all eight are inside their tool at the same time.
                await until(lambda: all(f"started {label}" in lines(log) for label in labels), "all started")  # noqa: B023
                tasks.cancel_scope.cancel()


async def test_a_killed_upstream_fails_its_calls_at_once_and_comes_back_by_itself(
    peers: Peers, brokers: Brokers
) -> None:
    log = peers.directory / "log"
    servers = {
        "mortal": command(peers.command("probe", "--era", "legacy", "--log", log)),
        "other": command(peers.command("raw")),
    }
    served = await brokers.aserve(brokers.configure(servers))
    caller = await Web(served.url, "legacy").greet()
    await ready(caller, *servers)
    pid = (await caller.call("mortal__pid"))["structuredContent"]["pid"]
    listed = names_of((await missing_of(caller))[0])
    failures: list[Failed] = []

    async def doomed() -> None:
        with pytest.raises(Failed) as failure:
            await caller.call("mortal__slow", {"seconds": 600, "label": "doomed"})
        failures.append(failure.value)

    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(doomed)
            await until(lambda: "started doomed" in lines(log), "started")
            os.kill(pid, signal.SIGKILL)
    assert failures[0].code == -32603 and failures[0].data["upstream"] == "mortal"
    # While it is down a call fails at once; the list keeps it, and says so; the other one goes on.
    assert (await caller.call("other__ok"))["content"][0]["text"] == "ok "
    assert names_of((await missing_of(caller))[0]) == listed
    reborn: Any = None
    with anyio.fail_after(TIMEOUT):
        while reborn is None:
            try:
                reborn = (await caller.call("mortal__pid"))["structuredContent"]["pid"]
            except Failed as failure:
                assert failure.code == -32603 and failure.data["upstream"] == "mortal"
    assert reborn != pid
    await ready(caller, "mortal")


async def test_a_call_to_an_upstream_that_is_down_fails_at_once_and_says_which(peers: Peers, brokers: Brokers) -> None:
    peer = await peers.astart("probe", "--transport", "http", "--name", "web")
    servers: dict[str, Json] = {"web": {"url": peer.url}, "other": command(peers.command("raw"))}
    served = await brokers.aserve(brokers.configure(servers))
    callers = [await Web(served.url, era).greet() for era in ("legacy", "modern")]
    await ready(callers[0], *servers)
    peer.stop()
    for caller in callers:
        started = time.monotonic()
        with pytest.raises(Failed) as failure:
            await caller.call("web__echo", {"text": "x"})
        assert failure.value.code == -32603
        assert failure.value.data["upstream"] == "web"
        assert time.monotonic() - started < AT_ONCE
        await until_missing(caller, "web")
        result, missing = await missing_of(caller)
        assert missing["web"]["known"] is True and "web__echo" in names_of(result)


async def until_missing(caller: Web, key: str) -> None:
    with anyio.fail_after(NOTICED_WITHIN):
        while key not in (await missing_of(caller))[1]:
            await anyio.lowlevel.checkpoint()
