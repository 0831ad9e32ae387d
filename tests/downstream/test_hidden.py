"""On the wire, with a key: what the caller may not use is what does not exist, in status, headers and body."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.core.conditions import Condition, Op
from broker.core.grants import Rule, key_level
from broker.core.match import Pattern
from broker.core.request import Kind
from tests.downstream.conftest import two_servers
from tests.downstream.desk import Desk, bearer, desk
from tests.downstream.raw_http import LEGACY, Reply, message, modern, modern_headers

INITIALIZE = message("initialize", {"protocolVersion": LEGACY, "capabilities": {}})
ONLY_ONE = key_level("acme", "data", "k1", None, (Rule((Pattern("two"),)),))
IN_EUROPE = Rule(None, {Kind.TOOL: (Pattern("one__*"),)}, (Condition(("region",), Op.EQUALS, "eu"),))
ONLY_EUROPE = key_level("acme", "data", "k1", (IN_EUROPE,))


@dataclass
class Ann:
    """Holder of key 1, who may use server one."""

    place: Desk
    credential: list[tuple[str, str]]

    async def ask(self, method: str, params: Any = None, path: str = "/mcp", *more: tuple[str, str]) -> Reply:
        body = modern(method, params)
        return await self.place.front.client.post(body, [*modern_headers(body), *self.credential, *more], path)

    async def legacy(self, body: Any, path: str = "/mcp", *more: tuple[str, str]) -> Reply:
        return await self.place.front.client.post(body, [*self.credential, *more], path)


@pytest.fixture
async def ann(tmp_path: Path) -> AsyncGenerator[Ann, None]:
    async with desk(tmp_path, two_servers(), groups={"both": ["one", "two"], "rest": ["two"]}) as place:
        credential = bearer(place.key(1))
        place.change(1, level=ONLY_ONE)
        yield Ann(place, credential)
        assert calls(place, "two") == 0


def calls(place: Desk, server: str) -> int:
    return sum(one.method == "tools/call" for one in place.front.house.fakes[server].asked)


def plain(reply: Reply, name: str) -> tuple[int, Any, bytes]:
    return reply.status, reply.header("content-type"), reply.body.replace(name.encode(), b"NAME")


async def test_I16_a_view_that_shows_a_key_nothing_is_a_path_that_does_not_exist(ann: Ann) -> None:
    for view, status in (("one", 200), ("both", 200), ("two", 404), ("rest", 404), ("nobody", 404)):
        assert (await ann.ask("tools/list", None, f"/mcp/{view}")).status == status, view
        assert (await ann.legacy(INITIALIZE, f"/mcp/{view}")).status == status, view
    hidden, unknown = [await ann.ask("tools/list", None, f"/mcp/{view}") for view in ("two", "nobody")]
    assert plain(hidden, "two") == plain(unknown, "nobody")


async def test_I15_a_hidden_tool_is_unknown_on_the_wire_of_both_eras_whatever_its_headers_say(ann: Ann) -> None:
    session = await ann.legacy(INITIALIZE)
    opened = [("Mcp-Session-Id", session.header("mcp-session-id") or ""), ("MCP-Protocol-Version", LEGACY)]
    replies: dict[str, list[tuple[int, Any, bytes]]] = {}
    for name in ("two__query", "no__query"):
        params = {"name": name, "arguments": {"region": "eu"}}
        answers = [
            await ann.ask("tools/call", params),
            await ann.ask("tools/call", params, "/mcp", ("Mcp-Param-Region", "us")),
            await ann.legacy(message("tools/call", params), "/mcp", *opened),
        ]
        assert all(b"Unknown tool" in one.body for one in answers)
        replies[name] = [plain(one, name) for one in answers]
    assert replies["two__query"] == replies["no__query"]


async def test_a_refused_call_is_a_result_over_http_and_nobody_is_asked(ann: Ann) -> None:
    ann.place.change(1, level=ONLY_EUROPE)
    reply = await ann.ask("tools/call", {"name": "one__echo", "arguments": {"region": "us"}})
    assert reply.status == 200 and b'"isError":true' in reply.body
    assert b"'region'" in reply.body and b"key:acme/data/k1/allow/0" in reply.body
    assert calls(ann.place, "one") == 0
    reply = await ann.ask("tools/call", {"name": "one__echo", "arguments": {"region": "eu"}})
    assert reply.status == 200 and b"isError" not in reply.body and calls(ann.place, "one") == 1
