"""How the cost grows: one thing is made larger, all else stays, and one call of the echo tool is measured.

An axis is a name, its values, and how a broker with so much of it is set up; adding one adds its rows and its plot. The
broker has everything on, so that what grows with identity, rules, budgets and the audit shows.
"""

import statistics
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench import stored
from bench.ask import Ask, Load, open_sessions, time_of_list
from bench.gateways import ERAS, Field, http_server
from bench.load import over_http
from bench.machine import HAS_PROC, memory_mib
from bench.report import Table, milliseconds, number
from bench.settings import EVERYTHING, EVERYTHING_NOTE, KEYS
from bench.throughput import SIZES, Effort, Target, compare

TITLE: Final = "How the cost grows"
CALLERS: Final = 16
PER_SERVER: Final = 1000
"""Tools of one upstream on the axis of tools: fewer than the broker takes from one."""
PER_KEY: Final = 100
"""Sessions of one key: what one principal may hold."""
LISTS: Final = 5
"""How often everything is listed; the median counts."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A broker that is set up; the echo tool is called by `tool`."""

    process: subprocess.Popen[bytes]
    port: int
    tool: str
    keys: Sequence[str]
    start: float
    """Seconds from exec until it has listed all tools."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that grows."""

    name: str
    values: Sequence[int]
    stand: Callable[[Field, int], Awaitable[Standing]]


async def standing(field: Field, servers: Mapping[str, Any], tools: int) -> Standing:
    """A broker in front of these servers."""
    process, port, keys = await field.serve_with(servers, tools, EVERYTHING)
    return Standing(process, port, f"{list(servers)[-1]}__echo", keys, field.took)


async def with_upstreams(field: Field, count: int) -> Standing:
    """So many upstreams, which are the same server: the broker cannot tell."""
    upstream = http_server(await field.upstream(), ERAS["modern"])
    return await standing(field, {f"server{number}": upstream for number in range(count)}, count)


async def with_tools(field: Field, count: int) -> Standing:
    """So many tools, at most `PER_SERVER` in an upstream."""
    servers = max(1, count // PER_SERVER)
    upstream = http_server(await field.upstream(count // servers), ERAS["modern"])
    return await standing(field, {f"server{number}": upstream for number in range(servers)}, count)


async def with_keys(field: Field, count: int) -> Standing:
    """So many keys in the store, beside those of the file."""
    upstream = {"web": http_server(await field.upstream(), ERAS["modern"])}
    state = field.fresh("state")
    keys = await stored.keys(state, count, CALLERS)
    process, port, _ = await field.serve_with(upstream, 1, EVERYTHING, state=state, keys=keys)
    return Standing(process, port, "web__echo", keys, field.took)


async def with_sessions(field: Field, count: int) -> Standing:
    """So many open legacy sessions, of which none is used."""
    stands = await standing(field, {"web": http_server(await field.upstream(), ERAS["modern"])}, 1)
    rest, turn = count, iter(stands.keys)
    while rest > 0:
        open_sessions(stands.port, next(turn), min(rest, PER_KEY))
        rest -= PER_KEY
    return stands


AXES: Final = (
    Axis("upstreams", (1, 3, 10, 30, 100), with_upstreams),
    Axis("tools", (10, 100, 1_000, 10_000), with_tools),
    Axis("keys", (1, 100, 1_000, 10_000, 100_000), with_keys),
    Axis("sessions", (1, 100, 1_000, 10_000), with_sessions),
)


async def growth_table(field: Field, effort: Effort, step: Callable[[str], None], *, short: bool) -> Table:
    """A row for each value of each axis; of the short run the ends only."""
    table = Table(
        TITLE,
        ("of what", "how many", "p50 ms", "calls/s", "CPU ms/call", "list ms", "start s", "MiB"),
        f"One call of an echo tool, {CALLERS} modern callers, modern HTTP upstreams, everything on: {EVERYTHING_NOTE}; "
        f"`keys` are in the store, beside the {KEYS} of the file. `list`: all pages of `tools/list`, of one caller "
        "that has asked before. `start`: from exec until the first such list is whole, with nothing seen before. "
        "Memory is resident, before the calls.",
    )
    for axis in AXES:
        for value in (axis.values[0], axis.values[-1]) if short else axis.values:
            step(f"growth: {value} {axis.name}")
            stands = await axis.stand(field, value)
            mib = memory_mib(stands.process.pid) if HAS_PROC else 0.0
            lists = statistics.median(time_of_list(stands.port, stands.keys[0]) for _ in range(LISTS))
            ask = Ask.echo(stands.tool, SIZES["small"])

            def connect(at: Standing = stands, ask: Ask = ask) -> Awaitable[Load]:
                return over_http(at.port, ask, ERAS["modern"], CALLERS, at.keys)

            one = (await compare([Target("broker", connect, stands.process.pid)], effort))["broker"]
            cpu = milliseconds(one.cpu_per_call) if one.cpu_per_call else ""
            shown = (milliseconds(one.p50), number(one.rate), cpu, milliseconds(lists), f"{stands.start:.1f}")
            table.add(axis.name, number(value), *shown, f"{mib:.0f}")
            kept = {"axis": axis.name, "value": value, "mib": mib, "list": lists, "start": stands.start}
            table.keep({**kept, "broker": one.values()})
            field.clear()
    return table
