"""The conformance suite, directly and through the broker: `python -m tests.conformance`.

Exit code 1 if the broker loses anything, 2 if the suite cannot run or the reference itself fails.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from tests.conformance import compare, suite, world
from tests.conformance.compare import Cell, Loss

TOGETHER: int = 2
"""Runs at a time. Some scenarios have limits of half a second, so there are no more runs than cores."""

Clients = dict[str, dict[str, tuple[Loss, ...]]]
"""By version, then by scenario: what the broker fails as the suite's client."""


async def run_servers(options: argparse.Namespace, directory: Path) -> list[Cell]:
    """One cell for each version and kind; those of the broker are compared with the direct one."""
    cells: dict[tuple[str, world.Kind], Cell] = {}
    limiter = anyio.CapacityLimiter(TOGETHER)

    async def run(version: str, kind: world.Kind) -> None:
        async with limiter:
            cells[version, kind] = await compare.measure(
                kind, version, directory, scenario=options.scenario, protocol=options.upstream_protocol
            )

    async def run_all(kinds: Sequence[world.Kind]) -> None:
        async with anyio.create_task_group() as tasks:
            for version in options.versions:
                for kind in kinds:
                    tasks.start_soon(run, version, kind)

    await run_all(["direct"])
    if all(is_sound(cells[version, "direct"], options) for version in options.versions) or options.keep_going:
        await run_all([kind for kind in options.kinds if kind != "direct"])
    in_order = sorted(cells.values(), key=lambda cell: (cell.version, world.KINDS.index(cell.kind)))
    return [
        cell if cell.kind == "direct" else compare.against(cells[cell.version, "direct"], cell) for cell in in_order
    ]


def is_sound(cell: Cell, options: argparse.Namespace) -> bool:
    """Whether the reference passes what it must, so that there is something to compare with."""
    return cell.kept == (len(cell.results) if options.scenario else suite.VERSIONS[cell.version])


async def run_clients(options: argparse.Namespace, directory: Path) -> Clients:
    found: Clients = {}
    limiter = anyio.CapacityLimiter(TOGETHER)

    async def run(version: str, scenario: str) -> None:
        async with limiter:
            found[version][scenario] = await compare.measure_client(scenario, version, directory)

    async with anyio.create_task_group() as tasks:
        for version in options.versions:
            found[version] = {}
            for scenario in await compare.client_scenarios(version):
                if options.scenario in (None, scenario):
                    tasks.start_soon(run, version, scenario)
    return found


# --- what is printed -----------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def server_table(cells: Sequence[Cell]) -> str:
    kinds: list[world.Kind] = [kind for kind in world.KINDS if any(cell.kind == kind for cell in cells)]
    versions = list(dict.fromkeys(cell.version for cell in cells))
    known = {(cell.version, cell.kind): cell for cell in cells}

    def kept(version: str, kind: world.Kind) -> str:
        cell = known.get((version, kind))
        return "-" if cell is None else f"{cell.kept} ({cell.checks} checks)"

    rows = [[version, *(kept(version, kind) for kind in kinds)] for version in versions]
    shown = table(["server scenarios kept", *(world.LABELS[kind] for kind in kinds)], rows)
    excused = sorted({check for cell in cells for check in cell.excused})
    return "\n".join([shown, *(f"INFO, with the result delivered: {check}" for check in excused)])


def client_table(clients: Clients) -> str:
    rows = [
        [version, f"{sum(not losses for losses in found.values())} of {len(found)}"]
        for version, found in clients.items()
    ]
    return table(["client scenarios", "broker"], rows)


def losses_text(title: str, losses: Sequence[Loss]) -> str:
    """Scenario by scenario, one line for each check."""
    lines = [title]
    for scenario in dict.fromkeys(loss.scenario for loss in losses):
        lines.append(f"  {scenario}")
        lines += [
            f"    {loss.status} {loss.check}: {loss.message}".rstrip(": ")
            for loss in losses
            if loss.scenario == scenario
        ]
    return "\n".join(lines)


def as_json(cells: Sequence[Cell], clients: Clients) -> dict[str, Any]:
    return {
        "server": [
            {
                "version": cell.version,
                "target": cell.kind,
                "kept": cell.kept,
                "checks": cell.checks,
                "excused": cell.excused,
                "losses": [dataclasses.asdict(loss) for loss in cell.losses],
                "statuses": {
                    name: {check: verdict.status for check, verdict in checks.items()}
                    for name, checks in cell.results.items()
                },
            }
            for cell in cells
        ],
        "client": {
            version: {name: [dataclasses.asdict(loss) for loss in losses] for name, losses in found.items()}
            for version, found in clients.items()
        },
    }


def report(cells: Sequence[Cell], clients: Clients) -> str:
    lost = [(f"{cell.version}, {world.LABELS[cell.kind]}:", cell.losses) for cell in cells]
    lost += [
        (f"{version}, broker as client:", tuple(loss for each in found.values() for loss in each))
        for version, found in clients.items()
    ]
    tables = ([server_table(cells)] if cells else []) + ([client_table(clients)] if clients else [])
    return "\n\n".join([*tables, *(losses_text(title, losses) for title, losses in lost if losses)])


# --- the command ---------------------------------------------------------------------------------------------------


async def main(options: argparse.Namespace) -> int:
    try:
        suite.require()
    except suite.Unavailable as missing:
        print(missing, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.output or Path(scratch)
        cells = await run_servers(options, directory) if "server" in options.sides else []
        clients = await run_clients(options, directory) if "client" in options.sides else {}
    print(json.dumps(as_json(cells, clients), indent=2) if options.json else report(cells, clients))
    if not all(is_sound(cell, options) for cell in cells if cell.kind == "direct"):
        print("the reference server itself fails: nothing can be said about the broker", file=sys.stderr)
        return 2
    failed = any(losses for found in clients.values() for losses in found.values())
    return int(failed or any(cell.losses for cell in cells))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--version", dest="versions", action="append", choices=list(suite.VERSIONS), metavar="VERSION")
    parser.add_argument("--target", dest="kinds", action="append", choices=list(world.KINDS), help="default: all")
    parser.add_argument("--side", dest="sides", action="append", choices=["server", "client"], help="default: both")
    parser.add_argument("--scenario", help="only this one")
    parser.add_argument("--upstream-protocol", default="auto", help="the version that the broker speaks upstream")
    parser.add_argument("--keep-going", action="store_true", help="measure the broker even if the reference fails")
    parser.add_argument("--json", action="store_true", help="print JSON, with every check of every run")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the suite's files and all logs there")
    options = parser.parse_args(arguments)
    options.versions = options.versions or list(suite.VERSIONS)
    options.kinds = options.kinds or list(world.KINDS)
    options.sides = options.sides or ["server", "client"]
    return options


if __name__ == "__main__":
    sys.exit(anyio.run(main, parse()))
