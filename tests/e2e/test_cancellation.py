"""A cancelled call is cancelled where it runs; every other call goes on. `probe --log` tells from the inside."""

import asyncio
import itertools
from contextlib import suppress

import anyio
import pytest

from tests.callers.caller import Caller
from tests.callers.pipe import pipe
from tests.callers.web import Web, old_web
from tests.e2e.brokers import TIMEOUT, Brokers, command, lines, until
from tests.e2e.world import CALLERS, PROBES, World
from tests.peers import Peers

_labels = itertools.count()


def fresh(word: str) -> str:
    return f"{word}-{next(_labels)}"


async def logged(world: World, line: str) -> None:
    await until(lambda: line in lines(world.log), line)


def start(caller: Caller, key: str, label: str, seconds: float, ident: int) -> "asyncio.Task[object]":
    arguments = {"seconds": seconds, "steps": 1, "label": label}
    return asyncio.create_task(caller.call(f"{key}__slow", arguments, ident=ident))


@pytest.mark.parametrize("name", CALLERS)
async def test_a_cancelled_call_is_cancelled_upstream_and_its_twin_is_not(world: World, name: str) -> None:
    async with world.caller(name) as caller:

        async def one(key: str, ident: int) -> None:
            doomed, spared = fresh("doomed"), fresh("spared")
            task, twin = start(caller, key, doomed, 600, ident), start(caller, key, spared, 0.5, ident + 1)
            await logged(world, f"started {doomed}")
            await logged(world, f"started {spared}")
            await caller.cancel(ident, task)
            await logged(world, f"cancelled {doomed}")
            with anyio.fail_after(TIMEOUT):
                await twin
            await logged(world, f"finished {spared}")
            assert f"cancelled {spared}" not in lines(world.log)
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):  # a stream that ends without an answer
                await task

        async with anyio.create_task_group() as tasks:
            for position, key in enumerate(PROBES):
                tasks.start_soon(one, key, 1000 + 10 * position)


async def test_a_cancelled_request_of_a_pipe_gets_no_answer(world: World) -> None:
    async with world.caller("pipe-legacy") as caller:
        label = fresh("silent")
        task = start(caller, "old-pipe", label, 600, 500)
        await logged(world, f"started {label}")
        await caller.cancel(500, task)
        await logged(world, f"cancelled {label}")
        await caller.ask("ping")
        assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_in_a_legacy_session_a_disconnect_is_no_cancellation(world: World) -> None:
    caller = await Web(world.served.url, "legacy").greet()
    label = fresh("left")
    task = start(caller, "old-pipe", label, 0.7, 7)
    await logged(world, f"started {label}")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await logged(world, f"finished {label}")


async def test_the_end_of_an_sse_stream_cancels_what_is_in_flight_on_it(world: World) -> None:
    label = fresh("cut")
    async with old_web(world.served.sse) as caller:
        task = start(caller, "old-sse", label, 600, 7)
        await logged(world, f"started {label}")
    await logged(world, f"cancelled {label}")
    with suppress(ConnectionError, asyncio.CancelledError):
        task.cancel()
        await task


async def test_deleting_a_session_cancels_what_is_in_flight_in_it(world: World) -> None:
    caller, other = await Web(world.served.url, "legacy").greet(), await Web(world.served.url, "legacy").greet()
    doomed, spared = fresh("deleted"), fresh("other")
    task, twin = start(caller, "new-web", doomed, 600, 7), start(other, "new-web", spared, 0.5, 7)
    await logged(world, f"started {doomed}")
    await logged(world, f"started {spared}")
    assert await caller.delete() == 200
    await logged(world, f"cancelled {doomed}")
    with anyio.fail_after(TIMEOUT):
        await twin
        with pytest.raises(ConnectionError, match="without a response"):
            await task


async def test_a_cancellation_of_another_callers_id_does_nothing(world: World) -> None:
    mine, theirs = await Web(world.served.url, "legacy").greet(), await Web(world.served.url, "legacy").greet()
    label = fresh("mine")
    task = start(mine, "old-web", label, 0.7, 42)
    await logged(world, f"started {label}")
    await theirs.tell("notifications/cancelled", {"requestId": 42})
    with anyio.fail_after(TIMEOUT):
        await task
    assert f"cancelled {label}" not in lines(world.log)


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_end_of_a_pipe_cancels_what_is_in_flight_on_it(peers: Peers, brokers: Brokers, era: str) -> None:
    log = peers.directory / "log"
    remote = await peers.astart("probe", "--transport", "http", "--log", log)
    local = command(peers.command("probe", "--era", "legacy", "--log", log))
    config = brokers.configure({"remote": {"url": remote.url}, "local": local})
    async with pipe(brokers.stdio(config), era) as caller:
        await caller.list("tools")
        task = start(caller, "remote", "cut", 600, 77)
        await until(lambda: "started cut" in lines(log), "started")
    await until(lambda: "cancelled cut" in lines(log), "cancelled")
    with suppress(ConnectionError):
        await task
