"""Callers that flood a server which has few places: they pay for it themselves, and leave nothing behind."""

import json
import tracemalloc
from typing import Any

import anyio
import anyio.lowlevel

from broker.core.caller import Caller
from broker.core.era import LATEST_MODERN
from broker.downstream.engine import Who, ignore_emit
from broker.downstream.message import Incoming
from broker.upstream.httpwire import MAX_CONNECTIONS
from tests.hostile.conftest import BrokerOf
from tests.hostile.cost import MIB
from tests.hostile.harness import Running, raw, until
from tests.hostile.web import web
from tests.relay.fake import GUESTS
from tests.servers.rawhttp import Out, Request

FLOOD = 2000
QUEUE = 50


def narrow() -> dict[str, object]:
    return raw("none", limits={"concurrency": 1, "queue": QUEUE, "wait": 30})


class Guest:
    """A caller that counts what it was answered."""

    def __init__(self, run: Running, name: str) -> None:
        run.broker.generation.adopt(GUESTS)
        self.run, self.who = run, Who(Caller(f"key:{name}", "guests"), LATEST_MODERN)
        self.served, self.refused = 0, 0

    async def call(self) -> None:
        incoming = Incoming(1, "tools/call", {"name": "few__ok", "arguments": {"text": "x"}})
        answer = await self.run.broker.engine.answer(incoming, self.who, ignore_emit)
        result = json.loads(answer.body)["result"]
        if result.get("isError"):
            assert result["content"][0]["text"] == "server few has reached its limit of 1 at a time: try again in 1 s"
            self.refused += 1
        else:
            self.served += 1


async def test_who_floods_the_queue_waits_behind_itself_and_nobody_else_does(broker_of: BrokerOf) -> None:
    async with broker_of({"few": narrow()}) as run:
        await run.ready("few")
        mallory, ada = Guest(run, "mallory"), Guest(run, "ada")
        tracemalloc.start()
        async with anyio.create_task_group() as tasks:
            for _ in range(FLOOD):
                tasks.start_soon(mallory.call)
                await anyio.lowlevel.checkpoint()
            while mallory.refused + mallory.served < FLOOD - QUEUE - 1:
                await anyio.lowlevel.checkpoint()
            for _ in range(3):
                before = mallory.served
                await ada.call()
                assert mallory.served - before <= 2, "one that ran, and one whose turn it was"
            _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # Whoever made room for ada was one of those that waited.
        assert (ada.served, ada.refused) == (3, 0) and mallory.served >= QUEUE - 3
        assert mallory.served + mallory.refused == FLOOD
        assert most < 20 * MIB
        await run.innocent("few")
        assert all(one.value == 0 for one in run.broker.quotas.counters.gauges())


async def test_F73_a_storm_of_calls_that_give_up_in_the_queue_leaves_nothing_and_sends_nothing(
    broker_of: BrokerOf,
) -> None:
    async with broker_of({"few": narrow()}) as run:
        await run.ready("few")
        mallory, ada = Guest(run, "mallory"), Guest(run, "ada")
        for _ in range(20):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(mallory.call)
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        await ada.call()
        assert ada.served == 1
        assert run.pending("few") == 0
        assert all(one.value == 0 for one in run.broker.quotas.counters.gauges())


async def test_F64_a_server_that_answers_nobody_holds_its_own_connections_only(broker_of: BrokerOf) -> None:
    async def hang(out: Out, request: Request, ident: Any) -> None:
        await anyio.sleep_forever()

    async with (
        web("modern", boom=hang) as bad,
        web("modern") as other,
        broker_of({"bad": {"url": bad.url}, "other": {"url": other.url}}) as run,
    ):
        await run.innocent("bad", "other")
        async with anyio.create_task_group() as tasks:
            for _ in range(2 * MAX_CONNECTIONS):
                tasks.start_soon(run.message, "bad__boom")
            await until(lambda: bad.open >= MAX_CONNECTIONS)
            await run.innocent("other")
            assert bad.open == MAX_CONNECTIONS
            tasks.cancel_scope.cancel()
        await run.innocent("bad")
