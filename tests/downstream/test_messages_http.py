"""What is not a message that may stand here is answered by the table and never reaches an upstream."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.downstream.conftest import Front
from tests.downstream.raw_http import ENVELOPE, Session, message, modern, modern_headers

CALL = modern("tools/call", {"name": "one__echo", "arguments": {}})
HEADERS = modern_headers(CALL)
ARGUMENTS = json.dumps(CALL["params"]["arguments"])
ENVELOPE_TEXT = json.dumps(ENVELOPE)


@pytest.fixture(scope="module")
async def session(front: Front) -> AsyncGenerator[Session, None]:
    opened = await front.client.open_session()
    yield opened
    await opened.delete()


@pytest.fixture(autouse=True)
async def untouched(front: Front) -> AsyncGenerator[None, None]:
    """Nothing of this module reaches an upstream, whatever it was."""
    before = [len(fake.asked) for fake in front.house.fakes.values()]
    yield
    assert [len(fake.asked) for fake in front.house.fakes.values()] == before


async def both(front: Front, session: Session, body: bytes) -> list[tuple[int, int | None, Any]]:
    """(HTTP status, code, id) of the same bytes in either era."""
    replies = [await front.client.post(body, HEADERS), await session.post(body)]
    return [(reply.status, reply.code, reply.json["id"]) for reply in replies]


def call_text(*, more: str = "", params: str = "", arguments: str = "{}", id: str = "1") -> bytes:
    """A call of `one__echo` as text, with raw pieces put in."""
    text = f'"name": "one__echo", "arguments": {arguments}, "_meta": {ENVELOPE_TEXT}{params}'
    return f'{{"jsonrpc": "2.0", "id": {id}, "method": "tools/call", "params": {{{text}}}{more}}}'.encode()


NOT_JSON = {
    "empty": b"",
    "half": b'{"jsonrpc": "2.0"',
    "two": b"{}{}",
    "SP06 invalid UTF-8": call_text(arguments='{"text": "X"}').replace(b"X", b"\xff\xfe"),
    "SP06 overlong": call_text(arguments='{"text": "X"}').replace(b"X", b"\xc0\xaf"),
    "SP06 UTF-16": call_text().decode().encode("utf-16"),
    "F77 lone surrogate": call_text(arguments='{"text": "\\ud800"}'),
    "F77 NaN": call_text(arguments='{"n": NaN}'),
    "F77 Infinity": call_text(arguments='{"n": -Infinity}'),
    "F77 depth": call_text(arguments='{"a":' + "[" * 500 + "]" * 500 + "}"),
    "F77 abyss": b"[" * 1_000_000,
    "F77 300 000 keys": call_text(arguments="{" + ",".join(f'"{n}":0' for n in range(300_000)) + "}"),
    "F77 300 000 items": call_text(arguments='{"a":[' + "0," * 300_000 + "0]}"),
    "F77 5 000 digits": call_text(arguments='{"n": ' + "7" * 5000 + "}"),
    "SP26 id of 5 000 digits": call_text(id="7" * 5000),
    "I11 duplicate name": call_text(params=', "name": "two__hidden"'),
    "I11 duplicate params": call_text(more=', "params": {}'),
    "I11 duplicate method": call_text(more=', "method": "ping"'),
    "I11 duplicate id": call_text(more=', "id": 2'),
    "I11 duplicate argument": call_text(arguments='{"a": 1, "a": 2}'),
    "I11 duplicate by escape": call_text(params=', "n\\u0061me": "two__hidden"'),
    "trailing comma": b'{"jsonrpc": "2.0", "id": 1, "method": "ping",}',
    "comment": b'{"jsonrpc": "2.0", /* */ "id": 1, "method": "ping"}',
    "single quotes": b"{'jsonrpc': '2.0', 'id': 1, 'method': 'ping'}",
}


@pytest.mark.parametrize("what", NOT_JSON)
async def test_F77_I11_what_two_parsers_could_read_differently_is_a_parse_error(
    front: Front, session: Session, what: str
) -> None:
    assert await both(front, session, NOT_JSON[what]) == [(400, -32700, None)] * 2


INVALID: dict[str, tuple[bytes, Any]] = {
    "SP11 batch": (json.dumps([CALL]).encode(), None),
    "SP11 empty batch": (b"[]", None),
    "SP11 string": (b'"tools/call"', None),
    "SP11 number": (b"1", None),
    "SP11 null": (b"null", None),
    "SP11 empty object": (b"{}", None),
    "SP26 id null": (call_text(id="null"), None),
    "SP26 id float": (call_text(id="1.5"), None),
    "SP26 id integral float": (call_text(id="1.0"), None),
    "SP26 id exponent": (call_text(id="1e3"), None),
    "SP26 id bool": (call_text(id="true"), None),
    "SP26 id object": (call_text(id="{}"), None),
    "SP26 id array": (call_text(id="[1]"), None),
    "no version": (b'{"id": 7, "method": "ping"}', 7),
    "version 1": (b'{"jsonrpc": "1.0", "id": 7, "method": "ping"}', 7),
    "version number": (b'{"jsonrpc": 2.0, "id": 7, "method": "ping"}', 7),
    "no method": (b'{"jsonrpc": "2.0", "id": 7}', 7),
    "method number": (b'{"jsonrpc": "2.0", "id": 7, "method": 1}', 7),
    "method empty": (b'{"jsonrpc": "2.0", "id": 7, "method": ""}', 7),
    "method null": (b'{"jsonrpc": "2.0", "id": 7, "method": null}', 7),
    "params array": (b'{"jsonrpc": "2.0", "id": 7, "method": "ping", "params": []}', 7),
    "params null": (b'{"jsonrpc": "2.0", "id": 7, "method": "ping", "params": null}', 7),
    "params text": (b'{"jsonrpc": "2.0", "id": 7, "method": "ping", "params": "x"}', 7),
    "result and error": (b'{"jsonrpc": "2.0", "id": 7, "result": {}, "error": {}}', 7),
    "I11 Name beside name": (call_text(params=', "Name": "two__hidden"'), 1),
    "I11 NAME": (call_text(params=', "NAME": "two__hidden"'), 1),
    "I11 Arguments": (call_text(params=', "Arguments": {}'), 1),
    "I11 long s": (call_text(more=', "param\\u017f": {"name": "two__hidden"}'), 1),
    "I11 Method": (call_text(more=', "Method": "ping"'), 1),
    "I11 ID": (call_text(more=', "ID": 2'), 1),
    "I11 kelvin": (call_text(params=', "ta\\u017f\\u212a": {}'), 1),
    "I11 URI": (call_text(params=', "URI": "x"'), 1),
}


@pytest.mark.parametrize("what", INVALID)
async def test_SP11_SP26_I11_what_is_no_single_message_is_an_invalid_request(
    front: Front, session: Session, what: str
) -> None:
    body, request_id = INVALID[what]
    assert await both(front, session, body) == [(400, -32600, request_id)] * 2


REFERENCES = [
    {"type": "ref/prompt", "name": "one__greet", "Name": "other"},
    {"type": "ref/prompt", "name": "one__greet", "Type": "ref/resource"},
    {"type": "ref/resource", "uri": "one+file:///readme", "URI": "file:///etc/passwd"},
]


@pytest.mark.parametrize("reference", REFERENCES)
async def test_I11_a_lookalike_in_a_completion_reference_is_an_invalid_request(
    front: Front, session: Session, reference: dict[str, str]
) -> None:
    """What a folding upstream would take for the name must be what was judged."""
    params = {"ref": reference, "argument": {"name": "n", "value": "v"}}
    body = modern("completion/complete", params)
    replies = [await front.client.post(body, modern_headers(body)), await session.ask("completion/complete", params)]
    assert [(reply.status, reply.code) for reply in replies] == [(400, -32600)] * 2


async def test_SP11_a_posted_response_is_refused_in_the_modern_era_and_ignored_in_a_session(
    front: Front, session: Session
) -> None:
    for answer in ({"result": {}}, {"error": {"code": 1, "message": "x"}}):
        body = {"jsonrpc": "2.0", "id": 1, **answer}
        assert (await front.client.post(body, HEADERS)).status == 400
        reply = await session.post(body)
        assert (reply.status, reply.body) == (202, b"")
        assert (await front.client.post(body)).status == 400, "neither era"


async def test_SP11_F76_a_notification_is_202_without_a_body_known_or_not(front: Front, session: Session) -> None:
    for method in ("notifications/initialized", "notifications/cancelled", "notifications/nobody/knows", "tools/call"):
        plain = message(method, {"requestId": 77}, ...)
        for reply in (
            await session.post(plain),
            await front.client.post(plain, [("MCP-Protocol-Version", "2026-07-28")]),
        ):
            assert (reply.status, reply.body) == (202, b""), method
        enveloped = modern(method, {"name": "one__echo"}, ...)
        reply = await front.client.post(enveloped, modern_headers(enveloped))
        assert (reply.status, reply.body) == (202, b""), method


async def test_SP11_a_notification_of_an_unknown_version_is_400(front: Front) -> None:
    reply = await front.client.post(message("notifications/x", {}, ...), [("MCP-Protocol-Version", "2099-01-01")])
    assert (reply.status, reply.code) == (400, -32022)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
async def test_I36_another_content_type_is_415(front: Front, session: Session, content_type: str) -> None:
    headers = [*HEADERS, ("Content-Type", content_type)]
    assert (await front.client.post(CALL, headers, drop=["content-type"])).status == 415
    assert (await front.client.post(CALL, HEADERS, drop=["content-type"])).status == 415
    initialize = message("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
    assert (await front.client.post(initialize, [("Content-Type", content_type)], drop=["content-type"])).status == 415


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "text/html", "application/*", ""])
async def test_an_accept_without_both_forms_is_406(front: Front, session: Session, accept: str) -> None:
    reply = await front.client.post(message("ping"), [*session.headers, ("Accept", accept)], drop=["accept"])
    assert reply.status == 406


@pytest.mark.parametrize("accept", ["*/*", "application/*, text/*", "text/event-stream;q=0.5, application/json;q=0.9"])
async def test_an_accept_of_both_forms_is_served(front: Front, session: Session, accept: str) -> None:
    reply = await front.client.post(message("ping"), [*session.headers, ("Accept", accept)], drop=["accept"])
    assert reply.status == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_F71_a_body_beyond_4_MiB_is_413_and_the_connection_is_closed(front: Front, declared: bool) -> None:
    """Whether it says its length or comes in chunks; none of it is quoted."""
    async with front.client.connection() as connection:
        if declared:
            request = front.client.request("POST", headers=[*HEADERS, ("Content-Length", str(5 << 20))])
            await connection.send(request + b"CANARY")
        else:
            await connection.send(front.client.request("POST", headers=[*HEADERS, ("Transfer-Encoding", "chunked")]))
            for _ in range(5):
                connection.writer.write(b"%x\r\n" % (1 << 20) + b"CANARY" + b"x" * ((1 << 20) - 6) + b"\r\n")
        reply = await connection.reply()
        assert (reply.status, reply.code) == (413, -32700)
        assert reply.header("connection") == "close"
        assert b"CANARY" not in reply.body
        assert await connection.at_end()
    assert (await front.client.ask("tools/list")).status == 200


async def test_F71_a_body_of_exactly_4_MiB_is_read(front: Front, session: Session) -> None:
    body = json.dumps(message("ping", {"x": ""})).encode()
    whole = body.replace(b'"x": ""', b'"x": "' + b"y" * ((4 << 20) - len(body)) + b'"')
    assert len(whole) == 4 << 20
    assert (await session.post(whole)).json["result"] == {}


async def test_SP27_requests_on_one_connection_are_each_judged_alone(front: Front, session: Session) -> None:
    """A refused one leaves the connection usable, and lends nothing of itself to the next."""
    listing = modern("tools/list")
    requests = [
        (front.client.request("POST", "/mcp", listing, modern_headers(listing)), 200),
        (front.client.request("POST", "/mcp", message("tools/list")), 400),
        (session.request(message("tools/list")), 200),
        (front.client.request("POST", "/mcp", message("tools/list")), 400),
        (front.client.request("POST", "/mcp", CALL, [("Content-Type", "text/plain")], drop=["content-type"]), 415),
        (front.client.request("POST", "/mcp", CALL, [*HEADERS, ("Origin", "null")]), 403),
        (front.client.request("POST", "/mcp", CALL, HEADERS, drop=["host"]), 421),
        (front.client.request("POST", "/nowhere", CALL, HEADERS), 404),
        (front.client.request("POST", "/mcp/two", listing, modern_headers(listing)), 200),
    ]
    async with front.client.connection() as connection:
        for data, status in requests:
            await connection.send(data)
            assert (await connection.reply()).status == status
        await connection.send(b"".join(data for data, _ in requests))
        assert [(await connection.reply()).status for _ in requests] == [status for _, status in requests], "pipelined"
