"""Where the time goes: the broker under a profiler, with 16 callers."""

import asyncio
import pstats
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.ask import Ask
from bench.gateways import ERAS, Field, http_server
from bench.load import over_http
from bench.machine import ROOT, stop
from bench.report import Table
from bench.throughput import SIZES

CALLERS: Final = 16
TOP: Final = 15


async def profile_tables(field: Field, seconds: float, step: Callable[[str], None]) -> list[Table]:
    """Own time by package and by function. The profiler makes calls of small functions look dearer than they are."""
    step("profile")
    file = field.fresh("profile") / "broker.prof"
    upstream = await field.upstream()
    wrap = [sys.executable, "-m", "bench.profiled", str(file)]
    process, port = await field.serve({"web": http_server(upstream, ERAS["modern"])}, 1, wrap)
    callers = await over_http(port, Ask.echo("web__echo", SIZES["small"]), ERAS["modern"], CALLERS)
    try:
        await callers.measure(seconds / 4)
        process.send_signal(signal.SIGUSR1)
        sample = await callers.measure(seconds)
        process.send_signal(signal.SIGUSR2)
    finally:
        await callers.close()
    for _ in range(100):
        await asyncio.sleep(0.05)
        if process.poll() is not None or file.exists():
            break
    await asyncio.to_thread(stop, process)
    return read(file, len(sample.latencies))


def read(file: Path, calls: int) -> list[Table]:
    """The two tables of a profile of so many calls."""
    raw: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(str(file)).stats  # type: ignore
    own = {where: (count, time) for where, (_, count, time, _, _) in raw.items() if count >= calls / 4}
    total = sum(time for _, time in own.values())
    packages: Counter[str] = Counter()
    for where, (_, time) in own.items():
        packages[package(where)] += time  # type: ignore[assignment]
    by_package = Table("Where the time goes: own time by package", ("package", "share", "µs/call"), NOTE)
    for name, time in packages.most_common():
        by_package.add(name, f"{time / total:.0%}", f"{time / calls * 1e6:.1f}")
    by_function = Table(
        f"Where the time goes: the {TOP} functions with the most own time",
        ("function", "share", "µs/call", "times a call"),
    )
    for where, (count, time) in sorted(own.items(), key=lambda item: -item[1][1])[:TOP]:
        by_function.add(label(where), f"{time / total:.0%}", f"{time / calls * 1e6:.1f}", f"{count / calls:.1f}")
    return [by_package, by_function]


NOTE: Final = (
    f"cProfile of the broker with {CALLERS} modern callers and a modern HTTP upstream, functions that run for every "
    "call; CPU time. The profiler makes a call several times as slow, and small functions look dearer than they are."
)


def package(where: tuple[str, int, str]) -> str:
    """To whom a function belongs."""
    file, _, name = where
    path = Path(file)
    if file == "~":
        return "built in" if "uvloop" not in name and "orjson" not in name else name.split(".")[0].strip("<{ ")
    if path.is_relative_to(ROOT):
        return "broker/" + path.relative_to(ROOT).parts[1]
    parts = path.parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return "python"


def label(where: tuple[str, int, str]) -> str:
    """A function, for a table."""
    file, line, name = where
    if file == "~":
        return f"`{name}`"
    path = Path(file)
    short = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(*path.parts[-2:])
    return f"`{short}:{line} {name}`"
