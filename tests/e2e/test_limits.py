"""Limits as callers meet them: on every front, in both eras, over real servers that say what reached them."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.callers.caller import Caller, Failed, Json
from tests.callers.pipe import pipe
from tests.callers.web import Web, old_web
from tests.e2e.brokers import TIMEOUT, Brokers, command, lines, until
from tests.peers import Peers
from tests.servers.probe import README_URI

EACH = 6
"""Calls of each caller, all at once."""


def most_at_a_time(log: Path) -> int:
    running, most = 0, 0
    for line in lines(log):
        running += 1 if line.startswith("started ") else -1
        most = max(most, running)
    return most


def limited(peers: Peers, log: Path, limits: Json) -> dict[str, Json]:
    return {"one": command(peers.command("probe", "--log", log), limits=limits)}


async def slow(caller: Caller, label: str, seconds: float = 0.01) -> str:
    arguments = {"seconds": seconds, "label": label}
    result: Any = await caller.call("one__slow", arguments)
    return result["content"][0]["text"] if not result.get("isError") else f"refused: {result['content'][0]['text']}"


async def all_at_once(callers: list[Caller]) -> list[str]:
    calls = [slow(caller, f"{index}-{number}") for number in range(EACH) for index, caller in enumerate(callers)]
    with anyio.fail_after(TIMEOUT):
        return await asyncio.gather(*calls)


async def expect_refusals(callers: list[Caller], said: str) -> None:
    for caller in callers:
        assert (await slow(caller, "more")).startswith(f"refused: server one has reached its limit of {said}")
        with pytest.raises(Failed) as caught:
            await caller.ask("resources/read", {"uri": f"one+{README_URI}"})
        assert caught.value.code == 4290 and caught.value.data["level"] == "server:one"
        assert 0 < caught.value.data["retryAfter"] <= 3600


async def test_callers_of_all_web_fronts_share_the_places_and_the_rate_of_a_server(
    brokers: Brokers, peers: Peers, tmp_path: Path
) -> None:
    log = tmp_path / "calls.log"
    limits = {"concurrency": 2, "rate": f"{3 * EACH}/hour"}
    served = await brokers.aserve(brokers.configure(limited(peers, log, limits)))
    async with AsyncExitStack() as stack:
        webs = [await Web(served.url, era).greet() for era in ("modern", "legacy")]
        callers: list[Caller] = [*webs, await stack.enter_async_context(old_web(served.sse))]
        answers = await all_at_once(callers)
        assert not [one for one in answers if one.startswith("refused")] and len(answers) == 3 * EACH
        assert most_at_a_time(log) == 2
        await expect_refusals(callers, f"{3 * EACH}/hour")
    assert len([line for line in lines(log) if line.startswith("started")]) == 3 * EACH


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_one_caller_of_a_pipe_is_limited_too(
    brokers: Brokers, peers: Peers, tmp_path: Path, era: str
) -> None:
    log = tmp_path / "calls.log"
    config = brokers.configure(limited(peers, log, {"concurrency": 2, "rate": f"{EACH}/hour"}))
    async with pipe(brokers.stdio(config), era) as caller:
        answers = await all_at_once([caller])
        assert not [one for one in answers if one.startswith("refused")] and most_at_a_time(log) == 2
        await expect_refusals([caller], f"{EACH}/hour")


async def test_who_goes_away_while_it_waits_or_runs_leaves_its_place_to_others(
    brokers: Brokers, peers: Peers, tmp_path: Path
) -> None:
    log = tmp_path / "calls.log"
    served = await brokers.aserve(brokers.configure(limited(peers, log, {"concurrency": 1, "wait": TIMEOUT})))
    gone = await Web(served.url, "modern").greet()
    calls = [asyncio.create_task(slow(gone, f"gone-{number}", 600)) for number in range(4)]
    await until(lambda: len(lines(log)) == 1, "one of them runs")
    waits = asyncio.create_task(slow(await Web(served.url, "legacy").greet(), "next"))
    for call in reversed(calls):
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
    with anyio.fail_after(TIMEOUT):
        assert (await waits).endswith("slept next")
    started = [line for line in lines(log) if line.startswith("started")]
    assert len(started) == 2 and started[1] == "started next", "those that waited never reached the server"
