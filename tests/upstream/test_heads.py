"""Which requests share a head, and which have one of their own."""

from typing import Any

import pytest

from broker.core.headers import METHOD_HEADER, NAME_HEADER
from broker.core.tracecontext import PARENT
from broker.upstream.heads import MAX_HEADS, MAX_KEPT_NAME, Heads
from broker.upstream.httpwire import HttpWire, RequestHead
from broker.upstream.web import WebClient
from tests.relay.fake import LEGACY, MODERN

URL = "http://127.0.0.1:1/mcp"


@pytest.fixture
async def heads() -> Heads:
    return Heads(WebClient("up", URL, HttpWire(URL, {}, 1, 1)))


def tool(**properties: Any) -> dict[str, Any]:
    return {"name": "echo", "inputSchema": {"type": "object", "properties": properties}}


def call(heads: Heads, name: object = "echo", **more: Any) -> RequestHead:
    return heads.of("tools/call", {"name": name, "arguments": {"to": "x"}, **more}, MODERN, None)


async def test_requests_alike_share_a_head_and_others_do_not(heads: Heads) -> None:
    assert call(heads) is call(heads)
    assert call(heads) is not call(heads, "other")
    assert call(heads).headers[NAME_HEADER] == "echo"
    assert heads.of("tools/call", {"name": "echo"}, LEGACY, "a") is not heads.of(
        "tools/call", {"name": "echo"}, LEGACY, "b"
    )
    assert heads.of("prompts/get", {"name": "echo"}, MODERN, None).headers[METHOD_HEADER] == "prompts/get"


async def test_a_name_that_is_none_is_not_taken_for_one_that_is_empty(heads: Heads) -> None:
    assert call(heads, "").headers[NAME_HEADER] == ""
    for name in (None, 1, ["echo"], {"a": "b"}):
        assert NAME_HEADER not in call(heads, name).headers


async def test_a_head_that_mirrors_an_argument_is_of_one_call_even_if_it_mirrored_none_before(heads: Heads) -> None:
    heads.learn_tools((tool(to={"type": "string"}),))
    assert "Mcp-Param-To" not in call(heads).headers and call(heads) is call(heads)
    heads.learn_tools((tool(to={"type": "string", "x-mcp-header": "To"}),))
    assert call(heads).headers["Mcp-Param-To"] == "x" and call(heads) is not call(heads)


async def test_the_context_of_a_trace_is_of_one_call(heads: Heads) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traced = call(heads, _meta={PARENT: parent})
    assert traced.headers["traceparent"] == parent
    assert "traceparent" not in call(heads, _meta={"other": 1}).headers


async def test_names_that_strangers_make_up_fill_no_memory(heads: Heads) -> None:
    for number in range(MAX_HEADS + 2):
        call(heads, f"t{number}")
        call(heads, "x" * (MAX_KEPT_NAME + number + 1))
    assert len(heads._kept) <= MAX_HEADS
