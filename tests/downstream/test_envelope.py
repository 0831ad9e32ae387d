"""Envelopes and headers of modern messages are judged as the SDK judges them."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
)

from broker.core.caller import LOCAL
from broker.core.era import META_CLIENT_CAPABILITIES, META_VERSION, MODERN_VERSIONS
from broker.downstream import envelope
from broker.downstream.envelope import check_envelope
from broker.downstream.head import Headers
from broker.downstream.message import Incoming
from broker.errors import HEADER_MISMATCH, BrokerError
from broker.identity.admission import Admission, always
from tests.downstream.raw_http import modern, modern_headers

VERSIONS: st.SearchStrategy[Any] = st.sampled_from([*MODERN_VERSIONS, "2025-11-25", "", None, 1, ["2026-07-28"]])
METHODS = st.sampled_from(["tools/call", "prompts/get", "resources/read", "tools/list", "tools/callx"])
NAMES: st.SearchStrategy[Any] = st.sampled_from(
    ["echo", "Echo", "", " echo", "grüße", "=?base64?ZWNobw==?=", "=?base64?", "=?", None, 1, ["echo"]]
)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["MCP-Protocol-Version", "mcp-protocol-version", "Mcp-Method", "mcp-method", "Mcp-Name", "X"]),
        VERSIONS | METHODS | NAMES,
    ),
    max_size=6,
)


def headers_of(fields: list[tuple[str, Any]]) -> Headers:
    return Headers([(name.encode(), str(value).encode("utf-8")) for name, value in fields if value is not None])


@st.composite
def messages(draw: st.DrawFn) -> tuple[Headers, Incoming]:
    """Headers that mirror the body, or nearly, and a body that has an envelope, or nearly."""
    version, method, name = draw(VERSIONS), draw(METHODS), draw(NAMES)
    meta: Any = draw(st.sampled_from([{META_CLIENT_CAPABILITIES: {}}, {}, None, []]))
    if isinstance(meta, dict):
        meta = {**meta, META_VERSION: version}
    params = draw(st.sampled_from([{"name": name}, {"uri": name}, {}]))
    mirrored = [("MCP-Protocol-Version", version), ("Mcp-Method", method), ("Mcp-Name", name)]
    kept = [field for field in mirrored if draw(st.integers(0, 9))]
    return headers_of(kept + draw(FIELDS | st.just([]))), Incoming(1, method, {**params, "_meta": meta})


NOTHING: Any = SimpleNamespace(catalog=SimpleNamespace(has_mirrors=False))


def judged(headers: Headers, incoming: Incoming) -> int | None:
    """The code of what is wrong with it."""
    try:
        check_envelope(headers, incoming, Admission(LOCAL, always), "", NOTHING)
    except BrokerError as error:
        return error.code
    return None


@given(messages())
def test_a_message_is_refused_for_what_the_sdk_refuses_it_for(message: tuple[Headers, Incoming]) -> None:
    headers, incoming = message
    if find_duplicated_routing_header(headers.lines) is not None:
        assert judged(headers, incoming) == HEADER_MISMATCH
        return
    body = {"method": incoming.method, "params": incoming.params}
    verdict = classify_inbound_request(body, headers=headers, supported_modern_versions=MODERN_VERSIONS)
    assert judged(headers, incoming) == (verdict.code if isinstance(verdict, InboundLadderRejection) else None)


def test_a_name_that_is_encoded_in_no_way_at_all_is_another_name() -> None:
    """The SDK breaks on it."""
    body = modern("tools/call", {"name": "grüße"})
    lines = [(name, value) for name, value in modern_headers(body) if name.lower() != "mcp-name"]
    headers = headers_of([*lines, ("Mcp-Name", "=?base64?grüße?=")])
    assert judged(headers, Incoming(1, "tools/call", body["params"])) == HEADER_MISMATCH


class Closer(Exception):
    """A closer look is taken."""


def test_an_ordinary_message_needs_no_closer_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "_climb", Mock(side_effect=Closer))
    for method, params in [("tools/call", {"name": "a__b"}), ("resources/read", {"uri": "a+b:c"}), ("tools/list", {})]:
        body = modern(method, params)
        incoming = Incoming(1, method, body["params"])
        headers = headers_of([("Host", "x"), *modern_headers(body), ("Accept", "*/*")])
        assert judged(headers, incoming) is None
        with pytest.raises(Closer):
            judged(headers_of([("Accept", "*/*"), ("Accept", "*/*"), *modern_headers(body)]), incoming)
