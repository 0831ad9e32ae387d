"""`add_tool` of a probe: whoever sees something of that server is told, by its own means, and nobody else."""

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import pytest

from tests.callers.caller import Caller
from tests.callers.pipe import pipe
from tests.callers.web import Web, old_web
from tests.e2e.brokers import TIMEOUT, Brokers, command
from tests.peers import Peers
from tests.servers import probe

CHANGED = "notifications/tools/list_changed"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
UPSTREAMS = ["modern-stdio", "legacy-stdio", "modern-http", "legacy-http", "legacy-sse"]


async def server(peers: Peers, upstream: str) -> dict[str, Any]:
    era, transport = upstream.split("-")
    options = ["--transport", transport, "--era", era]
    if transport == "stdio":
        return command(peers.command("probe", *options))
    peer = await peers.astart("probe", *options)
    return {"url": peer.url, **({"transport": "sse"} if transport == "sse" else {})}


async def listen(stack: AsyncExitStack, caller: Caller, **flags: bool) -> Caller:
    """A `subscriptions/listen` that lasts as long as the stack."""
    asked = flags or {"toolsListChanged": True}
    task = asyncio.create_task(caller.exchange("subscriptions/listen", {"notifications": asked}))

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
    await caller.heard(ACKNOWLEDGED)
    return caller


@pytest.mark.parametrize("upstream", UPSTREAMS)
async def test_a_new_tool_is_announced_to_all_who_see_its_server_and_can_be_called(
    peers: Peers, brokers: Brokers, upstream: str
) -> None:
    servers = {"one": await server(peers, upstream), "two": command(peers.command("raw"))}
    served = await brokers.aserve(brokers.configure(servers))
    async with AsyncExitStack() as stack:
        told: list[Caller] = []
        for url in (served.url, served.view("one")):
            legacy = await Web(url, "legacy").greet()
            await stack.enter_async_context(legacy.listening())
            told += [legacy, await listen(stack, await Web(url, "modern").greet())]
        told.append(await stack.enter_async_context(old_web(served.sse)))
        elsewhere = await Web(served.view("two"), "legacy").greet()
        await stack.enter_async_context(elsewhere.listening())
        untold: list[Caller] = [
            elsewhere,
            await listen(stack, await Web(served.view("two"), "modern").greet()),
            await listen(stack, await Web(served.url, "modern").greet(), promptsListChanged=True),
        ]
        before = [tool["name"] for tool in await told[0].list("tools")]
        assert "one__added_1" not in before

        await told[0].call("one__add_tool")

        for caller in told:
            await caller.heard(CHANGED)
        for caller in told:
            if caller.url.endswith("/mcp") if isinstance(caller, Web) else True:
                assert [tool["name"] for tool in await caller.list("tools")] != before
        assert (await told[0].call("one__added_1"))["content"][0]["text"] == f"probe:{len(probe.TOOLS) + 1} tools"
        modern = next(caller for caller in told if caller.is_modern)
        note = next(notice for notice in modern.notices if notice["method"] == CHANGED)
        assert "io.modelcontextprotocol/subscriptionId" in note["params"]["_meta"]
        # Something they would have been told after it has reached them.
        await elsewhere.ask("ping")
        assert [caller.count(CHANGED) for caller in untold] == [0, 0, 0]


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("upstream", ["modern-stdio", "legacy-stdio"])
async def test_a_new_tool_is_announced_on_the_pipe(peers: Peers, brokers: Brokers, upstream: str, era: str) -> None:
    config = brokers.configure({"one": await server(peers, upstream)})
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(pipe(brokers.stdio(config), era))
        if era == "modern":
            await listen(stack, caller)
        await caller.list("tools")
        await caller.call("one__add_tool")
        await caller.heard(CHANGED)
        assert "one__added_1" in [tool["name"] for tool in await caller.list("tools")]


async def test_a_listen_stream_ends_with_its_result_when_the_broker_goes_down(peers: Peers, brokers: Brokers) -> None:
    served = await brokers.aserve(brokers.configure({"one": command(peers.command("raw"))}))
    caller = await Web(served.url, "modern").greet()
    task = asyncio.create_task(caller.ask("subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
    await caller.heard(ACKNOWLEDGED)
    served.process.terminate()
    with anyio.fail_after(TIMEOUT):
        assert (await task)["resultType"] == "complete"
