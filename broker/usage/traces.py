"""Spans: one for each request of a caller, and in it one for each request to an upstream. `NO_TRACES` costs nothing.

What a span says is bounded and harmless: which rule, which upstream, what became of it, and public names of entries;
never arguments, URIs, results or what a caller made up. `otel.py` makes them of OpenTelemetry.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from broker.core.tracecontext import TraceContext
from broker.usage.records import CallRecord


class Span(Protocol):
    """A request under way."""

    @property
    def trace(self) -> str:
        """The id of its trace, in 32 hexadecimal digits; "" for none."""
        ...

    def calling(self, server: str, method: str) -> "CallSpan | None":
        """The span of a request to an upstream inside of it; None, if nobody wants one."""
        ...

    def ended(self, record: CallRecord) -> None:
        """It is over; the record says what is known of it."""
        ...


class CallSpan(Protocol):
    """A request to an upstream. A context manager: what is raised inside is its outcome."""

    @property
    def context(self) -> TraceContext:
        """What the upstream is told."""
        ...

    def __enter__(self) -> "CallSpan": ...

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: object) -> None: ...


class Traces(Protocol):
    """Where spans go."""

    is_on: bool
    """Whether anybody wants them."""

    def begin(self, method: str, parent: TraceContext | None) -> Span:
        """The span of a request; `parent`: the one of its caller."""
        ...

    def start(self) -> None:
        """From here on spans are sent."""
        ...

    async def aclose(self) -> None:
        """Send what is left. Bounded in time."""
        ...


class NoSpan:
    """Of a request that nobody traces."""

    trace: str = ""

    def calling(self, server: str, method: str) -> CallSpan | None:
        """See `Span`."""
        return None

    def ended(self, record: CallRecord) -> None:
        """See `Span`."""


class NoTraces:
    """Nobody traces."""

    is_on: bool = False

    def begin(self, method: str, parent: TraceContext | None) -> Span:
        """See `Traces`."""
        return NO_SPAN

    def start(self) -> None:
        """See `Traces`."""

    async def aclose(self) -> None:
        """See `Traces`."""


NO_SPAN: Final = NoSpan()
NO_TRACES: Final = NoTraces()

METHODS: Final = frozenset(
    {
        *("initialize", "ping", "server/discover", "subscriptions/listen", "logging/setLevel", "completion/complete"),
        *("tools/list", "tools/call", "prompts/list", "prompts/get", "tasks/get", "tasks/list", "tasks/result"),
        *("resources/list", "resources/templates/list", "resources/read", "resources/subscribe"),
        *("resources/unsubscribe", "tasks/cancel", "tasks/update"),
    }
)
"""Methods that a span is named after; any other is `other`: a caller must not make up names of spans."""
FAULTS: Final = frozenset({"error", "timed-out"})
"""Outcomes that are faults; a denial is none."""
MAX_ATTRIBUTE: Final = 256
"""Characters of an attribute."""


def span_name(method: str) -> str:
    """What the span of a request is called."""
    return method if method in METHODS else "other"


def attributes_of(record: CallRecord) -> Mapping[str, Any]:
    """What is said of a request at its end. A name is told of an entry that is there, and of tools and prompts only:
    URIs hold what they hold."""
    found = {
        "mcp.protocol.version": record.era,
        "mcp_broker.front": record.front,
        "mcp_broker.view": record.view,
        "mcp_broker.kind": record.kind,
        "mcp_broker.upstream": record.server,
        "mcp_broker.rule": record.rule,
        "mcp_broker.outcome": record.outcome,
        "mcp_broker.name": record.public if record.server and record.kind in ("tools", "prompts") else "",
        "mcp_broker.error": record.error,
    }
    return {name: str(one)[:MAX_ATTRIBUTE] for name, one in found.items() if one}
