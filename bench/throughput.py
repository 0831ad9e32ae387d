"""Latency and throughput: the same callers ask the upstream, nginx and the broker, in turns, in one run."""

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.ask import Ask, Load, Sample
from bench.gateways import ERAS, Field, echo_argv, http_server, stdio_server
from bench.load import over_http, over_pipe
from bench.machine import busy_seconds, children_seconds, cpu_seconds
from bench.report import Table, milliseconds, number, ratio
from bench.settings import EVERYTHING

SIZES: Final = {"small": 32, "100 kB": 100_000}
FEW_TOOLS: Final = 3
MANY_TOOLS: Final = 1000
ECHO_TITLE: Final = "One call of an echo tool"
CATALOG_TITLE: Final = "The size of the catalog"
LIST: Final = f"tools/list of {MANY_TOOLS}"
CALL: Final = "one call"
FEW_LABEL: Final = f"broker with {FEW_TOOLS} tools"
MANY_LABEL: Final = f"broker with {MANY_TOOLS} tools"
QUIET: Final = 0.1
"""A turn in which others took less of a core than this is good."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: `rounds` of `seconds` for each target, after `warm_up` seconds. Rather more rounds than
    longer ones: a core gives twice as much in one moment as in the next, and the median of three is any of them. The
    first call of a caller costs several times as much as the others (a connection to the upstream, leases of its
    budgets): the warm-up is for that.
    """

    rounds: int
    seconds: float
    warm_up: float
    repeats: int
    """Turns that may be repeated because others on the machine disturbed them ..."""
    until: float
    """... before this time (monotonic)."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked, and the process whose CPU time counts."""

    name: str
    connect: Callable[[], Awaitable[Load]]
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """One target, for a moment."""

    sample: Sample
    cpu: float
    """Seconds of CPU of the target's process."""
    rest: float
    """Seconds of CPU of the load and the upstream."""
    others: float
    """Seconds of CPU that others took from the same cores."""


class Measured:
    """What one target has shown: a value for each round, and the latencies of all rounds together."""

    def __init__(self, rounds: Sequence[Round]) -> None:
        samples = [one.sample for one in rounds]
        self.latencies = sorted(latency for sample in samples for latency in sample.latencies)
        self.medians = [statistics.median(sample.latencies) for sample in samples]
        self.worst = [percentile(sorted(sample.latencies), 0.99) for sample in samples]
        self.rates = [len(sample.latencies) / sample.seconds for sample in samples]
        seconds = sum(sample.seconds for sample in samples)
        self.p50 = statistics.median(self.latencies)
        self.p99 = percentile(self.latencies, 0.99)
        self.rate = statistics.median(self.rates)
        self.cpu_per_call = sum(one.cpu for one in rounds) / len(self.latencies)
        self.load = sum(one.rest for one in rounds) / seconds
        """How busy the load and the upstream were, of one core."""
        self.noise = sum(one.others for one in rounds) / seconds
        """How busy others kept the two cores, of one core."""

    def added(self, base: "Measured") -> float:
        """Seconds of latency more than `base`, round against round."""
        return statistics.median(mine - its for mine, its in zip(self.medians, base.medians, strict=True))

    def share(self, base: "Measured") -> float:
        """The rate as a share of that of `base`, round against round."""
        return statistics.median(mine / its for mine, its in zip(self.rates, base.rates, strict=True))

    def values(self) -> dict[str, float | list[float]]:
        """For machines: seconds, and calls per second."""
        return {
            **{"p50": self.p50, "p99": self.p99, "rate": self.rate, "cpu_per_call": self.cpu_per_call},
            **{"load": self.load, "noise": self.noise, "round_medians": self.medians},
            **{"round_p99s": self.worst, "round_rates": self.rates},
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of them is."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def compare(targets: Sequence[Target], effort: Effort) -> dict[str, Measured]:
    """All targets in turns; each turn begins with another one, so that none is always the first.

    Turns that others on the machine disturb are repeated, within `effort.repeats`; the quietest ones count.
    """
    connected: list[tuple[Target, Load]] = []
    turns: list[dict[str, Round]] = []
    try:
        for target in targets:
            connected.append((target, await target.connect()))  # noqa: PERF401 - what is open must be closed
        for _, callers in connected:
            await callers.measure(effort.warm_up)
        while len(turns) < effort.rounds or (
            len(turns) < effort.rounds + effort.repeats
            and time.monotonic() < effort.until
            and sum(noise(turn) < QUIET for turn in turns) < effort.rounds
        ):
            first = len(turns) % len(connected)
            order = (*connected[first:], *connected[:first])
            turns.append({target.name: await one_round(target, callers, effort.seconds) for target, callers in order})
    finally:
        for _, callers in connected:
            await callers.close()
    quietest = sorted(turns, key=noise)[: effort.rounds]
    return {target.name: Measured([turn[target.name] for turn in quietest]) for target in targets}


async def one_round(target: Target, callers: Load, seconds: float) -> Round:
    """Measure one target for so long."""
    children, cpu, busy = children_seconds(), cpu_seconds(target.pid), busy_seconds()
    sample = await callers.measure(seconds)
    busy, cpu, children = busy_seconds() - busy, cpu_seconds(target.pid) - cpu, children_seconds() - children
    ours = sample.cpu + children
    return Round(sample, cpu, ours - cpu, max(0.0, busy - ours))


def noise(turn: Mapping[str, Round]) -> float:
    """What part of a core others took at worst."""
    return max(one.others / one.sample.seconds for one in turn.values())


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the matrix."""

    upstream: str
    """modern, legacy or stdio."""
    era: str
    """The caller's: modern or legacy."""
    size: str
    callers: int

    def __str__(self) -> str:
        plural = "" if self.callers == 1 else "s"
        return f"{self.era} caller{plural}, {self.upstream} upstream, {self.size}, {self.callers} caller{plural}"


def matrix(*, short: bool) -> list[Case]:
    """All combinations, or the few that a change of the hot path shows in."""
    if short:
        same = [("modern", "modern"), ("legacy", "legacy"), ("stdio", "modern")]
        small = [Case(upstream, era, "small", callers) for upstream, era in same for callers in (1, 16)]
        crossed = [Case(upstream, era, "small", 16) for upstream, era in (("modern", "legacy"), ("legacy", "modern"))]
        return [*small, *crossed, Case("modern", "modern", "small", 64), Case("modern", "modern", "100 kB", 16)]
    return [
        Case(upstream, era, size, callers)
        for size, crowds in (("small", (1, 16, 64)), ("100 kB", (1, 16)))
        for upstream in ("modern", "legacy", "stdio")
        for era in ERAS
        for callers in crowds
    ]


async def echo_table(field: Field, cases: Sequence[Case], effort: Effort, step: Callable[[str], None]) -> Table:
    """One call of the echo tool, in every case."""
    upstream = await field.upstream()
    nginx = await field.nginx(upstream)
    servers = {
        "modern": http_server(upstream, ERAS["modern"]),
        "legacy": http_server(upstream, ERAS["legacy"]),
        "stdio": stdio_server("--core", field.load_core, protocol=ERAS["modern"]),
    }
    broker, port = await field.serve(servers, len(servers))
    table = Table(
        ECHO_TITLE,
        (
            *("upstream", "caller", "payload", "callers", "through", "p50 ms", "p99 ms", "added ms", "calls/s"),
            *("of direct", "of nginx", "CPU ms/call", "load", "others"),
        ),
        "`added ms` and the shares compare the rounds in pairs. The payload travels both ways. `load`: how busy the "
        "callers and the upstream were, of their core; near 100 % they are what limits the rate, not the gateway, as "
        "they do for `direct` and for nginx with many callers. "
        "`others`: what other programs took of the two cores, of one core."
        + ("" if nginx else f" nginx is not installed here: {field.remedy('nginx')}."),
    )
    for case in cases:
        step(str(case))
        era, size, callers = ERAS[case.era], SIZES[case.size], case.callers
        plain, published = Ask.echo("echo", size), Ask.echo(f"{case.upstream}__echo", size)

        def to_http(to: int, ask: Ask, era: str = era, callers: int = callers) -> Callable[[], Awaitable[Load]]:
            return lambda: over_http(to, ask, era, callers)

        def to_pipe(ask: Ask = plain, era: str = era, callers: int = callers) -> Callable[[], Awaitable[Load]]:
            return lambda: over_pipe(echo_argv(), field.load_core, ask, era, callers)

        is_pipe = case.upstream == "stdio"
        targets = [Target("direct", to_pipe() if is_pipe else to_http(upstream, plain))]
        if nginx is not None and not is_pipe:
            targets.append(Target("nginx", to_http(nginx[1], plain), nginx[0].pid))
        targets.append(Target("broker", to_http(port, published), broker.pid))
        measured = await compare(targets, effort)
        table.add_all(rows(case, measured))
        facts = {"case": str(case), "caller": case.era, "callers": callers, "upstream": case.upstream}
        table.keep({**facts, "size": case.size, **{name: one.values() for name, one in measured.items()}})
    return table


def rows(case: Case, measured: dict[str, Measured]) -> list[list[str]]:
    """A row for each target."""
    direct, nginx = measured["direct"], measured.get("nginx")
    return [
        [
            *(case.upstream, case.era, case.size, str(case.callers), name),
            *(milliseconds(one.p50), milliseconds(one.p99)),
            "" if one is direct else milliseconds(one.added(direct)),
            number(one.rate),
            "" if one is direct else ratio(one.share(direct)),
            ratio(one.share(nginx)) if nginx is not None and name == "broker" else "",
            milliseconds(one.cpu_per_call) if one.cpu_per_call else "",
            f"{one.load:.0%}" if one.load else "",
            f"{one.noise:.0%}" if one.load else "",
        ]
        for name, one in measured.items()
    ]


async def catalog_table(field: Field, eras: Mapping[str, str], effort: Effort, step: Callable[[str], None]) -> Table:
    """What the size of the catalog costs: a list of 1 000 tools, and a call among them."""
    small, large = await field.upstream(FEW_TOOLS), await field.upstream(MANY_TOOLS)
    nginx = await field.nginx(large, MANY_TOOLS)
    few, few_port, few_keys = await field.serve_with({"web": http_server(small, ERAS["modern"])}, FEW_TOOLS, EVERYTHING)
    many, many_port, keys = await field.serve_with({"web": http_server(large, ERAS["modern"])}, MANY_TOOLS, EVERYTHING)
    table = Table(
        CATALOG_TITLE,
        ("what", "caller", "callers", "through", "p50 ms", "p99 ms", "calls/s", "of the first", "CPU ms/call"),
        "Modern HTTP upstream; the broker with everything on. `of the first`: the rate as a share of the first row of "
        "its kind.",
    )

    def to(port: int, ask: Ask, era: str, callers: int, keys: list[str]) -> Callable[[], Awaitable[Load]]:
        return lambda: over_http(port, ask, era, callers, keys)

    for name, era in eras.items():
        asks = {
            LIST: (
                ("direct", large, Ask.tools(MANY_TOOLS), None, []),
                *([("nginx", nginx[1], Ask.tools(MANY_TOOLS), nginx[0].pid, [])] if nginx else []),
                ("broker", many_port, Ask.tools(MANY_TOOLS), many.pid, keys),
            ),
            CALL: (
                (FEW_LABEL, few_port, Ask.echo("web__echo", SIZES["small"]), few.pid, few_keys),
                (MANY_LABEL, many_port, Ask.echo("web__echo", SIZES["small"]), many.pid, keys),
            ),
        }
        for what, pair in asks.items():
            for callers in (1, 16):
                step(f"{what}, {name} caller, {callers} at a time")
                targets = [
                    Target(label, to(port, ask, era, callers, keys), pid) for label, port, ask, pid, keys in pair
                ]
                measured = await compare(targets, effort)
                first = measured[targets[0].name]
                table.add_all(
                    [
                        *(what, name, str(callers), label, milliseconds(one.p50), milliseconds(one.p99)),
                        *(number(one.rate), "" if one is first else ratio(one.share(first))),
                        milliseconds(one.cpu_per_call) if one.cpu_per_call else "",
                    ]
                    for label, one in measured.items()
                )
                kept = {key: one.values() for key, one in measured.items()}
                facts = {"case": f"{what}, {name}, {callers}", "what": what, "caller": name, "callers": callers}
                table.keep({**facts, **kept})
    return table
