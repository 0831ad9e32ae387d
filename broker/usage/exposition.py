"""What is counted, in the words of Prometheus. Loaded with the first look: the library brings an HTTP server."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.usage.gauges import Gauge
from broker.usage.meter import BOUNDS, Counts

HEADS: Final = 2
"""Lines about a family: its help, and its type."""
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class _Page(Collector):
    """All series, made when they are asked for."""

    def __init__(self, counts: Counts, gauges: Callable[[], Iterable[Gauge]]) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        yield from self._counted()
        found: dict[str, Metric] = {}
        for gauge in self._gauges():
            if gauge.name not in found:
                make = CounterMetricFamily if gauge.is_counter else GaugeMetricFamily
                found[gauge.name] = make(f"mcp_broker_{gauge.name}", gauge.meaning, labels=tuple(gauge.labels))
            family = found[gauge.name]
            assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
            family.add_metric(tuple(gauge.labels.values()), gauge.value)
        yield from found.values()

    def _counted(self) -> Iterable[Metric]:
        counts = self._counts
        calls = CounterMetricFamily(
            "mcp_broker_calls",
            "Decisions on requests that name an entry, and what became of them.",
            labels=("rule", "upstream", "kind", "outcome"),
        )
        for labels, number in counts.calls.items():
            calls.add_metric(labels, number)
        yield calls
        took = HistogramMetricFamily(
            "mcp_broker_call_duration_seconds", "How long they took.", labels=("upstream", "kind")
        )
        for labels, durations in counts.durations.items():
            total, buckets = 0, list[tuple[str, float]]()
            for edge, number in zip((*map(str, BOUNDS), "+Inf"), durations.counts, strict=True):
                total += number
                buckets.append((edge, total))
            took.add_metric(labels, buckets, durations.seconds)
        yield took
        yield GaugeMetricFamily("mcp_broker_requests_in_flight", "Requests under way.", value=counts.in_flight)
        shown = CounterMetricFamily("mcp_broker_discoveries", "Views that were shown.", labels=("method",))
        for method, number in counts.discoveries.items():
            shown.add_metric((method,), number)
        yield shown
        refused = CounterMetricFamily("mcp_broker_refused_credentials", "Refused, by status.", labels=("status",))
        for status, number in counts.refusals.items():
            refused.add_metric((str(status),), number)
        yield refused


def page(counts: Counts, gauges: Callable[[], Iterable[Gauge]]) -> bytes:
    """The text of `/metrics`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(counts, gauges))
    return generate_latest(registry)


def merged(pages: Sequence[tuple[int, bytes]]) -> bytes:
    """The pages of several workers as one: every sample is told apart by the number of its `worker`."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for worker, text in pages:
        name = ""
        for line in text.decode().splitlines():
            if line.startswith("#"):
                name = line.split(" ", 3)[2]
                heads, _ = families.setdefault(name, ([], []))
                if line not in heads and len(heads) < HEADS:
                    heads.append(line)
            elif line:
                families.setdefault(name, ([], []))[1].append(_of_worker(line, worker))
    return "".join(f"{line}\n" for heads, samples in families.values() for line in (*heads, *samples)).encode()


def _of_worker(sample: str, worker: int) -> str:
    """`name{labels} value` or `name value`, with one label more, in front."""
    name = sample[: _end_of_name(sample)]
    rest = sample[len(name) :]
    return f'{name}{{worker="{worker}",{rest[1:]}' if rest.startswith("{") else f'{name}{{worker="{worker}"}}{rest}'


def _end_of_name(sample: str) -> int:
    """No name of ours has a brace or a space in it; values of labels, which may, come later."""
    return min(at for at in (sample.find("{"), sample.find(" ")) if at >= 0)
