"""No caller ever gets a byte of another one. `make soak` takes longer."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.soak.callers import Findings, WatchedReader, WatchedWeb
from tests.soak.run import soak

SEED = 7


@pytest.mark.parametrize(("callers", "seconds"), [(2, 2), (200, 6)])
async def test_no_caller_gets_a_byte_of_another(tmp_path: Path, tell: Tell, callers: int, seconds: float) -> None:
    report = await soak(tmp_path, seconds=seconds, callers=callers, seed=SEED)
    tell(f"cross-talk, {callers} callers", report.text())
    assert report.findings.broken == []
    assert report.left_behind() == {}
    assert report.findings.outcomes["result: plain"] > callers


async def test_a_foreign_canary_is_seen_also_across_chunks() -> None:
    caller = WatchedWeb("http://127.0.0.1/", "modern", canary="canary-00001", findings=Findings())
    reader = asyncio.StreamReader()
    watched = WatchedReader(reader, caller.watch)
    reader.feed_data(b"6\r\n1nary-\r\nof canary-00001, can\r\nary-00002\r\n")
    await watched.readline()
    await watched.readexactly(8)
    await watched.readexactly(22)
    assert caller.findings.broken == []
    await watched.readexactly(11)
    assert len(caller.findings.broken) == 1
