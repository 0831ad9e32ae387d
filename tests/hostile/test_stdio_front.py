"""Hosts that flood the pipe on which they launched us: what they say costs themselves."""

import json
from typing import IO, Any

import anyio
import anyio.to_thread
import pytest

from broker.core.era import LATEST_MODERN, META_CLIENT_CAPABILITIES, META_VERSION
from tests.callers.pipe import front_of
from tests.hostile.conftest import BrokerOf
from tests.hostile.cost import MIB
from tests.hostile.harness import needs_proc

pytestmark = needs_proc

LIST: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": "last",
    "method": "tools/list",
    "params": {"_meta": {META_VERSION: LATEST_MODERN, META_CLIENT_CAPABILITIES: {}}},
}


@pytest.mark.parametrize(("line", "size"), [(b"\n", MIB), (b"{}\n", MIB // 8), (b"x\n", MIB // 8)])
async def test_F13_a_flood_of_lines_that_say_nothing_is_taken_in_turns(
    broker_of: BrokerOf, line: bytes, size: int
) -> None:
    async with broker_of({}) as run:
        await run.innocent()
        async with front_of(run.broker.engine) as (pipe, told), anyio.create_task_group() as tasks:

            def flood() -> None:
                pipe.write(line * (size // len(line)) + json.dumps(LIST).encode() + b"\n")

            tasks.start_soon(anyio.to_thread.run_sync, flood)
            answer = await anyio.to_thread.run_sync(last, told)
            assert "result" in answer, answer


def last(told: IO[bytes]) -> dict[str, Any]:
    """What is answered to whoever has waited behind the flood."""
    for line in told:
        if b'"last"' in line:
            return json.loads(line)
    raise AssertionError("the end came first")
