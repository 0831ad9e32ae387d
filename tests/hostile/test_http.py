"""F-50..F-63, SP-05, SP-22, SP-23: upstreams behind HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.core.era import LATEST_MODERN
from broker.upstream import http
from tests.hostile.conftest import BrokerOf
from tests.hostile.cost import MIB, memory_below
from tests.hostile.harness import AT_ONCE, HastyClock, until
from tests.hostile.web import Answer, says, streams, web
from tests.peers import Peers
from tests.servers.rawhttp import Out, Request

JSON, SSE = {"Content-Type": "application/json"}, {"Content-Type": "text/event-stream"}
ERAS = ["legacy", "modern"]
RESULT = '{"jsonrpc":"2.0","id":$ID,"result":{"content":[{"type":"text","text":"first"}]}}'
PAGE = b"<!doctype html><script>alert(1)</script>\x1b[31m" + b"secret page " * 100


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("gzip-bomb", "compressed"),
        ("endless-body", "larger than"),
        ("huge-json", "larger than"),
        ("sse-endless-event", "more than"),
    ],
)
async def test_F50_F51_F57_a_body_without_end_costs_its_call_not_our_memory(
    broker_of: BrokerOf, peers: Peers, fault: str, expected: str, era: str
) -> None:
    peer = await peers.astart("../hostile/upstream", "--transport", "http", "--fault", fault, "--era", era)
    async with broker_of({"bad": {"url": peer.url}}) as run:
        await run.innocent("bad")
        with memory_below(60 * MIB):
            assert expected in (await run.refused("bad__boom"))["message"]
            await run.innocent("bad")


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("fault", ["sse-blank-flood", "sse-empty-flood"])
async def test_F57_a_flood_of_events_that_say_nothing_is_taken_in_turns(
    broker_of: BrokerOf, peers: Peers, fault: str, era: str
) -> None:
    peer = await peers.astart(
        "../hostile/upstream", "--transport", "http", "--fault", fault, "--era", era, "--bytes", str(MIB)
    )
    async with broker_of({"bad": {"url": peer.url}}) as run:
        await run.innocent("bad")
        assert await run.text("bad__boom") == "after the flood"
        await run.innocent("bad")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x, gzip"])
async def test_F50_a_body_that_is_compressed_unasked_is_not_read(broker_of: BrokerOf, encoding: str) -> None:
    boom = says("200 OK", {**JSON, "Content-Encoding": encoding}, b"\x1f\x8b" * 100)
    async with web(boom=boom) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        assert "compressed" in (await run.refused("bad__boom"))["message"]
        await run.innocent("bad")
        assert bad.seen[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("era", ERAS)
async def test_F52_a_drip_ends_at_the_deadline_whatever_it_drips(broker_of: BrokerOf, era: str) -> None:
    async def drip(out: Out, request: Request, ident: Any) -> None:
        await out.head(200, {**SSE, "Transfer-Encoding": "chunked"})
        while True:
            await out.chunk(b": still here\n\n")
            await asyncio.sleep(0.05)

    async with web(era, boom=drip) as bad, broker_of({"bad": {"url": bad.url, "timeout": 0.5}}) as run:
        await run.ready("bad")
        assert (await run.refused("bad__boom"))["data"]["reason"] == "timeout"
        await run.innocent("bad")


async def test_F52_progress_for_ever_ends_at_the_maximum(broker_of: BrokerOf) -> None:
    async def drip(out: Out, request: Request, ident: Any) -> None:
        await out.head(200, {**SSE, "Transfer-Encoding": "chunked"})
        body = {"progressToken": ident, "progress": 0}
        while True:
            body["progress"] += 1
            event = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": body})
            await out.chunk(f"data: {event}\n\n".encode())
            await asyncio.sleep(0.02)

    async with web(boom=drip) as bad, broker_of({"bad": {"url": bad.url, "timeout": 0.15}}) as run:
        await run.ready("bad")
        began = anyio.current_time()
        params = {"name": "bad__boom", "arguments": {}, "_meta": {"progressToken": 1}}
        message = await run.ask("tools/call", params)
        assert message["error"]["data"]["reason"] == "timeout"
        assert 1.4 < anyio.current_time() - began < 4
        await run.innocent("bad")


async def test_F54_an_answer_that_says_retry_0_is_looked_for_within_our_bounds(broker_of: BrokerOf) -> None:
    boom = streams("id: 1\nretry: 0\ndata:\n\n")
    async with web(boom=boom) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        gets = sum(request.method == "GET" for request in bad.seen)
        assert "the stream broke" in (await run.refused("bad__boom"))["message"]
        await run.innocent("bad")
        assert bad.methods("tools/call") == 2, "boom once, ok once"
        assert sum(request.method == "GET" for request in bad.seen) <= gets + 1, "taken up once, where it is refused"


@pytest.mark.parametrize(("retry", "row"), [("0", "F54"), ("99999999999", "F55")])
async def test_F54_F55_a_stream_that_closes_at_once_is_reopened_within_our_bounds(
    broker_of: BrokerOf, monkeypatch: pytest.MonkeyPatch, retry: str, row: str
) -> None:
    monkeypatch.setattr(http, "STREAM_RETRY", 0.2)
    monkeypatch.setattr(http, "MAX_STREAM_RETRY", 0.3)
    get = streams(f"id: 1\nretry: {retry}\n\n")
    began = anyio.current_time()  # before the first of them: what passes meanwhile only adds to the time they take
    async with web(GET=get) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.innocent("bad")

        def gets() -> int:
            return sum(request.method == "GET" for request in bad.seen)

        await until(lambda: gets() >= 5)
        assert anyio.current_time() - began > 3 * 0.2
        await run.innocent("bad")


async def test_the_event_stream_of_a_session_carries_its_id_and_its_announcements(broker_of: BrokerOf) -> None:
    event = json.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    asked = {"jsonrpc": "2.0", "id": "q", "method": "roots/list"}
    garbage = "data: nonsense\n\n: comment\n\ndata: [1]\n\n"
    get = streams(garbage, f"data: {json.dumps(asked)}\n\n", f"data: {event}\n\n", end=False)
    async with web(GET=get) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.innocent("bad")
        await until(lambda: bad.methods("tools/list") == 2)
        await until(lambda: any(message.get("id") == "q" and "error" in message for message in bad.messages))
        stream = next(request for request in bad.seen if request.method == "GET")
        assert stream.headers["mcp-session-id"] in bad.state.sessions
        await run.innocent("bad")


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "ELSEWHERE",
        "https://127.0.0.1:PORT/mcp",
        "//evil.example/mcp",
        "file:///etc/passwd",
        "http://[broken",
        "http://127.0.0.1:99999999/",
        "",
        "/mcp",
    ],
)
async def test_F56_a_redirect_to_another_origin_is_not_followed(broker_of: BrokerOf, location: str) -> None:
    async with web() as elsewhere, web() as bad:
        target = location.replace("ELSEWHERE", elsewhere.url).replace("PORT", bad.url.split(":")[2].split("/")[0])
        bad.on["boom"] = says("307 Temporary Redirect", {"Location": target})
        server = {"url": bad.url, "headers": {"Authorization": "Bearer hunter2"}}
        async with broker_of({"bad": server}) as run:
            await run.ready("bad")
            error = await run.refused("bad__boom")
            assert "redirect" in error["message"] and "hunter2" not in str(error)
            await run.innocent("bad")
        assert elsewhere.seen == []


async def test_F56_a_redirect_on_the_same_origin_is_followed(broker_of: BrokerOf) -> None:
    async def boom(out: Out, request: Request, ident: Any) -> None:
        if request.path == "/mcp":
            await says("308 Permanent Redirect", {"Location": "/moved"})(out, request, ident)
        else:
            await says("200 OK", JSON, RESULT.encode())(out, request, ident)

    async with web(boom=boom) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        assert await run.text("bad__boom") == "first"
        await run.innocent("bad")


async def test_F56_redirects_without_end_are_given_up(broker_of: BrokerOf) -> None:
    boom = says("307 Temporary Redirect", {"Location": "/mcp"})
    async with web(boom=boom) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        before = len(bad.seen)
        assert "more than 3 redirects" in (await run.refused("bad__boom"))["message"]
        assert len(bad.seen) - before == 4
        await run.innocent("bad")


WRONG: dict[str, tuple[Answer, str]] = {
    "202 to a request": (says("202 Accepted", {}), "202"),
    "a wrong content type": (says("200 OK", {"Content-Type": "text/plain"}, b"hello"), "neither JSON nor"),
    "no content type": (says("200 OK", {}, RESULT.encode()), "neither JSON nor"),
    "an HTML page": (says("502 Bad Gateway", {"Content-Type": "text/html"}, PAGE), "HTTP 502"),
    "an HTML page with 200": (says("200 OK", {"Content-Type": "text/html"}, PAGE), "neither JSON nor"),
    "HTML called JSON": (says("200 OK", JSON, PAGE), "malformed"),
    "an empty body": (says("200 OK", JSON), "malformed"),
    "an answer to another": (says("200 OK", JSON, b'{"jsonrpc":"2.0","id":99,"result":{}}'), "something else"),
    "an answer to true": (says("200 OK", JSON, b'{"jsonrpc":"2.0","id":true,"result":{}}'), "something else"),
    "a batch": (says("200 OK", JSON, f"[{RESULT}]".encode()), "malformed"),
    "204": (says("204 No Content", {"Content-Length": "0"}), "HTTP 204"),
    "a short body": (says("200 OK", {**JSON, "Content-Length": "5000"}, b'{"jsonrpc"'), "connection broke"),
    "a 401": (says("401 Unauthorized", {"WWW-Authenticate": "Bearer"}), "HTTP 401"),
    "a 403": (says("403 Forbidden", {}, b"no"), "HTTP 403"),
    "a 429": (says("429 Too Many Requests", {"Retry-After": "7"}, b"slow"), "HTTP 429, retry after 7"),
    "a 503": (says("503 Service Unavailable", {"Retry-After": "x" * 500}, b"later"), "HTTP 503, retry after x"),
    "no HTTP": (says("OK OK", {}), "HTTP fault"),
    "a huge header": (says("200 OK", {**JSON, "X-Huge": "x" * 100_000}, RESULT.encode()), "HTTP fault"),
    "a stream without the answer": (streams("data: {}\n\n"), "ended before the answer"),
    "a stream of nonsense": (streams("data: nonsense\n\n"), "malformed"),
    "a stream of invalid UTF-8": (says("200 OK", SSE, b"data: \xff\xfe\n\n"), "malformed"),
}


@pytest.mark.parametrize("case", list(WRONG))
async def test_F58_F59_F60_what_is_no_answer_fails_its_call_at_once_and_is_never_asked_again(
    broker_of: BrokerOf, case: str
) -> None:
    answer, expected = WRONG[case]

    async def boom(out: Out, request: Request, ident: Any) -> None:
        await answer(out, request, ident)
        if case == "a short body":
            out.writer.close()

    async with web(boom=boom) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        error = await run.refused("bad__boom")
        assert expected in error["message"]
        assert "script" not in str(error) and "secret page" not in str(error) and len(str(error)) < 600
        await run.innocent("bad")
        calls = [message for message in bad.messages if message.get("method") == "tools/call"]
        assert [call["params"]["name"] for call in calls] == ["boom", "ok"]


async def test_F60_an_error_with_a_status_is_the_upstreams_own(broker_of: BrokerOf) -> None:
    body = b'{"jsonrpc":"2.0","id":$ID,"error":{"code":-32602,"message":"no such thing","data":{"a":1}}}'
    async with web(boom=says("400 Bad Request", JSON, body)) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        error = (await run.message("bad__boom"))["error"]
        assert error == {"code": -32602, "message": "no such thing", "data": {"a": 1}}
        await run.innocent("bad")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "429 Too Many Requests", "500 Oops"])
async def test_F58_F59_a_refused_handshake_is_tried_again_with_patience(broker_of: BrokerOf, status: str) -> None:
    refusal = says(status, {"Retry-After": "1"}, b"no")
    async with web(handshake=refusal) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        assert status[:3] in await run.trouble("bad")
        await run.innocent()
        attempts = run.upstream("bad").state.failures + 1
        assert len(bad.seen) <= 2 * attempts <= 6, "the probe, and one handshake; the next try has to wait"


@pytest.mark.parametrize("parallel", [1, 20])
async def test_F61_an_expired_session_is_renewed_once_for_all(broker_of: BrokerOf, parallel: int) -> None:
    async with web() as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.innocent("bad")
        bad.state.sessions.clear()
        before = bad.methods("initialize")
        texts: list[str] = []

        async def call(n: int) -> None:
            texts.append(await run.text("bad__ok", text=str(n)))

        async with anyio.create_task_group() as tasks:
            for n in range(parallel):
                tasks.start_soon(call, n)
        assert sorted(texts) == sorted(f"ok {n}" for n in range(parallel))
        assert bad.methods("initialize") == before + 1
        await run.innocent("bad")


async def test_F61_a_session_that_is_always_expired_ends_in_an_error_not_in_a_circle(broker_of: BrokerOf) -> None:
    gone = says(
        "404 Not Found", JSON, b'{"jsonrpc":"2.0","id":$ID,"error":{"code":-32600,"message":"Session not found"}}'
    )
    async with web(boom=gone) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        message = await run.message("bad__boom")
        assert "Session not found" in message["error"]["message"]
        assert bad.methods("initialize") == 2
        await run.innocent("bad")


async def test_F61_a_caller_that_gives_up_during_the_renewal_spoils_it_for_nobody(broker_of: BrokerOf) -> None:
    started, go_on = anyio.Event(), anyio.Event()

    async def slowly(out: Out, request: Request, ident: Any) -> None:
        del bad.on["initialize"]
        started.set()
        await go_on.wait()

    async with web() as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.innocent("bad")
        bad.state.sessions.clear()
        bad.on["initialize"] = slowly
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.message, "bad__ok")
            await started.wait()
            tasks.cancel_scope.cancel()
        go_on.set()
        await run.innocent("bad")


async def test_F24_a_storm_of_questions_on_a_stream_is_bounded(broker_of: BrokerOf) -> None:
    storm = "".join(f'data: {{"jsonrpc":"2.0","id":"q{n}","method":"roots/list"}}\n\n' for n in range(2000))
    boom = streams(storm, f"data: {RESULT}\n\n")
    async with web(boom=boom) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.innocent("bad")
        tasks = len(asyncio.all_tasks())
        with anyio.fail_after(AT_ONCE):
            assert await run.text("bad__boom") == "first"
        # Of each answer under way: its own, that of its request, and that of the server here which hears it.
        assert len(asyncio.all_tasks()) - tasks <= 3 * http.MAX_COURTESIES + 10
        await run.innocent("bad")
        assert sum("error" in message for message in bad.messages) <= 2 * http.MAX_COURTESIES


def mirroring(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"tenant": schema}}


MIRROR = mirroring({"type": "string", "x-mcp-header": "Tenant"})
ANNOTATIONS = {
    "empty": mirroring({"type": "string", "x-mcp-header": ""}),
    "crlf": mirroring({"type": "string", "x-mcp-header": "A\r\nX-Admin: 1"}),
    "space": mirroring({"type": "string", "x-mcp-header": "a b"}),
    "number": mirroring({"type": "number", "x-mcp-header": "A"}),
    "no_text": mirroring({"type": "string", "x-mcp-header": 5}),
    "twice": {"type": "object", "properties": {n: {"type": "string", "x-mcp-header": n} for n in ("a", "A")}},
    "unreachable": {"type": "object", "anyOf": [MIRROR]},
    "in_items": mirroring({"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}),
    "at_the_root": {"type": "string", "x-mcp-header": "A"},
}


def lists(schemas: dict[str, Any]) -> Answer:
    tools = [{"name": name, "inputSchema": schema} for name, schema in schemas.items()]
    result = {"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    return says("200 OK", JSON, b'{"jsonrpc":"2.0","id":$ID,"result":' + json.dumps(result).encode() + b"}")


async def test_SP22_a_tool_with_a_bad_header_annotation_is_excluded_and_the_others_stay(broker_of: BrokerOf) -> None:
    schemas = {"ok": {"type": "object"}, "mirror": MIRROR, **ANNOTATIONS}
    async with web("modern", list=lists(schemas)) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.innocent("bad")
        assert [name for name in await run.tools() if name.startswith("bad")] == ["bad__ok", "bad__mirror"]
        dropped = run.broker.generation.catalog.shelves["bad"].dropped
        assert {item.own for item in dropped} == set(ANNOTATIONS)
        assert all(item.reason.isprintable() for item in dropped)


VALUES = ["a\r\nX-Admin: 1", "a\nb", "\0", "caf\u00e9", " edge ", "=?base64?YQ==?=", "x" * 5000, "plain", "\U0001f600"]


@pytest.mark.parametrize("value", VALUES)
async def test_F63_SP23_no_argument_ever_becomes_a_new_header(broker_of: BrokerOf, value: str) -> None:
    async def mirror(out: Out, request: Request, ident: Any) -> None:
        await says("200 OK", JSON, RESULT.encode())(out, request, ident)

    server = lists({"ok": {"type": "object"}, "mirror": MIRROR, "we\u00efrd name": MIRROR})
    async with web("modern", list=server, tools_call=mirror) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        weird = next(name for name in await run.tools() if name.startswith("bad__we"))
        for name in ("bad__mirror", weird):
            await run.call(name, tenant=value)
            headers = bad.seen[-1].headers
            assert "x-admin" not in headers and headers["mcp-method"] == "tools/call"
            assert headers["mcp-param-tenant"].isascii() and headers["mcp-param-tenant"].isprintable()
            assert bad.messages[-1]["params"]["arguments"] == {"tenant": value}
        assert headers["mcp-name"].startswith("=?base64?")


async def test_what_goes_ahead_of_one_request_never_goes_ahead_of_another(broker_of: BrokerOf) -> None:
    """It is made once for requests alike: who has another name or a trace, or has none, is not alike."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with web("modern") as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        before = len(bad.seen)
        for name, meta in [("ok", {}), ("boom", {}), ("ok", {"traceparent": trace}), ("ok", {}), ("boom", {})]:
            await run.ask("tools/call", {"name": f"bad__{name}", "arguments": {}, "_meta": meta})
        sent = [(one.headers["mcp-name"], one.headers.get("traceparent")) for one in bad.seen[before:]]
        assert sent == [("ok", None), ("boom", None), ("ok", trace), ("ok", None), ("boom", None)]


async def test_F37_the_era_is_probed_again_after_a_restart(broker_of: BrokerOf) -> None:
    async with web("legacy") as bad, broker_of({"bad": {"url": bad.url}}, HastyClock()) as run:
        await run.innocent("bad")
        bad.state.options.era = "modern"
        run.upstream("bad").link().lose("for the test")
        await until(lambda: run.is_ready("bad") and run.upstream("bad").link().version == LATEST_MODERN)
        await run.innocent("bad")


ENDPOINTS = ["http://evil.example/messages", "//evil.example/x", "https://127.0.0.1/m", "http://[broken", "ELSEWHERE"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_SP05_an_sse_endpoint_on_another_origin_is_refused_and_nothing_is_sent_there(
    broker_of: BrokerOf, endpoint: str
) -> None:
    async with web() as elsewhere:
        target = endpoint.replace("ELSEWHERE", elsewhere.url)
        get = streams(f"event: endpoint\ndata: {target}\n\n", end=False)
        async with web(GET=get) as bad:
            server = {"url": bad.url, "transport": "sse", "headers": {"Authorization": "Bearer hunter2"}}
            async with broker_of({"bad": server}) as run:
                assert "another origin" in await run.trouble("bad")
                await run.innocent()
        assert elsewhere.seen == [] and {request.method for request in bad.seen} == {"GET"}


async def test_SP05_an_endpoint_that_never_comes_costs_the_connect_time_out(
    broker_of: BrokerOf, tmp_path: Path
) -> None:
    get = streams("event: other\ndata: x\n\n", end=False)
    async with web(GET=get) as bad:
        server = {"url": bad.url, "transport": "sse", "connect_timeout": 0.4}
        async with broker_of({"bad": server}) as run:
            assert "did not connect within 0.4 s" in await run.trouble("bad")
            await run.innocent()
            await until(lambda: bad.open == 0)
