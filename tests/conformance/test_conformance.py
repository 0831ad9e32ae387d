"""The official conformance suite through the broker: no scenario lost and no check lost.

The table of it stands at the end of the run; `python -m tests.conformance` is faster, and prints it alone.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import peers
from tests.conformance import __main__ as tables
from tests.conformance import compare, suite, world
from tests.conftest import Tell

Direct = Callable[[str], Awaitable[compare.Cell]]


@pytest.fixture(scope="module", autouse=True)
def _suite() -> None:
    try:
        suite.require()
    except suite.Unavailable as missing:
        peers.missing(str(missing))


@dataclass
class Seen:
    """What was measured, for the table."""

    cells: list[compare.Cell] = field(default_factory=list)
    clients: tables.Clients = field(default_factory=dict)


@pytest.fixture(scope="module")
def seen(tell: Tell) -> Iterator[Seen]:
    found = Seen()
    yield found
    tell("conformance", tables.report(found.cells, found.clients))


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory, seen: Seen) -> Direct:
    """What the reference server passes by itself: measured once for each version."""
    known: dict[str, compare.Cell] = {}

    async def measured(version: str) -> compare.Cell:
        if version not in known:
            directory = tmp_path_factory.mktemp("direct")
            known[version] = await compare.measure("direct", version, directory)
            seen.cells.append(known[version])
        return known[version]

    return measured


@pytest.mark.parametrize("version", suite.VERSIONS)
async def test_the_reference_server_passes_every_scenario(version: str, direct: Direct) -> None:
    cell = await direct(version)
    assert cell.losses == ()
    assert cell.kept == suite.VERSIONS[version]


@pytest.mark.parametrize("kind", ["http", "stdio"])
@pytest.mark.parametrize("version", suite.VERSIONS)
async def test_no_scenario_and_no_check_is_lost_behind_the_broker(
    version: str, kind: world.Kind, direct: Direct, seen: Seen, tmp_path: Path
) -> None:
    through = await compare.measure(kind, version, tmp_path)
    cell = compare.against(await direct(version), through)
    seen.cells.append(cell)
    assert cell.losses == ()
    assert cell.kept == suite.VERSIONS[version]


@pytest.mark.parametrize("version", suite.VERSIONS)
async def test_the_broker_passes_every_core_scenario_as_a_client(version: str, seen: Seen, tmp_path: Path) -> None:
    scenarios = await compare.client_scenarios(version)
    assert scenarios
    found = {each: await compare.measure_client(each, version, tmp_path) for each in scenarios}
    seen.clients[version] = found
    assert [loss for losses in found.values() for loss in losses] == []
