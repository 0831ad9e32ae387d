"""A permitted call, upstream and back: what changes between the eras, and that nothing else does."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.core.era import Version
from broker.errors import BrokerError, UpstreamAnsweredError, UpstreamUnavailable
from tests.relay.fake import (
    LEGACY,
    MODERN,
    TIMEOUT,
    Asked,
    Fake,
    Gate,
    House,
    Json,
    answering,
    house,
    refusing,
    tool,
)

META = "io.modelcontextprotocol/"
ERAS = [(LEGACY, LEGACY), (LEGACY, MODERN), (MODERN, LEGACY), (MODERN, MODERN)]
ECHO: Json = {"name": "one__echo", "arguments": {"a": 1}}
README: Json = {"uri": "one+file:///readme"}


def fake(version: Version, **answers: Any) -> Fake:
    return Fake(
        version=version,
        resources=[{"uri": "file:///readme", "name": "r"}, {"uri": "https://docs.example/api", "name": "d"}],
        templates=[{"uriTemplate": "probe://docs/{id}", "name": "t"}],
        prompts=[{"name": "greet"}],
        answers={name.replace("__", "/"): answer for name, answer in answers.items()},
    )


async def refused(place: House, method: str, params: Json, **more: Any) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        await place.ask(method, params, **more)
    return caught.value


@pytest.mark.parametrize(("upstream", "caller"), ERAS)
async def test_a_result_passes_as_it_came(tmp_path: Path, upstream: Version, caller: Version) -> None:
    result = {
        "content": [{"type": "text", "text": "x", "annotations": {"a": 1}, "unknown": None}],
        "structuredContent": {"n": 10**30, "f": 1.5, "deep": [{"x": []}]},
        "isError": True,
        "vendorField": {"kept": [1, 2]},
        "_meta": {
            "vendor/key": 1,
            f"{META}serverInfo": {"name": "spoof"},
            f"{META}subscriptionId": 9,
            "progressToken": 3,
        },
    }
    async with house(tmp_path, {"one": fake(upstream, echo=answering(result))}) as place:
        found = await place.ask("tools/call", ECHO, version=caller)
    meta = found.pop("_meta")
    assert meta.pop("vendor/key") == 1
    own = meta.pop(f"{META}serverInfo", None)
    assert (own is None) == (caller == LEGACY) and (own is None or own["name"] == "test")
    assert meta == {}, "what speaks of the other hop is gone"
    assert found.pop("resultType", None) == ("complete" if caller == MODERN else None)
    assert found == {key: value for key, value in result.items() if key != "_meta"}


@pytest.mark.parametrize(("upstream", "caller"), ERAS)
async def test_the_request_is_the_callers_under_the_own_name(
    tmp_path: Path, upstream: Version, caller: Version
) -> None:
    params = {**ECHO, "vendor": 1, "_meta": {"traceparent": "00-x", f"{META}clientCapabilities": {"sampling": {}}}}
    async with house(tmp_path, {"one": fake(upstream)}) as place:
        await place.ask("tools/call", params, version=caller)
        sent = dict(place.fakes["one"].asked[-1].params)
    meta = sent.pop("_meta")
    assert sent == {"name": "echo", "arguments": {"a": 1}, "vendor": 1}
    assert meta.pop("traceparent") == "00-x"
    assert meta.pop(f"{META}clientCapabilities", None) == ({} if upstream == MODERN else None), "never the caller's"
    assert meta.pop(f"{META}clientInfo", {"name": "mcp-broker"})["name"] == "mcp-broker"
    assert meta.pop(f"{META}protocolVersion", upstream) == upstream
    assert meta == {}


ERRORS: list[tuple[Version, Version, int, Any, int, Any]] = [
    # upstream, caller, code, data -> code, data, of a resources/read
    (LEGACY, MODERN, -32002, None, -32602, {"uri": "one+file:///readme"}),
    (LEGACY, MODERN, -32002, {"uri": "file:///readme", "x": 1}, -32602, {"uri": "one+file:///readme", "x": 1}),
    (LEGACY, LEGACY, -32002, {"uri": "file:///readme"}, -32002, {"uri": "one+file:///readme"}),
    (MODERN, LEGACY, -32602, {"uri": "file:///readme"}, -32002, {"uri": "one+file:///readme"}),
    (MODERN, LEGACY, -32602, None, -32602, None),
    (MODERN, MODERN, -32602, {"uri": "file:///readme"}, -32602, {"uri": "one+file:///readme"}),
    (LEGACY, MODERN, -32042, {"elicitations": []}, -32603, {"elicitations": []}),
    (LEGACY, LEGACY, -32042, {"elicitations": []}, -32042, {"elicitations": []}),
    (MODERN, LEGACY, -32020, None, -32603, None),
    (MODERN, LEGACY, -32021, {"requiredCapabilities": {}}, -32603, {"requiredCapabilities": {}}),
    (MODERN, LEGACY, -32022, None, -32603, None),
    (MODERN, MODERN, -32050, None, -32603, None),
    (LEGACY, MODERN, -32099, None, -32603, None),
    (LEGACY, LEGACY, 7, [1], 7, [1]),
    (MODERN, MODERN, -32000, "text", -32000, "text"),
    (LEGACY, MODERN, -32601, None, -32601, None),
]


@pytest.mark.parametrize(("upstream", "caller", "code", "data", "public_code", "public_data"), ERRORS)
async def test_SP32_an_error_has_the_code_of_the_callers_era(
    tmp_path: Path, upstream: Version, caller: Version, code: int, data: Any, public_code: int, public_data: Any
) -> None:
    async with house(tmp_path, {"one": fake(upstream, resources__read=refusing(code, data))}) as place:
        error = await refused(place, "resources/read", README, version=caller)
    assert isinstance(error, UpstreamAnsweredError) and error.message == "said the upstream"
    assert (error.code, error.data) == (public_code, public_data)


@pytest.mark.parametrize("value", [[1, 2], "text", 5, None, False])
async def test_structured_content_that_is_no_object_becomes_text_for_a_legacy_caller(
    tmp_path: Path, value: Any
) -> None:
    answers = {
        "echo": answering({"structuredContent": value, "content": []}),
        "slow": answering({"structuredContent": value, "content": [{"type": "text", "text": "own"}]}),
    }
    async with house(tmp_path, {"one": fake(MODERN, **answers)}) as place:
        made = await place.ask("tools/call", ECHO)
        kept = await place.ask("tools/call", {"name": "one__slow"})
        modern = await place.ask("tools/call", ECHO, version=MODERN)
    assert "structuredContent" not in made and made["content"][0]["type"] == "text"
    assert kept == {"content": [{"type": "text", "text": "own"}]}
    assert modern["structuredContent"] == value


@pytest.mark.parametrize("kind", ["input_required", "task", "", 5, ["complete"], {}])
@pytest.mark.parametrize("caller", [LEGACY, MODERN])
async def test_SP30_a_question_that_nobody_offered_to_answer_is_an_error_not_a_result(
    tmp_path: Path, caller: Version, kind: Any
) -> None:
    result = {"resultType": kind, "inputRequests": {"q": {"method": "elicitation/create"}}, "content": []}
    async with house(tmp_path, {"one": fake(MODERN, echo=answering(result))}) as place:
        error = await refused(place, "tools/call", ECHO, version=caller)
    assert (error.code, error.data["upstream"]) == (-32603, "one")
    assert "elicitation" not in error.message


async def test_uris_in_results_are_public_wherever_they_stand(tmp_path: Path) -> None:
    blocks = [
        {"type": "resource_link", "uri": "file:///readme", "name": "r"},
        {"type": "resource_link", "uri": "https://docs.example/api", "name": "listed"},
        {"type": "resource_link", "uri": "https://elsewhere.example/", "name": "web"},
        {"type": "resource", "resource": {"uri": "probe://docs/7", "text": "file:///readme"}},
        {"type": "text", "text": "file:///readme"},
    ]
    public = ["one+file:///readme", "one+https://docs.example/api", "https://elsewhere.example/"]
    answers = {
        "echo": answering({"content": blocks, "structuredContent": {"uri": "file:///readme"}}),
        "greet": answering({"messages": [{"role": "user", "content": block} for block in blocks]}),
        "resources__read": answering({"contents": [{"uri": "file:///readme", "text": "x"}, {"uri": "probe://docs/7"}]}),
    }
    async with house(tmp_path, {"one": fake(LEGACY, **answers)}) as place:
        called = await place.ask("tools/call", ECHO)
        got = await place.ask("prompts/get", {"name": "one__greet"})
        read = await place.ask("resources/read", README)
        asked = place.fakes["one"].asked[-1].params["uri"]
        again = [await place.ask("resources/read", {"uri": uri}) for uri in (*public[:2], "one+probe://docs/7")]
        sent = [asked.params["uri"] for asked in place.fakes["one"].asked[-3:]]
    assert asked == "file:///readme"
    for content in (called["content"], [one["content"] for one in got["messages"]]):
        assert [block["uri"] for block in content[:3]] == public
        assert content[3]["resource"] == {"uri": "one+probe://docs/7", "text": "file:///readme"}
        assert content[4]["text"] == "file:///readme", "text is text"
    assert called["structuredContent"] == {"uri": "file:///readme"}
    assert [one["uri"] for one in read["contents"]] == ["one+file:///readme", "one+probe://docs/7"]
    assert sent == ["file:///readme", "https://docs.example/api", "probe://docs/7"] and len(again) == 3


@pytest.mark.parametrize(("upstream", "ttl"), [(LEGACY, (0, "private")), (MODERN, (60_000, "public"))])
async def test_SP41_a_read_carries_how_long_it_holds(tmp_path: Path, upstream: Version, ttl: tuple[int, str]) -> None:
    result = {"contents": [], "ttlMs": 60_000, "cacheScope": "public"}
    async with house(tmp_path, {"one": fake(upstream, resources__read=answering(result))}) as place:
        modern = await place.ask("resources/read", README, version=MODERN)
        legacy = await place.ask("resources/read", README)
    assert (modern["ttlMs"], modern["cacheScope"]) == ttl
    assert ("ttlMs" in legacy) == (upstream == LEGACY), "unknown fields of a legacy upstream pass"


async def test_an_upstream_that_is_gone_is_said_at_once_with_its_name(tmp_path: Path) -> None:
    gate = Gate()
    async with house(tmp_path, {"one": fake(LEGACY, slow=gate), "two": Fake()}) as place:
        async with anyio.create_task_group() as tasks:
            errors: list[BrokerError] = []

            async def call() -> None:
                errors.append(await refused(place, "tools/call", {"name": "one__slow"}))

            tasks.start_soon(call)
            await place.fakes["one"].until(lambda: bool(place.fakes["one"].asked))
            link = place.fakes["one"].link
            assert link is not None
            link.lose("it exited with code 3")
            gate.opened.set()
        error = await refused(place, "tools/call", ECHO)
        assert isinstance(error, UpstreamUnavailable) and error.data == {
            "upstream": "one",
            "reason": "it exited with code 3",
        }
        assert (await place.ask("tools/call", {"name": "two__echo"}))["content"], "the innocent"


async def test_SP33_a_call_out_of_time_is_cancelled_upstream_and_said(tmp_path: Path) -> None:
    fakes = {"one": fake(LEGACY, slow=Gate())}
    async with house(tmp_path, fakes, servers={"one": {"timeout": 0.05}}) as place:
        error = await refused(place, "tools/call", {"name": "one__slow"})
        assert error.data == {"upstream": "one", "reason": "timeout"}
        assert place.fakes["one"].cancelled == ["slow"]


async def test_a_cancelled_call_says_nothing_more_not_even_what_was_kept(tmp_path: Path) -> None:
    """2026-07-28 streamable-http: the server "MUST NOT send any further messages for it"."""
    told: list[Json] = []

    async def flood(asked: Asked) -> Json:
        for step in range(100):
            asked.progress(step)
        await anyio.sleep_forever()
        raise AssertionError

    async with house(tmp_path, {"one": fake(LEGACY, slow=flood)}) as place, anyio.create_task_group() as tasks:
        params = {"name": "one__slow", "_meta": {"progressToken": 1}}

        async def call() -> None:
            await place.ask("tools/call", params, emit=lambda method, params: told.append(params))

        tasks.start_soon(call)
        with anyio.fail_after(TIMEOUT):
            await place.fakes["one"].until(lambda: bool(told))
        count = len(told)
        tasks.cancel_scope.cancel()
    assert place.fakes["one"].cancelled == ["slow"]
    assert len(told) == count


async def test_the_progress_of_a_call_that_fails_comes_before_its_error(tmp_path: Path) -> None:
    told: list[Json] = []

    async def flood(asked: Asked) -> Json:
        for step in range(100):
            asked.progress(step)
        return {"resultType": "input_required"}

    async with house(tmp_path, {"one": fake(MODERN, slow=flood)}) as place:
        with pytest.raises(BrokerError):
            params = {"name": "one__slow", "_meta": {"progressToken": 1}}
            await place.ask("tools/call", params, emit=lambda method, params: told.append(params))
    assert told[-1]["progress"] == 99


async def test_hiding_in_lists_between_the_eras(tmp_path: Path) -> None:
    tools = [
        tool("plain"),
        tool("tasked", execution={"taskSupport": "required"}),
        tool("array", outputSchema={"type": "array"}),
    ]
    for upstream, modern, legacy in ((LEGACY, ["plain", "array"], ["plain", "tasked", "array"]), (MODERN, 3, 3)):
        async with house(tmp_path, {"one": Fake(version=upstream, tools=tools)}) as place:
            for caller, names in ((MODERN, modern), (LEGACY, legacy)):
                listed = (await place.ask("tools/list", version=caller))["tools"]
                found = [one["name"].removeprefix("one__") for one in listed]
                assert found == names or len(found) == names
                has_schema = any("outputSchema" in one for one in listed)
                assert has_schema == ((upstream, caller) != (MODERN, LEGACY))
