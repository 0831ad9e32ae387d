"""The tools of the reference server that answer at once: contents, progress, log messages, errors."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged

from tests.conformance.catalog import AUDIO, EXTRA_PROMPT, IMAGE, embedded
from tests.conformance.questions import is_modern, missing_capability

Context = ServerRequestContext
Schema = dict[str, Any]
Result = types.CallToolResult | types.InputRequiredResult
Body = Callable[["Reference", Context, types.CallToolRequestParams], Awaitable[Result]]

STEP: float = 0.05
"""Seconds between two notifications of one call, so that a relay cannot deliver them all at the end unnoticed."""
LEVELS: tuple[types.LoggingLevel, ...] = get_args(types.LoggingLevel)
"""From the least severe one up."""

EXTRA_TOOL = types.Tool(name="test_extra_tool", description="Comes and goes.", input_schema={"type": "object"})


@dataclass
class Reference:
    """What the handlers share."""

    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    sessions: list[ServerSession] = field(default_factory=list)
    """Every legacy session that finished its handshake: all of them hear of changed lists."""
    levels: dict[str, types.LoggingLevel] = field(default_factory=dict)
    """By legacy session."""
    has_extra_tool: bool = False
    has_extra_prompt: bool = False

    async def announce(self, event: ToolsListChanged | PromptsListChanged) -> None:
        await self.bus.publish(event)
        for session in self.sessions:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                if isinstance(event, ToolsListChanged):
                    await session.send_tool_list_changed()
                else:
                    await session.send_prompt_list_changed()

    async def log(self, ctx: Context, level: types.LoggingLevel, text: str) -> None:
        """To the caller of this request, if it asked for that level."""
        lowest = self.levels.get(session_of(ctx), "debug")
        if is_modern(ctx) or LEVELS.index(level) >= LEVELS.index(lowest):
            await ctx.session.send_log_message(level, text, "reference", related_request_id=ctx.request_id)


def session_of(ctx: Context) -> str:
    """The id of a legacy session; a pipe has one, without id."""
    return ctx.request.headers.get("mcp-session-id", "") if ctx.request is not None else ""


def text(value: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=value)], is_error=is_error)


async def simple_text(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    return text("Some text.")


async def image_content(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    return types.CallToolResult(content=[IMAGE])


async def audio_content(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    return types.CallToolResult(content=[AUDIO])


async def embedded_resource(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    return types.CallToolResult(content=[embedded("test://embedded-resource", "An embedded text.")])


async def multiple_content_types(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    resource = embedded("test://mixed-content-resource", '{"kind": "mixed"}', "application/json")
    return types.CallToolResult(content=[types.TextContent(text="Three kinds of content:"), IMAGE, resource])


async def error_handling(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    return text("This tool always fails.", is_error=True)


async def with_progress(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100, f"{done} of 100")
        await anyio.sleep(STEP)
    return text("Three steps are done.")


async def with_logging(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    for step in ("started", "halfway", "done"):
        await ref.log(ctx, "info", step)
        await anyio.sleep(STEP)
    return text("Three messages were logged.")


async def reconnection(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    """The stream ends before the result: the caller comes back for it with Last-Event-ID.

    A message comes first: a relay may answer with JSON as long as nothing streams, and then has no stream to judge.
    """
    await ref.log(ctx, "info", "the stream will end before the result")
    await anyio.sleep(STEP)
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await anyio.sleep(2 * STEP)
    return text("This came after the stream had ended.")


async def echo_region(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    return text(str((params.arguments or {}).get("region")))


async def missing_sampling(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    declared = ctx.session.client_capabilities
    if declared is None or declared.sampling is None:
        raise missing_capability("sampling")
    return text("The caller can sample.")


async def trigger_tool_change(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    ref.has_extra_tool = not ref.has_extra_tool
    await ref.announce(ToolsListChanged())
    return text(f"{EXTRA_TOOL.name} is {'there' if ref.has_extra_tool else 'gone'}.")


async def trigger_prompt_change(ref: Reference, ctx: Context, params: types.CallToolRequestParams) -> Result:
    ref.has_extra_prompt = not ref.has_extra_prompt
    await ref.announce(PromptsListChanged())
    return text(f"{EXTRA_PROMPT.name} is {'there' if ref.has_extra_prompt else 'gone'}.")


def define(name: str, description: str, schema: Schema | None = None, **properties: Schema) -> types.Tool:
    """A tool whose properties are all required, unless a whole schema is given."""
    plain: Schema = {"type": "object", "properties": properties}
    if properties:
        plain["required"] = list(properties)
    return types.Tool(name=name, description=description, input_schema=schema or plain)


REGION: Schema = {"type": "string", "description": "Where it runs.", "x-mcp-header": "Region"}

WHOLE_VOCABULARY: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "place",
            "type": "object",
            "properties": {"town": {"type": "string"}, "country": {"type": "string"}},
        }
    },
    "properties": {
        "home": {"$ref": "#/$defs/address"},
        "work": {"$ref": "#place"},
        "by": {"enum": ["post", "wire"]},
        "wire": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["home"]}, {"required": ["work"]}]}],
    "if": {"properties": {"by": {"const": "wire"}}, "required": ["by"]},
    "then": {"required": ["wire"]},
    "else": {"required": ["home"]},
    "additionalProperties": False,
}
"""What the suite looks for: $schema, $defs, $anchor, composition, a condition, additionalProperties."""

TOOLS: list[tuple[types.Tool, Body]] = [
    # The suite calls the first tool that is listed with no arguments, so it must be one that takes none.
    (define("test_simple_text", "Some text."), simple_text),
    (define("test_image_content", "An image."), image_content),
    (define("test_audio_content", "A sound."), audio_content),
    (define("test_embedded_resource", "A resource inside the result."), embedded_resource),
    (define("test_multiple_content_types", "Three kinds of content."), multiple_content_types),
    (define("test_error_handling", "An error of the tool."), error_handling),
    (define("test_tool_with_progress", "Progress, three times."), with_progress),
    (define("test_tool_with_logging", "Log messages, three times."), with_logging),
    (define("test_logging_tool", "The same under its modern name."), with_logging),
    (define("test_reconnection", "Ends its stream before the result."), reconnection),
    (define("test_header_parameter", "An argument that is a header too.", region=REGION), echo_region),
    (define("json_schema_2020_12_tool", "A schema with much of the vocabulary.", WHOLE_VOCABULARY), simple_text),
    (define("test_missing_capability", "Needs a caller that can sample."), missing_sampling),
    (define("test_trigger_tool_change", "Adds or removes a tool."), trigger_tool_change),
    (define("test_trigger_prompt_change", "Adds or removes a prompt."), trigger_prompt_change),
]
