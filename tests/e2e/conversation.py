"""The same conversation by every client: SDK 2 in both eras here, SDK 1 in a process of its own interpreter.

An operation is `[name, argument, ...]`, and a report what tests/sdk1/client.py prints; see there.
"""

import json
import subprocess
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, assert_never

import anyio
import mcp_types as types
from anyio import to_thread
from mcp import Client, MCPError, StdioServerParameters
from mcp.client import session
from mcp.client.sse import sse_client
from mcp.shared.exceptions import MCPDeprecationWarning
from pydantic import BaseModel

from tests.e2e.brokers import TIMEOUT, Json, environment
from tests.peers import ROOT, SDK1_CLIENT

Kind = Literal["sdk2-auto", "sdk2-legacy", "sdk1"]
Operation = list[Any]
KINDS: tuple[Kind, ...] = ("sdk2-auto", "sdk2-legacy", "sdk1")

session.DISCOVER_TIMEOUT_SECONDS = TIMEOUT
"""Past this the SDK takes a server for a legacy one; a broker that it starts on a busy machine may need longer."""

HOP = ("io.modelcontextprotocol/serverInfo", "progressToken")
PER_ERA = ("resultType", "ttlMs", "cacheScope")


class Where:
    """A server, by command or by URL; a URL that ends in /sse is HTTP+SSE.

    `offers`: tell it, as a link that callers share does, that it may ask for samples, elicitations and roots: some
    servers list other tools then.
    """

    def __init__(self, argv: Sequence[str] = (), url: str = "", *, offers: bool = False) -> None:
        self.argv = list(argv)
        self.url = url
        self.offers = offers

    def offering(self) -> "Where":
        """The same server, to be told so."""
        return Where(self.argv, self.url, offers=True)

    def for_sdk2(self) -> Any:
        if self.argv:
            return StdioServerParameters(command=self.argv[0], args=self.argv[1:], env=environment(), cwd=ROOT)
        return sse_client(self.url) if self.url.endswith("/sse") else self.url

    def for_sdk1(self) -> list[str]:
        if self.argv:
            return ["--stdio", *self.argv]
        return ["--sse" if self.url.endswith("/sse") else "--http", self.url]


async def converse(kind: Kind, where: Where, operations: Sequence[Operation], sdk1: Path | None = None) -> Json:
    """The report of one conversation."""
    match kind:
        case "sdk2-auto":
            return await _sdk2("auto", where, operations)
        case "sdk2-legacy":
            return await _sdk2("legacy", where, operations)
        case "sdk1":
            assert sdk1 is not None
            python = sdk1
            return await to_thread.run_sync(lambda: _sdk1(python, where, operations))
        case _:
            assert_never(kind)


def _sdk1(python: Path, where: Where, operations: Sequence[Operation]) -> Json:
    # `--stdio` takes the rest of the line, so it comes last.
    done = subprocess.run(
        [str(python), str(SDK1_CLIENT), "--timeout", str(TIMEOUT), *where.for_sdk1()],
        input=json.dumps(operations).encode(),
        capture_output=True,
        timeout=4 * TIMEOUT,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout)


async def _refuse(*_: Any) -> types.ErrorData:
    return types.ErrorData(code=-1, message="nobody is here")


async def _sdk2(mode: str, where: Where, operations: Sequence[Operation]) -> Json:
    report: Json = {"initialize": None, "results": [], "progress": []}
    with anyio.fail_after(4 * TIMEOUT):
        offered: Any = {}
        if where.offers:
            offered = dict.fromkeys(("sampling_callback", "elicitation_callback", "list_roots_callback"), _refuse)
        async with Client(where.for_sdk2(), mode=mode, read_timeout_seconds=TIMEOUT, **offered) as client:
            capabilities, info = client.server_capabilities, client.server_info
            report["initialize"] = {
                "protocolVersion": client.protocol_version,
                "capabilities": dump(capabilities),
                "instructions": client.instructions,
                "serverInfo": dump(info) if info is not None else None,
            }
            for op, *args in operations:
                try:
                    done = {"ok": await _run(client, report, op, args)}
                except MCPError as error:
                    done = {"error": dump(error.error)}
                report["results"].append({"op": op, **done})
    return report


async def _run(client: Client, report: Json, op: str, args: list[Any]) -> Json:
    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        report["progress"].append({"progress": progress, "total": total, "message": message})

    match op:
        case "ping":
            return await _ping(client)
        case "list_tools":
            return await _all(client.list_tools, "tools")
        case "list_prompts":
            return await _all(client.list_prompts, "prompts")
        case "list_resources":
            return await _all(client.list_resources, "resources")
        case "list_templates":
            return await _all(client.list_resource_templates, "resourceTemplates")
        case "call_tool":
            return dump(await client.call_tool(args[0], args[1] if args[1:] else {}, progress_callback=on_progress))
        case "get_prompt":
            return dump(await client.get_prompt(args[0], args[1] if args[1:] else None))
        case "read_resource":
            return dump(await client.read_resource(args[0]))
        case "complete":
            kind = types.PromptReference if args[0]["type"] == "ref/prompt" else types.ResourceTemplateReference
            return dump(await client.complete(kind.model_validate(args[0]), {"name": args[1], "value": args[2]}))
        case _:
            raise ValueError(op)


async def _ping(client: Client) -> Json:
    """The modern era has none."""
    if client.protocol_version == "2026-07-28":
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        return dump(await client.send_ping())


async def _all(fetch: Callable[..., Any], field: str) -> Json:
    items: list[Any] = []
    cursor: str | None = None
    while True:
        page = dump(await fetch(cursor=cursor))
        items += page[field]
        cursor = page.pop("nextCursor", None)
        if cursor is None:
            return {**page, field: items}


def dump(model: BaseModel) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def essence(result: Json) -> Json:
    """A result without what belongs to one hop or one era."""
    kept = {name: value for name, value in result.items() if name not in PER_ERA}
    meta = {name: value for name, value in kept.pop("_meta", {}).items() if name not in HOP}
    return {**kept, "_meta": meta} if meta else kept
