"""What a call costs in the relay, counted: functions entered from the request to its link, and back with the result."""

from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import broker
from broker.core import wire
from broker.core.caller import Caller
from broker.core.era import META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_VERSION, Version
from tests.calls import watched
from tests.relay.fake import LEGACY, MODERN, Fake, House, Json, answering, house, tool

MOST = 20
"""Functions of the relay, the core and the guardrails, but for reading and writing JSON, four of them for the
condition on an argument. It was 70 before anybody counted, and 29 later."""
MOST_OF_OUTPUTS = 2
"""More, for a tool that has an `outputSchema`: whether its result is to be looked at."""
ROOMS = tuple(str(Path(broker.__file__).parent / room) for room in ("relay", "core", "guardrails", "outputs"))
META = {META_VERSION: MODERN, META_CLIENT_INFO: {"name": "c", "version": "1"}, META_CLIENT_CAPABILITIES: {}}


def organization(rules: int) -> Json:
    """One with a condition on an argument, and as many rules that are for other tools."""
    allow = [{"servers": ["one"], "tools": ["one__*"], "when": {"args.db": {"not_in": ["prod"]}}}]
    deny = [{"tools": [f"one__hidden{number}*"]} for number in range(rules)]
    return {"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": {"allow": allow, "deny": deny}}}}


async def entered(place: House, version: Version) -> int:
    """Functions that one call enters, once everything that is kept is there."""
    params: Json = {"name": "one__echo", "arguments": {"db": "test"}}
    if version == MODERN:
        params["_meta"] = META
    frames: set[FrameType] = set()

    def count(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(ROOMS) and name != wire.__file__:
            frames.add(frame)

    caller = Caller("jwt:issuer ann", "acme", "data")

    async def ask() -> Json:
        return await place.ask("tools/call", params, version=version, caller=caller)

    await ask()
    with watched(count):
        result = await ask()
    assert not result.get("isError"), result
    return len(frames)


@pytest.mark.parametrize(
    ("upstream", "caller"), [(LEGACY, LEGACY), (LEGACY, MODERN), (MODERN, LEGACY), (MODERN, MODERN)]
)
async def test_a_call_is_few_steps_however_many_tools_and_rules_there_are(
    tmp_path: Path, upstream: Version, caller: Version
) -> None:
    found: list[int] = []
    for many in (1, 200):
        fake = Fake(version=upstream, tools=[tool("echo"), *(tool(f"t{number}") for number in range(many))])
        (tmp_path / str(many)).mkdir()
        async with house(tmp_path / str(many), {"one": fake}, organizations=organization(many)) as place:
            found.append(await entered(place, caller))
    assert found[0] == found[1] <= MOST, found


@pytest.mark.parametrize("access", ["off", "public"])
async def test_a_tool_with_an_output_schema_costs_next_to_nothing_more(tmp_path: Path, access: str) -> None:
    found: list[int] = []
    for definition in (tool("echo"), tool("echo", outputSchema={"type": "object"})):
        fake = Fake(tools=[definition], answers={"echo": answering({"content": [], "structuredContent": {"n": 1}})})
        (tmp_path / str(len(found))).mkdir()
        place = house(
            tmp_path / str(len(found)), {"one": fake}, organizations=organization(1), metrics={"access": access}
        )
        async with place as built:
            found.append(await entered(built, LEGACY))
    assert found[1] - found[0] <= MOST_OF_OUTPUTS, found
