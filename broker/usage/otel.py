"""Traces of OpenTelemetry, sent in batches by a thread of its SDK over OTLP (HTTP, protobuf).

The only module that needs the extra `otel`; it is loaded when traces are on. The SDK reads the environment variables of
OpenTelemetry (`OTEL_EXPORTER_OTLP_*`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
`OTEL_BSP_*`, `OTEL_SDK_DISABLED`); what the configuration says goes before them.
"""

import os
import threading
from contextlib import suppress
from typing import Any, Final

import anyio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from broker.core.tracecontext import PARENT, STATE, TraceContext
from broker.errors import BrokerError
from broker.threads import NoThreads, begin, in_thread
from broker.usage.records import CallRecord
from broker.usage.traces import FAULTS, CallSpan, Span, attributes_of, span_name

CLOSE_TIMEOUT: Final = 3.0
"""Seconds for the last batch: a collector that is gone must not hold up the end of the broker."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_FAULT: Final = Status(StatusCode.ERROR)


class OtelTraces:
    """See `Traces`. `sample`: the share of traces that begin here; None: as the environment says, else all."""

    is_on = True

    def __init__(self, name: str, version: str, *, endpoint: str | None = None, sample: float | None = None) -> None:
        told = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": name}
        self._endpoint = endpoint
        self._provider = TracerProvider(
            sampler=None if sample is None else ParentBased(TraceIdRatioBased(sample)),
            resource=Resource.create({**told, "service.version": version}),
            shutdown_on_exit=False,  # that would wait for a collector that is gone
        )
        self._tracer = self._provider.get_tracer("mcp-broker", version)

    def start(self) -> None:
        """See `Traces`."""
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(self._endpoint)))

    def begin(self, method: str, parent: TraceContext | None) -> Span:
        """See `Traces`."""
        context = Context() if parent is None else _PROPAGATOR.extract(parent.headers(), Context())
        attributes = {"mcp.method.name": span_name(method)}
        span = self._tracer.start_span(span_name(method), context, SpanKind.SERVER, attributes)
        return _Request(self._tracer, span)

    async def aclose(self) -> None:
        """See `Traces`. The SDK gives no bound for this, so a thread that may be left alone does it."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        with anyio.CancelScope(shield=True), suppress(NoThreads):  # then the last spans are lost
            begin(closing)
            await in_thread(closing.join, CLOSE_TIMEOUT)


class _Request:
    """See `Span`."""

    __slots__ = ("_span", "_tracer", "trace")

    def __init__(self, tracer: Tracer, span: OtelSpan) -> None:
        self._tracer = tracer
        self._span = span
        found = span.get_span_context()
        self.trace = f"{found.trace_id:032x}" if found.is_valid else ""

    def calling(self, server: str, method: str) -> CallSpan | None:
        """See `Span`. There is no trace where `OTEL_SDK_DISABLED` says so."""
        if not self.trace:
            return None
        attributes = {"mcp.method.name": span_name(method), "mcp_broker.upstream": server}
        context = set_span_in_context(self._span, Context())
        return _Call(self._tracer.start_span(span_name(method), context, SpanKind.CLIENT, attributes))

    def ended(self, record: CallRecord) -> None:
        """See `Span`."""
        if self._span.is_recording():
            self._span.set_attributes(attributes_of(record))
            if record.outcome in FAULTS:
                self._span.set_status(_FAULT)
                self._span.set_attribute("error.type", str(record.code))
        self._span.end()


class _Call:
    """See `CallSpan`."""

    __slots__ = ("_span", "context")

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        carrier: dict[str, Any] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
        self.context = TraceContext(carrier.get(PARENT, ""), carrier.get(STATE, ""))

    def __enter__(self) -> CallSpan:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: object) -> None:
        """What was raised is told by its type alone: its text is an upstream's."""
        if kind is not None and self._span.is_recording():
            code = str(fault.code) if isinstance(fault, BrokerError) else kind.__name__
            self._span.set_attribute("error.type", code)
            self._span.set_status(_FAULT)
        self._span.end()
