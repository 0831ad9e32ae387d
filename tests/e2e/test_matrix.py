"""Every client through every front to every upstream: what comes back is what the upstream itself says."""

from typing import Any

import pytest

from tests.e2e.conversation import KINDS, Kind, essence
from tests.e2e.world import FRONTS, GROUPS, PROBES, UPSTREAMS, World, published
from tests.peers import missing
from tests.servers import probe

Json = dict[str, Any]
MODERN, LEGACY = "2026-07-28", "2025-11-25"
PLURALS = ("tools", "prompts", "resources", "resourceTemplates")

by_client = pytest.mark.parametrize("kind", KINDS)
by_front = pytest.mark.parametrize("front", FRONTS)
by_upstream = pytest.mark.parametrize("key", UPSTREAMS)


def needs(world: World, key: str) -> None:
    if key not in world.servers:
        missing("server-everything is not installed: `make test` installs it under tests/node")


def is_modern(kind: Kind, front: str) -> bool:
    return kind == "sdk2-auto" and front != "sse"


@by_client
@by_front
async def test_a_greeting_says_what_all_upstreams_say(world: World, kind: Kind, front: str) -> None:
    report = await world.report(kind, front)
    assert report.greeting["protocolVersion"] == (MODERN if is_modern(kind, front) else LEGACY)
    assert report.greeting["serverInfo"]["name"] == "mcp-broker"
    assert report.greeting["capabilities"]["tools"]["listChanged"]
    assert {"tools", "prompts", "resources", "completions"} <= set(report.greeting["capabilities"])
    text = report.greeting["instructions"]
    positions = [text.index(f'<instructions server="{key}">') for key in world.servers]
    assert positions == sorted(positions)
    for key in PROBES:
        assert f"This is {key}. Use `{key}__echo` to hear yourself" in text
        assert (await world.names(key))[probe.DOTTED_NAME] in text
    assert report.ping["ok"] == {}


@by_client
@by_front
@by_upstream
async def test_lists_have_every_definition_as_its_server_wrote_it(
    world: World, kind: Kind, front: str, key: str
) -> None:
    needs(world, key)
    report, direct = await world.report(kind, front), await world.direct_report(key, front)
    names = await world.names(key)
    for position, plural in enumerate(PLURALS):
        own = direct["results"][position]["ok"][plural]
        if is_modern(kind, front):
            # The modern era cannot call what must run as a task.
            own = [item for item in own if item.get("execution", {}).get("taskSupport") != "required"]
        if plural in ("tools", "prompts"):
            expected = [{**published(key, item), "name": names[item["name"]]} for item in own]
            seen = [item for item in report.listed(plural) if item["name"].startswith(f"{key}__")]
        else:
            expected = published(key, own)
            field = "uri" if plural == "resources" else "uriTemplate"
            marks = (f"{key}+", f"ui://{key}+")
            seen = [item for item in report.listed(plural) if item[field].startswith(marks)]
        assert seen == expected


@by_client
@by_front
@by_upstream
async def test_results_are_those_of_the_upstream(world: World, kind: Kind, front: str, key: str) -> None:
    needs(world, key)
    report, direct = await world.report(kind, front), await world.direct_report(key, front)
    operations = await world.operations(key)
    for operation, through, straight in zip(operations, report.of(key), direct["results"][4:], strict=True):
        assert ("ok" in through) == ("ok" in straight), (operation, through, straight)
        if "ok" in straight:
            expected = published(key, essence(straight["ok"]))
            if kind == "sdk1" and operation[0] == "call_tool" and key in PROBES:
                expected[probe.UNKNOWN_FIELD] = {"from": key}  # SDK 2 itself drops what it does not know
            if operation[-1] == {"seconds": 0.03, "steps": 3, "label": key}:
                expected["content"][0]["text"] = f"{key}:slept {key}"
            assert essence(through["ok"]) == expected, operation


@by_client
@by_front
@pytest.mark.parametrize("key", PROBES)
async def test_an_unknown_resource_has_the_code_of_its_callers_era(
    world: World, kind: Kind, front: str, key: str
) -> None:
    report, names = await world.report(kind, front), await world.names(key)
    assert names["echo"] == f"{key}__echo"
    error = report.of(key)[-1]["error"]
    # Between two legacy sides an error passes as it came, and SDK 2 says -32602 in every era.
    assert error["code"] == (-32602 if is_modern(kind, front) or key.startswith("old") else -32002)
    assert error["data"]["uri"] == f"{key}+probe://nowhere/1"


@by_client
@by_front
async def test_progress_reaches_an_sdk_client_from_every_probe(world: World, kind: Kind, front: str) -> None:
    report = await world.report(kind, front)
    seen = [note["message"] for note in report.whole["progress"]]
    assert seen == [f"{key}:{key} {step}/3" for key in PROBES for step in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["sdk2-auto", "sdk2-legacy"])
@pytest.mark.parametrize("view", [*PROBES, *GROUPS])
async def test_a_view_shows_its_servers_and_nothing_else(world: World, kind: Kind, view: str) -> None:
    from_all = await world.report(kind, "http")
    report = await world.view(kind, view)
    keys = GROUPS.get(view, [view])
    marks = tuple(mark for key in keys for mark in (f"{key}__", f"{key}+", f"ui://{key}+"))
    for position, plural in enumerate(PLURALS):
        field = {"resources": "uri", "resourceTemplates": "uriTemplate"}.get(plural, "name")
        seen = report["results"][position]["ok"][plural]
        assert seen == [item for item in from_all.listed(plural) if item[field].startswith(marks)]
        assert seen
    instructions = report["initialize"]["instructions"]
    assert ("<instructions" in instructions) == (len(keys) > 1)
    assert [f"This is {key}." in instructions for key in PROBES] == [key in keys for key in PROBES]
    inside, outside = report["results"][4:]
    assert inside["ok"]["content"][0]["text"] == f"{keys[0]}:in"
    assert outside["error"]["code"] == -32602
