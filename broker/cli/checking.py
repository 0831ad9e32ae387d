"""`mcp-broker check`: is the configuration right, and with --connect: does every server answer?"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NoReturn

from broker.cli.begin import begin, find_config, listed, run_to_end
from broker.cli.callers import with_advice
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.local import Local
from broker.cli.screen import Screen
from broker.cli.survey import Row, counted, isolated, survey
from broker.cli.words import count, line
from broker.clock import SystemClock
from broker.compiled import problems_of
from broker.config import ConfigError, Loaded, Problem, load
from broker.generation import Generation
from broker.relay.notify import Hub

HEADER: Final = (
    *("server", "state", "version", "connect", "tools", "prompts", "resources", "templates", "tokens", "trouble"),
)
_STYLES: Final = {"ready": "", "disabled": "dim", "failed": "red", "connecting": "yellow"}


def check(config: Path | None, *, connect: bool, wait: float | None, as_json: bool, level: str) -> int:
    """The exit code. Raises: Stop."""
    screen = begin(level)
    path = find_config(config)
    try:
        loaded = with_advice(load(path, os.environ))
    except ConfigError as error:
        _refuse(screen, path, error.problems, as_json=as_json)
    # Building starts nothing, and finds what only the whole can show.
    generation = Generation.build(loaded, SystemClock(), Hub())
    problems = _judged(loaded, generation) if loaded.config.guardrails else []
    if problems:
        _refuse(screen, path, problems, as_json=as_json)
    report: dict[str, Any] = {
        "ok": True,
        "file": str(path),
        "problems": list[Any](),
        "warnings": _plain(loaded.warnings),
    }
    if not as_json:
        _say_configuration(screen, loaded)
    if not connect:
        if as_json:
            screen.json(report)
        return OK
    return run_to_end(lambda: _connect(loaded, screen, report, wait, as_json=as_json))


def _refuse(screen: Screen, path: Path, problems: Sequence[Problem], *, as_json: bool) -> NoReturn:
    if as_json:
        screen.json({"ok": False, "file": str(path), "problems": _plain(problems), "warnings": []})
        raise Stop("", BAD_INPUT) from None
    raise Stop(listed(path, problems), BAD_INPUT) from None


def _judged(loaded: Loaded, generation: Generation) -> list[Problem]:
    """What is wrong with the guardrails: only their own process can say (nothing else is started)."""
    found: list[Problem] = []

    async def main() -> int:
        async with generation.guards.running():
            found.extend(problems_of(loaded, await generation.guards.load()))
        return OK

    run_to_end(main)
    return found


async def _connect(loaded: Loaded, screen: Screen, report: dict[str, Any], wait: float | None, *, as_json: bool) -> int:
    local = Local(loaded)
    async with local.running():
        rows = await survey(local, screen, wait)
        for key, row in rows.items():
            if row["state"] == "ready":
                row.update(await counted(local, key))
        every = {key: rows.get(key, {"state": "disabled"}) for key in loaded.config.servers}
        is_well = all(row["state"] in ("ready", "disabled") for row in every.values())
        if as_json:
            screen.json({**report, "ok": is_well, "servers": every})
        else:
            _say_servers(screen, local, every)
    return OK if is_well else FAILED


def _say_configuration(screen: Screen, loaded: Loaded) -> None:
    servers = loaded.config.servers
    disabled = sum(not server.enabled for server in servers.values())
    also = f" ({disabled} disabled)" if disabled else ""
    for problem in loaded.warnings:
        screen.note(f"warning: {line(problem, 1000)}", "yellow")
    screen.say(f"{line(loaded.path)}: the configuration is fine, {count(len(servers), 'server')}{also}")


def _say_servers(screen: Screen, local: Local, rows: dict[str, Row]) -> None:
    if not rows:
        return
    cells = [_cells(key, row) for key, row in rows.items()]
    # A sentence has no room in a table: on a terminal it stands below.
    width = len(HEADER) - screen.out.is_terminal
    styles = [_STYLES[row["state"]] for row in rows.values()]
    screen.table(HEADER[:width], [row[:width] for row in cells], styles, words=3)
    for key, row in rows.items():
        if screen.out.is_terminal and "reason" in row:
            screen.say(f"{key}: {line(row['reason'], 1000)}", _STYLES[row["state"]])
        if key in local.upstreams and (apart := isolated(local, key)):
            screen.say(f"{key}: {apart}")
        for one in row.get("dropped", ()):
            screen.say(f"{key}: not served: {one['kind']} {line(one['name'])}: {line(one['reason'])}", "yellow")
        for own in row.get("unknown_costs", ()):
            screen.say(f"{key}: tool_costs.{line(own)}: the server serves no tool of this name", "yellow")
        for one in row.get("cleaned", ()):
            screen.say(f"{key}: cleaned: {one['kind']} {line(one['name'])}: {line(one['what'])}", "yellow")


def _cells(key: str, row: Row) -> list[str]:
    if row["state"] != "ready":
        return [key, row["state"], row.get("version") or "", *[""] * 6, line(row.get("reason", ""), 1000)]
    seconds = row["seconds"]
    numbers = (str(row[member]) for member in ("tools", "prompts", "resources", "resourceTemplates"))
    latency = "" if seconds is None else f"{seconds:.2f} s"
    return [key, row["state"], row["version"], latency, *numbers, f"~{row['tokens']}", ""]


def _plain(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [asdict(problem) for problem in problems]
