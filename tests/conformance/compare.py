"""What the broker loses: the same scenarios, directly and through it, check by check."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio

from tests import nursery
from tests.conformance import suite, world
from tests.conformance.suite import Check, Results

EXCUSED = frozenset(["server-sse-streams-functional", "server-sse-disconnect-resume"])
"""Checks that may come back as INFO, if the result came: JSON in place of SSE is as good, and a stream that its
upstream ended was resumed by the broker itself, so its caller has nothing to resume."""


@dataclass(frozen=True)
class Loss:
    """One check that is as it should be directly, and is not through the broker."""

    scenario: str
    check: str
    status: str
    message: str


@dataclass(frozen=True)
class Cell:
    """One version in front of one target."""

    version: str
    kind: world.Kind
    results: Results
    losses: tuple[Loss, ...] = ()
    checks: int = 0
    """Checks that succeeded (directly), or that succeed directly and were kept (through the broker)."""
    excused: tuple[str, ...] = ()
    """Those among them that came back as INFO, see `EXCUSED`."""

    @property
    def kept(self) -> int:
        """Scenarios that passed (directly), or lost nothing of what they pass directly (through the broker)."""
        lost = {loss.scenario for loss in self.losses}
        return sum(suite.is_whole(checks) for name, checks in self.results.items() if name not in lost)


async def measure(
    kind: world.Kind, version: str, directory: Path, *, scenario: str | None = None, protocol: str = "auto"
) -> Cell:
    """One run of the suite in a world of its own, which ends with it. Its losses are what fails."""
    here = directory / f"{version}-{kind}"
    await anyio.Path(here).mkdir(parents=True)
    async with world.serving(kind, here, protocol) as url:
        results = await suite.run_server(url, version, here / "results", scenario)
    failed = (
        Loss(name, check, verdict.status, verdict.message)
        for name, checks in results.items()
        for check, verdict in checks.items()
        if verdict.status not in suite.GOOD
    )
    return Cell(version, kind, results, tuple(failed), len(_successes(results)))


async def client_scenarios(version: str) -> list[str]:
    """The suite's client scenarios for the core protocol: those on OAuth are not among them."""
    return [name for name in await suite.scenarios("client", version) if not name.startswith("auth/")]


async def measure_client(scenario: str, version: str, directory: Path) -> tuple[Loss, ...]:
    """What the broker fails as the suite's client; there is nothing to compare it with."""
    checks = await suite.run_client(
        nursery.command("-m", "tests.conformance.client"), scenario, version, directory / f"{version}-client-{scenario}"
    )
    if not checks:
        return (Loss(scenario, "*", "ABSENT", "the scenario gave no result"),)
    bad = ((name, each) for name, each in checks.items() if each.status not in suite.GOOD)
    return tuple(Loss(scenario, name, each.status, each.message) for name, each in bad)


def against(direct: Cell, through: Cell) -> Cell:
    """The cell of the broker, with its losses measured by the direct one."""
    losses: list[Loss] = []
    for scenario, expected in direct.results.items():
        found = through.results.get(scenario)
        if not found:
            losses.append(Loss(scenario, "*", "ABSENT", "the scenario gave no result"))
            continue
        losses += _losses(scenario, expected, found)
    kept = {name: checks for name, checks in through.results.items() if name in direct.results}
    lost = {(loss.scenario, loss.check) for loss in losses}
    checks = [
        (scenario, check)
        for scenario, check in _successes(direct.results)
        if not lost & {(scenario, check), (scenario, "*")}
    ]
    excused = (check for scenario, check in checks if kept[scenario][check].status != "SUCCESS")
    return Cell(through.version, through.kind, kept, tuple(losses), len(checks), tuple(excused))


def _successes(results: Results) -> list[tuple[str, str]]:
    """(scenario, check) of all that succeeded."""
    return [(name, check) for name, checks in results.items() for check in checks if checks[check].status == "SUCCESS"]


def _losses(scenario: str, expected: Mapping[str, Check], found: Mapping[str, Check]) -> list[Loss]:
    losses: list[Loss] = []
    for name, check in expected.items():
        if check.status != "SUCCESS":
            continue
        now = found.get(name, Check("ABSENT", "the check was not reached"))
        if _is_excused(name, now):
            continue
        if now.status != "SUCCESS":
            losses.append(Loss(scenario, name, now.status, now.message))
        elif now.successes < check.successes:
            message = f"only {now.successes} of {check.successes} times"
            losses.append(Loss(scenario, name, now.status, message))
    known = {loss.check for loss in losses}
    # Errors have check ids of their own, which no direct run has: they say why the others were not reached.
    for name, now in found.items():
        was_good = name not in expected or expected[name].status in suite.GOOD
        if now.status not in suite.GOOD and was_good and name not in known:
            losses.append(Loss(scenario, name, now.status, now.message))
    return losses


def _is_excused(name: str, now: Check) -> bool:
    if name not in EXCUSED or now.status != "INFO":
        return False
    # The other one is INFO only if all of its requests were answered, with JSON.
    return name != "server-sse-disconnect-resume" or now.details.get("receivedToolResponse") is True
