"""The server that the conformance suite measures: directly, and behind the broker. On the real SDK 2, in both eras.

    python -m tests.conformance.reference --transport stdio|http [--port N] [--port-file FILE]

It passes every server scenario of the suite directly, so whatever is lost behind the broker the broker has lost.
"""

import argparse
import contextlib
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from tests.conformance import catalog
from tests.conformance.asking import ASKING
from tests.conformance.tools import EXTRA_TOOL, TOOLS, Reference, session_of, text

NAME = "conformance-reference"
RETRY: int = 200
"""Milliseconds after which a caller whose stream ended shall come back: short, since the suite waits for it."""

Context = ServerRequestContext
EVERY = [*TOOLS, *ASKING]
BODIES = {tool.name: body for tool, body in EVERY}
SCHEMAS = {tool.name: tool.input_schema for tool, _ in EVERY}


class Events(EventStore):
    """All events of all streams of this process, which lives for one run of the suite. Their ids are their places."""

    def __init__(self) -> None:
        self._events: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if not (last_event_id.isdecimal() and int(last_event_id) < len(self._events)):
            return None
        last = int(last_event_id)
        stream = self._events[last][0]
        for place, (stream_id, message) in enumerate(self._events[last + 1 :], last + 1):
            if stream_id == stream and message is not None:
                await send_callback(EventMessage(message, str(place)))
        return stream


class ReferenceServer(Server[Any]):
    """The SDK's server, which says in the handshake too that its lists change."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        changes = NotificationOptions(prompts_changed=True, tools_changed=True)
        return super().create_initialization_options(changes, experimental_capabilities, extensions)


def build(ref: Reference) -> Server[Any]:
    async def list_tools(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        extra = [EXTRA_TOOL] if ref.has_extra_tool else []
        return types.ListToolsResult(tools=[tool for tool, _ in EVERY] + extra)

    async def call_tool(
        ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        if params.name == EXTRA_TOOL.name and ref.has_extra_tool:
            return text("The extra tool.")
        if params.name not in BODIES:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {params.name}")
        return await BODIES[params.name](ref, ctx, params)

    async def list_prompts(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        extra = [catalog.EXTRA_PROMPT] if ref.has_extra_prompt else []
        return types.ListPromptsResult(prompts=catalog.PROMPTS + extra)

    async def list_resources(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=catalog.RESOURCES)

    async def list_templates(
        ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=catalog.TEMPLATES)

    async def read_resource(ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        return catalog.read(str(params.uri))

    async def subscribe(
        ctx: Context, params: types.SubscribeRequestParams | types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        """No resource here changes, so there is nothing to remember."""
        return types.EmptyResult()

    async def complete(ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        return catalog.complete(params)

    async def set_level(ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        ref.levels[session_of(ctx)] = params.level
        return types.EmptyResult()

    async def remember_sessions(ctx: Context, call_next: CallNext) -> HandlerResult:
        result = await call_next(ctx)
        if ctx.method == "notifications/initialized":
            ref.sessions.append(ctx.session)
        return result

    cached = CacheHint(ttl_ms=1000, scope="public")
    server = ReferenceServer(
        NAME,
        version="1.0.0",
        instructions="The tools of this server are for the conformance suite.",
        cache_hints={"tools/list": cached, "prompts/list": cached, "resources/list": cached, "resources/read": cached},
        get_tool_input_schema=SCHEMAS.get,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=catalog.get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=subscribe,
        on_completion=complete,
        on_set_logging_level=set_level,
        on_subscriptions_listen=ListenHandler(ref.bus),
    )
    server.middleware += [
        remember_sessions,
        RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME),
    ]
    return server


async def serve_http(server: Server[Any], port: int, port_file: Path | None) -> None:
    app = server.streamable_http_app(event_store=Events(), retry_interval=RETRY)
    with socket.create_server(("127.0.0.1", port)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        if port_file is not None:
            # The socket accepts already; the file appears whole.
            partial = port_file.with_suffix(".partial")
            partial.write_text(url, encoding="utf-8")
            partial.replace(port_file)
        print(f"listening on {url}", file=sys.stderr, flush=True)
        # h11: httptools leaves the white space behind a header's value, which belongs to no value (RFC 9110, 5.5).
        config = uvicorn.Config(app, http="h11", log_level="warning", timeout_graceful_shutdown=1, ws="none")
        await uvicorn.Server(config).serve(sockets=[listener])


async def main(options: argparse.Namespace) -> None:
    server = build(Reference())
    if options.transport == "http":
        await serve_http(server, options.port, options.port_file)
    else:
        async with stdio_server() as (reader, writer):
            await server.run(reader, writer, server.create_initialization_options())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", choices=["stdio", "http"], default="stdio")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--port-file", type=Path, help="the URL is written here when the socket listens")
    return parser.parse_args()


if __name__ == "__main__":
    # Legacy callers are served on purpose: log levels, sampling and roots are part of the suite.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    with contextlib.suppress(KeyboardInterrupt):
        anyio.run(main, parse())
