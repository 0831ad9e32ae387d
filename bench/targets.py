"""What was wanted beside what was measured. The targets are ratios within one run, so that they hold on any machine."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench import against, memory, startup, throughput
from bench.report import Table, ratio

Row = Mapping[str, Any]
"""A case: its facts, and what each target of it has shown (`Measured.values`)."""
LOUD: Final = 0.3
"""Where others took more of a core than this, rates and latencies mean nothing, and CPU times waver by a fifth."""
SAME: Final = 1.1
"""Two costs that differ by less are the same: CPU time of one call wavers by as much between two runs."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One target."""

    what: str
    table: str
    facts: Mapping[str, Any]
    """Which rows of that table it is about: those with all of these facts."""
    values: Callable[[Row], list[float]]
    """Of each round: their median counts. Raises: KeyError, if something that it needs was not measured."""
    bound: float
    least: bool = True
    """Whether the bound is the least that is wanted; otherwise the most."""
    by_cpu: Callable[[Row], float] | None = None
    """The same by CPU time, which wavers less on a machine that others use too."""

    def verdict(self, value: float, noise: float) -> str:
        """Met or missed, or that the machine was too loud to say."""
        if noise > LOUD:
            return f"no verdict: others took {noise:.0%} of a core"
        return "met" if (value >= self.bound if self.least else value <= self.bound) else "MISSED"


def rate(mine: str, theirs: str) -> Callable[[Row], list[float]]:
    """Calls per second as a multiple of another's, round against round."""
    return _paired("round_rates", mine, theirs)


def p50(mine: str, theirs: str) -> Callable[[Row], list[float]]:
    """The median latency as a multiple of another's, round against round."""
    return _paired("round_medians", mine, theirs)


def p99(mine: str, theirs: str) -> Callable[[Row], list[float]]:
    """The latency that one of a hundred exceeds as a multiple of another's, round against round."""
    return _paired("round_p99s", mine, theirs)


def cost(mine: str, theirs: str) -> Callable[[Row], float]:
    """CPU time of a call as a multiple of another's; the other way round it is how many more calls a core can do."""
    return lambda row: row[mine]["cpu_per_call"] / row[theirs]["cpu_per_call"]


def _paired(values: str, mine: str, theirs: str) -> Callable[[Row], list[float]]:
    return lambda row: [one / other for one, other in zip(row[mine][values], row[theirs][values], strict=True)]


def single(value: Callable[[Row], float]) -> Callable[[Row], list[float]]:
    """Of what has no rounds."""
    return lambda row: [value(row)]


def seconds(mine: str, theirs: str) -> Callable[[Row], list[float]]:
    """How many times as long something took as another did, round against round."""
    return lambda row: [one / other for one, other in zip(row[mine], row[theirs], strict=True)]


def cold(row: Row) -> list[float]:
    """The first whole list of the broker, as a multiple of what its servers took when they were started directly."""
    return [one[1] / other for one, other in zip(row["broker"], row["direct"], strict=True)]


def goals() -> list[Goal]:
    """All of them, in the order in which they are shown."""
    return [*call_goals(), *start_goals(), *memory_goals()]


def start_goals() -> list[Goal]:
    """Of starts."""
    first, servers = "first list of", startup.SERVERS
    lists = startup.LIST_TITLE, dict[str, Any]()
    hung = seconds(startup.HUNG, startup.NONE)
    return [
        *(
            Goal(
                f"first whole list of {servers} {kind}, times that of them started directly at once",
                *(startup.COLD_TITLE, {"servers": kind}, cold, 1.3),
                least=False,
            )
            for kind in (startup.ORDINARY, startup.LEAN)
        ),
        Goal(f"{first} {startup.HUNG}, times that of none", *lists, hung, 1.5, least=False),
        Goal(
            f"{first} {servers} servers of which one ends at once, times that of the others",
            *(*lists, seconds(startup.DEAD, startup.HEALTHY), SAME),
            least=False,
        ),
        Goal(
            f"CPU of {startup.HELP}, times that of {startup.BASE}",
            *(startup.HELP_TITLE, dict[str, Any](), seconds(startup.HELP, startup.BASE), 2),
            least=False,
        ),
    ]


def memory_goals() -> list[Goal]:
    """Of what is held for nothing."""
    return [
        Goal(
            f"MiB of an idle broker with 3 tools, beyond those of `{memory.BASE}`",
            *(memory.TITLE, {"case": memory.FEW}, single(lambda row: row["above"]), 40),
            least=False,
        ),
        Goal(
            "memory after five times as much load, times that at first",
            *(memory.TITLE, {"case": memory.LOADED}, single(lambda row: row["last"] / row["first"]), SAME),
            least=False,
        ),
        Goal(
            *(f"kB of {memory.SESSION}", memory.TITLE, {"case": memory.SESSION}, single(lambda row: row["kb"]), 30),
            least=False,
        ),
    ]


def call_goals() -> list[Goal]:
    """Of calls and lists. The broker in them has everything on."""
    found: list[Goal] = []
    few, many = throughput.FEW_LABEL, throughput.MANY_LABEL
    ours, stdio, connected = against.BROKER, against.STDIO, against.CONNECTED
    for era in ("modern", "legacy"):
        for callers in (16, 64):
            facts = {"caller": era, "callers": callers, "payload": "small"}
            who = f"{callers} {era} callers"
            found += [
                Goal(
                    *(f"calls/s, of nginx's, {who}", against.TITLE, facts, rate(ours, "nginx"), 0.4),
                    by_cpu=cost("nginx", ours),
                ),
                Goal(
                    *(f"calls/s, of nginx's, stdio upstream, {who}", against.TITLE, facts, rate(stdio, "nginx"), 0.4),
                    by_cpu=cost("nginx", stdio),
                ),
                Goal(
                    *(f"calls/s, times FastMCP's, {who}", against.TITLE, facts, rate(ours, connected), 40),
                    by_cpu=cost(connected, ours),
                ),
            ]
        alone = {"caller": era, "callers": 1, "payload": "small"}
        large = {"caller": era, "payload": against.RESULT}
        lists = {"caller": era, "callers": 1, "what": throughput.LIST}
        calls = {"caller": era, "callers": 16, "what": throughput.CALL}
        found += [
            Goal(f"p50, times nginx's, one {era} caller", against.TITLE, alone, p50(ours, "nginx"), 3, least=False),
            Goal(f"p99, times nginx's, one {era} caller", against.TITLE, alone, p99(ours, "nginx"), 3, least=False),
            Goal(
                *(f"calls/s, of nginx's, {against.RESULT}, {era}", against.TITLE, large, rate(ours, "nginx"), 0.5),
                by_cpu=cost("nginx", ours),
            ),
            Goal(
                f"time of {throughput.LIST} tools, times that of the upstream, {era}",
                *(throughput.CATALOG_TITLE, lists, p50("broker", "direct"), 3),
                least=False,
            ),
            Goal(
                f"CPU of a call with {throughput.MANY_TOOLS} tools, times that with {throughput.FEW_TOOLS}, {era}",
                *(throughput.CATALOG_TITLE, calls, single(cost(many, few)), SAME),
                least=False,
            ),
        ]
    return found


def targets_table(tables: Sequence[Table]) -> Table:
    """A row for each target of which something was measured in these tables."""
    table = Table(
        "Targets",
        ("target", "wanted", "measured", "rounds", "by CPU", ""),
        "Ratios are of paired rounds in this run: `measured` is their median, `rounds` the least and the greatest of "
        "them. The broker that is called has everything on. `by CPU`: the same by "
        "CPU time for a call, which wavers less where others run, and does not depend on what the load can ask."
        + beside_relays(tables),
    )
    for goal in goals():
        for row in rows_of(tables, goal):
            wanted = f"{'at least' if goal.least else 'at most'} {goal.bound:g}"
            try:
                values = goal.values(row)
                value, span = statistics.median(values), f"{ratio(min(values))} to {ratio(max(values))}"
                by_cpu = ratio(goal.by_cpu(row)) if goal.by_cpu is not None else ""
            except KeyError as missing:
                table.add(goal.what, wanted, "", "", "", f"not measured: no {missing.args[0]}")
            except ZeroDivisionError:
                table.add(goal.what, wanted, "", "", "", "not measured: no CPU times here")
            else:
                rounds = span if len(values) > 1 else ""
                table.add(goal.what, wanted, ratio(value), rounds, by_cpu, goal.verdict(value, noise(row)))
    return table


def beside_relays(tables: Sequence[Table]) -> str:
    """What of the rate of a relay in Python is left, which no target is about: one sentence, if it was measured."""
    found: list[str] = []
    for row in (row for table in tables if table.title == against.TITLE for row in table.data):
        if row["callers"] == 1 or row["payload"] == against.RESULT or not all(name in row for name in against.RELAYS):
            continue
        shares = [statistics.median(rate(against.BROKER, relay)(row)) for relay in against.RELAYS]
        found.append(f"{ratio(shares[0])} and {ratio(shares[1])} with {row['callers']} {row['caller']} callers")
        costs = [row[relay]["cpu_per_call"] for relay in against.RELAYS]
        if ours := row[against.BROKER]["cpu_per_call"]:
            found[-1] += f" (by CPU {ratio(costs[0] / ours)} and {ratio(costs[1] / ours)})"
    if not found:
        return ""
    return (
        f" No targets: of the calls/s of a bare relay in Python and of a strict one the broker has {'; '.join(found)}."
    )


def noise(row: Row) -> float:
    """How much of a core others took, where it was worst; 0 where that was not looked at."""
    return max((one["noise"] for one in row.values() if isinstance(one, dict)), default=0.0)


def rows_of(tables: Sequence[Table], goal: Goal) -> list[Row]:
    """The cases that a target is about."""
    rows = [row for table in tables if table.title == goal.table for row in table.data]
    return [row for row in rows if all(row.get(name) == value for name, value in goal.facts.items())]
