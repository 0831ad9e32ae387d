"""F-35, F-36: what servers answer, and the schemas that they say it fits, where somebody counts."""

import json
import logging
import sys
from typing import Any

import pytest

from broker.core.era import LATEST_LEGACY, LATEST_MODERN
from broker.guardrails import process as processes
from broker.outputs import checks
from broker.outputs.checks import Sampled
from tests.hostile.conftest import BrokerOf, Puppet
from tests.hostile.cost import MIB
from tests.hostile.harness import BOUND, Running, command, until
from tests.hostile.test_messages import BOMBS, OK, listing, tool
from tests.peers import ROOT, Peers

PROGRAM = str(ROOT / "tests/hostile/upstream.py")
EVIL = "a" * 64 + "!"


@pytest.fixture(autouse=True)
def one_is_looked_at_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, name in ((checks, "TIMEOUT"), (processes, "COMPILE_TIMEOUT"), (processes, "START_TIMEOUT")):
        monkeypatch.setattr(place, name, BOUND)  # everybody else goes first, and the machine may be loaded
    monkeypatch.setattr(checks, "SPACING", 0.0)
    monkeypatch.setattr(checks, "SPACING_OF_ALL", 0.0)
    monkeypatch.setattr(checks, "PATIENCE", 0.0)


async def looked(run: Running, key: str = "bad") -> dict[str, int]:
    """What is counted of a server, once nothing is looked at any more."""
    looking = run.broker.checks
    assert isinstance(looking, Sampled)
    await until(lambda: not looking._is_busy)
    return dict(run.upstream(key).outputs.counts)


async def server(peers: Peers, transport: str, era: str) -> dict[str, Any]:
    if transport == "stdio":
        return command([sys.executable, "-S", PROGRAM, "--transport", "stdio", "--fault", "misfit"])
    more = ["--era", era] if transport == "http" else []
    peer = await peers.astart("../hostile/upstream", "--transport", transport, "--fault", "misfit", *more)
    return {"url": peer.url, **({"transport": "sse"} if transport == "sse" else {})}


@pytest.mark.parametrize("version", [LATEST_LEGACY, LATEST_MODERN])
@pytest.mark.parametrize(
    ("transport", "era"), [("stdio", "legacy"), ("sse", "legacy"), ("http", "legacy"), ("http", "modern")]
)
async def test_F36_a_mismatch_is_counted_and_passes_as_it_came(
    broker_of: BrokerOf, peers: Peers, transport: str, era: str, version: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with broker_of({"bad": await server(peers, transport, era)}, metrics="public") as run:
        await run.ready("bad")
        found: list[Any] = []
        for _ in range(4):
            answer = await run.ask("tools/call", {"name": "bad__boom", "arguments": {}}, version=version)
            found.append(answer["result"]["structuredContent"])
            await looked(run)
        assert found == [{"n": "one", "more": []}, {"n": 1, "more": []}] * 2
        assert await looked(run) == {"mismatched": 2, "matched": 2}
        await run.innocent("bad")
        assert await looked(run) == {"mismatched": 2, "matched": 2}
        assert await looked(run, "good") == {}
        gauges = {gauge.labels["result"]: gauge.value for gauge in run.broker.gauges() if is_of(gauge, "bad")}
        assert gauges == {"matched": 2, "mismatched": 2, "bad_schema": 0, "unchecked": 0}
    said = [record.getMessage() for record in caplog.records if "outputSchema" in record.getMessage()]
    assert said == ["bad: tool boom: what it answered does not fit its outputSchema, at properties/n/type"]


def is_of(gauge: Any, key: str) -> bool:
    return gauge.name == "upstream_output_checks" and gauge.labels["upstream"] == key


async def test_F36_where_nobody_looks_at_metrics_nothing_is_looked_at(broker_of: BrokerOf, peers: Peers) -> None:
    async with broker_of({"bad": await server(peers, "stdio", "legacy")}) as run:
        await run.ready("bad")
        assert (await run.call("bad__boom"))["structuredContent"]["n"] == "one"
        assert run.upstream("bad").outputs.counts == {} and not isinstance(run.broker.checks, Sampled)


def answered(result: dict[str, Any]) -> list[Any]:
    message = json.dumps({"jsonrpc": "2.0", "id": 0, "result": {"content": [], **result}})
    return [message.replace('"id": 0', '"id": $ID') + "\n"]


SLOW = {
    "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}},
    "$ref": "#/$defs/d0",
}
EXPECTED = dict.fromkeys(BOMBS, "bad_schema") | {"redos": "mismatched", "deep": "mismatched", "all_of": "bad_schema"}


@pytest.mark.parametrize("name", BOMBS)
async def test_F35_a_schema_bomb_of_an_output_costs_nobody_anything(
    broker_of: BrokerOf, puppet: Puppet, name: str
) -> None:
    tools = [OK, tool("boom", outputSchema=BOMBS[name])]
    script = {"tools/list": listing(tools), "boom": answered({"structuredContent": {"a": EVIL}})}
    async with broker_of({"bad": puppet(script)}, metrics="public") as run:
        await run.ready("bad")
        assert (await run.call("bad__boom"))["structuredContent"] == {"a": EVIL}
        await run.innocent("bad")
        assert await looked(run) == {EXPECTED[name]: 1}


async def test_F35_a_schema_that_takes_for_ever_is_given_up_and_others_are_looked_at(
    broker_of: BrokerOf, puppet: Puppet, peers: Peers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checks, "TIMEOUT", 1.0)
    tools = [OK, tool("boom", outputSchema=SLOW)]
    script = {"tools/list": listing(tools), "boom": answered({"structuredContent": {"a": 1}})}
    servers = {"bad": puppet(script), "other": await server(peers, "stdio", "legacy")}
    async with broker_of(servers, metrics="public") as run:
        await run.ready("bad", "other")
        await run.call("bad__boom")
        await run.innocent("bad")
        assert await looked(run) == {"unchecked": 1}
        for _ in range(3):
            await run.call("bad__boom")
        await run.call("other__boom")
        assert await looked(run) == {"unchecked": 4}
        assert await looked(run, "other") == {"mismatched": 1}
    assert sum("are not compared with its outputSchema" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.costs("15 MiB are read in one go, in about 40 ms", callback=0.1, memory=160 * MIB)
async def test_F36_a_content_of_many_megabytes_is_not_looked_at(broker_of: BrokerOf, puppet: Puppet) -> None:
    head = '{"jsonrpc":"2.0","id":$ID,"result":{"content":[],"structuredContent":{"n":"'
    script = {"tools/list": listing([OK, tool("boom", outputSchema={"type": "object"})])}
    script["boom"] = [head, ["repeat", [15 * 16, "x" * 65_536]], '"}}}\n']
    async with broker_of({"bad": puppet(script)}, metrics="public") as run:
        await run.ready("bad")
        assert len((await run.call("bad__boom"))["structuredContent"]["n"]) == 15 * MIB
        assert await looked(run) == {"unchecked": 1}
        await run.innocent("bad")


@pytest.mark.parametrize(
    ("result", "counted"),
    [
        ({}, {"mismatched": 1}),
        ({"structuredContent": None}, {"mismatched": 1}),
        ({"isError": True}, {}),
        ({"isError": True, "structuredContent": {"why": 1}}, {}),
    ],
)
async def test_F36_a_result_without_content_is_a_mismatch_and_an_error_is_none(
    broker_of: BrokerOf, puppet: Puppet, result: dict[str, Any], counted: dict[str, int]
) -> None:
    script = {"tools/list": listing([OK, tool("boom", outputSchema={"type": "object"})]), "boom": answered(result)}
    async with broker_of({"bad": puppet(script)}, metrics="public") as run:
        await run.ready("bad")
        assert await run.call("bad__boom") == {"content": [], **result}
        assert await looked(run) == counted


@pytest.mark.parametrize("isolation", ["caller", "session"])
async def test_F36_links_of_single_callers_are_counted_too(broker_of: BrokerOf, peers: Peers, isolation: str) -> None:
    bad = await server(peers, "stdio", "legacy")
    async with broker_of({"bad": bad | {"isolation": isolation}}, metrics="public") as run:
        await run.ready("bad")
        await run.call("bad__boom")
        assert await looked(run) == {"mismatched": 1}


async def test_F36_the_log_says_nothing_of_a_content(
    broker_of: BrokerOf, puppet: Puppet, caplog: pytest.LogCaptureFixture
) -> None:
    schema = {"additionalProperties": {"const": 1}, "propertyNames": {"pattern": "^a"}}
    script = {"tools/list": listing([OK, tool("boom", outputSchema=schema)])}
    script["boom"] = answered({"structuredContent": {"s3cret": {"s3cret": "s3cret"}}})
    with caplog.at_level(logging.DEBUG):
        async with broker_of({"bad": puppet(script)}, metrics="public") as run:
            await run.ready("bad")
            await run.call("bad__boom")
            assert await looked(run) == {"mismatched": 1}
    assert "does not fit" in caplog.text and "s3cret" not in caplog.text
