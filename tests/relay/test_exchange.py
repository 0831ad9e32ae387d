"""One request's progress: its caller's token, a bounded rate, everything before the result and nothing after."""

import asyncio
from typing import Any

import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import FakeClock
from broker.core.caller import LOCAL
from broker.core.era import LATEST_MODERN
from broker.core.progress import BURST
from broker.downstream.message import Incoming
from broker.relay.exchange import Exchange
from broker.relay.who import Who
from tests.relay.fake import Json

PROGRESS = "notifications/progress"


class Told(list[tuple[str, Json]]):
    """What was emitted."""

    def emit(self, method: str, params: Json) -> None:
        self.append((method, params))

    @property
    def values(self) -> list[Any]:
        return [params["progress"] for _, params in self]


def exchange(clock: FakeClock, told: Told, token: Any = "mine") -> Exchange:
    return Exchange(clock, Who(LOCAL, LATEST_MODERN), told.emit, progress_token=token)


async def test_progress_carries_the_callers_token_and_keeps_all_else() -> None:
    told = Told()
    exchange(FakeClock(), told).notice(PROGRESS, {"progressToken": 17, "progress": 1, "message": "m", "x": [1]})
    assert told == [(PROGRESS, {"progressToken": "mine", "progress": 1, "message": "m", "x": [1]})]


@pytest.mark.parametrize("token", [None, 1.5, True, [], {}])
async def test_what_is_no_token_asks_for_nothing(token: Any) -> None:
    told = Told()
    mine = exchange(FakeClock(), told, Incoming(1, "tools/call", {"_meta": {"progressToken": token}}).progress_token)
    assert mine.token is None
    mine.notice(PROGRESS, {"progress": 1})
    mine.finish()
    assert told == []


@pytest.mark.parametrize("token", [0, "", -1, 2**70])
async def test_any_integer_or_text_is_a_token(token: Any) -> None:
    told = Told()
    mine = exchange(FakeClock(), told, token)
    assert mine.token == token and mine.token is not None
    mine.notice(PROGRESS, {"progress": 1})
    assert told[0][1]["progressToken"] == token


@pytest.mark.parametrize("params", [{}, {"_meta": None}, {"_meta": []}, {"_meta": {}}])
def test_without_a_token_nothing_is_asked(params: Json) -> None:
    assert Incoming(1, "tools/call", params).progress_token is None


async def test_SP35_F25_a_flood_is_a_burst_then_a_rate_and_its_last_value_comes_before_the_result() -> None:
    clock, told = FakeClock(), Told()
    mine = exchange(clock, told)
    for step in range(20_000):
        mine.notice(PROGRESS, {"progress": step})
    assert told.values == list(range(BURST))
    clock.advance(0.1)
    mine.notice(PROGRESS, {"progress": 20_000})
    assert told.values[BURST:] == [20_000]
    mine.notice(PROGRESS, {"progress": 20_001})
    mine.finish()
    assert told.values[BURST:] == [20_000, 20_001]


async def test_what_was_kept_goes_out_when_its_time_has_come() -> None:
    clock, told = FakeClock(), Told()
    mine = exchange(clock, told)
    for step in range(BURST + 5):
        mine.notice(PROGRESS, {"progress": step})
    assert told.values[-1] == BURST - 1
    clock.advance(1)
    async with asyncio.timeout(5):
        while told.values[-1] != BURST + 4:
            await anyio.lowlevel.checkpoint()
    mine.finish()
    assert told.values[-1] == BURST + 4 and len(told) == BURST + 1


async def test_SP35_nothing_comes_after_the_result() -> None:
    clock, told = FakeClock(), Told()
    mine = exchange(clock, told)
    for step in range(BURST + 5):
        mine.notice(PROGRESS, {"progress": step})
    mine.finish()
    count = len(told)
    mine.notice(PROGRESS, {"progress": 1000})
    mine.finish()
    clock.advance(10)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(told) == count


async def test_SP36_nothing_but_progress_passes() -> None:
    told = Told()
    mine = exchange(FakeClock(), told)
    for method in ("notifications/message", "notifications/tools/list_changed", "notifications/cancelled", "x"):
        mine.notice(method, {"progress": 1, "level": "error", "data": "secret"})
    assert told == []


@given(st.lists(st.integers(-5, 50) | st.floats(-5, 50) | st.none() | st.booleans() | st.text(max_size=2), max_size=60))
def test_progress_always_rises_whatever_the_upstream_says(values: list[Any]) -> None:
    async def run() -> None:
        told = Told()
        mine = exchange(FakeClock(), told)
        for value in values:
            mine.notice(PROGRESS, {"progress": value})
        mine.finish()
        assert all(a < b for a, b in zip(told.values, told.values[1:], strict=False))
        numbers = [value for value in values if type(value) in (int, float)]
        assert not numbers or told.values[-1] == max(numbers), "the last word is not lost"

    asyncio.run(run())
