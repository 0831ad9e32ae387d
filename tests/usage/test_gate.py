"""Calls at a time, and who waits: nobody is forgotten, nobody passes who may not, and callers take turns."""

import itertools
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.clock import SystemClock
from broker.core.quota import Limits
from broker.errors import LimitReached
from broker.usage.gate import Gate, leave
from tests.usage.counted import PLACES, counting

TIMEOUT = 60.0
"""More than a machine needs that is busy with other tests."""
_names = itertools.count()
_place = PLACES[0]
_counting = counting(_place)


@pytest.fixture(scope="module", params=PLACES, autouse=True)
def place(request: pytest.FixtureRequest) -> None:
    """Both must pass every test."""
    global _place, _counting
    _place = request.param
    _counting = counting(_place, SystemClock())


def enter(gates: tuple[Gate, ...]) -> Gate | None:
    return _counting.enter(gates)


def gate(cap: int = 1, queue: int = 100, wait: float = TIMEOUT, level: str = "server:sql") -> Gate:
    made = _counting.gate(level, str(next(_names)))
    made.allow(Limits(concurrency=cap, queue=queue, wait=wait))
    return made


@dataclass
class Crowd:
    """Calls of callers: each passes its gates, stays until it is told to go, and leaves."""

    tasks: anyio.abc.TaskGroup
    passed: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])
    withdrawn: list[str] = field(default_factory=list[str])
    inside: dict[str, tuple[Gate, ...]] = field(default_factory=dict[str, tuple[Gate, ...]])
    scopes: dict[str, anyio.CancelScope] = field(default_factory=dict[str, anyio.CancelScope])

    async def come(self, call: str, *gates: Gate) -> None:
        """`call` is `<caller><number>`. It waits, or has passed, when this returns."""
        self.tasks.start_soon(self._call, call, gates)
        await anyio.wait_all_tasks_blocked()

    async def go(self, call: str) -> None:
        leave(self.inside.pop(call))
        await anyio.wait_all_tasks_blocked()

    async def give_up(self, call: str) -> None:
        self.scopes[call].cancel()
        await anyio.wait_all_tasks_blocked()

    async def _call(self, call: str, gates: tuple[Gate, ...]) -> None:
        with anyio.CancelScope() as scope:
            self.scopes[call] = scope
            try:
                full = enter(gates)
                if full is not None:
                    await full.wait(gates, call[0])
            except LimitReached:
                self.refused.append(call)
                return
            self.passed.append(call)
            self.inside[call] = gates
        if scope.cancelled_caught:
            self.withdrawn.append(call)


@asynccontextmanager
async def crowd() -> AsyncGenerator[Crowd]:
    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as tasks:
            yield Crowd(tasks)


async def test_no_more_pass_than_there_are_places_and_who_leaves_gives_its_own_to_the_next() -> None:
    one = gate(2)
    async with crowd() as calls:
        for call in ("a1", "a2", "a3", "a4"):
            await calls.come(call, one)
        assert calls.passed == ["a1", "a2"] and (one.running, one.waiting) == (2, 2)
        await calls.go("a2")
        assert calls.passed == ["a1", "a2", "a3"] and (one.running, one.waiting) == (2, 1)
        for call in ("a1", "a3", "a4"):
            await calls.go(call)
    assert calls.passed[-1] == "a4" and one.is_idle


async def test_callers_take_turns_so_that_a_flood_waits_behind_itself() -> None:
    one = gate(1)
    async with crowd() as calls:
        for call in ("a0", *(f"a{number}" for number in range(1, 6)), "b1", "c1", "b2"):
            await calls.come(call, one)
        for _ in range(9):
            await calls.go(calls.passed[-1])
    assert calls.passed == ["a0", "a1", "b1", "c1", "a2", "b2", "a3", "a4", "a5"]


async def test_a_full_queue_refuses_at_once() -> None:
    one = gate(1, queue=2)
    async with crowd() as calls:
        for call in ("a1", "a2", "a3", "a4"):
            await calls.come(call, one)
        assert calls.refused == ["a4"]
        assert one.refusal().data == {"level": "server:sql", "limit": "1 at a time", "retryAfter": 1}
        calls.tasks.cancel_scope.cancel()


async def test_without_a_queue_nobody_waits() -> None:
    one = gate(1, queue=0)
    async with crowd() as calls:
        for call in ("a1", "a2", "b1"):
            await calls.come(call, one)
        await calls.go("a1")
    assert (calls.passed, calls.refused) == (["a1"], ["a2", "b1"]) and one.is_idle


async def test_who_has_filled_the_queue_makes_room_for_who_has_not() -> None:
    one = gate(1, queue=4)
    async with crowd() as calls:
        for call in ("a0", "a1", "a2", "a3", "a4", "b1", "b2", "b3"):
            await calls.come(call, one)
        # Each of the two has half of the queue: neither can push the other out of it.
        assert calls.refused == ["a4", "a3", "b3"] and one.waiting == 4
        await calls.come("c1", one)
        assert calls.refused[-1] in ("a2", "b2") and one.waiting == 4
        calls.tasks.cancel_scope.cancel()


async def test_who_gives_up_leaves_the_queue_at_once() -> None:
    one = gate(1)
    async with crowd() as calls:
        for call in ("a1", "a2", "b1"):
            await calls.come(call, one)
        await calls.give_up("a2")
        assert (calls.withdrawn, one.waiting) == (["a2"], 1)
        await calls.go("a1")
        await calls.go("b1")
    assert calls.passed == ["a1", "b1"] and one.is_idle


async def test_a_place_given_to_who_has_just_given_up_is_the_next_ones() -> None:
    one = gate(1)
    async with crowd() as calls:
        for call in ("a1", "a2", "b1"):
            await calls.come(call, one)
        calls.scopes["a2"].cancel()
        leave(calls.inside.pop("a1"))  # in the same turn of the loop: a2 is given the place, and is not there any more
        await anyio.wait_all_tasks_blocked()
        assert (calls.withdrawn, calls.passed) == (["a2"], ["a1", "b1"])
        await calls.go("b1")
    assert one.is_idle


async def test_who_waits_too_long_is_refused() -> None:
    one = gate(1, wait=0.01)
    async with crowd() as calls:
        await calls.come("a1", one)
        with pytest.raises(LimitReached, match="server sql has reached its limit of 1 at a time: try again in 1 s"):
            await one.wait((one,), "b")
        assert one.waiting == 0
        await calls.go("a1")
    assert one.is_idle


async def test_a_call_holds_no_place_while_it_waits_for_another() -> None:
    wide, narrow = gate(2, level="team:acme/data"), gate(1)
    async with crowd() as calls:
        await calls.come("a1", wide, narrow)
        await calls.come("b1", wide, narrow)  # waits for the narrow one
        assert (wide.running, narrow.waiting) == (1, 1)
        await calls.come("c1", wide)
        assert calls.passed == ["a1", "c1"]
        await calls.go("a1")
        assert calls.passed == ["a1", "c1", "b1"] and (wide.running, narrow.running) == (2, 1)
        await calls.go("c1")
        await calls.go("b1")
    assert wide.is_idle and narrow.is_idle


async def test_who_waits_at_one_gate_waits_at_the_other_once_that_is_full() -> None:
    first, second = gate(1, level="team:acme/data"), gate(1)
    async with crowd() as calls:
        await calls.come("a1", first)
        await calls.come("b1", first, second)
        await calls.come("c1", second)
        await calls.go("a1")
        assert (first.waiting, second.waiting) == (0, 1) and calls.passed == ["a1", "c1"]
        await calls.go("c1")
        await calls.go("b1")
    assert calls.passed == ["a1", "c1", "b1"] and first.is_idle and second.is_idle


async def test_other_limits_are_in_force_at_once() -> None:
    one = gate(1)
    async with crowd() as calls:
        for number in range(5):
            await calls.come(f"a{number}", one)
        one.allow(Limits(concurrency=3))
        await anyio.wait_all_tasks_blocked()
        assert one.running == 3 and "3/3" in repr(one)
        one.allow(Limits(concurrency=1))
        await calls.go("a0")
        assert one.running == 2 and one.is_full
        one.allow(Limits())
        await anyio.wait_all_tasks_blocked()
        assert one.waiting == 0
        for call in tuple(calls.inside):
            await calls.go(call)
    assert one.is_idle


STEPS = st.lists(
    st.tuples(st.sampled_from(["come", "come", "come", "go", "give up"]), st.integers(0, 2), st.integers(0, 6)),
    max_size=60,
)


@settings(deadline=None, max_examples=30)
@given(STEPS, st.integers(1, 3), st.integers(1, 3), st.integers(0, 6))
def test_whatever_happens_the_caps_hold_nobody_waits_for_a_free_place_and_nothing_is_left(
    steps: list[tuple[str, int, int]], first_cap: int, second_cap: int, queue: int
) -> None:
    async def play() -> None:
        gates = gate(first_cap, queue, level="team:acme/data"), gate(second_cap, queue)
        ways: list[tuple[Gate, ...]] = [(gates[0],), (gates[1],), gates]
        async with crowd() as calls:
            for number, (step, caller, which) in enumerate(steps):
                if step == "come":
                    await calls.come(f"{'abc'[caller]}{number}", *ways[which % 3])
                elif step == "go" and calls.inside:
                    await calls.go(list(calls.inside)[which % len(calls.inside)])
                elif step == "give up" and calls.scopes:
                    await calls.give_up(list(calls.scopes)[which % len(calls.scopes)])
                for one in gates:
                    assert one.running == sum(one in held for held in calls.inside.values()) <= one.cap
                    assert not one.waiting or one.is_full
            ended = len(calls.passed) + len(calls.refused) + len(calls.withdrawn)
            assert ended + sum(one.waiting for one in gates) == sum(step[0] == "come" for step in steps)
            while calls.inside:
                await calls.go(next(iter(calls.inside)))
        assert all(one.is_idle for one in gates)

    anyio.run(play)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=40))
def test_between_two_turns_of_a_caller_every_other_one_has_at_most_one(arrivals: list[str]) -> None:
    async def play() -> list[str]:
        one = gate(1)
        async with crowd() as calls:
            await calls.come("z", one)
            for number, caller in enumerate(arrivals):
                await calls.come(f"{caller}{number}", one)
            while calls.inside:
                await calls.go(next(iter(calls.inside)))
        return [call[0] for call in calls.passed[1:]]

    served = anyio.run(play)
    assert Counter(served) == Counter(arrivals)
    for caller in set(served):
        waited: Counter[str] = Counter()
        left = served.count(caller)
        for turn in served:
            if not left:
                break
            if turn == caller:
                waited, left = Counter(), left - 1
            else:
                waited[turn] += 1
                assert waited[turn] <= 1
