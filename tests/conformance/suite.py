"""The official conformance suite as a function: a URL and a version in, `{scenario: {check id: Check}}` out.

It is a Node.js program from npm, pinned in tests/node. It writes one JSON file for each scenario; what it prints is
for people, and is kept only to explain a run that went wrong.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import anyio
from anyio import to_thread

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "tests/node/node_modules"
PROGRAM = MODULES / "@modelcontextprotocol/conformance/dist/index.js"
VERSIONS: dict[str, int] = {"2025-06-18": 27, "2025-11-25": 33, "2026-07-28": 40}
"""How many server scenarios the suite has for each version: the reference server passes all of them directly."""

MIN_NODE: int = 22
RUN_TIMEOUT: float = 150
"""Seconds for one run of all scenarios: directly it takes less than 10. Whatever has not ended by then is lost."""
SCENARIO_TIMEOUT: int = 30
"""Seconds for one scenario, as is the suite's default; on a quiet machine the longest one takes 5."""

Side = Literal["server", "client"]
Json = Mapping[str, Any]


class Unavailable(Exception):
    """The suite cannot run here; the text says why."""


@dataclass(frozen=True)
class Check:
    """The verdict on one requirement. A check that came several times is as good as its worst time."""

    status: str
    message: str = ""
    successes: int = 0
    """How many times it came with SUCCESS."""
    details: Json = field(default_factory=dict)


Results = dict[str, dict[str, Check]]

_SEVERITY = ["SUCCESS", "SKIPPED", "INFO", "WARNING", "FAILURE"]
GOOD = frozenset(["SUCCESS", "SKIPPED", "INFO"])
_DIRECTORY = re.compile(r"(?:server-)?(?P<scenario>.+)-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d+Z")
_LISTED = re.compile(r"^  - (\S+) \[(\S*)\]", re.MULTILINE)
_ENDED = re.compile(r"^Client (?:exited with code|timed out after) .*$", re.MULTILINE)


def is_whole(checks: Mapping[str, Check]) -> bool:
    """Whether a scenario passed: it came to an end, and nothing failed or was warned of."""
    return bool(checks) and all(check.status in GOOD for check in checks.values())


@cache
def find_node() -> str:
    """A Node.js that is new enough: the one from npm, else the one on PATH. Raises: Unavailable."""
    name = "node.exe" if sys.platform == "win32" else "node"
    for candidate in (str(MODULES / ".bin" / name), shutil.which("node")):
        if candidate is None or not Path(candidate).exists():
            continue
        version = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout.strip()
        found = re.match(r"v(\d+)\.", version)
        if found is not None and int(found[1]) >= MIN_NODE:
            return candidate
    raise Unavailable(f"the conformance suite needs Node.js >= {MIN_NODE}: `make test` installs one under tests/node")


def find_program() -> Path:
    """Raises: Unavailable."""
    if not PROGRAM.exists():
        raise Unavailable("the conformance suite is not installed: `make test` installs it under tests/node")
    return PROGRAM


def require() -> None:
    """Raises: Unavailable, if the suite cannot run here."""
    find_node()
    find_program()


async def run_server(url: str, version: str, directory: Path, scenario: str | None = None) -> Results:
    """All server scenarios of `version`, or one, against `url`. `directory` is new, and keeps what the suite wrote."""
    which = ["--scenario", scenario] if scenario is not None else ["--suite", "all"]
    options = ["--url", url, "--timeout", str(SCENARIO_TIMEOUT * 1000), *which]
    await _run("server", version, directory, options)
    return _read(directory)


async def run_client(command: Sequence[str], scenario: str, version: str, directory: Path) -> dict[str, Check]:
    """One client scenario: the suite starts a server, and runs `command` with its URL as the last argument."""
    # The suite hands the command to a shell.
    options = ["--command", shlex.join(command), "--scenario", scenario, "--timeout", str(SCENARIO_TIMEOUT * 1000)]
    output = await _run("client", version, directory, options)
    checks = _read(directory).get(scenario, {})
    ended = _ENDED.search(output)
    if ended is not None and is_whole(checks):
        checks["client-exit"] = Check("FAILURE", f"{ended[0]}: {_last_words(directory)}")
    return checks


@cache
def _listed(side: Side) -> list[tuple[str, list[str]]]:
    """All scenarios for one side, each with its versions, as the suite lists them."""
    argv = [find_node(), str(find_program()), "list", f"--{side}"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return [(name, versions.split(",")) for name, versions in _LISTED.findall(listed.stdout)]


async def scenarios(side: Side, version: str) -> list[str]:
    """The names of all scenarios for one side in one version."""
    return [name for name, versions in await to_thread.run_sync(_listed, side) if version in versions]


async def _run(side: Side, version: str, directory: Path, options: Iterable[str]) -> str:
    """What it printed. A run that takes too long is cut off, and judged by what it wrote until then."""
    await anyio.Path(directory).mkdir(parents=True)
    argv = [find_node(), str(find_program()), side, "--spec-version", version, "-o", str(directory), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    log = directory / "output.log"
    with log.open("wb") as output, anyio.move_on_after(RUN_TIMEOUT):
        await anyio.run_process(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=ROOT,
            env=environment,
        )
    return log.read_text(encoding="utf-8", errors="replace")


def _last_words(directory: Path) -> str:
    """The last line that the client wrote to stderr."""
    lines = [line for file in directory.glob("*/stderr.txt") for line in file.read_text(encoding="utf-8").splitlines()]
    return lines[-1] if lines else ""


def _read(directory: Path) -> Results:
    results: Results = {}
    for file in sorted(directory.glob("*/checks.json")):
        found = _DIRECTORY.fullmatch(file.parent.name)
        if found is not None:
            results[found["scenario"]] = _collapse(json.loads(file.read_text(encoding="utf-8")))
    return results


def _collapse(rows: Iterable[Json]) -> dict[str, Check]:
    checks: dict[str, Check] = {}
    for row in rows:
        status = str(row["status"])
        check = Check(status, _message(row), int(status == "SUCCESS"), row.get("details") or {})
        known = checks.get(row["id"])
        if known is not None:
            worse = max(known, check, key=lambda each: _SEVERITY.index(each.status))
            check = Check(worse.status, worse.message, known.successes + check.successes, worse.details)
        checks[row["id"]] = check
    return checks


def _message(row: Json) -> str:
    """What a check complains of; some complain in their details only."""
    details = row.get("details") or {}
    text = row.get("errorMessage") or details.get("message") or ""
    return f"{row['name']}: {text}" if text and row["name"] != row["id"] else str(text)
