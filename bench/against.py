"""The broker beside nginx and FastMCP's proxy: one upstream, the same callers, in turns, in one run."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from bench.gateways import FASTMCP, Field, http_server
from bench.load import Ask, Callers
from bench.report import Table, milliseconds, number, ratio
from bench.throughput import SIZES, Effort, Measured, Target, compare

TITLE: Final = "Against nginx and FastMCP's proxy"
CONNECTED: Final = "FastMCP, connected once"
DOCUMENTED: Final = "FastMCP, as documented"
CALLERS: Final = (1, 16)
_NOTE: Final = (
    "An echo tool over streamable HTTP, one core for what is measured; the upstream speaks the era of the callers. "
    "nginx is `proxy_pass` with kept connections, so it reads no message. FastMCP is its proxy as pip installs it, "
    "answering JSON: built on a client that is connected once, and as its documentation shows it. With 16 callers the "
    "load takes a whole core before nginx does (`load` 100 %): nginx could do more, and a share of it is a share of "
    "what can be asked here."
)


async def peers_table(field: Field, eras: Mapping[str, str], effort: Effort, step: Callable[[str], None]) -> Table:
    """One call of the echo tool through everything that can stand in between."""
    upstream = await field.upstream()
    nginx = await field.nginx(upstream)
    step("starting FastMCP")
    documented = await field.fastmcp(upstream)
    missing = [name for name, found in {"nginx": nginx, "FastMCP": documented}.items() if found is None]
    note = " ".join([_NOTE, *(f"{name} is not installed here: {field.remedy(name)}." for name in missing)])
    table = Table(
        TITLE,
        (
            *("caller", "callers", "through", "p50 ms", "p99 ms", "calls/s", "of direct", "of nginx"),
            *("times FastMCP", "CPU ms/call", "load", "others"),
        ),
        note,
    )
    broker, port = await field.serve({name: http_server(upstream, era) for name, era in eras.items()}, len(eras))
    for name, era in eras.items():
        connected = await field.fastmcp(upstream, FASTMCP[era])

        def to(port: int, tool: str, callers: int, era: str = era) -> Callable[[], Awaitable[Callers]]:
            return lambda: Callers.over_http(port, Ask.echo(tool, SIZES["small"]), era, callers)

        for callers in CALLERS:
            step(f"against peers: {name}, {callers} at a time")
            targets = [
                Target("direct", to(upstream, "echo", callers)),
                *([Target("nginx", to(nginx[1], "echo", callers), nginx[0].pid)] if nginx else []),
                Target("broker", to(port, f"{name}__echo", callers), broker.pid),
                *([Target(CONNECTED, to(connected[1], "echo", callers), connected[0].pid)] if connected else []),
                *([Target(DOCUMENTED, to(documented[1], "echo", callers), documented[0].pid)] if documented else []),
            ]
            measured = await compare(targets, effort)
            table.add_all([name, str(callers), *row] for row in rows(measured))
            kept = {what: one.values() for what, one in measured.items()}
            table.keep({"case": f"{name}, {callers} at a time", "caller": name, "callers": callers, **kept})
    return table


def rows(measured: Mapping[str, Measured]) -> list[list[str]]:
    """A row for each target, from `through` on."""
    direct, nginx, fastmcp = (measured.get(name) for name in ("direct", "nginx", CONNECTED))
    return [
        [
            *(name, milliseconds(one.p50), milliseconds(one.p99), number(one.rate)),
            share(one, direct),
            "" if one is direct else share(one, nginx),
            share(one, fastmcp) if name in ("broker", "nginx") else "",
            milliseconds(one.cpu_per_call) if one.cpu_per_call else "",
            f"{one.load:.0%}" if one.load else "",
            f"{one.noise:.0%}" if one.load else "",
        ]
        for name, one in measured.items()
    ]


def share(one: Measured, other: Measured | None) -> str:
    """The rate beside another one's; nothing beside itself or where there is no other."""
    return "" if other is None or other is one else ratio(one.share(other))
