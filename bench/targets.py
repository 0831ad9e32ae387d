"""What was wanted beside what was measured. The targets are ratios within one run, so that they hold on any machine."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench import access, against, policy, throughput
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
    value: Callable[[Row], float]
    """Raises: KeyError, if something that it needs was not measured."""
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


def rate(mine: str, theirs: str) -> Callable[[Row], float]:
    """Calls per second as a multiple of another's, round against round."""
    return _paired("round_rates", mine, theirs)


def latency(mine: str, theirs: str) -> Callable[[Row], float]:
    """The median latency as a multiple of another's, round against round."""
    return _paired("round_medians", mine, theirs)


def cost(mine: str, theirs: str) -> Callable[[Row], float]:
    """CPU time of a call as a multiple of another's; the other way round it is how many more calls a core can do."""
    return lambda row: row[mine]["cpu_per_call"] / row[theirs]["cpu_per_call"]


def _paired(values: str, mine: str, theirs: str) -> Callable[[Row], float]:
    return lambda row: statistics.median(
        one / other for one, other in zip(row[mine][values], row[theirs][values], strict=True)
    )


def goals() -> list[Goal]:
    """All of them, in the order in which they are shown."""
    found: list[Goal] = []
    few, many = throughput.FEW_LABEL, throughput.MANY_LABEL
    for era in ("modern", "legacy"):
        many_callers, one_caller = {"caller": era, "callers": 16}, {"caller": era, "callers": 1}
        same = {**many_callers, "upstream": era, "size": "100 kB"}
        of_nginx, of_fastmcp = rate("broker", "nginx"), rate("broker", against.CONNECTED)
        p50 = latency("broker", "nginx")
        found += [
            Goal(
                *(f"calls/s, of nginx's, 16 {era} callers", against.TITLE, many_callers, of_nginx, 0.15),
                by_cpu=cost("nginx", "broker"),
            ),
            Goal(
                *(f"calls/s, times FastMCP's, 16 {era} callers", against.TITLE, many_callers, of_fastmcp, 15),
                by_cpu=cost(against.CONNECTED, "broker"),
            ),
            Goal(f"p50, times nginx's, one {era} caller", against.TITLE, one_caller, p50, 5, least=False),
            Goal(
                *(f"calls/s, of nginx's, 100 kB, 16 {era} callers", throughput.ECHO_TITLE, same, of_nginx, 0.3),
                by_cpu=cost("nginx", "broker"),
            ),
            Goal(
                f"CPU of a call with {throughput.MANY_TOOLS} tools, times that with {throughput.FEW_TOOLS}, {era}",
                *(throughput.CATALOG_TITLE, {"what": "one call", **many_callers}, cost(many, few), SAME),
                least=False,
            ),
            Goal(
                f"calls/s with keys, rules and audit, of those without, {era}",
                *(access.TITLE, many_callers, rate(access.FULL, access.BARE), 0.8),
                by_cpu=cost(access.BARE, access.FULL),
            ),
            Goal(
                f"calls/s with limits and budgets, of those without, {era}",
                *(policy.TITLE, many_callers, rate(policy.LIMITED, policy.BARE), 0.85),
                by_cpu=cost(policy.BARE, policy.LIMITED),
            ),
        ]
    return found


def targets_table(tables: Sequence[Table]) -> Table:
    """A row for each target of which something was measured in these tables."""
    table = Table(
        "Targets",
        ("target", "wanted", "measured", "by CPU", ""),
        "All are ratios of paired rounds in this run. `by CPU`: the same by CPU time for a call, which wavers less "
        "where other programs run. Of nginx it is less, since the load keeps nginx from doing what it could.",
    )
    for goal in goals():
        for row in rows_of(tables, goal):
            wanted = f"{'at least' if goal.least else 'at most'} {goal.bound:g}"
            try:
                value = goal.value(row)
                by_cpu = ratio(goal.by_cpu(row)) if goal.by_cpu is not None else ""
            except KeyError as missing:
                table.add(goal.what, wanted, "", "", f"not measured: no {missing.args[0]}")
            except ZeroDivisionError:
                table.add(goal.what, wanted, "", "", "not measured: no CPU times here")
            else:
                table.add(goal.what, wanted, ratio(value), by_cpu, goal.verdict(value, noise(row)))
    return table


def noise(row: Row) -> float:
    """How much of a core others took, where it was worst."""
    return max(one["noise"] for one in row.values() if isinstance(one, dict))


def rows_of(tables: Sequence[Table], goal: Goal) -> list[Row]:
    """The cases that a target is about."""
    rows = [row for table in tables if table.title == goal.table for row in table.data]
    return [row for row in rows if all(row.get(name) == value for name, value in goal.facts.items())]
