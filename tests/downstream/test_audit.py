"""What the audit says of callers that go away in the middle of a call, and of those that were never let in."""

from pathlib import Path
from typing import Any

import anyio
import orjson

from tests.downstream.conftest import Start
from tests.downstream.desk import bearer, desk
from tests.downstream.raw_http import modern, modern_headers
from tests.relay.fake import Fake, Json, tool


def records(directory: Path) -> list[Json]:
    files = sorted((directory / "state" / "audit").iterdir())
    return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]


async def test_a_caller_that_disconnects_leaves_exactly_one_outcome(start: Start, tmp_path: Path) -> None:
    async def wait(_: Any) -> Json:
        await anyio.sleep_forever()
        return {}

    fake = Fake(tools=[tool("slow")], answers={"slow": wait})
    async with start({"one": fake}, audit={"enabled": True}) as front:
        body = modern("tools/call", {"name": "one__slow", "arguments": {}})
        async with front.client.connection() as connection:
            await connection.send(front.client.request("POST", "/mcp", body, modern_headers(body)))
            await fake.until(lambda: len(fake.asked) == 1)
        await fake.until(lambda: len(fake.cancelled) == 1)
    (one,) = records(tmp_path)
    assert (one["event"], one["outcome"], one["front"]) == ("call", "cancelled", "http")


async def test_who_is_not_let_in_is_recorded_without_the_credential(tmp_path: Path) -> None:
    async with desk(tmp_path, {"one": Fake()}, audit={"enabled": True}) as place:
        body = modern("tools/list")
        await place.front.client.post(body, [*modern_headers(body), *bearer("not-a-key")])
    (one,) = records(tmp_path)
    assert (one["event"], one["code"], one["reason"], one["peer"]) == ("auth", 401, "Unauthorized", "127.0.0.1")
    assert "not-a-key" not in str(one)
