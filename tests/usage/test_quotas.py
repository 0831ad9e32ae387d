"""Limits of all levels over one call: all or nothing, kept over a reload, bounded in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.clock import FakeClock
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.cost import Prices
from broker.core.directory import Directory, Organization, Team
from broker.core.grants import organization_level, team_level
from broker.core.limits import LimitRules
from broker.core.policy import Permit
from broker.core.quota import LevelLimits, Limits, Rate, ServerLimits
from broker.core.request import Kind
from broker.errors import LimitReached
from broker.usage import counters
from broker.usage.quotas import NO_HOLD, Hold, Quotas
from tests.usage.counted import PLACES, counting

MINUTE = 60
CALL = "tools/call"

_place = PLACES[0]


@pytest.fixture(scope="module", params=PLACES, autouse=True)
def place(request: pytest.FixtureRequest) -> None:
    """Both must pass every test."""
    global _place
    _place = request.param


def limits(*rates: str | tuple[int, int], concurrency: int | None = None, queue: int = 0) -> Limits:
    return Limits(tuple(Rate(*one) for one in rates if isinstance(one, tuple)), concurrency, queue)


def rules(organization: Limits | None = None, team: Limits | None = None, **servers: ServerLimits) -> LimitRules:
    data = Team("data", team_level("acme", "data", limits=LevelLimits(team or Limits())))
    level = organization_level("acme", limits=LevelLimits(organization or Limits()))
    return LimitRules(Directory({"acme": Organization("acme", level, {"data": data})}), servers)


def permit(who: str = "ann", server: str = "sql", team: str = "data") -> Permit:
    caller = Caller(f"key:{who}", "acme", team, who)
    return Permit(caller, Entry(Kind.TOOL, f"{server}__echo", server, "echo"), "test")


@dataclass
class World:
    rules: LimitRules
    clock: FakeClock = field(default_factory=FakeClock)
    prices: Mapping[str, Prices] = field(default_factory=dict[str, Prices])

    @property
    def limits(self) -> LimitRules:
        return self.rules

    def __post_init__(self) -> None:
        self.quotas = Quotas(self.clock, self, counting=counting(_place, self.clock))

    async def admit(self, who: str = "ann", server: str = "sql", method: str = CALL, *, is_retry: bool = False) -> Hold:
        return await self.quotas.admit(permit(who, server), method, is_retry=is_retry)

    async def refusal(self, who: str = "ann", server: str = "sql", method: str = CALL) -> dict[str, object]:
        with pytest.raises(LimitReached) as caught:
            await self.admit(who, server, method)
        return caught.value.data


async def test_the_tightest_of_all_limits_wins_and_is_named() -> None:
    world = World(rules(limits((3, MINUTE)), limits((2, MINUTE), (3, 3600)), sql=ServerLimits(limits((9, MINUTE)))))
    for _ in range(2):
        assert await world.admit() is NO_HOLD  # it holds nothing
    assert await world.refusal() == {"level": "team:acme/data", "limit": "2/minute", "retryAfter": 60}
    world.clock.advance(59.5)
    assert await world.refusal() == {"level": "team:acme/data", "limit": "2/minute", "retryAfter": 1}
    world.clock.advance(0.5)
    await world.admit()
    assert await world.refusal() == {"level": "team:acme/data", "limit": "3/hour", "retryAfter": 3540}


async def test_who_is_refused_has_taken_nothing_from_the_others() -> None:
    world = World(rules(limits((2, MINUTE)), sql=ServerLimits(limits((1, MINUTE)))))
    await world.admit()
    for _ in range(5):
        assert (await world.refusal())["level"] == "server:sql"
    await world.admit(server="docs")  # the organization has one left
    assert (await world.refusal(server="docs"))["level"] == "org:acme"


async def test_each_caller_has_its_own_share_of_a_server() -> None:
    world = World(rules(sql=ServerLimits(limits((3, MINUTE)), limits((2, MINUTE)))))
    for who in ("ann", "ann", "bob"):
        await world.admit(who)
    assert (await world.refusal("bob"))["level"] == "server:sql"


async def test_a_retry_counts_as_one_call_with_the_first_and_a_task_can_always_be_given_up() -> None:
    world = World(rules(limits((1, MINUTE), concurrency=1)))
    hold = await world.admit()
    hold.release()
    (await world.admit(is_retry=True)).release()
    assert await world.admit(method="tasks/cancel") is NO_HOLD
    assert (await world.refusal(method="tasks/get"))["limit"] == "1/minute"


async def test_requests_about_tasks_hold_no_place() -> None:
    world = World(rules(limits(concurrency=1)))
    hold = await world.admit()
    assert await world.admit(method="tasks/result") is NO_HOLD
    assert (await world.refusal())["limit"] == "1 at a time"
    hold.release()
    hold.release()  # the second time does nothing
    (await world.admit()).release()


async def test_a_call_that_is_refused_by_a_rate_gives_its_place_back() -> None:
    world = World(rules(limits((1, MINUTE), concurrency=1)))
    (await world.admit()).release()
    for _ in range(3):
        assert (await world.refusal())["limit"] == "1/minute"


async def test_who_will_be_refused_by_a_rate_does_not_wait_for_a_place() -> None:
    world = World(rules(limits((1, MINUTE), concurrency=1, queue=5)))
    hold = await world.admit()
    assert (await world.refusal())["limit"] == "1/minute"
    hold.release()


async def test_what_is_counted_begins_when_the_call_does_not_while_it_waits() -> None:
    world = World(rules(limits((2, MINUTE), concurrency=1, queue=5)))
    hold = await world.admit()
    passed: list[Hold] = []
    refused: list[LimitReached] = []

    async def call() -> None:
        try:
            passed.append(await world.admit())
        except LimitReached as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        world.clock.advance(30)
        hold.release()
        await anyio.wait_all_tasks_blocked()
        passed[0].release()
    assert (len(passed), len(refused)) == (1, 2) and refused[0].data["retryAfter"] == 30


async def test_a_reload_keeps_what_was_counted_of_levels_that_stayed() -> None:
    world = World(rules(limits((2, MINUTE), concurrency=1), limits((9, 3600))))
    held = await world.admit()
    world.rules = rules(limits((2, MINUTE), (5, 3600), concurrency=1), limits((9, 3600)))
    assert (await world.refusal())["limit"] == "1 at a time"
    held.release()
    (await world.admit()).release()
    assert (await world.refusal())["limit"] == "2/minute"
    world.rules = rules(limits((3, MINUTE)), limits((2, 3600)))
    assert (await world.refusal())["limit"] == "2/hour"
    world.rules = rules(limits((3, MINUTE)))
    await world.admit()
    assert (await world.refusal())["limit"] == "3/minute"
    world.rules = rules()
    assert await world.admit() is NO_HOLD


async def test_counters_that_say_nothing_are_forgotten_and_there_are_never_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counters, "FEW", 4)
    monkeypatch.setattr(counters, "MAX_COUNTERS", 8)
    world = World(rules(sql=ServerLimits(per_caller=limits((1, MINUTE)))))
    for number in range(8):
        await world.admit(f"caller-{number}")
    assert (await world.refusal("one-more"))["level"] == "server:sql"
    assert (await world.refusal("caller-3"))["limit"] == "1/minute"  # nobody's count was given up for it
    world.clock.advance(MINUTE)
    await world.admit("one-more")
    assert len(world.quotas.counters) == 1
    assert (await world.refusal("one-more"))["limit"] == "1/minute"


async def test_of_many_counters_few_are_looked_at_in_one_go_and_each_in_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counters, "FEW", 13)
    monkeypatch.setattr(counters, "SWEEP", 3)
    world = World(rules(sql=ServerLimits(per_caller=limits((1, MINUTE)))))
    for number in range(12):
        await world.admit(f"caller-{number}")
    world.clock.advance(MINUTE - counters.SWEEP_EVERY)
    await world.admit("stays")
    world.clock.advance(counters.SWEEP_EVERY)
    forgotten: list[int] = []
    for number in range(10):
        known = len(world.quotas.counters)
        await world.admit(f"new-{number}")
        forgotten.append(known + 1 - len(world.quotas.counters))
        world.clock.advance(counters.SWEEP_EVERY / 4)
    assert forgotten == [3, 0, 0, 3, 0, 0, 3, 0, 0, 3]
    for caller in ("stays", *(f"new-{number}" for number in range(10))):
        assert (await world.refusal(caller))["limit"] == "1/minute"


async def test_unseen_callers_that_keep_asking_have_each_counter_looked_at_once_in_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And who is known already is not looked up anew for it, as long as nothing was forgotten."""
    monkeypatch.setattr(counters, "FEW", 50)
    monkeypatch.setattr(counters, "MAX_COUNTERS", 50)
    monkeypatch.setattr(counters, "SWEEP", 2)
    looks, is_idle = 0, counters.Counter.is_idle

    def looked(one: counters.Counter, now: float) -> bool:
        nonlocal looks
        looks += 1
        return is_idle(one, now)

    monkeypatch.setattr(counters.Counter, "is_idle", looked)
    world = World(rules(sql=ServerLimits(per_caller=limits((1, MINUTE)))))
    for number in range(50):
        await world.admit(f"caller-{number}")
    known = permit("caller-7").caller
    before = world.quotas.counters.applying(known, "sql")
    for number in range(1000):
        await world.refusal(f"new-{number}")
        world.clock.advance(0.01)
    assert 40 <= looks <= 52
    assert world.quotas.counters.applying(known, "sql") is before


async def test_a_call_that_has_waited_and_finds_no_room_to_be_counted_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counters, "FEW", 1)
    world = World(rules(sql=ServerLimits(limits(concurrency=1, queue=5))))
    hold = await world.admit()
    refused: list[LimitReached] = []

    async def call() -> None:
        try:
            await world.admit("bob")
        except LimitReached as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        world.rules = rules(sql=ServerLimits(limits(concurrency=1, queue=5), per_caller=limits((9, MINUTE))))
        monkeypatch.setattr(counters, "MAX_COUNTERS", 0)
        hold.release()
    assert len(refused) == 1
    monkeypatch.setattr(counters, "MAX_COUNTERS", 100)
    (await world.admit("bob")).release()


async def test_who_waits_is_a_gauge_by_kind_of_level() -> None:
    world = World(rules(sql=ServerLimits(limits(concurrency=1, queue=3))))
    hold = await world.admit()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.admit)
        await anyio.wait_all_tasks_blocked()
        found = {one.labels["level"]: one.value for one in world.quotas.counters.gauges()}
        assert found == {"organization": 0, "team": 0, "key": 0, "server": 1}
        hold.release()


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["sql", "docs"]), st.integers(0, 30)), max_size=60)


@settings(deadline=None)
@given(STEPS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_no_level_is_ever_over_and_nobody_is_refused_for_nothing(
    steps: list[tuple[str, str, int]], whole: int, each: int, team: int
) -> None:
    world = World(
        rules(limits((whole, 50)), limits((team, 20), (team + 2, 70)), sql=ServerLimits(per_caller=limits((each, 30))))
    )
    taken: list[tuple[str, str, float]] = []

    def recent(seconds: int, which: Callable[[str, str], bool] = lambda who, server: True) -> int:
        now = world.clock.now()
        return sum(now - at < seconds and which(who, server) for who, server, at in taken)

    async def play() -> None:
        for who, server, gap in steps:
            world.clock.advance(gap)
            own = recent(30, lambda one, at, who=who: (one, at) == (who, "sql"))
            fits = recent(50) < whole and recent(20) < team and recent(70) < team + 2
            fits = fits and (server != "sql" or own < each)
            try:
                await world.admit(who, server)
            except LimitReached:
                assert not fits
            else:
                assert fits
                taken.append((who, server, world.clock.now()))

    anyio.run(play)
