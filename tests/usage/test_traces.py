"""Traces over a real collector: one span for each request, one for each call upstream, joined both ways."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from broker.config import ConfigError, load, rules
from broker.core.era import LATEST_LEGACY, LATEST_MODERN
from tests.downstream.conftest import serving
from tests.downstream.raw_http import LEGACY, message, modern, modern_headers
from tests.relay.fake import Asked, Fake, Json, Refuse, tool, write_config
from tests.usage.audited import ask, audited, records
from tests.usage.collector import Collector, attributes, collecting

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLERS = f"00-{TRACE}-{PARENT}-01"
SECRET = "canary-7f3a9c"
CALL: Json = {"name": "one__echo", "arguments": {"password": SECRET}}


async def fail(asked: Asked) -> Json:
    raise Refuse(1001, {"token": SECRET}, f"cannot log in with {SECRET}")


def fakes(version: Any = LATEST_LEGACY) -> Fake:
    uri = {"uri": f"db://{SECRET}@host", "name": "db"}
    return Fake(
        version, [tool("echo"), tool("bad"), tool("drop")], resources=[uri], templates=[], answers={"bad": fail}
    )


def traces(collector: Collector, **more: Any) -> Json:
    return {"enabled": True, "endpoint": collector.url, **more}


def by_kind(spans: list[Span]) -> tuple[list[Span], list[Span]]:
    servers = [one for one in spans if one.kind == Span.SpanKind.SPAN_KIND_SERVER]
    clients = [one for one in spans if one.kind == Span.SpanKind.SPAN_KIND_CLIENT]
    assert len(servers) + len(clients) == len(spans)
    return servers, clients


@pytest.mark.parametrize("upstream", [LATEST_LEGACY, LATEST_MODERN])
async def test_a_call_is_a_span_of_its_callers_trace_with_one_of_the_upstream_in_it(
    tmp_path: Path, upstream: Any
) -> None:
    with collecting() as collector:
        fake = fakes(upstream)
        async with audited(tmp_path, fake, traces=traces(collector)) as place:
            meta = {"traceparent": CALLERS, "tracestate": "vendor=1", "baggage": "a=b"}
            await ask(place, "tools/call", {**CALL, "_meta": meta})
        servers, clients = by_kind(collector.wait(2))
    (server,), (client,) = servers, clients
    assert server.trace_id.hex() == client.trace_id.hex() == TRACE
    assert server.parent_span_id.hex() == PARENT and client.parent_span_id == server.span_id
    sent = fake.asked[-1].params["_meta"]
    assert sent["traceparent"] == f"00-{TRACE}-{client.span_id.hex()}-01"
    assert (sent["tracestate"], sent["baggage"]) == ("vendor=1", "a=b")
    assert (server.name, client.name) == ("tools/call", "tools/call")
    assert attributes(client) == {"mcp.method.name": "tools/call", "mcp_broker.upstream": "one"}
    assert attributes(server) == {
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": LATEST_MODERN,
        "mcp_broker.front": "http",
        "mcp_broker.kind": "tools",
        "mcp_broker.upstream": "one",
        "mcp_broker.rule": attributes(server)["mcp_broker.rule"],
        "mcp_broker.outcome": "done",
        "mcp_broker.name": "one__echo",
    }
    assert attributes(server)["mcp_broker.rule"]
    assert [one["trace"] for one in records(tmp_path)] == [TRACE]


async def test_a_request_without_a_trace_begins_one_and_the_audit_has_its_id(tmp_path: Path) -> None:
    with collecting() as collector:
        async with audited(tmp_path, fakes(), traces=traces(collector)) as place:
            await ask(place, "tools/call", CALL)
            await ask(place, "tools/list")
        servers, _ = by_kind(collector.wait(3))
    ids = [one.trace_id.hex() for one in servers]
    assert len(set(ids)) == 2 and not any(one.parent_span_id for one in servers)
    assert [one["trace"] for one in records(tmp_path)] == ids[:1]
    assert [one["trace"] for one in records(tmp_path, "discovery")] == ids[1:]
    assert collector.resource["service.name"] == "test"


async def test_what_fails_and_what_is_denied_is_told_without_a_word_of_it(tmp_path: Path) -> None:
    with collecting() as collector:
        async with audited(tmp_path, fakes(), traces=traces(collector)) as place:
            await ask(place, "tools/call", {**CALL, "name": "one__bad"})
            await ask(place, "tools/call", {**CALL, "name": "one__drop"})
            await ask(place, "tools/call", {**CALL, "name": f"one__{SECRET}"})
            await ask(place, "resources/read", {"uri": f"one+db://{SECRET}@host"})
            await ask(place, f"x/{SECRET}", {"a": SECRET})
        servers, clients = by_kind(collector.wait(7))
    assert [attributes(one)["mcp_broker.outcome"] for one in servers] == ["error", "denied", "denied", "done", "error"]
    assert [attributes(one).get("mcp_broker.name") for one in servers] == ["one__bad", "one__drop", None, None, None]
    assert [one.status.code == Status.STATUS_CODE_ERROR for one in servers] == [True, False, False, False, True]
    assert [one.name for one in servers][-2:] == ["resources/read", "other"]
    assert attributes(servers[0])["error.type"] == attributes(clients[0])["error.type"] == "1001"
    assert not any(SECRET.encode() in body for body in collector.bodies)


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_trace_in_http_headers_is_joined_and_one_in_the_message_goes_first(tmp_path: Path, era: str) -> None:
    other = CALLERS.replace("0af7", "1bf7")
    with collecting() as collector:
        async with serving(tmp_path, {"one": fakes()}, traces=traces(collector)) as front:
            headers = [("traceparent", CALLERS), ("tracestate", "vendor=1")]
            if era == "legacy":
                opening = message("initialize", {"protocolVersion": LEGACY, "capabilities": {}})
                session = (await front.client.post(opening, [])).header("mcp-session-id") or ""
                headers += [("Mcp-Session-Id", session), ("MCP-Protocol-Version", LEGACY)]
            for named in (None, other, "nonsense"):
                extra = {} if named is None else {"traceparent": named}
                body = modern("tools/call", CALL, **extra)
                if era == "legacy":
                    body = message("tools/call", {**CALL, "_meta": extra})
                await front.client.post(body, [*(modern_headers(body) if era == "modern" else []), *headers])
            sent = [one.params["_meta"] for one in front.fake.asked]
        servers, _ = by_kind(collector.wait(7 if era == "legacy" else 6))
    found = [one.trace_id.hex() for one in servers if one.name == "tools/call"]
    assert found[:2] == [TRACE, other[3:35]] and found[2] not in found[:2]
    assert [one["traceparent"][3:35] for one in sent] == found and sent[0]["tracestate"] == "vendor=1"


async def test_a_share_of_the_traces_is_sent_and_those_of_callers_that_sample_are(tmp_path: Path) -> None:
    with collecting() as collector:
        fake = fakes()
        async with audited(tmp_path, fake, traces=traces(collector, sample=0)) as place:
            await ask(place, "tools/call", CALL)
            await ask(place, "tools/call", {**CALL, "_meta": {"traceparent": CALLERS}})
        spans = collector.wait(2)
    assert {one.trace_id.hex() for one in spans} == {TRACE}
    flags = fake.asked[0].params["_meta"]["traceparent"].rpartition("-")[2]
    assert not int(flags, 16) & 1, "the upstream is told not to sample either"


async def test_the_environment_of_opentelemetry_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.removesuffix("/v1/traces"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-key={SECRET}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        async with audited(tmp_path, fakes(), traces={"enabled": True}) as place:
            await ask(place, "tools/call", CALL)
        collector.wait(2)
    assert collector.resource["service.name"] == "mine" and collector.resource["deployment.environment"] == "test"
    assert SECRET in collector.headers[0]


async def test_switched_off_by_the_environment_nothing_is_sent_and_a_callers_trace_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with collecting() as collector:
        fake = fakes()
        async with audited(tmp_path, fake, traces=traces(collector)) as place:
            await ask(place, "tools/call", {**CALL, "_meta": {"traceparent": CALLERS}})
    assert collector.spans == []
    assert fake.asked[0].params["_meta"]["traceparent"] == CALLERS


@pytest.mark.parametrize("status", [503, 400])
async def test_a_collector_that_refuses_costs_nobody_an_answer(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with collecting(status) as collector:
        async with audited(tmp_path, fakes(), traces=traces(collector)) as place:
            assert "result" in await ask(place, "tools/call", CALL)
    assert collector.spans == [] and SECRET not in caplog.text


def test_traces_without_opentelemetry_are_a_mistake_of_the_file_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> None:
        raise ModuleNotFoundError(name)

    path = write_config(tmp_path, {}, traces={"enabled": True})
    assert load(path, {}).config.traces.enabled
    monkeypatch.setattr(rules, "find_spec", find)
    with pytest.raises(ConfigError, match=r"traces.enabled: OpenTelemetry is not installed.*mcp-broker\[otel\]"):
        load(path, {})
    assert not load(write_config(tmp_path, {}), {}).config.traces.enabled


def test_without_traces_opentelemetrys_sdk_is_not_loaded(tmp_path: Path) -> None:
    path = write_config(tmp_path, {})
    script = (
        "import sys\nfrom pathlib import Path\nfrom broker.app import Broker\nfrom broker.config import load\n"
        f"Broker(load(Path({str(path)!r}), {{}}))\nprint('opentelemetry.sdk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout.decode().lower()) is False
