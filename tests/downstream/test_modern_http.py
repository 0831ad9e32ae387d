"""The modern era over HTTP: the envelope, the mirrored headers, versions, methods, cursors."""

import base64
import logging
from typing import Any

import pytest

from tests.downstream.conftest import Front
from tests.downstream.raw_http import ENVELOPE, META, message, modern, modern_headers, without

ECHO = {"name": "one__echo", "arguments": {"text": "x"}}
CALL = modern("tools/call", ECHO)
QUERY = {"name": "one__query", "arguments": {"region": "eu", "limit": 5}}
PARAMS = [("Mcp-Param-Region", "eu"), ("Mcp-Param-Limit", "5")]


def sentinel(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def replaced(name: str, *values: str) -> list[tuple[str, str]]:
    return [*without(modern_headers(CALL), name.lower()), *((name, value) for value in values)]


MISMATCHES = {
    "version missing": replaced("MCP-Protocol-Version"),
    "version legacy": replaced("MCP-Protocol-Version", "2025-11-25"),
    "version unknown": replaced("MCP-Protocol-Version", "2099-01-01"),
    "version twice": replaced("MCP-Protocol-Version", "2026-07-28", "2026-07-28"),
    "version twice, one other": replaced("MCP-Protocol-Version", "2026-07-28", "2025-11-25"),
    "version as sentinel": replaced("MCP-Protocol-Version", sentinel("2026-07-28")),
    "method missing": replaced("Mcp-Method"),
    "method other": replaced("Mcp-Method", "tools/list"),
    "method case": replaced("Mcp-Method", "Tools/Call"),
    "method twice": replaced("Mcp-Method", "tools/call", "tools/call"),
    "method empty": replaced("Mcp-Method", ""),
    "name missing": replaced("Mcp-Name"),
    "name other": replaced("Mcp-Name", "two__hidden"),
    "name own": replaced("Mcp-Name", "echo"),
    "name case": replaced("Mcp-Name", "ONE__ECHO"),
    "name twice": replaced("Mcp-Name", "one__echo", "one__echo"),
    "name twice, other first": replaced("Mcp-Name", "two__secret", "one__echo"),
    "name in another case of header": [*modern_headers(CALL), ("MCP-NAME", "two__secret")],
    "name joined": replaced("Mcp-Name", "one__echo, two__secret"),
    "sentinel other": replaced("Mcp-Name", sentinel("two__secret")),
    "sentinel not base64": replaced("Mcp-Name", "=?base64?***?="),
    "sentinel not canonical": replaced("Mcp-Name", "=?base64?b25lX19lY2hv=?="),
    "sentinel not UTF-8": replaced("Mcp-Name", "=?base64?//8=?="),
    "sentinel upper case": replaced("Mcp-Name", sentinel("one__echo").replace("base64", "BASE64")),
    "sentinel twice over": replaced("Mcp-Name", sentinel(sentinel("one__echo"))),
}


@pytest.mark.parametrize("what", MISMATCHES)
async def test_SP15_SP16_SP17_headers_that_differ_from_the_body_are_400(front: Front, what: str) -> None:
    before = len(front.fake.asked)
    reply = await front.client.post(CALL, MISMATCHES[what])
    assert (reply.status, reply.code, reply.json["id"]) == (400, -32020, 1)
    assert len(front.fake.asked) == before


async def test_SP17_an_encoded_name_equal_to_the_body_is_served(front: Front) -> None:
    assert (await front.client.post(CALL, replaced("Mcp-Name", sentinel("one__echo")))).status == 200


async def test_SP17_a_body_name_that_looks_like_a_sentinel_is_compared_decoded(front: Front) -> None:
    name = sentinel("one__echo")
    body = modern("tools/call", {"name": name, "arguments": {}})
    plain = await front.client.post(body, modern_headers(body))
    assert plain.code == -32020, "it must be encoded once more"
    encoded = await front.client.post(body, [*without(modern_headers(body), "mcp-name"), ("Mcp-Name", sentinel(name))])
    assert encoded.code == -32602, "an unknown tool: never decoded into a known one"


async def test_SP16_header_names_have_no_case(front: Front) -> None:
    headers = [(name.upper(), value) for name, value in modern_headers(CALL)]
    assert (await front.client.post(CALL, headers)).status == 200


@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
async def test_SP16_the_name_header_holds_for_prompts_and_resources_too(front: Front, method: str) -> None:
    key = "uri" if method == "resources/read" else "name"
    body = modern(method, {key: "one+file:///readme" if key == "uri" else "one__greet"})
    assert (await front.client.post(body, modern_headers(body))).status == 200
    reply = await front.client.post(body, [*without(modern_headers(body), "mcp-name"), ("Mcp-Name", "else")])
    assert (reply.status, reply.code) == (400, -32020)


QUERY_CALL = modern("tools/call", QUERY)
PARAM_MISMATCHES: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "missing": (QUERY, PARAMS[:1]),
    "other": (QUERY, [("Mcp-Param-Region", "us"), PARAMS[1]]),
    "malformed sentinel": (QUERY, [("Mcp-Param-Region", "=?base64?!?="), PARAMS[1]]),
    "twice": (QUERY, [*PARAMS, ("mcp-param-region", "eu")]),
    "argument absent": ({"name": "one__query", "arguments": {"limit": 5}}, PARAMS),
    "no arguments": ({"name": "one__query"}, PARAMS),
    "arguments null": ({"name": "one__query", "arguments": None}, PARAMS),
    "argument null": ({"name": "one__query", "arguments": {"limit": 5, "region": None}}, PARAMS),
    "case": (QUERY, [("Mcp-Param-Region", "EU"), PARAMS[1]]),
}


@pytest.mark.parametrize("what", PARAM_MISMATCHES)
async def test_SP16_SP20_a_mirrored_argument_that_differs_is_400(front: Front, what: str) -> None:
    params, headers = PARAM_MISMATCHES[what]
    before = len(front.fake.asked)
    body = modern("tools/call", params)
    reply = await front.client.post(body, [*modern_headers(body), *headers])
    assert (reply.status, reply.code) == (400, -32020)
    assert len(front.fake.asked) == before


@pytest.mark.parametrize(
    "headers",
    [
        PARAMS,
        [("MCP-PARAM-REGION", sentinel("eu")), ("mcp-param-limit", "5.0")],
        [*PARAMS, ("Mcp-Param-Nobody", "asked")],
    ],
)
async def test_SP16_SP19_mirrored_arguments_that_agree_are_served(front: Front, headers: list[tuple[str, str]]) -> None:
    reply = await front.client.post(QUERY_CALL, [*modern_headers(QUERY_CALL), *headers])
    assert reply.status == 200, reply.body


async def test_SP16_a_tool_without_mirrored_arguments_ignores_such_headers(front: Front) -> None:
    assert (await front.client.post(CALL, [*modern_headers(CALL), *PARAMS, *PARAMS])).status == 200


@pytest.mark.parametrize(
    ("path", "name"), [("/mcp", "two__hidden"), ("/mcp/two", "one__query"), ("/mcp/two", "two__hidden")]
)
async def test_SP40_a_hidden_tool_with_mirrored_arguments_answers_like_an_unknown_one(
    front: Front, path: str, name: str
) -> None:
    """Its schema must not be tried out through its headers."""
    answers: list[tuple[int, Any]] = []
    for tried in (name, "two__nobody"):
        body = modern("tools/call", {"name": tried, "arguments": {"region": "eu"}})
        reply = await front.client.post(body, [*modern_headers(body), ("Mcp-Param-Region", "us")], path)
        answers.append((reply.status, str(reply.json).replace(tried, "NAME")))
    assert answers[0] == answers[1]


async def test_SP18_the_decision_is_made_on_the_body(front: Front) -> None:
    body = modern("tools/call", {"name": "two__hidden", "arguments": {}})
    reply = await front.client.post(body, [*without(modern_headers(body), "mcp-name"), ("Mcp-Name", "one__echo")])
    assert reply.code == -32020
    legacy = await front.client.open_session()
    reply = await front.client.post(
        message("tools/call", {"name": "two__hidden"}), [*legacy.headers, ("Mcp-Name", "one__echo")]
    )
    assert (reply.status, reply.code) == (200, -32602)
    await legacy.delete()


async def test_SP25_an_unknown_version_names_the_supported_ones_and_falls_into_no_other_era(front: Front) -> None:
    body = modern("tools/list", **{f"{META}protocolVersion": "2099-01-01"})
    headers = [("MCP-Protocol-Version", "2099-01-01"), ("Mcp-Method", "tools/list")]
    reply = await front.client.post(body, headers)
    assert (reply.status, reply.code, reply.json["id"]) == (400, -32022, 1)
    assert reply.json["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01"}


async def test_SP25_a_version_that_only_the_header_names_is_refused_in_the_legacy_era(front: Front) -> None:
    initialize = message("initialize", {"protocolVersion": "2099-01-01", "capabilities": {}})
    session = await front.client.open_session()
    for body in (message("tools/list"), initialize):
        for extra in ([], [("Mcp-Session-Id", session.id)]):
            reply = await front.client.post(body, [("MCP-Protocol-Version", "2099-01-01"), *extra])
            assert (reply.status, reply.code) == (400, -32022), (body, extra)
            assert "2026-07-28" in reply.json["error"]["data"]["supported"]
    await session.delete()


async def test_SP25_a_legacy_version_in_the_envelope_is_unsupported_there(front: Front) -> None:
    body = modern("tools/list", **{f"{META}protocolVersion": "2025-11-25"})
    reply = await front.client.post(body, [("MCP-Protocol-Version", "2025-11-25"), ("Mcp-Method", "tools/list")])
    assert (reply.status, reply.code) == (400, -32022)


@pytest.mark.parametrize(
    "method", ["nobody/knows", "logging/setLevel", "ping", "initialize", "resources/subscribe", "Tools/List"]
)
async def test_SP25_an_unknown_method_is_404_in_the_modern_era(front: Front, method: str) -> None:
    reply = await front.client.ask(method)
    assert (reply.status, reply.code, reply.json["id"]) == (404, -32601, 1)


@pytest.mark.parametrize("method", ["nobody/knows", "server/discover", "subscriptions/listen", "resources/subscribe"])
async def test_SP25_an_unknown_method_is_200_in_a_session(front: Front, method: str) -> None:
    session = await front.client.open_session()
    reply = await session.ask(method)
    assert (reply.status, reply.code) == (200, -32601)
    await session.delete()


ENVELOPES: dict[str, tuple[Any, int]] = {
    "no capabilities": ({f"{META}protocolVersion": "2026-07-28"}, -32602),
    "no version": ({f"{META}clientCapabilities": {}}, -32602),
    "empty": ({}, -32602),
    "not an object": ("x", -32602),
    "null": (None, -32602),
    "capabilities text": ({**ENVELOPE, f"{META}clientCapabilities": "x"}, -32602),
    "capabilities null": ({**ENVELOPE, f"{META}clientCapabilities": None}, -32602),
    "capabilities array": ({**ENVELOPE, f"{META}clientCapabilities": []}, -32602),
    "version null": ({**ENVELOPE, f"{META}protocolVersion": None}, -32020),
    "version number": ({**ENVELOPE, f"{META}protocolVersion": 20260728}, -32020),
    "version array": ({**ENVELOPE, f"{META}protocolVersion": ["2026-07-28"]}, -32020),
}


@pytest.mark.parametrize("what", ENVELOPES)
async def test_SP29_an_envelope_that_is_not_whole_is_400(front: Front, what: str) -> None:
    meta, code = ENVELOPES[what]
    for body in (message("tools/list", {"_meta": meta}), message("tools/list", {"_meta": meta}, id="a")):
        reply = await front.client.post(body, [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/list")])
        assert (reply.status, reply.code, reply.json["id"]) == (400, code, body["id"])


async def test_SP29_without_params_the_envelope_is_missing(front: Front) -> None:
    reply = await front.client.post(
        message("tools/list"), [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/list")]
    )
    assert (reply.status, reply.code) == (400, -32602)


async def test_SP29_client_info_is_optional(front: Front) -> None:
    meta = {key: value for key, value in ENVELOPE.items() if not key.endswith("clientInfo")}
    body = message("tools/list", {"_meta": meta})
    assert (await front.client.post(body, modern_headers(body))).status == 200


@pytest.mark.parametrize("cursor", ["", "x", "eyJwYWdlIjogMn0=", "\x00", "é", 5, {}, [], True, "A" * 10_000])
async def test_SP45_a_cursor_that_we_did_not_make_is_refused(front: Front, cursor: Any) -> None:
    reply = await front.client.ask("tools/list", {"cursor": cursor})
    assert (reply.status, reply.code) == (400, -32602)
    session = await front.client.open_session()
    reply = await session.ask("tools/list", {"cursor": cursor})
    assert (reply.status, reply.code) == (200, -32602)
    await session.delete()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {}),
        ("tools/call", {"name": None}),
        ("prompts/get", {}),
        ("resources/read", {}),
        ("completion/complete", {}),
        ("completion/complete", {"ref": {"type": "ref/tool", "name": "x"}}),
        ("subscriptions/listen", {}),
        ("subscriptions/listen", {"notifications": []}),
    ],
)
async def test_parameters_that_do_not_fit_are_400(front: Front, method: str, params: dict[str, Any]) -> None:
    body = modern(method, params)
    reply = await front.client.post(body, [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", method)])
    assert (reply.status, reply.code) == (400, -32602)


async def test_a_name_that_is_no_text_matches_no_header(front: Front) -> None:
    body = modern("tools/call", {"name": ["one__echo"]})
    reply = await front.client.post(body, [*without(modern_headers(body), "mcp-name"), ("Mcp-Name", "one__echo")])
    assert (reply.status, reply.code) == (400, -32020)


async def test_SP41_discovery_and_lists_carry_how_long_they_hold(front: Front) -> None:
    for method in ("server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list"):
        result = (await front.client.ask(method)).json["result"]
        assert result["resultType"] == "complete" and result["cacheScope"] == "public"
        assert type(result["ttlMs"]) is int and result["ttlMs"] >= 0
        assert result["_meta"][f"{META}serverInfo"]["name"] == "test"


async def test_the_result_says_nothing_of_the_hop_behind_it(front: Front) -> None:
    reply = await front.client.ask("tools/call", ECHO)
    assert reply.header("mcp-session-id") is None
    sent = front.fake.asked[-1].params
    assert sent["name"] == "echo"
    assert not any(key.startswith(META) for key in sent.get("_meta", {})), "a legacy upstream"


async def test_F75_modern_posts_with_one_id_are_independent(front: Front) -> None:
    bodies = [modern("tools/call", {"name": "one__echo", "arguments": {"n": n}}, id=0) for n in range(20)]
    connections = [await front.client.connect() for _ in bodies]
    for connection, body in zip(connections, bodies, strict=True):
        await connection.send(front.client.request("POST", "/mcp", body, modern_headers(body)))
    for n, connection in enumerate(connections):
        reply = await connection.reply()
        assert reply.json["result"]["content"][0]["text"] == f'{{"n": {n}}}'
        await connection.close()


@pytest.mark.parametrize("id", [0, -1, 2**63, 10**63, "", "1", "é\n", "x" * 10_000])
async def test_SP26_any_text_or_integer_is_an_id_and_comes_back_as_it_was(front: Front, id: Any) -> None:
    body = modern("tools/list", id=id)
    reply = await front.client.post(body, modern_headers(body))
    assert reply.status == 200 and reply.json["id"] == id and type(reply.json["id"]) is type(id)


SECRET = "canary-9f1c"


@pytest.mark.parametrize("agrees", [True, False])
async def test_SP24_the_value_of_a_mirrored_argument_is_in_no_log_and_no_error(
    front: Front, caplog: pytest.LogCaptureFixture, agrees: bool
) -> None:
    body = modern("tools/call", {"name": "one__query", "arguments": {"region": SECRET if agrees else "eu"}})
    with caplog.at_level(logging.DEBUG):
        reply = await front.client.post(body, [*modern_headers(body), ("Mcp-Param-Region", SECRET)])
    assert (reply.status, reply.code) == ((200, None) if agrees else (400, -32020))
    assert agrees or SECRET.encode() not in reply.body
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", ["local", "admin", "mcp-broker", "two", "../one", ""])
async def test_SP31_what_a_caller_calls_itself_changes_nothing(front: Front, name: str) -> None:
    info: dict[str, Any] = {f"{META}clientInfo": {"name": name, "version": "1"}}
    plain, spoofed = await front.client.ask("tools/list"), await front.client.ask("tools/list", **info)
    assert spoofed.json["result"]["tools"] == plain.json["result"]["tools"]
    hidden = await front.client.ask("tools/call", {"name": "two__hidden", "arguments": {}}, **info)
    assert (hidden.status, hidden.code) == (400, -32602)
