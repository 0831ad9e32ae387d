"""The official conformance suite through the broker: no scenario lost and no check lost.

`python -m tests.conformance` is faster, and prints a table.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests import peers
from tests.conformance import compare, suite, world

Direct = Callable[[str], Awaitable[compare.Cell]]


@pytest.fixture(scope="module", autouse=True)
def _suite() -> None:
    try:
        suite.require()
    except suite.Unavailable as missing:
        peers.missing(str(missing))


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    """What the reference server passes by itself: measured once for each version."""
    known: dict[str, compare.Cell] = {}

    async def measured(version: str) -> compare.Cell:
        if version not in known:
            directory = tmp_path_factory.mktemp("direct")
            known[version] = await compare.measure("direct", version, directory)
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
    version: str, kind: world.Kind, direct: Direct, tmp_path: Path
) -> None:
    through = await compare.measure(kind, version, tmp_path)
    cell = compare.against(await direct(version), through)
    assert cell.losses == ()
    assert cell.kept == suite.VERSIONS[version]


@pytest.mark.parametrize("version", suite.VERSIONS)
async def test_the_broker_passes_every_core_scenario_as_a_client(version: str, tmp_path: Path) -> None:
    scenarios = await compare.client_scenarios(version)
    assert scenarios
    losses = [loss for each in scenarios for loss in await compare.measure_client(each, version, tmp_path)]
    assert losses == []
