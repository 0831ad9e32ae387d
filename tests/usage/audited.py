"""A broker that records, with two teams that may use different tools; and its records, read back."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import orjson

from broker.clock import SystemClock
from broker.config import OrganizationSettings, directory_of
from broker.core.caller import Caller
from broker.core.era import LATEST_MODERN, Version
from broker.downstream.engine import Who, ignore_emit
from broker.downstream.message import parse
from broker.usage.files import paths
from tests.relay.fake import TIMEOUT, Fake, House, Json, house, tool

ANN = Caller("key:ann", "acme", "data")
BOB = Caller("key:bob", "acme", "web")
TRACE = "0af7651916cd43dd8448eb211c80319c"
ACME = {
    "acme": {
        "allow": [{"servers": ["*"]}],
        "teams": {
            "data": {
                "deny": [{"tools": ["one__drop"]}, {"tools": ["one__query"], "when": {"args.db": {"equals": "x"}}}]
            },
            "web": {"allow": [{"tools": ["one__echo"]}]},
        },
    }
}


@asynccontextmanager
async def audited(
    directory: Path, fake: Fake | None = None, audit: Json | None = None, **more: Any
) -> AsyncGenerator[House, None]:
    tools = [tool(name) for name in ("echo", "slow", "drop", "query")]
    fakes = {"one": fake or Fake(tools=tools)}
    async with house(directory, fakes, clock=SystemClock(), audit={"enabled": True, **(audit or {})}, **more) as place:
        place.broker.generation.adopt(
            directory_of({name: OrganizationSettings.model_validate(one) for name, one in ACME.items()})
        )
        yield place


async def ask(
    place: House, method: str, params: Json | None = None, caller: Caller = ANN, version: Version = LATEST_MODERN
) -> Json:
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}}).encode()
    who = Who(caller, version, "", front="http")
    return json.loads((await place.broker.engine.answer(parse(body), who, ignore_emit)).body)


async def until(is_true: Callable[[], bool]) -> None:
    with anyio.fail_after(TIMEOUT):
        while not is_true():  # noqa: ASYNC110
            await anyio.sleep(0.005)  # another thread makes it true


def kept(directory: Path) -> Path:
    """Where the records are."""
    return directory / "state" / "audit"


def records(directory: Path, event: str = "call") -> list[Json]:
    found = [orjson.loads(one) for path in paths(kept(directory)) for one in path.read_bytes().splitlines()]
    return [one for one in found if one["event"] == event]


def call(name: str, **arguments: Any) -> tuple[str, Json]:
    meta = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    return "tools/call", {"name": name, "arguments": arguments, "_meta": meta}
