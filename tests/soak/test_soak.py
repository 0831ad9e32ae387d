"""No caller ever gets a byte of another one. `make soak` takes longer."""

from pathlib import Path

import pytest

from tests.soak.run import soak

SEED = 7


@pytest.mark.parametrize(("callers", "seconds"), [(2, 2), (200, 8)])
async def test_no_caller_gets_a_byte_of_another(tmp_path: Path, callers: int, seconds: float) -> None:
    report = await soak(tmp_path, seconds=seconds, callers=callers, seed=SEED)
    print(report.text())
    assert report.findings.broken == []
    assert report.left_behind() == {}
    assert report.findings.outcomes["result: plain"] > callers
