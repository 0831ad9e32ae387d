"""F-20..F-35, F-40, F-41: upstreams whose messages are wrong, too many or too large."""

import json
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.core.caller import LOCAL
from broker.core.era import LATEST_MODERN
from broker.core.progress import BURST, RATE
from broker.core.request import Kind
from broker.relay.notify import Subscriber
from tests.hostile.conftest import BrokerOf, Puppet
from tests.hostile.cost import MIB, memory_below
from tests.hostile.harness import AT_ONCE, HastyClock, Running, raw, rewrite, until

HEAD, TAIL = '{"jsonrpc":"2.0","id":$ID,"result":{"content":[],"x":', "}}\n"
TEXT = '{"jsonrpc":"2.0","id":$ID,"result":{"content":[{"type":"text","text":"%s"}]}}\n'
DIGITS = "7" * 100_000

MALFORMED: dict[str, list[Any]] = {
    "F22 result and error": ['{"jsonrpc":"2.0","id":$ID,"result":{},"error":{"code":1,"message":"no"}}\n'],
    "F22 error is no object": ['{"jsonrpc":"2.0","id":$ID,"error":"no"}\n'],
    "F22 code is a text": ['{"jsonrpc":"2.0","id":$ID,"error":{"code":"1","message":"no"}}\n'],
    "F22 code is a bool": ['{"jsonrpc":"2.0","id":$ID,"error":{"code":true,"message":"no"}}\n'],
    "F22 no message": ['{"jsonrpc":"2.0","id":$ID,"error":{"code":1}}\n'],
    "F22 result is null": ['{"jsonrpc":"2.0","id":$ID,"result":null}\n'],
    "F22 result is a list": ['{"jsonrpc":"2.0","id":$ID,"result":[]}\n'],
    "F22 neither": ['{"jsonrpc":"2.0","id":$ID}\n'],
    "F30 deep": [HEAD, ["repeat", [100_000, "["]], ["repeat", [100_000, "]"]], TAIL],
    "F30 depth beyond the limit": [HEAD, ["repeat", [70, "["]], ["repeat", [70, "]"]], TAIL],
    "F31 a number of 100 000 digits": [HEAD + DIGITS + TAIL],
    "F31 the same behind a point": [HEAD + "0." + DIGITS + TAIL],
    "F31 the same in an exponent": [HEAD + "1e" + DIGITS + TAIL],
    "F32 NaN": [HEAD + "NaN" + TAIL],
    "F32 Infinity": [HEAD + "-Infinity" + TAIL],
    "F32 1e999": [HEAD + "1e999" + TAIL],
    "F33 a lone surrogate": [HEAD + '"\\ud800"' + TAIL],
    "F33 a lone surrogate in a key": [HEAD + '{"\\udfff":1}' + TAIL],
    "F34 a key twice": [HEAD + '{"a":1,"a":2}' + TAIL],
    "F34 a key twice, once escaped": [HEAD + '{"a":1,"\\u0061":2}' + TAIL],
    "F34 two results": ['{"jsonrpc":"2.0","id":$ID,"result":{},"result":{"content":[]}}\n'],
    "F12 invalid UTF-8": [HEAD + '"', ["hex", "fffec328"], '"' + TAIL],
    "truncated": ['{"jsonrpc":"2.0","id":$ID,"result":{"content":[\n'],
    "300 000 values": [HEAD + "[0", ["repeat", [300_000, ",0"]], "]" + TAIL],
}


@pytest.mark.parametrize("case", list(MALFORMED))
async def test_F22_F30_F31_F32_F33_F34_a_malformed_answer_fails_its_call_at_once_and_nothing_else(
    broker_of: BrokerOf, puppet: Puppet, case: str
) -> None:
    async with broker_of({"bad": puppet({"boom": MALFORMED[case]})}) as run:
        await run.ready("good", "bad")
        first = run.pid("bad")
        error = await run.refused("bad__boom")
        assert error["code"] == -32603 and error["data"]["reason"] == "malformed"
        assert "pydantic" not in error["message"] and "777" not in error["message"] and len(error["message"]) < 300
        await run.innocent("bad")
        assert run.pid("bad") == first


HARMLESS: dict[str, list[Any]] = {
    "F20 twice": [TEXT % "first", TEXT % "second"],
    "F21 for unknown ids": [
        '{"jsonrpc":"2.0","id":987654321,"result":{}}\n{"jsonrpc":"2.0","id":"never","result":{}}\n',
        '{"jsonrpc":"2.0","id":null,"result":{}}\n{"jsonrpc":"2.0","id":1.5,"result":{}}\n',
        '{"jsonrpc":"2.0","id":true,"result":{}}\n{"jsonrpc":"2.0","id":[1],"result":{}}\n',
        '{"jsonrpc":"2.0","id":"99999999999999999999","result":{}}\n{"jsonrpc":"2.0","id":"\u0663","result":{}}\n',
        '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}\n',
        TEXT % "first",
    ],
    "F21 the id as a text": [TEXT.replace("$ID", '"$ID"') % "first"],
    "F23 unknown notifications": [
        '{"jsonrpc":"2.0","method":"notifications/nobody/knows","params":[1]}\n',
        '{"jsonrpc":"2.0","method":"","params":7}\n{"jsonrpc":"2.0","method":5}\n{"jsonrpc":"2.0","method":null}\n',
        '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"other","progress":1}}\n',
        '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":[1],"progress":1}}\n',
        '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}\n',
        TEXT % "first",
    ],
    "F10 garbage between": ['[]\n123\n"x"\nnull\n\n\r\nnpm warn\n[{"jsonrpc":"2.0"}]\n{}\n', TEXT % "first"],
}


STRAYS = {
    "F20 twice": {"answer": 1},
    "F21 for unknown ids": {"answer": 9},
    "F21 the id as a text": {},
    "F23 unknown notifications": {"notification": 2},
    "F10 garbage between": {},
}
"""What is counted of each. Methods of extensions go to the one call under way, which may know them."""


@pytest.mark.parametrize("case", list(HARMLESS))
async def test_F20_F21_F23_what_belongs_to_nobody_is_dropped(broker_of: BrokerOf, puppet: Puppet, case: str) -> None:
    async with broker_of({"bad": puppet({"boom": HARMLESS[case]})}) as run:
        await run.ready("good", "bad")
        with anyio.fail_after(AT_ONCE):
            assert await run.text("bad__boom") == "first"
        await run.innocent("bad")
        strays = run.upstream("bad").strays
        assert {what: number for what, number in strays.items() if number} == STRAYS[case]


async def test_F23_progress_for_another_call_never_reaches_this_caller(broker_of: BrokerOf, puppet: Puppet) -> None:
    progress = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":%d}}\n'
    script = [progress % ("424242", 1), progress % ('"mine"', 2), progress % ("$TOKEN", 3), TEXT % "first"]
    heard: list[Any] = []
    async with broker_of({"bad": puppet({"boom": script})}) as run:
        await run.ready("bad")
        params = {"name": "bad__boom", "arguments": {}, "_meta": {"progressToken": "mine"}}
        await run.ask("tools/call", params, lambda method, body: heard.append((method, body)))
        await run.innocent("bad")
    assert heard == [("notifications/progress", {"progressToken": "mine", "progress": 3})]


async def test_F24_questions_are_refused_and_a_storm_of_them_is_dropped(broker_of: BrokerOf) -> None:
    servers = {"few": raw("server-requests", 6), "storm": raw("server-requests", 2000, timeout=2)}
    heard: list[str] = []
    async with broker_of(servers) as run:
        await run.ready("few", "storm")
        params = {"name": "few__boom", "arguments": {}, "_meta": {"progressToken": 1}}
        asked = await run.ask("tools/call", params, lambda method, _: heard.append(method))
        answers = json.loads(asked["result"]["content"][0]["text"])
        assert [answer["error"]["code"] for answer in answers] == [-32601] * 6
        assert (await run.refused("storm__boom"))["data"]["reason"] == "timeout"
        await run.innocent("few", "storm")
    assert heard == [], "no question is routed to a caller that offered nothing"


async def test_F25_a_progress_flood_is_thinned_rises_and_ends_with_the_last(broker_of: BrokerOf) -> None:
    heard: list[Any] = []
    async with broker_of({"bad": raw("progress-flood", 20_000)}) as run:
        await run.innocent("bad")
        params = {"name": "bad__boom", "arguments": {}, "_meta": {"progressToken": "t"}}
        begun = anyio.current_time()
        with memory_below(20 * MIB):
            await run.ask("tools/call", params, lambda _, body: heard.append(body))
        count, took = len(heard), anyio.current_time() - begun
        await run.innocent("bad")
    steps = [body["progress"] for body in heard]
    assert steps == sorted(set(steps)) and steps[:3] == [1, 2, 3] and steps[-1] == 20_000
    assert {body["progressToken"] for body in heard} == {"t"}
    assert count == len(heard) <= BURST + RATE * took + 1  # and the last


async def test_F26_a_storm_of_list_changed_costs_two_refreshes(
    broker_of: BrokerOf, puppet: Puppet, tmp_path: Path
) -> None:
    changed = '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n'
    log = tmp_path / "log"
    bad = puppet({"boom": [["repeat", [20_000, changed]], TEXT % "first"], "log": str(log)})
    async with broker_of({"bad": bad}) as run:
        await run.innocent("bad")
        with memory_below(20 * MIB):
            assert await run.text("bad__boom") == "first"
        await until(lambda: log.read_text(encoding="utf-8").count("tools/list") == 3)
        await run.innocent("bad")
        assert log.read_text(encoding="utf-8").count("tools/list") == 3  # discovery, the first, and one for the rest


def listing(tools: list[Any]) -> list[Any]:
    """The answer to tools/list, as a script."""
    return ['{"jsonrpc":"2.0","id":$ID,"result":' + json.dumps({"tools": tools}) + "}\n"]


def tool(name: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


OK = tool("ok")


def dropped(run: Running) -> dict[str, str]:
    """Own name -> reason, of what `bad` said and the broker does not serve."""
    shelf = run.broker.generation.catalog.shelves["bad"]
    return {item.own: item.reason for item in shelf.dropped}


async def test_F27_ten_thousand_tools_are_capped_and_said(
    broker_of: BrokerOf, puppet: Puppet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    tools = [OK, *(tool(f"t{n}") for n in range(10_000))]
    async with broker_of({"bad": puppet({"tools/list": listing(tools)})}) as run:
        await run.innocent("bad")
        shelf = run.broker.generation.catalog.shelves["bad"]
        assert len(shelf.listing.items[Kind.TOOL]) == 2000
        assert "more than 2000 tools" in str(shelf.dropped)
        assert len(shelf.dropped) < 1000 and len(caplog.records) < 1000
        await run.innocent("bad")


@pytest.mark.parametrize(("fault", "expected"), [("endless-cursor", "50 pages"), ("same-cursor", "in a circle")])
async def test_F28_a_list_without_end_is_an_error_not_a_shorter_list(
    broker_of: BrokerOf, fault: str, expected: str
) -> None:
    async with broker_of({"bad": raw(fault)}) as run:
        assert expected in await run.trouble("bad")
        await run.innocent()
        missing = (await run.ask("tools/list"))["result"]["_meta"]["broker/upstreams"]["bad"]
        assert expected in missing["reason"] and missing["known"] is False


async def test_F28_a_cursor_of_a_megabyte_is_none(broker_of: BrokerOf, puppet: Puppet) -> None:
    page = ['{"jsonrpc":"2.0","id":$ID,"result":{"tools":[],"nextCursor":"' + "c" * MIB + '"}}\n']
    async with broker_of({"bad": puppet({"tools/list": page})}) as run:
        assert "a cursor that is none" in await run.trouble("bad")
        await run.innocent()


async def test_F29_a_malformed_tool_costs_itself(broker_of: BrokerOf) -> None:
    async with broker_of({"bad": raw("one-bad-tool")}) as run:
        await run.innocent("bad")
        assert [name for name in await run.tools() if name.startswith("bad")] == ["bad__ok", "bad__boom"]
        assert len(run.broker.generation.catalog.shelves["bad"].dropped) == 6


def bomb(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


BOMBS: dict[str, Any] = {
    "redos": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}},
    "circle": {"$ref": "#"},
    "network": {"$ref": "http://169.254.169.254/latest/meta-data"},
    "all_of": {
        "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(23)},
        "$ref": "#/$defs/d0",
    },
    "draft": {"$schema": "garbage", "type": 7, "properties": 5, "required": "no"},
    "odd": {"properties": {"a": {"x-mcp-header": "a\r\nb", "type": ["x"]}}, "allOf": {"a": 1}, "items": "x"},
    "deep": bomb(50),
}


async def test_F35_schema_bombs_pass_untouched_and_cost_nothing(broker_of: BrokerOf, puppet: Puppet) -> None:
    tools = [
        OK,
        *(tool(name, outputSchema={"type": "object"}) | {"inputSchema": schema} for name, schema in BOMBS.items()),
    ]
    async with broker_of({"bad": puppet({"tools/list": listing(tools), "redos": [TEXT % "first"]})}) as run:
        await run.innocent("bad")
        listed = {tool["name"]: tool for tool in (await run.ask("tools/list"))["result"]["tools"]}
        assert {name: listed[f"bad__{name}"]["inputSchema"] for name in BOMBS} == BOMBS
        with anyio.fail_after(AT_ONCE):
            assert await run.text("bad__redos", a="a" * 64 + "!") == "first"


async def test_F35_a_definition_over_the_cap_is_dropped_and_the_others_stay(
    broker_of: BrokerOf, puppet: Puppet
) -> None:
    async with broker_of({"bad": puppet({"tools/list": listing([tool("huge", description="x" * MIB), OK])})}) as run:
        await run.innocent("bad")
        assert [name for name in await run.tools() if name.startswith("bad")] == ["bad__ok"]
        assert "larger than" in dropped(run)["huge"]


async def test_F40_names_are_mapped_or_dropped_and_twins_are_said(broker_of: BrokerOf, puppet: Puppet) -> None:
    names = ["a\0b", "a\nb", "\u202eevil", "x" * 10_000, "y" * 200, "ok", "a.b", "a b", "caf\u00e9", "", 7, "bad__ok"]
    tools = [OK, tool("twin", title="first"), tool("twin", title="second"), *map(tool, names)]
    async with broker_of({"bad": puppet({"tools/list": listing(tools), "a.b": [TEXT % "dotted"]})}) as run:
        await run.innocent("bad")
        listed = [name for name in await run.tools() if name.startswith("bad__")]
        assert len(listed) == len(set(listed)) == 8
        assert all(len(name) <= 64 and name.isascii() and name.isprintable() for name in listed)
        assert await run.text("bad__bad__ok") == "bad__ok "
        mapped = [name for name in listed if name.startswith("bad__a_b_")]
        assert sorted([await run.text(name) for name in mapped]) == ["a b ", "dotted"]
        reasons = dropped(run)
        assert "control characters" in reasons["a\0b"] and "control characters" in reasons["a\nb"]
        assert "twin" in reasons["twin"] and "twin" in reasons["ok"]
        assert "longer than" in reasons["x" * 100] and "no name" in reasons["?"]


@pytest.mark.parametrize("ttl", [10**18, -1, True, "5", None, 1.5, 10**60])
async def test_F41_whatever_ttl_it_gives_is_clamped(broker_of: BrokerOf, puppet: Puppet, ttl: Any) -> None:
    result = {"tools": [OK], "ttlMs": ttl, "cacheScope": "public"}
    page = ['{"jsonrpc":"2.0","id":$ID,"result":' + json.dumps(result) + "}\n"]
    async with broker_of({"bad": puppet({"tools/list": page}, tools={"deny": ["secret"]})}) as run:
        await run.innocent("bad")
        listed = (await run.ask("tools/list", version=LATEST_MODERN))["result"]
        assert 0 <= listed["ttlMs"] <= 300_000


async def test_F37_a_restart_with_other_tools_is_announced_once_and_the_old_ones_go(
    broker_of: BrokerOf, puppet: Puppet, tmp_path: Path
) -> None:
    heard: list[str] = []
    bad = puppet({"boom": [["exit", 1]]})
    async with broker_of({"bad": bad}, HastyClock()) as run:
        await run.ready("bad", "good")
        rewrite(bad, {"tools/list": listing([OK, tool("new")])})
        run.broker.engine.hub.add(Subscriber(LOCAL, "", lambda method, params: heard.append(method)))
        await run.refused("bad__boom")
        await until(lambda: heard != [])
        assert [name for name in await run.tools() if name.startswith("bad")] == ["bad__ok", "bad__new"]
        await run.innocent("bad")
    assert heard == ["notifications/tools/list_changed"]
