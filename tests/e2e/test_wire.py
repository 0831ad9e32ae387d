"""The very bytes: callers without an SDK, so that nothing on their side tidies up what the broker sends."""

import json
from typing import Any

import anyio
import pytest

from tests.callers.caller import LEGACY, MODERN, Caller, Failed
from tests.callers.pipe import pipe
from tests.callers.web import Web
from tests.e2e.brokers import TIMEOUT, Brokers, Json, command
from tests.e2e.conversation import HOP, PER_ERA
from tests.e2e.world import CALLERS, PROBES, World, public_uri, published
from tests.peers import Peers
from tests.servers import probe

by_caller = pytest.mark.parametrize("name", CALLERS)

# What each era adds on its own hop, and nothing else: (method, params) of requests whose results are compared.
REQUESTS: list[tuple[str, Json]] = [
    ("tools/call", {"name": "echo", "arguments": {"text": "é\u2028\U0001f600"}}),
    ("tools/call", {"name": "add", "arguments": {"a": 2**53 + 1, "b": 1.5}}),
    ("tools/call", {"name": "fail", "arguments": {}}),
    ("tools/call", {"name": "link", "arguments": {}}),
    ("prompts/get", {"name": "greet", "arguments": {"name": "Ada"}}),
    ("prompts/get", {"name": "with_resource"}),
    ("resources/read", {"uri": probe.README_URI}),
    ("resources/read", {"uri": probe.BLOB_URI}),
    ("resources/read", {"uri": probe.OPAQUE_URI}),
    ("resources/read", {"uri": probe.WIDGET_URI}),
    ("resources/read", {"uri": "probe://docs/a%20b"}),
    (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "name", "value": ""}},
    ),
]


def public_params(key: str, params: Json) -> Json:
    renamed = dict(params)
    if "name" in params:
        renamed["name"] = f"{key}__{params['name']}"
    if "uri" in params:
        renamed["uri"] = public_uri(key, params["uri"])
    if "ref" in params:
        renamed["ref"] = {**params["ref"], "name": f"{key}__{params['ref']['name']}"}
    return renamed


def kept(result: Json) -> str:
    """What must pass untouched, as text: order of keys and form of numbers count."""
    rest = {name: value for name, value in result.items() if name not in (*PER_ERA, "_meta")}
    meta = {name: value for name, value in result.get("_meta", {}).items() if name not in HOP}
    return json.dumps([rest, meta], ensure_ascii=False)


def direct_caller(key: str) -> str:
    """The caller that speaks as the broker does to that upstream."""
    return {"new-pipe": "pipe-modern", "old-pipe": "pipe-legacy", "new-web": "web-modern", "old-web": "web-legacy"}.get(
        key, "sse-legacy"
    )


@by_caller
async def test_results_pass_untouched_in_their_order_with_fields_that_nobody_knows(world: World, name: str) -> None:
    modern = name.endswith("modern")
    async with world.caller(name) as caller:
        for key in PROBES:
            for (method, params), straight in zip(REQUESTS, await straight_results(world, key), strict=True):
                through = await caller.ask(method, public_params(key, params))
                assert kept(through) == kept(published(key, straight)), (key, method, params)
                assert (through.get("resultType") == "complete") == modern
                assert ("resultType" in through) == modern
                reads = method == "resources/read"
                assert {"ttlMs", "cacheScope"} & set(through) == (
                    {"ttlMs", "cacheScope"} if modern and reads else set()
                )
                mine = through.get("_meta", {}).get("io.modelcontextprotocol/serverInfo", {}).get("name")
                assert mine == ("mcp-broker" if modern else None)
                if method == "tools/call":
                    assert through[probe.UNKNOWN_FIELD] == {"from": key}


_straight: dict[str, list[Json]] = {}


async def straight_results(world: World, key: str) -> list[Json]:
    if key not in _straight:
        async with world.caller(direct_caller(key), world.direct[key]) as upstream:
            _straight[key] = [await upstream.ask(method, params) for method, params in REQUESTS]
    return _straight[key]


@by_caller
async def test_what_does_not_exist_has_the_code_of_the_callers_era(world: World, name: str) -> None:
    modern = name.endswith("modern")
    async with world.caller(name) as caller:
        for key in PROBES:
            assert await code_of(caller, "tools/call", {"name": f"{key}__nope", "arguments": {}}) == -32602
            assert await code_of(caller, "prompts/get", {"name": f"{key}__nope"}) == -32602
            missing = f"{key}+probe://nope"
            # Between two legacy sides an error passes as it came, and SDK 2 says -32602 in every era.
            code = -32602 if modern or key.startswith("old") else -32002
            assert await code_of(caller, "resources/read", {"uri": missing}) == code
        # Nobody's prefix, so no upstream is asked.
        assert await code_of(caller, "resources/read", {"uri": "nobody+probe://x"}) == (-32602 if modern else -32002)
        assert await code_of(caller, "tools/call", {"name": "echo", "arguments": {}}) == -32602
        assert await code_of(caller, "no/such/method", {}) == -32601
        assert await code_of(caller, "ping", {}) == (-32601 if modern else None)


async def code_of(caller: Caller, method: str, params: Json) -> int | None:
    try:
        await caller.ask(method, params)
    except Failed as failure:
        return failure.code
    return None


@by_caller
async def test_completion_works_for_prompts_and_for_templates(world: World, name: str) -> None:
    async with world.caller(name) as caller:
        for key in PROBES:
            prompt = {"type": "ref/prompt", "name": f"{key}__greet"}
            template = {"type": "ref/resource", "uri": public_uri(key, probe.TEMPLATE)}
            for ref, argument, values in [
                (prompt, {"name": "name", "value": "A"}, ["Ada", "Alan"]),
                (template, {"name": "id", "value": "b"}, ["beta"]),
            ]:
                result = await caller.ask("completion/complete", {"ref": ref, "argument": argument})
                assert result["completion"]["values"] == values


@by_caller
async def test_progress_of_parallel_calls_reaches_each_call_under_its_own_token(world: World, name: str) -> None:
    async with world.caller(name) as caller:

        async def one(key: str, token: Any) -> None:
            arguments = {"seconds": 0.2, "steps": 2, "label": f"{token}"}
            await caller.call(f"{key}__slow", arguments, meta={"progressToken": token})

        tokens = {key: (position if position % 2 else f"t{position}") for position, key in enumerate(PROBES)}
        with anyio.fail_after(TIMEOUT):
            async with anyio.create_task_group() as tasks:
                for key, token in tokens.items():
                    tasks.start_soon(one, key, token)
        for key, token in tokens.items():
            notes = [note["params"] for note in caller.notices if note["params"].get("progressToken") == token]
            assert [note["message"] for note in notes] == [f"{key}:{token} 1/2", f"{key}:{token} 2/2"]
        assert len(caller.notices) == 2 * len(tokens)


async def test_both_eras_are_served_on_one_pipe_with_one_id_space(peers: Peers, brokers: Brokers) -> None:
    config = brokers.configure({"one": command(peers.command("raw"))})
    async with pipe(brokers.stdio(config), "modern") as caller:
        assert caller.greeting["supportedVersions"] == [MODERN]
        caller.era = "legacy"
        with pytest.raises(Failed) as refusal:
            await caller.ask("tools/list")
        assert refusal.value.code == -32602
        await caller.greet()
        assert caller.greeting["protocolVersion"] == LEGACY
        legacy = await caller.ask("tools/list")
        caller.era = "modern"
        modern = await caller.ask("tools/list")
        assert modern["tools"] == legacy["tools"]
        assert "resultType" in modern and "resultType" not in legacy


async def test_a_modern_error_has_the_http_status_of_its_code(world: World) -> None:
    caller = await Web(world.served.url, "modern").greet()
    for method, params, status in [
        ("no/such/method", {}, 404),
        ("tools/call", {"name": "nope", "arguments": {}}, 400),
        ("tools/list", {}, 200),
    ]:
        with anyio.fail_after(TIMEOUT):
            await caller.exchange(method, params)
        assert caller.status == status


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_view_hides_what_is_not_in_it_as_if_it_did_not_exist(world: World, era: str) -> None:
    caller = await Web(world.served.view("new-pipe"), era).greet()
    argument = {"name": "id", "value": "b"}
    for method, params in [
        ("tools/call", {"name": "{}__echo", "arguments": {"text": "x"}}),
        ("prompts/get", {"name": "{}__greet"}),
        ("resources/read", {"uri": "{}+probe://static/readme"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "{}__greet"}, "argument": argument}),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "{}+probe://docs/{{id}}"}, "argument": argument},
        ),
    ]:
        hidden = await refusal(caller, method, params, "old-pipe")
        unknown = await refusal(caller, method, params, "nobodys")
        assert hidden == unknown, (method, params)


async def refusal(caller: Caller, method: str, params: Json, key: str) -> str:
    """The error, less the key of the server."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: fill(item) for name, item in value.items()}
        return value.format(key) if isinstance(value, str) else value

    with pytest.raises(Failed) as failure:
        await caller.ask(method, fill(params))
    return json.dumps(failure.value.args[0]).replace(key, "KEY")
