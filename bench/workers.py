"""Several workers behind one port, on all cores of the machine: the load and the upstreams take their part of them."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bench.ask import Ask, Load
from bench.gateways import ERAS, READY_TIMEOUT, Field, NotReady, http_server, stdio_server
from bench.load import over_http
from bench.report import Table, number, ratio
from bench.throughput import Effort, Target, compare

CALLERS: Final = 16
TITLE: Final = "Several workers"


async def workers_table(field: Field, effort: Effort, step: Callable[[str], None]) -> Table:
    """Calls per second of one worker, and of as many as there are cores (two at least)."""
    upstream = await field.upstream()
    servers = {
        "http": http_server(upstream, ERAS["modern"]),
        "stdio": stdio_server(protocol=ERAS["modern"]),
    }
    table = Table(
        TITLE,
        ("upstream", "workers", "calls/s", "of one worker"),
        f"{CALLERS} modern callers, small payload, on all {os.cpu_count()} cores together with the load and the "
        "upstreams, so that N workers have less than N cores. `stdio`: each worker has an upstream of its own; `http`: "
        "all share one process, which is the wall.",
    )
    counts = (1, max(2, os.cpu_count() or 2))
    ports = {count: await _serve(field, servers, count) for count in counts}
    for name in servers:
        step(f"workers before {name}")
        targets = [Target(str(count), _connect(ports[count], name)) for count in counts]
        found = await compare(targets, effort)
        for target in targets:
            one = found[target.name]
            table.add(name, target.name, number(one.rate), ratio(one.share(found[targets[0].name])))
            table.keep({"upstream": name, "workers": int(target.name), **one.values()})
    return table


def _connect(port: int, server: str) -> Callable[[], Awaitable[Load]]:
    return lambda: over_http(port, Ask.echo(f"{server}__echo", 32), ERAS["modern"], CALLERS)


async def _serve(field: Field, servers: dict[str, dict[str, object]], workers: int) -> int:
    _, port = await field.serve(servers, len(servers), more={"server": {"workers": workers}}, is_pinned=False)
    deadline = time.monotonic() + READY_TIMEOUT
    while workers > 1 and f"{workers} workers serve" not in field.log():
        if time.monotonic() > deadline:
            raise NotReady
        await asyncio.sleep(0.05)
    return port
