"""A configurable upstream on the real SDK 2: `python probe.py --transport stdio|http|sse --era auto|legacy|modern ...`.

It is built on the low-level `Server`, so the definitions below are what goes over the wire. Eras are restricted with
the SDK's own loops: `legacy` runs the handshake loop (over HTTP the unknown version header is dropped, as a server that
is older than it would ignore it), `modern` runs the modern loop and nothing else.

Every result carries a canary, so that a test can tell whose answer it got: text begins with `<name>:`, and `_meta` has
`probe/name`. `structuredContent` has no canary: it obeys the tool's output schema.
"""

import argparse
import base64
import contextlib
import dataclasses
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import anyio
import mcp_types as types
import uvicorn
from mcp.server import runner
from mcp.server._streamable_http_modern import handle_modern_request
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.session import ServerSession
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

Context = ServerRequestContext[Any]
Schema = dict[str, Any]
Body = Callable[["Probe", Context, dict[str, Any]], Awaitable[types.CallToolResult]]

LONG_NAME = "a_tool_whose_name_is_exactly_seventy_one_characters_long_" + "x" * 14
DOTTED_NAME = "admin.tools.list-all"
README_URI = "probe://static/readme"
BLOB_URI = "probe://static/blob"
OPAQUE_URI = "mailto:a@b.c"
ASK_URI = "probe://static/ask"
"""Not listed: a read of it asks."""
WIDGET_URI = "ui://widget/main.html"
TEMPLATE = "probe://docs/{id}"
BLOB = bytes(range(256))
INSTRUCTIONS = (
    "This is {name}. Use `echo` to hear yourself, `add` for sums and `admin.tools.list-all` for the list.\n\n"
    "Long work goes through `slow`; the prompt `greet` is a polite beginning."
)
"""The default instructions. They name tools in backticks, so that a relay's rewriting can be seen."""

UNKNOWN_FIELD = "probeUnknownField"
"""A field that no version of the protocol knows. The SDK's own sieve would drop it, so a middleware adds it last."""

WITH_REFS: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"target": {"$ref": "#/$defs/target"}, "pair": {"$ref": "#/$defs/pair"}},
    "required": ["target"],
    "additionalProperties": False,
    "$defs": {
        "target": {"anyOf": [{"type": "string", "format": "uri"}, {"$ref": "#/$defs/node"}]},
        "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "value": {"type": "integer"}}},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}], "items": False},
    },
}


@dataclasses.dataclass
class Probe:
    """The state that the handlers share."""

    options: argparse.Namespace
    tools: list[types.Tool] = dataclasses.field(default_factory=list)
    bus: InMemorySubscriptionBus = dataclasses.field(default_factory=InMemorySubscriptionBus)
    sessions: list[ServerSession] = dataclasses.field(default_factory=list)
    """Every legacy session that finished its handshake, so that list_changed reaches all of them."""
    added: int = 0

    @property
    def name(self) -> str:
        return self.options.name

    def result(self, text: str, structured: Any = None, *, is_error: bool = False) -> types.CallToolResult:
        return types.CallToolResult(
            content=[types.TextContent(text=self.mark(text))],
            structured_content=structured,
            is_error=is_error,
            _meta=self.meta,
        )

    def mark(self, text: str) -> str:
        return f"{self.name}:{text}"

    @property
    def meta(self) -> dict[str, Any]:
        return {"probe/name": self.name, "example.com/vendor": {"kept": True}}

    def log(self, line: str) -> None:
        """Append one line to --log; other processes read it while this one runs."""
        if self.options.log is not None:
            with Path(self.options.log).open("a", encoding="utf-8") as file:
                file.write(line + "\n")


# --- tools ---------------------------------------------------------------------------------------------------------


async def echo(probe: Probe, ctx: Context, args: dict[str, Any]) -> types.CallToolResult:
    text = str(args.get("text", ""))
    return probe.result(text, {"text": text})


async def add(probe: Probe, ctx: Context, args: dict[str, Any]) -> types.CallToolResult:
    total = args["a"] + args["b"]
    return probe.result(str(total), {"sum": total})


async def slow(probe: Probe, ctx: Context, args: dict[str, Any]) -> types.CallToolResult:
    seconds, steps = float(args.get("seconds", 1)), int(args.get("steps", 1))
    label = args.get("label", "slow")
    probe.log(f"started {label}")
    try:
        for step in range(1, steps + 1):
            await anyio.sleep(seconds / steps)
            await ctx.session.report_progress(step, steps, probe.mark(f"{label} {step}/{steps}"))
    except anyio.get_cancelled_exc_class():
        probe.log(f"cancelled {label}")
        raise
    probe.log(f"finished {label}")
    return probe.result(f"slept {label}")


async def fail(probe: Probe, ctx: Context, args: dict[str, Any]) -> types.CallToolResult:
    return probe.result("this tool always fails", is_error=True)


async def crash(probe: Probe, ctx: Context, args: dict[str, Any]) -> types.CallToolResult:
    os._exit(3)


async def link(probe: Probe, ctx: Context, args: dict[str, Any]) -> types.CallToolResult:
    embedded = types.TextResourceContents(uri=README_URI, mime_type="text/plain", text=probe.mark("readme"))
    return types.CallToolResult(
        content=[
            types.ResourceLink(name="blob", uri=BLOB_URI, mime_type="application/octet-stream"),
            types.EmbeddedResource(resource=embedded),
        ],
        _meta=probe.meta,
    )


async def pid(probe: Probe, ctx: Context, args: dict[str, Any]) -> types.CallToolResult:
    return probe.result(str(os.getpid()), {"pid": os.getpid()})


async def add_tool(probe: Probe, ctx: Context, args: dict[str, Any]) -> types.CallToolResult:
    probe.added += 1
    added = f"added_{probe.added}"
    probe.tools.append(define(added, "Added at run time."))
    await announce_tools(probe)
    return probe.result(added, {"name": added})


async def announce_tools(probe: Probe) -> None:
    """Tell both eras: the listen streams of modern callers, and every legacy session."""
    await probe.bus.publish(ToolsListChanged())
    for session in probe.sessions:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await session.send_tool_list_changed()


async def say_name(probe: Probe, ctx: Context, args: dict[str, Any]) -> types.CallToolResult:
    """The tools that exist for the sake of their definition answer with the state of this server."""
    return probe.result(f"{len(probe.tools)} tools")


def define(name: str, description: str, properties: Schema | None = None, **more: Any) -> types.Tool:
    schema: Schema = {"type": "object", "properties": properties or {}, "required": more.pop("required", [])}
    return types.Tool(name=name, description=description, input_schema=more.pop("input_schema", schema), **more)


TEXT: Schema = {"text": {"type": "string"}}
NUMBERS: Schema = {"a": {"type": "number"}, "b": {"type": "number"}}
SLOW: Schema = {"seconds": {"type": "number"}, "steps": {"type": "integer"}, "label": {"type": "string"}}
ASK: Schema = {"questions": {"type": "object"}, "state": {"type": "string"}, "insist": {"type": "boolean"}}
SUM: Schema = {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}
WIDGET_META: dict[str, Any] = {"ui": {"resourceUri": WIDGET_URI}}
READ_ONLY = types.ToolAnnotations(read_only_hint=True)

TOOLS: list[tuple[types.Tool, Body]] = [
    (define("echo", "Say it again.", TEXT, required=["text"], annotations=READ_ONLY), echo),
    (define("add", "Add two numbers.", NUMBERS, required=["a", "b"], output_schema=SUM), add),
    (define("slow", "Take a while, in steps, with progress.", SLOW), slow),
    (define("fail", "Answer with isError."), fail),
    (define("crash", "End this process with code 3, without an answer."), crash),
    (define("link", "Link to a resource and embed another.", _meta=WIDGET_META), link),
    (define("pid", "The process id of this server.", annotations=READ_ONLY), pid),
    (define(DOTTED_NAME, "A name with dots."), say_name),
    (define(LONG_NAME, "A name that is too long for most hosts."), say_name),
    (define("with_refs", "A 2020-12 schema with $defs and anyOf.", input_schema=WITH_REFS), say_name),
    (define("add_tool", "Add a tool and announce it."), add_tool),
    # `ask_tool` answers it: it needs more of a request than arguments.
    (define("ask", "Put questions to the caller, and answer with its answers.", ASK), say_name),
]
BODIES: dict[str, Body] = {tool.name: body for tool, body in TOOLS}

# --- questions to the caller ---------------------------------------------------------------------------------------

Retryable = types.CallToolRequestParams | types.GetPromptRequestParams | types.ReadResourceRequestParams
QUESTIONS: TypeAdapter[dict[str, types.InputRequest]] = TypeAdapter(dict[str, types.InputRequest])
NEEDED = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
ANSWER: dict[str, type[Any]] = {
    "elicitation/create": types.ElicitResult,
    "sampling/createMessage": types.CreateMessageResultWithTools,
    "roots/list": types.ListRootsResult,
}
FORM_QUESTION: Schema = {
    "method": "elicitation/create",
    "params": {
        "mode": "form",
        "message": "Who are you?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


async def ask(
    ctx: Context, params: Retryable, asked: dict[str, Any], state: str | None = None, *, insists: bool = False
) -> dict[str, Any] | types.InputRequiredResult:
    """The caller's answers, as they are on the wire; `{"error": ...}` for one that is an error.

    A legacy caller is asked everything at once, on the stream of the request. A modern one is asked by a result, and
    only what it has declared, unless the probe `insists`.
    """
    questions = QUESTIONS.validate_python(asked)
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return await ask_now(ctx, questions)
    declared = ctx.session.client_capabilities
    needed = {NEEDED[question.method] for question in questions.values()}
    lacking = [name for name in sorted(needed) if getattr(declared, name, None) is None]
    if lacking and not insists:
        required = {name: {} for name in lacking}
        raise MCPError(
            code=types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            message=f"The caller must declare: {', '.join(lacking)}",
            data={"requiredCapabilities": required},
        )
    given = params.input_responses or {}
    missing = {key: question for key, question in questions.items() if key not in given}
    if missing:
        return types.InputRequiredResult(input_requests=missing, request_state=state)
    answers = {key: given[key].model_dump(mode="json", by_alias=True, exclude_none=True) for key in questions}
    return answers if state is None else {**answers, "state": params.request_state}


async def ask_now(ctx: Context, questions: dict[str, types.InputRequest]) -> dict[str, Any]:
    answers: dict[str, Any] = {}

    async def put(key: str, question: types.InputRequest) -> None:
        related = ServerMessageMetadata(related_request_id=ctx.request_id)
        try:
            answer = await ctx.session.send_request(question, ANSWER[question.method], metadata=related)
            answers[key] = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        except MCPError as error:
            answers[key] = {"error": error.error.model_dump(mode="json", exclude_none=True)}

    async with anyio.create_task_group() as tasks:
        for key, question in questions.items():
            tasks.start_soon(put, key, question)
    return answers


async def ask_tool(
    probe: Probe, ctx: Context, params: types.CallToolRequestParams
) -> types.CallToolResult | types.InputRequiredResult:
    args = params.arguments or {}
    asked, insists = args.get("questions", {"form": FORM_QUESTION}), bool(args.get("insist"))
    answers = await ask(ctx, params, asked, args.get("state"), insists=insists)
    if isinstance(answers, types.InputRequiredResult):
        return answers
    return probe.result(json.dumps(answers, sort_keys=True), {"answers": answers})


# --- prompts, resources, completion --------------------------------------------------------------------------------

PROMPTS = [
    types.Prompt(
        name="greet",
        description="Greet somebody.",
        arguments=[types.PromptArgument(name="name", description="Whom to greet.", required=True)],
    ),
    types.Prompt(name="with_resource", description="A message that embeds a resource."),
    types.Prompt(name="ask", description="A message with the caller's answer."),
]
RESOURCES = [
    types.Resource(name="readme", uri=README_URI, mime_type="text/plain", description="Some text."),
    types.Resource(name="blob", uri=BLOB_URI, mime_type="application/octet-stream", size=len(BLOB)),
    types.Resource(name="mail", uri=OPAQUE_URI, description="An opaque URI."),
    types.Resource(name="widget", uri=WIDGET_URI, mime_type="text/html;profile=mcp-app"),
]
TEMPLATES = [types.ResourceTemplate(name="doc", uri_template=TEMPLATE, mime_type="text/plain")]
COMPLETIONS = {"name": ["Ada", "Alan", "Grace"], "id": ["alpha", "beta", "gamma"]}


def read(probe: Probe, uri: str) -> types.TextResourceContents | types.BlobResourceContents:
    if uri == BLOB_URI:
        blob = base64.b64encode(BLOB).decode()
        return types.BlobResourceContents(uri=uri, mime_type="application/octet-stream", blob=blob)
    if uri == WIDGET_URI:
        html = f"<!doctype html><title>{probe.name}</title>"
        return types.TextResourceContents(uri=uri, mime_type="text/html;profile=mcp-app", text=html)
    if uri in {README_URI, OPAQUE_URI}:
        return types.TextResourceContents(uri=uri, mime_type="text/plain", text=probe.mark(uri))
    if uri.startswith("probe://docs/"):
        text = probe.mark(f"document {uri.removeprefix('probe://docs/')}")
        return types.TextResourceContents(uri=uri, mime_type="text/plain", text=text)
    raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown resource: {uri}", data={"uri": uri})


def page(items: list[Any], size: int, params: types.PaginatedRequestParams | None) -> tuple[list[Any], str | None]:
    """One page of `items`; cursors are `at-<n>`. Size 0 means all of them."""
    cursor = params.cursor if params is not None else None
    if cursor is not None and not (cursor.startswith("at-") and cursor[3:].isdigit()):
        raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown cursor: {cursor}")
    start = int(cursor[3:]) if cursor is not None else 0
    end = start + size if size else len(items)
    return items[start:end], f"at-{end}" if end < len(items) else None


class ProbeServer(Server[Any]):
    """The SDK's server, which says listChanged by default (the session manager takes the defaults)."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        changes = notification_options or NotificationOptions(tools_changed=True)
        return super().create_initialization_options(changes, experimental_capabilities, extensions)


def build(probe: Probe) -> Server[Any]:
    size = probe.options.page_size

    async def list_tools(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        tools, cursor = page(probe.tools, size, params)
        return types.ListToolsResult(tools=tools, next_cursor=cursor)

    async def call_tool(
        ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        if params.name == "ask":
            return await ask_tool(probe, ctx, params)
        if all(tool.name != params.name for tool in probe.tools):
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {params.name}")
        return await BODIES.get(params.name, say_name)(probe, ctx, params.arguments or {})

    async def list_prompts(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        prompts, cursor = page(PROMPTS, size, params)
        return types.ListPromptsResult(prompts=prompts, next_cursor=cursor)

    async def get_prompt(
        ctx: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        if params.name == "greet":
            content = types.TextContent(text=probe.mark(f"hello {(params.arguments or {}).get('name', '')}"))
        elif params.name == "with_resource":
            content = types.EmbeddedResource(resource=read(probe, README_URI))
        elif params.name == "ask":
            answers = await ask(ctx, params, {"form": FORM_QUESTION})
            if isinstance(answers, types.InputRequiredResult):
                return answers
            content = types.TextContent(text=probe.mark(json.dumps(answers, sort_keys=True)))
        else:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown prompt: {params.name}")
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=content)], _meta=probe.meta)

    async def list_resources(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        resources, cursor = page(RESOURCES, size, params)
        return types.ListResourcesResult(resources=resources, next_cursor=cursor)

    async def list_templates(
        ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        templates, cursor = page(TEMPLATES, size, params)
        return types.ListResourceTemplatesResult(resource_templates=templates, next_cursor=cursor)

    async def read_resource(
        ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult | types.InputRequiredResult:
        if str(params.uri) == ASK_URI:
            answers = await ask(ctx, params, {"form": FORM_QUESTION})
            if isinstance(answers, types.InputRequiredResult):
                return answers
            text = probe.mark(json.dumps(answers, sort_keys=True))
            contents = types.TextResourceContents(uri=ASK_URI, mime_type="application/json", text=text)
            return types.ReadResourceResult(contents=[contents], _meta=probe.meta)
        return types.ReadResourceResult(contents=[read(probe, str(params.uri))], _meta=probe.meta)

    async def complete(ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        known = COMPLETIONS.get(params.argument.name, [])
        values = [value for value in known if value.lower().startswith(params.argument.value.lower())]
        return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))

    async def stamp(ctx: Context, call_next: CallNext) -> HandlerResult:
        """Remember legacy sessions, and add the field that nobody knows to the finished wire form."""
        result = await call_next(ctx)
        if ctx.method == "notifications/initialized":
            probe.sessions.append(ctx.session)
        if ctx.method == "tools/call" and isinstance(result, dict) and result.get("resultType") != "input_required":
            return {**result, UNKNOWN_FIELD: {"from": probe.name}}
        return result

    server = ProbeServer(
        probe.name,
        version="1.2.3",
        instructions=probe.options.instructions or None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_completion=complete,
        on_subscriptions_listen=None if probe.options.era == "legacy" else ListenHandler(probe.bus),
    )
    server.middleware.append(stamp)
    return server


# --- eras and transports -------------------------------------------------------------------------------------------


async def serve_streams(
    server: Server[Any], era: Literal["auto", "legacy", "modern"], reader: Any, writer: Any
) -> None:
    """Serve one duplex connection in the era asked for, with the SDK's own loops."""
    options = server.create_initialization_options()
    if era == "auto":
        await server.run(reader, writer, options)
    elif era == "legacy":
        await runner.serve_loop(server, reader, writer, lifespan_state={}, init_options=options)
    else:
        await runner._serve_modern_stream(server, reader, writer, lifespan_state={}, raise_exceptions=False)


def drop_unknown_version(app: ASGIApp) -> ASGIApp:
    """A legacy HTTP server never heard of a version after its own: what it does not know, it does not see."""
    known = {version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS}

    async def filtered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            kept = [(k, v) for k, v in scope["headers"] if k != b"mcp-protocol-version" or v in known]
            scope = {**scope, "headers": kept}
        await app(scope, receive, send)

    return filtered


class ModernOnly:
    """Every request goes to the SDK's modern entry, which refuses those without the envelope."""

    def __init__(self, server: Server[Any], *, json_response: bool) -> None:
        self.server = server
        self.json_response = json_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await handle_modern_request(self.server, None, self.json_response, {}, scope, receive, send)


def http_app(server: Server[Any], options: argparse.Namespace) -> ASGIApp:
    if options.era == "modern":
        return Starlette(routes=[Route("/mcp", ModernOnly(server, json_response=options.json))])
    app = server.streamable_http_app(json_response=options.json, stateless_http=options.stateless)
    return drop_unknown_version(app) if options.era == "legacy" else app


def sse_app(server: Server[Any], options: argparse.Namespace) -> ASGIApp:
    transport = SseServerTransport("/messages/")

    class Stream:
        """A class, so that starlette hands over the bare ASGI triple."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async with transport.connect_sse(scope, receive, send) as (reader, writer):
                await serve_streams(server, options.era, reader, writer)
            await Response()(scope, receive, _ignore)

    return Starlette(routes=[Route("/sse", Stream()), Mount("/messages/", app=transport.handle_post_message)])


async def _ignore(message: Any) -> None:
    """The response of an SSE stream has been sent; whatever follows it has no reader."""


async def serve_http(app: ASGIApp, options: argparse.Namespace) -> None:
    listener = socket.create_server(("127.0.0.1", options.port))
    port = listener.getsockname()[1]
    path = "/mcp" if options.transport == "http" else "/sse"
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="none")
    announce(f"http://127.0.0.1:{port}{path}", options.port_file)
    await uvicorn.Server(config).serve(sockets=[listener])


def announce(url: str, port_file: str | None) -> None:
    """Say where we listen: the socket accepts already, so a reader may connect at once."""
    if port_file is not None:
        partial = Path(port_file + ".partial")
        partial.write_text(url, encoding="utf-8")
        partial.replace(port_file)
    print(f"listening on {url}", file=sys.stderr, flush=True)


async def main(options: argparse.Namespace) -> None:
    await anyio.sleep(options.slow_start)
    extra = [define(f"extra_{n}", f"Extra tool number {n}.", TEXT) for n in range(options.tools)]
    probe = Probe(options, tools=[tool for tool, _ in TOOLS] + extra)
    server = build(probe)
    if options.transport == "http":
        await serve_http(http_app(server, options), options)
    elif options.transport == "sse":
        await serve_http(sse_app(server, options), options)
    else:
        async with stdio_server() as (reader, writer):
            await serve_streams(server, options.era, reader, writer)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", choices=["stdio", "http", "sse"], default="stdio")
    parser.add_argument("--era", choices=["auto", "legacy", "modern"], default="auto")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--port-file", help="the URL is written here when the socket listens")
    parser.add_argument("--name", default="probe")
    parser.add_argument("--tools", type=int, default=0, help="how many extra tools (extra_0, ...)")
    parser.add_argument("--slow-start", type=float, default=0, help="seconds before anything is read or bound")
    parser.add_argument("--instructions", help="empty: none; default: a text that names own tools")
    parser.add_argument("--page-size", type=int, default=0, help="0: everything on one page")
    parser.add_argument("--log", help="`started`, `finished` and `cancelled <label>` are appended here")
    parser.add_argument("--json", action="store_true", help="HTTP: answer with JSON in place of SSE")
    parser.add_argument("--stateless", action="store_true", help="HTTP: legacy without sessions")
    options = parser.parse_args()
    if options.instructions is None:
        options.instructions = INSTRUCTIONS.format(name=options.name)
    return options


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        anyio.run(main, parse())
