"""Whether a call costs more where there are more callers, counted: functions entered in the whole broker."""

from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

import broker
from broker.core.caller import Caller
from broker.core.era import META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_VERSION, Version
from tests.calls import watched
from tests.relay.fake import LEGACY, MODERN, Fake, House, Json, house, tool

BROKER = str(Path(broker.__file__).parent)
META = {META_VERSION: MODERN, META_CLIENT_INFO: {"name": "c", "version": "1"}, META_CLIENT_CAPABILITIES: {}}
LIMITS = {"rate": "1000000/minute", "concurrency": 1000}


@pytest.mark.parametrize("version", [LEGACY, MODERN])
async def test_a_call_is_as_many_steps_among_64_callers_as_among_16(tmp_path: Path, version: Version) -> None:
    """Each of another team, all in flight at once: nothing that is kept for callers is for few of them only."""
    teams = {f"t{number}": {"allow": [{"servers": ["*"]}], "limits": LIMITS} for number in range(64)}
    acme = {"acme": {"allow": [{"servers": ["*"]}], "teams": teams, "limits": LIMITS}}
    found: list[float] = []
    for many in (16, 64):
        (tmp_path / str(many)).mkdir()
        fake = Fake(version=version, tools=[tool("echo")])
        async with house(tmp_path / str(many), {"one": fake}, organizations=acme) as place:
            callers = [Caller(f"jwt:issuer {number}", "acme", f"t{number}") for number in range(many)]
            await all_ask(place, version, callers)
            found.append(await steps_of_all(place, version, callers) / many)
    assert abs(found[0] - found[1]) < 1, found


async def steps_of_all(place: House, version: Version, callers: list[Caller]) -> int:
    """Of one call of each; a coroutine that waits is entered again."""
    steps = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal steps
        steps += event == "call" and frame.f_code.co_filename.startswith(BROKER)

    with watched(count):
        await all_ask(place, version, callers)
    return steps


async def all_ask(place: House, version: Version, callers: list[Caller]) -> None:
    """One call of each, at once."""
    params: Json = {"name": "one__echo", "arguments": {}} | ({"_meta": META} if version == MODERN else {})
    results: list[Json] = []

    async def ask(caller: Caller) -> None:
        results.append(await place.ask("tools/call", params, version=version, caller=caller))

    async with anyio.create_task_group() as tasks:
        for caller in callers:
            tasks.start_soon(ask, caller)
    assert len(results) == len(callers) and not any(one.get("isError") for one in results), results[0]
