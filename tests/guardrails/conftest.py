"""A pool of real processes, and what must be true after each test."""

from collections.abc import AsyncIterator

import pytest

from broker.clock import SystemClock
from broker.guardrails.pool import Pool
from tests.guardrails.corpus import CANARY


@pytest.fixture
async def pool(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    monkeypatch.setenv("CANARY", CANARY)
    pool = Pool(SystemClock())
    async with pool.running():
        yield pool
    assert pool.pids() == []
