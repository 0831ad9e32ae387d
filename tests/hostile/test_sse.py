"""SP-05, F-03, F-10, F-13, F-52: upstreams on the old HTTP+SSE, by the one name of all hostile upstreams."""

import sys

import pytest

from tests.hostile.conftest import BrokerOf
from tests.hostile.cost import MIB, memory_below
from tests.hostile.harness import command
from tests.hostile.upstream import FAULTS
from tests.peers import ROOT, Peers

PROGRAM = str(ROOT / "tests/hostile/upstream.py")
SAID = {
    "no-endpoint": "did not connect within 1 s",
    "foreign-endpoint": "another origin",
    "closes-at-once": "",
    "never-answers": "within 1 s",
    "garbage": "within 1 s",
    "endless-event": "more than",
    "blank-flood": "within 1 s",
    "empty-flood": "within 1 s",
}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS["sse"] if fault != "misfit"])
async def test_F03_F10_F13_F57_a_hostile_event_stream_costs_itself_and_says_why(
    broker_of: BrokerOf, peers: Peers, fault: str
) -> None:
    peer = await peers.astart("../hostile/upstream", "--transport", "sse", "--fault", fault)
    with memory_below(60 * MIB):
        async with broker_of({"bad": {"url": peer.url, "transport": "sse", "connect_timeout": 1}}) as run:
            trouble = await run.trouble("bad")
            assert trouble and SAID[fault] in trouble
            await run.innocent()
            await run.refused("bad__ok")


@pytest.mark.parametrize("fault", ["none", "dup-response", "garbage"])
async def test_every_hostile_upstream_has_one_name_on_stdio(broker_of: BrokerOf, fault: str) -> None:
    bad = command([sys.executable, "-S", PROGRAM, "--transport", "stdio", "--fault", fault])
    async with broker_of({"bad": bad}) as run:
        await run.innocent("bad")
        await run.call("bad__boom")


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_every_hostile_upstream_has_one_name_over_http(broker_of: BrokerOf, peers: Peers, era: str) -> None:
    peer = await peers.astart("../hostile/upstream", "--transport", "http", "--fault", "html-error", "--era", era)
    async with broker_of({"bad": {"url": peer.url}}) as run:
        await run.innocent("bad")
        assert "502" in (await run.refused("bad__boom"))["message"]
