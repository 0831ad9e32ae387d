"""What a name leads to: hidden and unknown alike, unseen servers, disabled ones, views, completion."""

from pathlib import Path
from typing import Any

import pytest

from broker.errors import BrokerError, UpstreamUnavailable
from tests.relay.fake import LEGACY, MODERN, Fake, House, Json, answering, house

ASKS: list[tuple[str, Json]] = [
    ("tools/call", {"name": "KEY__echo"}),
    ("prompts/get", {"name": "KEY__greet"}),
    ("resources/read", {"uri": "KEY+file:///readme"}),
    (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "KEY__greet"}, "argument": {"name": "a", "value": ""}},
    ),
    (
        "completion/complete",
        {"ref": {"type": "ref/resource", "uri": "KEY+x://{id}"}, "argument": {"name": "a", "value": ""}},
    ),
]


def filled(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: filled(key, inner) for name, inner in value.items()}
    return value.replace("KEY", key) if isinstance(value, str) else value


def whole(**more: Any) -> Fake:
    return Fake(
        prompts=[{"name": "greet"}],
        resources=[{"uri": "file:///readme", "name": "r"}],
        templates=[{"uriTemplate": "x://{id}", "name": "t"}],
        capabilities={"completions": {}},
        answers={"completion/complete": answering({"completion": {"values": ["v"]}})},
        **more,
    )


async def refusal(place: House, method: str, params: Json, **more: Any) -> tuple[int, str, Any]:
    with pytest.raises(BrokerError) as caught:
        await place.ask(method, params, **more)
    return caught.value.code, caught.value.message, caught.value.data


@pytest.mark.parametrize(("method", "params"), ASKS)
async def test_every_visible_name_leads_to_its_server_under_its_own_name(
    tmp_path: Path, method: str, params: Json
) -> None:
    async with house(tmp_path, {"one": whole(), "two": whole()}, groups={"both": ["one", "two"]}) as place:
        for view in ("", "two", "both"):
            await place.ask(method, filled("two", params), view=view)
        assert len(place.fakes["two"].asked) == 3 and place.fakes["one"].asked == []
        assert place.fakes["two"].asked[0].params == filled("", params) | _own(params)


def _own(params: Json) -> Json:
    """The same with own names: `KEY__x` is x, `KEY+u` is u."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: bare(inner) for name, inner in value.items()}
        return value.removeprefix("KEY__").removeprefix("KEY+")

    return bare(params)


@pytest.mark.parametrize(("method", "params"), ASKS)
async def test_SP40_SP46_I15_hidden_denied_disabled_and_unknown_are_one_answer(
    tmp_path: Path, method: str, params: Json
) -> None:
    deny = {"tools": {"deny": ["*"]}, "prompts": {"deny": ["*"]}, "resources": {"deny": ["*"]}}
    servers = {"one": {}, "denied": deny, "off": {"enabled": False}}
    async with house(tmp_path, {"one": whole(), "denied": whole()}, servers=servers) as place:
        for version in (LEGACY, MODERN):
            answers = [
                (await refusal(place, method, filled(key, params), version=version, view=view), key)
                for key, view in (
                    ("nobody", ""),
                    ("denied", ""),
                    ("off", ""),
                    ("denied", "one"),
                    ("off", "off"),
                    ("one", "denied"),
                )
            ]
            plain = {str(answer).replace(f"{key}__", "KEY__").replace(f"{key}+", "KEY+") for answer, key in answers}
            assert len(plain) == 1, plain
        assert place.fakes["denied"].asked == [] and place.fakes["one"].asked == []


@pytest.mark.parametrize(("method", "params"), ASKS[:4])
async def test_I16_an_unknown_view_shows_nothing(tmp_path: Path, method: str, params: Json) -> None:
    async with house(tmp_path, {"one": whole()}) as place:
        code, message, _ = await refusal(place, method, filled("one", params), view="nobody")
        assert code in (-32602, -32002) and "one" not in message.replace("one__", "")
        assert place.fakes["one"].asked == []


@pytest.mark.parametrize(("method", "params"), ASKS)
async def test_a_name_of_an_unseen_server_is_unavailable_and_says_whose(
    tmp_path: Path, method: str, params: Json
) -> None:
    fakes = {"one": whole(), "bad": Fake(state="down")}
    async with house(tmp_path, fakes, broker={"first_wait": 0.05}) as place:
        with pytest.raises(UpstreamUnavailable) as caught:
            await place.ask(method, filled("bad", params))
        assert caught.value.data == {"upstream": "bad", "reason": "it is down"}
        code, _, data = await refusal(place, method, filled("bad", params), view="one")
        assert code in (-32602, -32002) and "upstream" not in (data or {}), "not for a view without it"


async def test_a_rule_that_hides_a_name_hides_it_while_its_server_is_unseen_too(tmp_path: Path) -> None:
    servers = {"bad": {"tools": {"deny": ["secret"]}}}
    async with house(tmp_path, {"one": whole(), "bad": Fake(state="down")}, servers=servers) as place:
        code, message, data = await refusal(place, "tools/call", {"name": "bad__secret"})
        assert (code, message, data) == (-32602, "Unknown tool: bad__secret", None)


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {},
        [],
        "x",
        {"type": "ref/prompt"},
        {"type": "ref/prompt", "name": 1},
        {"type": "ref/resource", "name": "x"},
        {"type": "ref/tool", "name": "one__echo"},
    ],
)
async def test_a_reference_that_is_none_is_invalid(tmp_path: Path, reference: Any) -> None:
    async with house(tmp_path, {"one": whole()}) as place:
        code, _, _ = await refusal(place, "completion/complete", {"ref": reference, "argument": {}})
        assert code == -32602 and place.fakes["one"].asked == []


async def test_methods_belong_to_an_era(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": whole()}) as place:
        assert await place.ask("ping") == {}
        assert (await refusal(place, "ping", {}, version=MODERN))[0] == -32601
        assert (await refusal(place, "server/discover", {}))[0] == -32601
        for method in ("", "tools", "tools/call/x", "TOOLS/CALL", "initialize", "notifications/cancelled", "x" * 5000):
            code, message, _ = await refusal(place, method, {})
            assert code == -32601 and len(message) < 300
