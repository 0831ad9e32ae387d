"""What each part of the broker costs: the same call with and without it, in turns, in one run."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from bench.ask import Ask, Load
from bench.gateways import ERAS, Field, http_server
from bench.load import over_http
from bench.report import Table, milliseconds, number, ratio
from bench.settings import EVERYTHING, EVERYTHING_NOTE, NOTHING, Parts
from bench.throughput import SIZES, Effort, Target, compare

TITLE: Final = "What the parts cost"
CALLERS: Final = 16
NONE: Final = "nothing on"
ALL: Final = "everything"
VARIANTS: Final = {
    NONE: NOTHING,
    "identity and rules": Parts(identity=True),
    "the same and limits and budgets": Parts(identity=True, limits=True),
    "the same and usage": Parts(identity=True, limits=True, usage=True),
    ALL: EVERYTHING,
    "one guardrail": Parts(guardrail=True),
}


async def parts_table(field: Field, eras: Mapping[str, str], effort: Effort, step: Callable[[str], None]) -> Table:
    """A row for each era and variant."""
    upstream = {"web": http_server(await field.upstream(), ERAS["modern"])}
    brokers = {label: await field.serve_with(upstream, 1, parts) for label, parts in VARIANTS.items()}
    table = Table(
        TITLE,
        ("caller", "callers", "broker", "p50 ms", "p99 ms", "calls/s", "of the first", "CPU ms/call"),
        f"`{ALL}`: {EVERYTHING_NOTE}. `one guardrail`: of arguments, in a process of its own, and nothing else. One "
        "call of an echo tool, modern HTTP upstream.",
    )
    for name, era in eras.items():
        step(f"parts: {name} callers")

        def to(port: int, keys: list[str], era: str = era) -> Callable[[], Awaitable[Load]]:
            return lambda: over_http(port, Ask.echo("web__echo", SIZES["small"]), era, CALLERS, keys)

        targets = [Target(label, to(port, keys), process.pid) for label, (process, port, keys) in brokers.items()]
        measured = await compare(targets, effort)
        for label, one in measured.items():
            share = "" if label == NONE else ratio(one.share(measured[NONE]))
            cpu = milliseconds(one.cpu_per_call) if one.cpu_per_call else ""
            times = (milliseconds(one.p50), milliseconds(one.p99))
            table.add(name, str(CALLERS), label, *times, number(one.rate), share, cpu)
        facts = {"case": f"parts, {name}", "caller": name, "callers": CALLERS}
        table.keep({**facts, **{label: one.values() for label, one in measured.items()}})
    return table
