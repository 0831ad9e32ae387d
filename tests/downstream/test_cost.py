"""What a call costs over HTTP, counted: functions entered in the whole broker, but for its way to an upstream."""

from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import pytest

import broker
from broker.core.era import Version
from tests.calls import watched
from tests.downstream.conftest import serving
from tests.downstream.raw_http import Connection, message, modern, modern_headers
from tests.relay.fake import LEGACY, MODERN, Fake, tool

BROKER = str(Path(broker.__file__).parent)
MOST = {MODERN: 77, LEGACY: 85}
"""With limits, costs, usage and the audit, but for the line of the record, which another thread makes if it is quicker.
118 and 131 once."""


async def entered(connection: Connection, request: bytes) -> int:
    """Functions that a request enters; a coroutine that waits is entered once."""
    frames: set[FrameType] = set()

    def count(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(BROKER) and not name.endswith("records.py"):
            frames.add(frame)

    with watched(count):
        await connection.send(request)
        reply = await connection.reply()
    assert "isError" not in reply.json["result"]
    return len(frames)


@pytest.mark.parametrize("version", [MODERN, LEGACY])
async def test_a_call_with_all_that_is_counted_and_recorded_is_few_steps(tmp_path: Path, version: Version) -> None:
    on = {"enabled": True}
    servers = {"one": {"cost": 1, "limits": {"concurrency": 1000, "per_caller": {"rate": "1000000/minute"}}}}
    fake = Fake(version=version, tools=[tool("echo")])
    async with serving(tmp_path, {"one": fake}, servers=servers, usage=on, audit=on) as front:
        params = {"name": "one__echo", "arguments": {}}
        if version == MODERN:
            body = modern("tools/call", params)
            request = front.client.request("POST", body=orjson.dumps(body), headers=modern_headers(body))
        else:
            session = await front.client.open_session()
            request = session.request(orjson.dumps(message("tools/call", params)))
        async with front.client.connection() as connection:
            # The first ones find out what is kept for the others, and what is done by the clock may fall into one.
            found = [await entered(connection, request) for _ in range(6)]
    assert min(found) <= MOST[version], found
