"""What a broker holds that nobody asks anything: by itself, and for each session and each connection."""

import asyncio
import http.client
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from typing import Any, Final

from bench.ask import LEGACY, PATIENCE, Ask, headers, open_session, post
from bench.gateways import ERAS, Field, http_server
from bench.load import over_http
from bench.machine import HAS_PROC, memory_mib
from bench.report import Table
from bench.settings import Parts

TITLE: Final = "Idle memory"
BASE: Final = "import mcp"
"""A Python that has loaded the SDK, as every server has that is made with it."""
FEW: Final = "broker, 3 tools"
SESSION: Final = "one idle session"
CONNECTION: Final = "one idle connection"
LOADED: Final = "broker, under load"
CALLERS: Final = 32
LARGE: Final = 100_000
"""Bytes of a call, and of its result."""
PER_KEY: Final = 100
"""Sessions that one caller may have."""
CONNECTIONS: Final = 500
_POLL: Final = 0.05


async def memory_table(field: Field, step: Callable[[str], None], *, short: bool) -> Table:
    """Idle memory."""
    table = Table(
        TITLE,
        ("what", "size"),
        "Resident, when all is loaded, and the broker has answered once. A session has done its handshake, and listed "
        "and called tools. "
        f"The load: {CALLERS} callers, calls of {LARGE // 1000} kB and lists in turn.",
    )
    if not HAS_PROC:
        table.note = "Not measured: there is no /proc here."
        return table
    step("memory")
    many = http_server(await field.upstream(1000), ERAS["modern"])
    few = http_server(await field.upstream(3), ERAS["modern"])
    cases: dict[str, Callable[[], Awaitable[int]]] = {
        "python": lambda: idle(field, "pass"),
        BASE: lambda: idle(field, BASE),
        FEW: lambda: serving(field, {"web": few}, 3),
        "broker, 1000 tools": lambda: serving(field, {"web": many}, 1000),
    }
    sizes: dict[str, float] = {}
    for name, begin in cases.items():
        sizes[name] = size = memory_mib(await begin())
        table.add(name, f"{size:.0f} MiB")
        table.keep({"case": name, "mib": size, "above": size - sizes.get(BASE, size)})
    first, last = await under_load(field, few, 3.0 if short else 10.0, step)
    table.add(f"{LOADED}, at first", f"{first:.0f} MiB")
    table.add(f"{LOADED}, after five times as long", f"{last:.0f} MiB")
    table.keep({"case": LOADED, "first": first, "last": last})
    for name, size in {
        SESSION: await of_sessions(field, few, 3 if short else 20, step),
        CONNECTION: await of_connections(field, few, step),
    }.items():
        table.add(name, f"{size / 1000:.1f} kB")
        table.keep({"case": name, "kb": size / 1000})
    return table


async def idle(field: Field, code: str) -> int:
    """A Python that has done something, and waits."""
    done = field.fresh("idle") / "done"
    wait = f"{code}; import pathlib, time; pathlib.Path({str(done)!r}).touch(); time.sleep(60)"
    process = field.start([sys.executable, "-c", wait], None)
    async with asyncio.timeout(PATIENCE):
        while not done.exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(_POLL)
    return process.pid


async def serving(field: Field, servers: dict[str, Any], tools: int) -> int:
    """A broker that has answered, and waits."""
    process, _ = await field.serve(servers, tools)
    await asyncio.sleep(1)
    return process.pid


async def under_load(
    field: Field, server: dict[str, Any], seconds: float, step: Callable[[str], None]
) -> tuple[float, float]:
    """MiB after so many seconds of large calls and of lists, and after five times as many more."""
    process, port = await field.serve({"web": server}, 3)
    asks = [Ask.echo("web__echo", LARGE), Ask.tools(3)]
    sizes: list[float] = []
    for number in range(6):
        step(f"memory under load {number + 1} of 6")
        for ask in asks:
            callers = await over_http(port, ask, ERAS["modern"], CALLERS)
            try:
                await callers.measure(seconds / len(asks))
            finally:
                await callers.close()
        sizes.append(memory_mib(process.pid))
    return sizes[0], sizes[-1]


async def of_sessions(field: Field, server: dict[str, Any], keys: int, step: Callable[[str], None]) -> float:
    """Bytes for each of `PER_KEY` sessions of so many keys. The first of each key are not counted: they bring what all
    of it share.
    """
    process, port, texts = await field.serve_with({"web": server}, 3, Parts(identity=True))
    used = texts[:keys]
    for key in used:
        await asyncio.to_thread(use_session, port, key)
    before = memory_mib(process.pid)
    for number, key in enumerate(used):
        step(f"sessions of key {number + 1} of {keys}")
        for _ in range(PER_KEY - 1):
            await asyncio.to_thread(use_session, port, key)
    return (memory_mib(process.pid) - before) * 2**20 / (keys * (PER_KEY - 1))


def use_session(port: int, key: str) -> None:
    """Open one, list, and call."""
    session = open_session(port, key)
    for method, params in {
        "tools/list": {},
        "tools/call": {"name": "web__echo", "arguments": {"text": "x"}},
    }.items():
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        _, answer = post(port, message, headers(LEGACY, method, None, session, key))
        assert "result" in answer, answer


async def of_connections(field: Field, server: dict[str, Any], step: Callable[[str], None]) -> float:
    """Bytes for each of `CONNECTIONS` that are kept open after a request."""
    step("connections")
    process, port = await field.serve({"web": server}, 3)
    with ExitStack() as stack:
        ask_on(port, stack)
        before = memory_mib(process.pid)
        for _ in range(CONNECTIONS):
            await asyncio.to_thread(ask_on, port, stack)
        return (memory_mib(process.pid) - before) * 2**20 / CONNECTIONS


def ask_on(port: int, stack: ExitStack) -> None:
    """One request on a connection of its own, which stays open until `stack` is left."""
    connection = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)))
    connection.request("GET", "/healthz")
    connection.getresponse().read()
