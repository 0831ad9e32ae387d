"""How the cost grows: one thing is made larger, all else stays, and one call of the echo tool is measured.

An axis is a name, its values, and how a broker with so much of it is set up; adding one adds its rows and its plot.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.ask import Ask, Load, open_session
from bench.gateways import ERAS, Field, http_server
from bench.load import over_http
from bench.machine import HAS_PROC, memory_mib
from bench.report import Table, milliseconds, number
from bench.throughput import SIZES, Effort, Target, compare

TITLE: Final = "How the cost grows"
CALLERS: Final = 16
PER_SERVER: Final = 1000
"""Tools of one upstream on the axis of tools: fewer than the broker takes from one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A broker that is set up; the echo tool is called by `tool`."""

    pid: int
    port: int
    tool: str


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that grows."""

    name: str
    values: Sequence[int]
    stand: Callable[[Field, int], Awaitable[Standing]]


async def with_upstreams(field: Field, count: int) -> Standing:
    """So many upstreams, which are the same server: the broker cannot tell."""
    upstream = http_server(await field.upstream(), ERAS["modern"])
    process, port = await field.serve({f"server{number}": upstream for number in range(count)}, count)
    return Standing(process.pid, port, f"server{count - 1}__echo")


async def with_tools(field: Field, count: int) -> Standing:
    """So many tools, at most `PER_SERVER` in an upstream."""
    servers = max(1, count // PER_SERVER)
    upstream = http_server(await field.upstream(count // servers), ERAS["modern"])
    process, port = await field.serve({f"server{number}": upstream for number in range(servers)}, count)
    return Standing(process.pid, port, f"server{servers - 1}__echo")


async def with_sessions(field: Field, count: int) -> Standing:
    """So many open legacy sessions, of which none is used."""
    process, port = await field.serve({"web": http_server(await field.upstream(), ERAS["modern"])}, 1)
    for _ in range(count):
        open_session(port)
    return Standing(process.pid, port, "web__echo")


AXES: Final = (
    Axis("upstreams", (1, 3, 10, 30, 100), with_upstreams),
    Axis("tools", (10, 100, 1_000, 10_000), with_tools),
    # A hundred is what one principal may hold.
    Axis("sessions", (1, 10, 30, 99), with_sessions),
)


async def growth_table(field: Field, effort: Effort, step: Callable[[str], None], *, short: bool) -> Table:
    """A row for each value of each axis; of the short run the ends only."""
    table = Table(
        TITLE,
        ("of what", "how many", "p50 ms", "calls/s", "CPU ms/call", "MiB"),
        f"One call of an echo tool, {CALLERS} modern callers, modern HTTP upstreams. Memory is resident, before the "
        "calls.",
    )
    for axis in AXES:
        for value in (axis.values[0], axis.values[-1]) if short else axis.values:
            step(f"growth: {value} {axis.name}")
            standing = await axis.stand(field, value)
            mib = memory_mib(standing.pid) if HAS_PROC else 0.0
            ask = Ask.echo(standing.tool, SIZES["small"])

            def connect(port: int = standing.port, ask: Ask = ask) -> Awaitable[Load]:
                return over_http(port, ask, ERAS["modern"], CALLERS)

            one = (await compare([Target("broker", connect, standing.pid)], effort))["broker"]
            cpu = milliseconds(one.cpu_per_call) if one.cpu_per_call else ""
            table.add(axis.name, number(value), milliseconds(one.p50), number(one.rate), cpu, f"{mib:.0f}")
            table.keep({"axis": axis.name, "value": value, "mib": mib, "broker": one.values()})
            field.clear()
    return table
