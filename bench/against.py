"""The broker beside nginx and FastMCP's proxy: one upstream, the same callers, in turns, in one run."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bench import load
from bench.ask import Ask, Load
from bench.echo import MODERN
from bench.gateways import FASTMCP, Field, http_server, stdio_server
from bench.report import Table, milliseconds, number, ratio
from bench.settings import EVERYTHING, EVERYTHING_NOTE, NOTHING
from bench.throughput import SIZES, Effort, Measured, Target, compare

TITLE: Final = "Against nginx and FastMCP's proxy"
BROKER: Final = "broker"
STDIO: Final = "broker, stdio upstream"
BARE: Final = "broker, nothing on"
RELAY: Final = "relay in Python, bare"
STRICT: Final = "relay in Python, strict"
CONNECTED: Final = "FastMCP, connected once"
DOCUMENTED: Final = "FastMCP, as documented"
OURS: Final = (BROKER, STDIO, BARE)
RELAYS: Final = (RELAY, STRICT)
"""What Python itself costs: there is no target beside them."""
RESULT: Final = "100 kB result"
_NOTE: Final = (
    "An echo tool over streamable HTTP, one core for what is measured; the upstream speaks the era of the callers. "
    f"`{BROKER}` has everything on: {EVERYTHING_NOTE}; `{STDIO}` is the same process in front of a server on stdio; "
    f"`{BARE}` has neither of it. nginx is `proxy_pass` with kept connections, so it reads no message. "
    f"`{RELAY}` does the same on uvloop and httptools, as fast as Python can (`bench/bare.py`); `{STRICT}` also "
    "decodes and encodes each message as the broker does; the short run has them with modern callers only. FastMCP is "
    "its proxy as pip installs it, answering JSON: built on a client that is connected once, and as its documentation "
    f"shows it, which takes too long for the larger cases. `{RESULT}`: asked by a small request. `busy`: how much of "
    "its core what is measured took; `load`: the callers and the upstream, of theirs. Where `load` is 100 % and `busy` "
    "is not, that row could do more than is asked of it here, and a share of it by CPU is the more honest one."
)


@dataclass(frozen=True, slots=True)
class Case:
    """A row of what is compared."""

    callers: int
    more: int = 0
    """Bytes that the result has more than the request."""
    slow: bool = False
    """Whether what takes tens of milliseconds for a call is asked, too."""

    @property
    def payload(self) -> str:
        """What is carried, for the table."""
        return RESULT if self.more else "small"


CASES: Final = (Case(1, slow=True), Case(16, slow=True), Case(64), Case(16, more=100_000))


async def peers_table(
    field: Field, eras: Mapping[str, str], effort: Effort, step: Callable[[str], None], *, short: bool
) -> Table:
    """One call of the echo tool through everything that can stand in between; the short run is without what is slow,
    and without half of what no target is about.
    """
    upstream = await field.upstream()
    nginx = await field.nginx(upstream)
    relays = {label: await field.relay(upstream, is_strict=label == STRICT) for label in RELAYS}
    step("starting FastMCP")
    documented = None if short else await field.fastmcp(upstream)
    present = {"nginx": nginx is not None, "FastMCP": field.has_fastmcp()}
    missing = [name for name, found in present.items() if not found]
    note = " ".join([_NOTE, *(f"{name} is not installed here: {field.remedy(name)}." for name in missing)])
    columns = ("caller", "payload", "callers", "through", "p50 ms", "p99 ms", "calls/s", "of direct", "of nginx")
    table = Table(TITLE, (*columns, "times FastMCP", "CPU ms/call", "busy", "load", "others"), note)
    servers = {name: http_server(upstream, era) for name, era in eras.items()}
    pipes = {f"{name}-stdio": stdio_server("--core", field.load_core, protocol=era) for name, era in eras.items()}
    broker, port, keys = await field.serve_with({**servers, **pipes}, 2 * len(eras), EVERYTHING)
    bare, bare_port, _ = await field.serve_with(servers, len(eras), NOTHING)
    for name, era in eras.items():
        connected = await field.fastmcp(upstream, FASTMCP[era])
        for case in CASES:
            step(f"against peers: {name}, {case.payload}, {case.callers} at a time")

            def to(
                port: int, tool: str, keys: list[str] | None = None, case: Case = case, era: str = era
            ) -> Callable[[], Awaitable[Load]]:
                ask = Ask.echo(tool, SIZES["small"], case.more)
                return lambda: load.over_http(port, ask, era, case.callers, keys or [])

            documents = documented if case.slow else None
            targets = [
                Target("direct", to(upstream, "echo")),
                *([Target("nginx", to(nginx[1], "echo"), nginx[0].pid)] if nginx else []),
                *(
                    Target(label, to(at, "echo"), relay.pid)
                    for label, (relay, at) in relays.items()
                    if era == MODERN or not short
                ),
                Target(BROKER, to(port, f"{name}__echo", keys), broker.pid),
                Target(STDIO, to(port, f"{name}-stdio__echo", keys), broker.pid),
                Target(BARE, to(bare_port, f"{name}__echo"), bare.pid),
                *([Target(CONNECTED, to(connected[1], "echo"), connected[0].pid)] if connected else []),
                *([Target(DOCUMENTED, to(documents[1], "echo"), documents[0].pid)] if documents else []),
            ]
            measured = await compare(targets, effort)
            table.add_all([name, case.payload, str(case.callers), *row] for row in rows(measured))
            facts = {"caller": name, "callers": case.callers, "payload": case.payload}
            kept = {what: one.values() for what, one in measured.items()}
            table.keep({"case": f"{name}, {case.payload}, {case.callers} at a time", **facts, **kept})
    return table


def rows(measured: Mapping[str, Measured]) -> list[list[str]]:
    """A row for each target, from `through` on."""
    direct, nginx, fastmcp = (measured.get(name) for name in ("direct", "nginx", CONNECTED))
    return [
        [
            *(name, milliseconds(one.p50), milliseconds(one.p99), number(one.rate)),
            share(one, direct),
            "" if one is direct else share(one, nginx),
            share(one, fastmcp) if name in ("nginx", *RELAYS, *OURS) else "",
            milliseconds(one.cpu_per_call) if one.cpu_per_call else "",
            f"{one.cpu_per_call * one.rate:.0%}" if one.cpu_per_call else "",
            f"{one.load:.0%}" if one.load else "",
            f"{one.noise:.0%}" if one.load else "",
        ]
        for name, one in measured.items()
    ]


def share(one: Measured, other: Measured | None) -> str:
    """The rate beside another one's; nothing beside itself or where there is no other."""
    return "" if other is None or other is one else ratio(one.share(other))
