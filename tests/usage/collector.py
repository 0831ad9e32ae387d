"""A collector of OpenTelemetry on loopback: it takes OTLP over HTTP, and keeps the spans."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.peers import READY_TIMEOUT


def attributes(span: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


@dataclass
class Collector:
    """`spans`, as they came, `bodies` as bytes, and the `resource` that sent the last."""

    url: str = ""
    spans: list[Span] = field(default_factory=list[Span])
    bodies: list[bytes] = field(default_factory=list[bytes])
    headers: list[str] = field(default_factory=list[str])
    resource: dict[str, str] = field(default_factory=dict[str, str])
    came: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes, headers: str) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self.came:
            self.bodies.append(body)
            self.headers.append(headers)
            for resource in request.resource_spans:
                self.resource = attributes(resource.resource)
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self.came.notify_all()

    def wait(self, count: int) -> list[Span]:
        """The spans, once there are so many of them."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.spans) >= count, READY_TIMEOUT), self.spans
            return list(self.spans)


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces" and status == 200:
                found.take(body, str(self.headers))
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Not on our stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
