"""The broker as the suite's client: `python -m tests.conformance.client URL`, which is what the suite runs.

The broker runs in this process, with the suite's server as its upstream; an SDK client is its caller, of the era that
the scenario is about, and does what any host would: it lists everything, and uses all of it.
"""

import contextlib
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp import Client, MCPDeprecationWarning
from mcp.client.session import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import FileUrl

from broker.app import Broker
from broker.config import load
from broker.downstream.door import Door
from broker.downstream.guard import Guard
from broker.downstream.server import bind, serve_http
from broker.identity.identity import Identity
from broker.identity.resource import Resource
from tests.conformance.world import configuration

TIMEOUT: float = 25
"""Seconds for everything; the suite gives 30, and an error of ours says more than its end."""

UNFILTERED = frozenset(["http-invalid-tool-headers"])
"""Scenarios in which the caller is a legacy one: a modern SDK client drops bad tools itself, and would hide whether the
broker has served them."""

SAMPLES: dict[str, Any] = {"string": "text", "number": 1.5, "integer": 2, "boolean": True, "array": [], "object": {}}


@asynccontextmanager
async def brokered(url: str) -> AsyncGenerator[str]:
    """A broker in this process with `url` as its only upstream; gives the broker's own URL."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "broker.yaml"
        file.write_text(configuration({"url": url}, Path(directory) / "state"), encoding="utf-8")
        broker = Broker(load(file, os.environ))
        listener = bind("127.0.0.1", 0)
        async with broker.running(), anyio.create_task_group() as tasks:
            ready = anyio.Event()

            async def front() -> None:
                door = Door(Guard(), Identity(broker.clock, (), is_private=True), Resource())
                await serve_http(broker.engine, door, listener, ready.set)

            tasks.start_soon(front)
            await ready.wait()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            broker.engine.closing.set()


# --- the caller ----------------------------------------------------------------------------------------------------


async def elicited(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    """Accept, with the defaults of all fields; fields without one get something of their type."""
    schema = getattr(params, "requested_schema", None) or {}
    return types.ElicitResult(action="accept", content=fill(schema))


async def sampled(context: ClientRequestContext, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="A word."), model="none")


async def rooted(context: ClientRequestContext) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///work"), name="work")])


def fill(schema: dict[str, Any]) -> dict[str, Any]:
    """A value for each property."""
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    return {name: each.get("default", SAMPLES.get(str(each.get("type")), "text")) for name, each in properties.items()}


async def attempt(what: str, action: Callable[[], Awaitable[object]]) -> None:
    """The scenarios' servers do not have everything: what they refuse is no failure of the caller."""
    try:
        print(what, await action(), file=sys.stderr)
    except MCPError as error:
        print(what, "was refused:", error, file=sys.stderr)


async def use_everything(client: Client) -> None:
    tools = (await client.list_tools()).tools
    for tool in tools:
        arguments = fill(tool.input_schema)
        await attempt(tool.name, lambda name=tool.name, given=arguments: client.call_tool(name, given))
    capabilities = client.server_capabilities
    if capabilities.resources is not None:
        for resource in (await client.list_resources()).resources:
            await attempt(resource.uri, lambda uri=resource.uri: client.read_resource(uri))
    if capabilities.prompts is not None:
        for prompt in (await client.list_prompts()).prompts:
            given = {argument.name: "text" for argument in prompt.arguments or []}
            await attempt(prompt.name, lambda name=prompt.name, given=given: client.get_prompt(name, given))


async def call_as_told(client: Client) -> None:
    """The scenario says which calls it wants."""
    await client.list_tools()
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        await attempt(call["name"], lambda call=call: client.call_tool(call["name"], call["arguments"]))


async def echo_schema(client: Client) -> None:
    """Hand back the schema as it was listed."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    await client.call_tool("json_schema_echo", {"schema": tools["json_schema_2020_12_tool"].input_schema})


async def interleave(client: Client) -> None:
    """All tools at once: answers to one call must not get into another."""
    async with anyio.create_task_group() as tasks:
        for tool in (await client.list_tools()).tools:
            tasks.start_soon(attempt, tool.name, lambda name=tool.name: client.call_tool(name, {}))


SCRIPTS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "http-custom-headers": call_as_told,
    "json-schema-2020-12-preservation": echo_schema,
    "sep-2322-client-request-state": interleave,
}


async def main(url: str) -> None:
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    version = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "")
    mode = "auto" if version in MODERN_PROTOCOL_VERSIONS and scenario not in UNFILTERED else "legacy"
    with anyio.fail_after(TIMEOUT):
        async with brokered(url) as front:
            client = Client(
                front,
                mode=mode,
                elicitation_callback=elicited,
                sampling_callback=sampled,
                list_roots_callback=rooted,
            )
            async with client:
                await SCRIPTS.get(scenario, use_everything)(client)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    with contextlib.suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])
