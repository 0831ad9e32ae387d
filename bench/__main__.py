"""`python -m bench`: measure, print, and write RESULTS.md and results.json."""

import argparse
import platform
import shlex
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import against, growth, load, machine, memory, parts, plots, report, startup, targets, throughput, workers
from bench.echo import MODERN
from bench.gateways import ERAS, Field
from bench.profile import profile_tables
from bench.throughput import Effort

SECTIONS = ("peers", "echo", "catalog", "parts", "growth", "workers", "start", "cold", "memory", "profile")
LONG = frozenset({"growth"})
"""Sections that a short run has only if they are asked for."""
REPEATS = 90.0
"""Seconds after which nothing is repeated any more, however loud the machine is."""
LOUD = ": too much for latencies and rates to mean anything; CPU per call and the profile waver less"
PINNED = frozenset({"peers", "echo", "catalog", "parts", "growth", "profile"})
"""Sections whose load runs on one core, and what is measured on another; starts may use all cores."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a minute instead of six: for CI, and for a first look")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section only; may be repeated")
    parser.add_argument("--broker", help="the command that starts the broker (default: python -m broker)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="directory of the results")
    return parser.parse_args()


async def measure(given: argparse.Namespace, console: Console) -> list[report.Table]:
    """All sections, each with processes of its own."""
    broker = shlex.split(given.broker) if given.broker else [sys.executable, "-m", "broker"]
    short: bool = given.short
    effort = Effort(9, 0.1, 0.5, 0, 0.0) if short else Effort(11, 0.15, 0.5, 5, time.monotonic() + REPEATS)
    eras = {"modern": MODERN} if short else ERAS
    tables: list[report.Table] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("start", total=None)

        def step(what: str) -> None:
            progress.update(task, description=what)

        async def one(result: Awaitable[report.Table]) -> list[report.Table]:
            return [await result]

        sections: dict[str, Callable[[Field], Awaitable[list[report.Table]]]] = {
            "peers": lambda at: one(against.peers_table(at, ERAS, effort, step, short=short)),
            "echo": lambda at: one(throughput.echo_table(at, throughput.matrix(short=short), effort, step)),
            "catalog": lambda at: one(throughput.catalog_table(at, eras, effort, step)),
            "parts": lambda at: one(parts.parts_table(at, eras, effort, step)),
            "growth": lambda at: one(growth.growth_table(at, effort, step, short=short)),
            "workers": lambda at: one(workers.workers_table(at, effort, step)),
            "start": lambda at: startup.start_tables(at, 1 if short else 5, step),
            "cold": lambda at: one(startup.cold_list_table(at, 1 if short else 2, step)),
            "memory": lambda at: one(memory.memory_table(at, step, short=short)),
            "profile": lambda at: profile_tables(at, 2.0 if short else 6.0, step),
        }
        for name in given.only or [name for name in SECTIONS if not short or name not in LONG]:
            with tempfile.TemporaryDirectory(prefix="bench-") as directory, Field(Path(directory), broker) as field:
                try:
                    with machine.on_core(field.load_core if name in PINNED else None):
                        found = await sections[name](field)
                except Exception:
                    console.print(field.log(), markup=False)
                    raise
            for table in found:
                table.show(console)
            tables += found
    wanted = targets.targets_table(tables)
    if not wanted.rows:
        return tables
    wanted.show(console)
    return [wanted, *tables]


def others(tables: Sequence[report.Table]) -> str:
    """How much the machine was used by others meanwhile."""
    measured = [one for table in tables for row in table.data for one in row.values() if isinstance(one, dict)]
    if not measured:
        return "not measured"
    noise = statistics.median(one["noise"] for one in measured)
    return f"other programs took {noise:.0%} of one core, of the two" + (LOUD if noise > targets.LOUD else "")


def main() -> None:
    """Measure; whatever happens, what was started is stopped."""
    given = arguments()
    # As an exception, so that every `finally` and `with` on the way runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=None if sys.stdout.isatty() else 150)
    machine.compile_sources()
    begun = time.monotonic()
    facts = {
        **machine.description(),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "host": platform.platform(),
        "load": load.name(),
    }
    tables = uvloop.run(measure(given, console))
    facts["others"] = others(tables)
    facts["took"] = f"{time.monotonic() - begun:.0f} s"
    kept = report.write(given.output, facts, tables)
    drawn = plots.draw(given.output, kept)
    names = ", ".join(["RESULTS.md", "results.json", *(file.name for file in drawn)])
    console.print(f"{facts['took']}; written to {given.output}: {names}")


if __name__ == "__main__":
    main()
