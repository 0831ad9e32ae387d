"""Hidden sounds like unknown on what is not a call: subscriptions, listen streams, tasks, completion, extensions; on
every front, byte for byte. Nobody is asked: no upstream, and no store, which nothing on this way could reach at all.
"""

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from broker.core.era import TASKS
from broker.core.grants import Rule, key_level
from broker.core.match import Pattern
from broker.core.request import Kind
from tests.downstream.desk import Desk, bearer, desk
from tests.downstream.raw_http import ENVELOPE, LEGACY, META, Connection, message, modern, modern_headers
from tests.relay.fake import Fake, Json, tool

URI = "KEY+file:///readme"
EXTENSIONS: Json = {"extensions": {"a/x": {}, TASKS: {}}}
CAPABILITIES: Json = {
    "resources": {"subscribe": True, "listChanged": True},
    "completions": {},
    "extensions": {"a/x": {}, TASKS: {}},
    "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}},
}
PROMPT: Json = {"ref": {"type": "ref/prompt", "name": "KEY__greet"}, "argument": {"name": "a", "value": ""}}
TEMPLATE: Json = {"ref": {"type": "ref/resource", "uri": "KEY+x://{id}"}, "argument": {"name": "a", "value": ""}}
BOTH: list[tuple[str, Json]] = [
    ("completion/complete", PROMPT),
    ("completion/complete", TEMPLATE),
    ("completion/complete", {**TEMPLATE, "ref": {"type": "ref/resource", "uri": URI}}),
    ("tasks/get", {"taskId": "KEY.t"}),
    ("tasks/cancel", {"taskId": "KEY.t"}),
    ("x/do", {"name": "KEY__echo"}),
    ("x/do", {"uri": URI}),
    ("x/do", {"ref": {"name": "KEY__greet"}}),
    ("x/do", {"taskId": "KEY.t"}),
    ("resources/read", {"uri": URI}),
]
OLD: list[tuple[str, Json]] = [
    ("resources/subscribe", {"uri": URI}),
    ("resources/unsubscribe", {"uri": URI}),
    ("tasks/result", {"taskId": "KEY.t"}),
    ("tools/call", {"name": "KEY__echo", "arguments": {"region": "eu"}, "task": {"ttl": 1}}),
]
NEW: list[tuple[str, Json]] = [
    ("tasks/update", {"taskId": "KEY.t", "inputResponses": {}}),
    ("subscriptions/listen", {"notifications": {"resourceSubscriptions": [URI]}}),
    ("subscriptions/listen", {"notifications": {"taskIds": ["KEY.t"], "toolsListChanged": True}}),
]
HIDING = key_level(
    "acme",
    "data",
    "k1",
    (Rule(None, {Kind.TOOL: (Pattern("one__echo"),), Kind.RESOURCE: (Pattern("one+file:///readme"),)}),),
)
"""The key sees one tool and one resource of server one: nothing of two, and not all of one."""


def served() -> Fake:
    return Fake(
        tools=[tool("echo"), tool("secret")],
        prompts=[{"name": "greet"}],
        resources=[{"uri": "file:///readme", "name": "readme"}],
        templates=[{"uriTemplate": "x://{id}", "name": "t"}],
        capabilities=dict(CAPABILITIES),
    )


def filled(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: filled(key, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(key, inner) for inner in value]
    return value.replace("KEY", key) if isinstance(value, str) else value


Ask = Callable[[str, Json], Awaitable[bytes]]


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Desk, None]:
    async with desk(tmp_path, {"one": served(), "two": served()}) as found:
        found.key(1)
        found.change(1, level=HIDING)
        for fake in found.front.house.fakes.values():
            fake.asked.clear()
        monkeypatch.setattr(sqlite3, "connect", no_store)
        yield found
        assert [fake.asked for fake in found.front.house.fakes.values()] == [[], []]


def no_store(*args: Any, **more: Any) -> NoReturn:
    raise AssertionError("a store was opened")


async def check(asks: list[tuple[str, Json]], ask: Ask) -> None:
    """Each of `asks` about what is hidden and about what nobody has."""
    for method, params in asks:
        said = {(await ask(method, filled(key, params))).replace(key.encode(), b"KEY") for key in ("two", "nil")}
        assert len(said) == 1, (method, params, said)
        (one,) = said
        assert b'"error"' in one or b"acknowledged" in one, (method, one)


def envelope(capabilities: Json) -> Json:
    return {**ENVELOPE, f"{META}clientCapabilities": capabilities}


async def test_of_the_modern_era_over_http(place: Desk) -> None:
    async def ask(method: str, params: Json) -> bytes:
        body = modern(method, params)
        body["params"]["_meta"] = envelope(EXTENSIONS)
        headers = [*modern_headers(body), *bearer(place.key(1))]
        async with place.front.client.connection() as connection:
            await connection.send(place.front.client.request("POST", "/mcp", body, headers))
            head = await connection.head()
            if head.header("content-type") == "text/event-stream":
                told = await connection.chunk()
            else:
                told = await connection.reader.readexactly(int(head.header("content-length") or 0))
            length = head.header("content-length") or ""
            return f"{head.status} {head.header('content-type')} {length}".encode() + told

    await check([*BOTH, *NEW], ask)


async def test_of_the_legacy_era_over_http(place: Desk) -> None:
    opening = message("initialize", {"protocolVersion": LEGACY, "capabilities": EXTENSIONS})
    client, key = place.front.client, bearer(place.key(1))
    session = (await client.post(opening, key)).header("mcp-session-id") or ""
    opened = [("Mcp-Session-Id", session), ("MCP-Protocol-Version", LEGACY), *key]

    async def ask(method: str, params: Json) -> bytes:
        reply = await client.post(message(method, params), opened)
        return f"{reply.status} {reply.header('content-type')} {reply.header('content-length')}".encode() + reply.body

    await check([*BOTH, *OLD], ask)


async def test_over_the_old_transport(place: Desk) -> None:
    client, key = place.front.client, bearer(place.key(1))
    async with client.connection() as stream:
        await stream.send(client.request("GET", "/sse", None, key))
        assert (await stream.head()).status == 200
        [(_, endpoint)] = await stream.events()

        async def ask(method: str, params: Json) -> bytes:
            posted = await client.post(message(method, params), key, endpoint)
            assert posted.status == 202
            return await next_event(stream)

        opening = {"protocolVersion": LEGACY, "capabilities": EXTENSIONS}
        assert b'"result"' in await ask("initialize", opening)
        await check([*BOTH, *OLD], ask)


async def next_event(stream: Connection) -> bytes:
    while True:
        chunk = await stream.chunk()
        if chunk.startswith(b"event: message"):
            return chunk
