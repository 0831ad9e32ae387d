"""A generic SDK 1 client, run by the python of .venv-sdk1: what hosts of the last generation see.

    python client.py --stdio CMD ARG...        python client.py --http URL        python client.py --sse URL

stdin: a JSON list of operations, each `[name, argument...]` or a bare name:
    initialize | list_tools | list_prompts | list_resources | list_templates | ping
    ["call_tool", name, {arguments}] | ["get_prompt", name, {arguments}] | ["read_resource", uri]
    ["complete", {"type": "ref/prompt", "name": ...} or {"type": "ref/resource", "uri": ...}, argument, value]
The handshake always comes first; `initialize` only says where its result stands in the output. Lists follow
`nextCursor` to the end and come back as one list. stdout: one JSON object
    {"initialize": {...},
     "results": [{"op": ..., "ok": {...}} or {"op": ..., "error": {"code", "message", "data"}}, ...],
     "notifications": [...], "progress": [...]}
with models dumped by alias. Exit 1 and {"failed": "..."} when there was no handshake within --timeout seconds.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from mcp import ClientSession, McpError, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client
from pydantic import AnyUrl, BaseModel

MAX_PAGES = 1000
"""A server that pages for ever must not keep us for ever."""


@asynccontextmanager
async def streams(options: argparse.Namespace) -> AsyncIterator[tuple[Any, Any]]:
    if options.stdio:
        command, *args = options.stdio
        async with stdio_client(StdioServerParameters(command=command, args=args, env=None)) as (reader, writer):
            yield reader, writer
    elif options.http:
        async with streamablehttp_client(options.http, headers=headers(options)) as (reader, writer, _):
            yield reader, writer
    else:
        async with sse_client(options.sse, headers=headers(options)) as (reader, writer):
            yield reader, writer


def headers(options: argparse.Namespace) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (h.partition(":") for h in options.header)}


def dump(model: BaseModel) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def all_pages(fetch: Callable[..., Any], field: str) -> Any:
    """Every page of one list; the other fields are those of the last page."""
    items: list[Any] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = dump(await fetch(cursor))
        items += page[field]
        cursor = page.pop("nextCursor", None)
        if cursor is None:
            return {**page, field: items}
    raise RuntimeError(f"more than {MAX_PAGES} pages")


async def run(session: ClientSession, greeting: Any, progress: list[Any], op: str, args: list[Any]) -> Any:
    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append({"progress": done, "total": total, "message": message})

    if op == "initialize":
        return greeting
    if op == "ping":
        return dump(await session.send_ping())
    if op == "list_tools":
        return await all_pages(session.list_tools, "tools")
    if op == "list_prompts":
        return await all_pages(session.list_prompts, "prompts")
    if op == "list_resources":
        return await all_pages(session.list_resources, "resources")
    if op == "list_templates":
        return await all_pages(session.list_resource_templates, "resourceTemplates")
    if op == "call_tool":
        return dump(await session.call_tool(args[0], args[1] if len(args) > 1 else {}, progress_callback=on_progress))
    if op == "get_prompt":
        return dump(await session.get_prompt(args[0], args[1] if len(args) > 1 else None))
    if op == "read_resource":
        return dump(await session.read_resource(AnyUrl(args[0])))
    if op == "complete":
        kind = types.PromptReference if args[0]["type"] == "ref/prompt" else types.ResourceTemplateReference
        return dump(await session.complete(kind.model_validate(args[0]), {"name": args[1], "value": args[2]}))
    raise ValueError(f"unknown operation {op!r}")


async def outcome(call: Any) -> dict[str, Any]:
    try:
        return {"ok": await call}
    except McpError as error:
        return {"error": dump(error.error)}
    except Exception as error:
        # What the SDK itself makes of an answer (a validation error, say) is what a host of that age would see.
        return {"error": {"code": None, "message": f"{type(error).__name__}: {error}"}}


async def converse(options: argparse.Namespace, operations: list[Any], report: dict[str, Any]) -> None:
    async def on_message(message: Any) -> None:
        if isinstance(message, types.ServerNotification):
            report["notifications"].append(dump(message.root))

    timeout = timedelta(seconds=options.timeout)
    async with (
        streams(options) as (reader, writer),
        ClientSession(reader, writer, read_timeout_seconds=timeout, message_handler=on_message) as session,
    ):
        report["initialize"] = dump(await session.initialize())
        for operation in operations:
            op, *args = operation if isinstance(operation, list) else [operation]
            done = await outcome(run(session, report["initialize"], report["progress"], op, args))
            report["results"].append({"op": op, **done})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=30, help="seconds for each request")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--http", metavar="URL")
    where.add_argument("--sse", metavar="URL")
    where.add_argument("--stdio", nargs=argparse.REMAINDER, metavar="CMD")
    options = parser.parse_args()
    operations = json.load(sys.stdin)
    report: dict[str, Any] = {"initialize": None, "results": [], "notifications": [], "progress": []}
    try:
        asyncio.run(converse(options, operations, report))
    except Exception as error:
        if report["initialize"] is None or len(report["results"]) < len(operations):
            print(json.dumps({"failed": f"{type(error).__name__}: {error}", **report}))
            return 1
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
