"""Limits over several workers: each is one board and one counting on the same memory."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from broker.clock import Clock, FakeClock, SystemClock
from broker.core.quota import Limits, Rate
from broker.errors import LimitReached
from broker.usage.gate import Gate, leave
from broker.usage.shared import CLAIM, LOOK, SharedCounting, SharedGate
from broker.workers.assignment import Worker
from broker.workers.board import BUCKET, Board, BoardStuck, make_board
from broker.workers.held import SharedHeld
from tests.peers import ROOT

TIMEOUT = 20.0


@dataclass
class Crew:
    """Two workers."""

    handle: int = field(default_factory=lambda: make_board(2))
    bells: tuple[tuple[int, int], ...] = field(default_factory=lambda: (_bell(), _bell()))

    def board(self, number: int) -> Board:
        return Board(self.handle, Worker(number, 2))

    def counting(self, number: int, clock: Clock | None = None) -> SharedCounting:
        return SharedCounting(self.board(number), clock or SystemClock(), self.bells)

    def gate(self, number: int, cap: int = 1, clock: Clock | None = None) -> SharedGate:
        gate = self.counting(number, clock).gate("server:sql", "server:sql", "")
        gate.allow(Limits(concurrency=cap, queue=100, wait=TIMEOUT))
        return gate


def enter(gates: tuple[Gate, ...]) -> Gate | None:
    (gate,) = gates
    assert isinstance(gate, SharedGate)
    return gate.counting.enter(gates)


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    for end in (crew.handle, *(end for bell in crew.bells for end in bell)):
        os.close(end)


def test_a_window_counts_the_calls_of_all_workers(crew: Crew) -> None:
    one, two = (crew.counting(number).window(Rate(3, 60), "team:a") for number in (1, 2))
    for now, window in ((1.0, one), (2.0, two), (3.0, one)):
        assert window.has_room(now)
        window.take(now)
    assert not one.has_room(4.0) and not two.has_room(4.0)
    assert two.missing(4.0) == 57.0
    assert two.has_room(61.0) and one.missing(61.0) == 0.0


@pytest.mark.parametrize("torn", ["_put_entry", "_put_head"])
def test_a_window_that_a_killed_worker_has_left_half_written_is_right_again_once_it_is_over(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    one, two = (crew.counting(number).window(Rate(1000, 60), "team:a") for number in (1, 2))
    one.take(1.0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Board, torn, kill)
        one.take(1.1)  # it is remembered together with the first
    assert two.has_room(2.0)
    assert two.is_empty(70.0)
    for _ in range(1000):
        two.take(70.0)
    assert not one.has_room(70.0) and one.is_empty(140.0)


def test_a_gate_has_one_cap_for_all_workers_and_gives_back_what_a_dead_one_held(crew: Crew) -> None:
    one, two = crew.gate(1, 2), crew.gate(2, 2)
    enter((one,))
    enter((two,))
    assert one.is_full and two.is_full
    crew.board(1).clear(1)  # as the supervisor does, once worker 1 has died
    assert not two.is_full
    leave((two,))
    enter((two,))
    enter((two,))
    assert two.is_full


async def test_workers_take_turns_at_a_gate_however_many_wait_in_each(crew: Crew) -> None:
    """Whoever leaves in one worker lets the other one pass that waits longer, not the next of its own."""
    gates = crew.gate(1), crew.gate(2)
    order: list[str] = []
    ready = anyio.Event()

    async def call(gate: Gate, name: str) -> None:
        if enter((gate,)) is not None:
            await gate.wait((gate,), name[0])
        order.append(name)
        if name == "a0":
            await ready.wait()
        await anyio.lowlevel.checkpoint()
        leave((gate,))

    with anyio.fail_after(TIMEOUT):
        async with gates[0].counting.listening(), gates[1].counting.listening(), anyio.create_task_group() as tasks:
            for gate, name in ((0, "a0"), (0, "a1"), (0, "a2"), (0, "a3"), (1, "b1"), (1, "b2")):
                tasks.start_soon(call, gates[gate], name)
                await anyio.wait_all_tasks_blocked()
            ready.set()
    assert order == ["a0", "a1", "b1", "a2", "b2", "a3"]


async def test_who_waits_in_one_worker_is_woken_by_the_bell_of_another(crew: Crew) -> None:
    clock = FakeClock()  # it stands still: nobody looks without a bell
    one, two = (crew.gate(number, clock=clock) for number in (1, 2))
    enter((one,))
    with anyio.fail_after(TIMEOUT):
        async with two.counting.listening(), anyio.create_task_group() as tasks:
            tasks.start_soon(two.wait, (two,), "b")
            await anyio.wait_all_tasks_blocked()
            assert two.waiting == 1
            leave((one,))
    assert one.is_full and two.running == 1


def test_the_turn_of_a_worker_that_hangs_is_not_kept(crew: Crew) -> None:
    one, two = crew.gate(1), crew.gate(2)
    board = crew.board(1)
    digest = board.digest("gate", "server:sql", "")
    with board:
        at = board.find_tally(digest, make=True)
        mine = board.mine(at)
        mine.waiting, mine.since, mine.seen = 1, SystemClock().now() - 9, SystemClock().now()
        board.put(at, mine)
        assert two.is_full, "worker 1 is before us"
        mine.seen -= CLAIM + 1
        board.put(at, mine)
    assert not two.is_full and not one.is_full


def test_a_bucket_that_is_full_refuses_whoever_is_not_counted_yet(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    board = crew.board(1)
    monkeypatch.setattr(board, "_bucket", lambda digest, cells: 0)  # all names meet
    held = SharedHeld(board)
    for number in range(BUCKET):
        assert held.add("all", str(number), 1)
    assert not held.add("all", "one more", 1) and held.number("all", "one more") == 0
    held.add("all", "3", -1)
    assert held.add("all", "one more", 1) and held.number("all", "one more") == 1
    counting = SharedCounting(board, SystemClock(), crew.bells)
    windows = [counting.window(Rate(1, 60), str(number)) for number in range(BUCKET + 1)]
    for window in windows[:BUCKET]:
        assert window.has_room(1.0)
        window.take(1.0)
    assert not windows[BUCKET].has_room(2.0) and windows[BUCKET].missing(2.0) > 0
    assert windows[BUCKET].has_room(61.0), "the others are over: a cell is free"


def test_two_windows_of_one_call_do_not_take_the_last_cell_for_both(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = crew.counting(1)
    monkeypatch.setattr(counting.board, "_bucket", lambda digest, cells: 0)  # all names meet
    windows = [counting.window(Rate(1, 60), str(number)) for number in range(BUCKET + 1)]
    for window in windows[: BUCKET - 1]:
        assert counting.take((window,), 1.0) is None
    assert counting.take(windows[BUCKET - 1 :], 2.0) is windows[BUCKET], "the second one has no place"
    assert counting.take(windows[BUCKET - 1 : BUCKET], 3.0) is None, "and nothing was taken"


def test_a_window_whose_calls_are_over_is_not_given_to_the_second_one_of_the_same_call(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = crew.counting(1)
    monkeypatch.setattr(counting.board, "_bucket", lambda digest, cells: 0)  # all names meet
    windows = [counting.window(Rate(1, 60), str(number)) for number in range(BUCKET + 1)]
    pair = windows[BUCKET - 1 :]
    assert counting.take(pair[:1], 1.0) is None
    for window in windows[: BUCKET - 1]:
        assert counting.take((window,), 60.0) is None
    with counting.lock:
        assert [window.has_room(62.0) for window in pair] == [True, False]
    assert counting.take(pair, 62.0) is pair[1]
    assert counting.take(pair[:1], 62.0) is None and counting.take(pair[:1], 63.0) is pair[0], "it is counted"


def test_two_gates_of_one_call_do_not_take_the_last_cell_for_both(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = crew.counting(1)
    monkeypatch.setattr(counting.board, "_bucket", lambda digest, cells: 0)  # all names meet
    gates = [counting.gate(f"server:{number}", str(number)) for number in range(BUCKET + 1)]
    for gate in gates:
        gate.allow(Limits(concurrency=1))
    for gate in gates[: BUCKET - 1]:
        assert counting.enter((gate,)) is None
    pair = gates[BUCKET - 1 :]
    assert counting.enter(pair) is pair[1], "the second one has no place"
    assert counting.enter(pair[:1]) is None, "and none was taken"
    pair[0].leave()
    assert counting.enter(pair) is pair[1], "nor is that of the first given to it, now that it is empty"


def test_who_asks_whether_a_window_is_empty_makes_none(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = crew.counting(1)
    monkeypatch.setattr(counting.board, "_bucket", lambda digest, cells: 0)
    for number in range(BUCKET - 1):
        counting.window(Rate(1, 60), str(number)).take(1.0)
    last, other = counting.window(Rate(1, 60), "last"), counting.window(Rate(1, 60), "other")
    with counting.lock:  # what is made under one hold of it is kept
        assert other.is_empty(2.0)
        assert last.has_room(2.0)


def test_F95_a_board_that_cannot_be_locked_refuses_and_what_ends_meanwhile_is_counted_later(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = crew.counting(1)
    gate, held = counting.gate("server:sql", "one"), SharedHeld(counting.board)
    gate.allow(Limits(concurrency=2))
    enter((gate,))
    assert held.add("all", "", 2)

    with monkeypatch.context() as patch:
        patch.setattr(counting.board, "_lock", stuck)
        with pytest.raises(LimitReached):
            _ = gate.is_full
        with pytest.raises(LimitReached):
            counting.window(Rate(1, 60), "x").has_room(1.0)
        leave((gate,))
        with held.lock:
            assert held.number("all", "") > 10**9
            assert held.add("all", "", -1) and not held.add("all", "", 1)
    enter((gate,))
    with counting.board:
        at = counting.board.find_tally(counting.board.digest("gate", "one"), make=False)
        assert counting.board.total(at) == 1
    held.add("all", "", 1)
    assert held.number("all", "") == 2


async def test_F99_a_place_that_was_left_while_the_board_was_stuck_is_given_back_without_another_call(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    gate = crew.gate(1, clock=clock)
    enter((gate,))
    async with gate.counting.listening():
        await anyio.wait_all_tasks_blocked()
        with monkeypatch.context() as patch:
            patch.setattr(gate.counting.board, "_lock", stuck)
            leave((gate,))
            assert not gate.is_idle, "who forgets it forgets what it owes"
            clock.advance(LOOK)
            await anyio.wait_all_tasks_blocked()
        assert in_use(crew) == (1, 0)
        clock.advance(LOOK)
        await anyio.wait_all_tasks_blocked()
    assert in_use(crew) == (0, 0) and gate.is_idle


async def test_F99_who_gave_up_while_the_board_was_stuck_does_not_wait_in_the_eyes_of_the_others_for_ever(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    gate = crew.gate(1, clock=clock)
    enter((gate,))
    async with gate.counting.listening():
        with monkeypatch.context() as patch:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gate.wait, (gate,), "a")
                await anyio.wait_all_tasks_blocked()
                assert in_use(crew) == (1, 1)
                patch.setattr(gate.counting.board, "_lock", stuck)
                tasks.cancel_scope.cancel()
        assert gate.waiting == 0 and in_use(crew) == (1, 1)
        clock.advance(LOOK)
        await anyio.wait_all_tasks_blocked()
    assert in_use(crew) == (1, 0)


async def test_F95_who_waits_passes_once_the_board_is_free_again(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    gate = crew.gate(1, clock=clock)
    enter((gate,))
    with anyio.fail_after(TIMEOUT):
        async with gate.counting.listening(), anyio.create_task_group() as tasks:
            tasks.start_soon(gate.wait, (gate,), "a")
            await anyio.wait_all_tasks_blocked()
            with monkeypatch.context() as patch:
                patch.setattr(gate.counting.board, "_lock", stuck)
                leave((gate,))
            assert gate.waiting == 1
            clock.advance(LOOK)
    assert gate.running == 1 and in_use(crew) == (1, 0)


async def test_a_look_takes_the_lock_as_often_for_many_that_wait_as_for_one(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    gate = crew.gate(1, clock=clock)
    enter((gate,))
    taken: list[int] = []
    lock = gate.counting.board._lock  # pyright: ignore[reportPrivateUsage]
    async with gate.counting.listening(), anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(gate.wait, (gate,), str(number))
        await anyio.wait_all_tasks_blocked()
        assert gate.waiting == 100
        monkeypatch.setattr(gate.counting.board, "_lock", lambda: (taken.append(1), lock()))
        for looks in range(1, 4):
            clock.advance(LOOK)
            await anyio.wait_all_tasks_blocked()
            assert len(taken) == 2 * looks
        tasks.cancel_scope.cancel()


def stuck() -> None:
    raise BoardStuck


def in_use(crew: Crew) -> tuple[int, int]:
    """How many have passed the gate, and how many wait, as every worker sees it."""
    board = crew.board(2)
    with board:
        at = board.find_tally(board.digest("gate", "server:sql", ""), make=False)
        columns = board.columns(at)
        return sum(one.amount for one in columns), sum(one.waiting for one in columns)


HOLDER = """
import sys
from broker.workers.assignment import Worker
from broker.workers.board import Board
with Board(int(sys.argv[1]), Worker(2, 2)):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_F99_a_worker_that_was_stopped_with_the_lock_holds_the_others_up_once(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = crew.counting(1).window(Rate(5, 60), "a")
    assert window.has_room(1.0)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(crew.handle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[crew.handle],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        waits: list[float] = []
        real = time.sleep
        monkeypatch.setattr(time, "sleep", lambda seconds: (waits.append(seconds), real(seconds)))
        with pytest.raises(LimitReached):
            window.has_room(1.0)
        once = len(waits)
        for _ in range(20):
            with pytest.raises(LimitReached):
                window.has_room(1.0)
        assert len(waits) == once > 0, "only the first one has waited"
        monkeypatch.undo()
        holder.kill()  # the kernel gives its lock back
        holder.wait()
    assert window.has_room(1.0)


HAMMER = """
import sys, time
from broker.core.quota import Limits, Rate
from broker.usage.shared import SharedCounting
from broker.clock import Clock, FakeClock, SystemClock
from broker.workers.assignment import Worker
from broker.workers.board import Board
handle, number = int(sys.argv[1]), int(sys.argv[2])
counting = SharedCounting(Board(handle, Worker(number, 4)), SystemClock(), ())
windows = [counting.window(Rate(1000, 3600), "a"), counting.window(Rate(700, 3600), "b")]
print("up", flush=True)
sys.stdin.readline()
taken = tried = 0
while tried < 1500:
    tried += 1
    with counting.lock:
        now = time.monotonic()
        if all(one.has_room(now) for one in windows):
            for one in windows:
                one.take(now)
            taken += 1
print(taken, flush=True)
sys.stdin.readline()
"""


def test_processes_that_count_at_once_pass_a_limit_never_and_reach_it_exactly(tmp_path: Path) -> None:
    handle = make_board(4)
    script = tmp_path / "hammer.py"
    script.write_text(HAMMER, encoding="utf-8")
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(handle), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[handle],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in (1, 2, 3, 4)
    ]
    try:
        for one in started:
            assert one.stdout is not None and one.stdout.readline() == "up\n"
        for one in started:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        started[3].kill()  # while it may have the lock
        counts = [int(one.stdout.readline()) for one in started[:3] if one.stdout is not None]
        assert sum(counts) <= 700
        counting = SharedCounting(Board(handle, Worker(1, 4)), SystemClock(), ())
        narrow = counting.window(Rate(700, 3600), "b")
        assert not narrow.has_room(SystemClock().now())
        assert counting.window(Rate(700, 3600), "b").missing(SystemClock().now()) > 3000
    finally:
        for one in started:
            one.kill()
            one.wait()
            for stream in (one.stdin, one.stdout):
                if stream is not None:
                    stream.close()
        os.close(handle)


def _bell() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
