"""One test for each row of "Where they fail" in the survey of other gateways: what an agent sees of the catalog.

The rows about processes, time and death are in test_where_peers_fail_in_time.py.
"""

import itertools
import re
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from tests.callers.caller import Caller, Failed
from tests.callers.web import Web, old_web
from tests.e2e.brokers import TIMEOUT, Brokers, command
from tests.e2e.world import CALLERS, PROBES, World
from tests.peers import Peers
from tests.servers import probe

SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*")
"""RFC 3986, section 3 and appendix A: a scheme, and no character that must be encoded."""


async def test_a_modern_caller_before_legacy_upstreams_sees_all_their_tools(world: World) -> None:
    modern, legacy = await Web(world.served.url, "modern").greet(), await Web(world.served.url, "legacy").greet()
    seen = [tool["name"] for tool in await modern.list("tools")]
    for key in PROBES:
        assert sum(name.startswith(f"{key}__") for name in seen) == len(probe.TOOLS)
    hidden = {"every-pipe__simulate-research-query", "every-web__simulate-research-query"}  # taskSupport: required
    assert seen == [tool["name"] for tool in await legacy.list("tools") if tool["name"] not in hidden]


@pytest.mark.parametrize("name", CALLERS)
async def test_instructions_of_several_upstreams_are_merged_in_configuration_order(world: World, name: str) -> None:
    async with world.caller(name) as caller:
        text = caller.greeting["instructions"]
        assert re.findall(r'<instructions server="([a-z-]+)">', text) == list(world.servers)
        assert text.count("</instructions>") == len(world.servers)


async def test_greetings_and_lists_are_the_same_bytes_in_eight_sessions(world: World) -> None:
    for era in ("legacy", "modern"):
        hello = "initialize" if era == "legacy" else "server/discover"
        greetings: set[str] = set()
        lists: set[bytes] = set()
        for _ in range(8):
            caller = await Web(world.served.url, era).greet()
            greetings.add(caller.greeting["instructions"])
            for kind in ("tools", "prompts", "resources", "resources/templates"):
                answer = await caller.exchange(f"{kind}/list", None, ident=kind)
                lists.add(re.sub(rb'"ttlMs":\d+', b'"ttlMs":0', answer))
        assert len(greetings) == 1, hello
        assert len(lists) == 4, era


async def test_tools_are_in_the_order_of_the_configuration_and_then_of_their_server(world: World) -> None:
    caller = await Web(world.served.url, "legacy").greet()
    names = [tool["name"] for tool in await caller.list("tools")]
    assert [key for key, _ in itertools.groupby(name.split("__")[0] for name in names)] == list(world.servers)
    for key in PROBES:
        public = await world.names(key)
        mine = [name for name in names if name.startswith(f"{key}__")]
        assert mine == [public[tool.name] for tool, _ in probe.TOOLS]


@pytest.mark.parametrize("key", PROBES)
async def test_progress_reaches_only_the_caller_that_asked_though_ids_and_tokens_are_equal(
    world: World, key: str
) -> None:
    async with AsyncExitStack() as stack:
        callers: list[Caller] = [
            await Web(world.served.url, "legacy").greet(),
            await Web(world.served.url, "modern").greet(),
            await Web(world.served.url, "legacy").greet(),
            await stack.enter_async_context(old_web(world.served.sse)),
        ]

        async def one(caller: Caller, label: str) -> None:
            arguments = {"seconds": 0.3, "steps": 3, "label": label}
            result = await caller.call(f"{key}__slow", arguments, ident=5, meta={"progressToken": "same"})
            assert result["content"][0]["text"] == f"{key}:slept {label}"

        with anyio.fail_after(TIMEOUT):
            async with anyio.create_task_group() as tasks:
                for position, caller in enumerate(callers):
                    tasks.start_soon(one, caller, f"caller-{position}")
        for position, caller in enumerate(callers):
            seen = [note["params"]["message"] for note in caller.notices if note["method"] == "notifications/progress"]
            assert seen == [f"{key}:caller-{position} {step}/3" for step in (1, 2, 3)]
            assert {note["params"]["progressToken"] for note in caller.notices} == {"same"}


async def test_a_call_without_a_progress_token_gets_no_progress(world: World) -> None:
    caller = await Web(world.served.url, "legacy").greet()
    for key in PROBES:
        await caller.call(f"{key}__slow", {"seconds": 0.02, "steps": 2})
    assert caller.notices == []


@pytest.mark.parametrize("name", CALLERS)
async def test_every_uri_that_is_handed_out_is_valid_and_can_be_read_back(world: World, name: str) -> None:
    async with world.caller(name) as caller:
        listed = [resource["uri"] for resource in await caller.list("resources")]
        assert len(set(listed)) == len(listed) >= 4 * len(PROBES)
        mine = [uri for uri in listed if any(f"{key}+" in uri for key in PROBES)]
        docs = [item["uriTemplate"] for item in await caller.list("resourceTemplates") if item["name"] == "doc"]
        mine += [template.replace("{id}", "alpha") for template in docs]
        for key in PROBES:
            result = await caller.call(f"{key}__link")
            link, embedded = result["content"]
            prompt = await caller.ask("prompts/get", {"name": f"{key}__with_resource"})
            mine += [link["uri"], embedded["resource"]["uri"], prompt["messages"][0]["content"]["resource"]["uri"]]
        tools = [tool for tool in await caller.list("tools") if tool["name"].endswith("__link")]
        mine += [tool["_meta"]["ui"]["resourceUri"] for tool in tools]
        assert len(mine) == (4 + 1 + 3 + 1) * len(PROBES)
        for uri in sorted(set(mine)):
            assert ABSOLUTE_URI.fullmatch(uri) and urlsplit(uri).scheme, uri
            contents = (await caller.ask("resources/read", {"uri": uri}))["contents"]
            assert [content["uri"] for content in contents] == [uri]
        assert all(uri.startswith("ui://") == ("widget" in uri) for uri in mine)


@pytest.mark.parametrize("name", CALLERS)
async def test_names_are_safe_and_short_and_every_one_can_be_called(world: World, name: str) -> None:
    async with world.caller(name) as caller:
        tools = await caller.list("tools")
        names = [tool["name"] for tool in tools] + [prompt["name"] for prompt in await caller.list("prompts")]
        assert len({tool["name"] for tool in tools}) == len(tools)
        for public in names:
            assert SAFE_NAME.fullmatch(public) and len(public) <= 47, public
        for key in PROBES:
            own = await world.names(key)
            for difficult in (probe.LONG_NAME, probe.DOTTED_NAME):
                assert re.search(r"_[0-9a-f]{6}$", own[difficult])
                result = await caller.call(own[difficult])
                assert result["content"][0]["text"].startswith(f"{key}:")


async def test_more_than_a_thousand_tools_come_in_pages_to_the_end(peers: Peers, brokers: Brokers) -> None:
    large = peers.command("probe", "--tools", 1500, "--page-size", 100, "--era", "legacy")
    config = brokers.configure({"large": command(large), "small": command(peers.command("raw"))})
    served = await brokers.aserve(config)
    expected = [f"large__extra_{number}" for number in range(1500)]
    for era in ("legacy", "modern"):
        caller = await Web(served.url, era).greet()
        first = await caller.ask("tools/list")
        assert len(first["tools"]) == 1000
        second = await caller.ask("tools/list", {"cursor": first["nextCursor"]})
        assert "nextCursor" not in second
        names = [tool["name"] for page in (first, second) for tool in page["tools"]]
        assert [name for name in names if "__extra_" in name] == expected
        assert names[-2:] == ["small__ok", "small__boom"]
        assert len(names) == len(set(names)) == 1500 + len(probe.TOOLS) + 2
        # The same page again is the same page, and a cursor is good for its own list and view only.
        assert (await caller.ask("tools/list", {"cursor": first["nextCursor"]}))["tools"] == second["tools"]
        foreign = await Web(served.view("large"), era).greet()
        assert await refused(caller, "prompts/list", first["nextCursor"])
        assert await refused(foreign, "tools/list", first["nextCursor"])
        for invalid in ("at-100", "", "x" * 100, 7, None):
            assert await refused(caller, "tools/list", invalid) == (invalid is not None)


async def refused(caller: Caller, method: str, cursor: Any) -> bool:
    try:
        await caller.ask(method, {"cursor": cursor})
    except Failed as failure:
        assert failure.code == -32602
        return True
    return False
