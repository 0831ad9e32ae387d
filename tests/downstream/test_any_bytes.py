"""What a caller may send: any bytes. There is an answer or a close, never a fault, and nobody else notices."""

import json
from collections.abc import AsyncGenerator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.downstream.conftest import Front, serving, two_servers
from tests.downstream.raw_http import ENVELOPE, modern, modern_headers
from tests.fuzz.examples import at_least

METHODS = (
    "tools/call",
    "tools/list",
    "initialize",
    "resources/read",
    "tasks/get",
    "subscriptions/listen",
    "",
    "a/b",
    "ping",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
PARAMS = VALUES | st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES | st.sampled_from(["one__echo", "two__hidden", "one__slow"]),
        "uri": VALUES | st.just("one+file:///readme"),
        "arguments": VALUES,
        "cursor": VALUES,
        "taskId": VALUES,
        "_meta": VALUES | st.just(ENVELOPE),
        "notifications": VALUES,
        "requestState": VALUES,
        "inputResponses": VALUES,
    },
)
MESSAGES = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | VALUES, "method": st.sampled_from(METHODS) | VALUES},
    optional={"id": st.integers(0, 9) | VALUES, "params": PARAMS, "result": VALUES, "error": VALUES},
)
BODIES = (
    MESSAGES.map(lambda message: json.dumps(message).encode())
    | st.lists(MESSAGES, max_size=2).map(lambda batch: json.dumps(batch).encode())
    | st.binary(max_size=40)
)
LINES = st.sampled_from(
    [
        *(b"Host: 127.0.0.1", b"Host: evil.example", b"Host:", b"Origin: null", b"Content-Type: application/json"),
        *(b"Content-Type: text/plain", b"Accept: application/json, text/event-stream", b"Accept: */*;q=x"),
        *(b"MCP-Protocol-Version: 2026-07-28", b"MCP-Protocol-Version: 2025-11-25", b"MCP-Protocol-Version: \xff"),
        *(b"Mcp-Method: tools/call", b"Mcp-Method: tools/list", b"Mcp-Name: one__echo", b"Mcp-Name: =?base64?x?="),
        *(b"Mcp-Session-Id: x", b"Last-Event-ID: 0", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"),
        *(b"Content-Length: 3", b"Content-Length: x", b"Connection: close", b"Connection: upgrade", b"Upgrade: h2c"),
        *(
            b"Expect: 100-continue",
            b"Authorization: Bearer x",
            b" folded: x",
            b"no colon",
            b"X: " + b"y" * 3000,
            b"\0: \0",
        ),
    ]
)
STARTS = st.sampled_from(
    [
        *(
            b"POST /mcp HTTP/1.1",
            b"GET /mcp HTTP/1.1",
            b"DELETE /mcp HTTP/1.1",
            b"GET /sse HTTP/1.1",
            b"PUT /mcp HTTP/1.1",
        ),
        *(
            b"POST /messages?x HTTP/1.1",
            b"GET /readyz HTTP/1.1",
            b"GET /api/v1/keys HTTP/1.1",
            b"POST /mcp/one HTTP/1.0",
        ),
        *(
            b"POST http://x/mcp HTTP/1.1",
            b"GET /%ff%00 HTTP/1.1",
            b"GET * HTTP/1.1",
            b"CONNECT x:1 HTTP/1.1",
            b"nonsense",
        ),
        *(b"GET /mcp HTTP/2.0", b"PRI * HTTP/2.0", b"POST /mcp?a=b#c HTTP/1.1", b"get /mcp http/1.1"),
    ]
)


def request(start: bytes, lines: list[bytes], body: bytes, is_counted: bool) -> bytes:
    counted = [b"Content-Length: %d" % len(body)] if is_counted else []
    return b"\r\n".join([start, *lines, *counted, b"", body])


REQUESTS = st.builds(request, STARTS, st.lists(LINES, max_size=8), BODIES, st.booleans())
WELL_KNOWN = st.builds(
    lambda body, era: request(
        b"POST /mcp HTTP/1.1",
        [b"Host: 127.0.0.1", b"Content-Type: application/json", b"Accept: application/json, text/event-stream", *era],
        body,
        True,
    ),
    BODIES,
    st.sampled_from([[], [b"MCP-Protocol-Version: 2026-07-28", b"Mcp-Method: tools/call", b"Mcp-Name: one__echo"]]),
)
STREAMS = st.lists(REQUESTS | WELL_KNOWN | st.binary(max_size=30), min_size=1, max_size=3).map(b"".join)


@pytest.fixture(scope="module")
async def any_front(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Front, None]:
    async with serving(tmp_path_factory.mktemp("any"), two_servers()) as started:
        yield started


@settings(max_examples=at_least(120), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=STREAMS, cut=st.integers(0, 2**16))
async def test_any_bytes_get_an_answer_or_the_end_of_their_connection_and_never_a_fault(
    any_front: Front, data: bytes, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with any_front.client.connection() as connection:
        place = cut % (len(data) + 1)
        await connection.send(data[:place])
        await connection.send(data[place:])
        connection.writer.write_eof()
        said = b""
        while part := await connection.reader.read(65536):
            said += part
            if b"text/event-stream" in said:
                break  # a stream that is kept open: what listens has no end
    assert not said or said.startswith(b"HTTP/1.1 "), said[:200]
    assert b"HTTP/1.1 500" not in said and b"internal error" not in said, said[:1000]
    assert not [record for record in caplog.records if "internal error" in record.getMessage()]
    body = modern("tools/list")
    reply = await any_front.client.post(body, modern_headers(body))
    assert reply.status == 200 and {tool["name"] for tool in reply.json["result"]["tools"]} >= {"one__echo"}
