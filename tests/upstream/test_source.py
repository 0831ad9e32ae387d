"""Lines of a child's pipe, as they are pushed: all of them, in order, bounded, and nobody else waits for them."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.framing import LEAST, TURN
from broker.core.wire import Steps
from broker.upstream.child import Child, LoopChild, PipeChild
from broker.upstream.process import Process
from broker.upstream.source import Lines, Source
from tests.hostile.harness import needs_proc
from tests.patience import PATIENCE

pytestmark = needs_proc

KINDS = {"pipes of ours": PipeChild.start, "pipes of the loop": LoopChild.start}
LIMIT = 1024 * 1024
every_kind = pytest.mark.parametrize("kind", list(KINDS))
every_loop = pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])

Scenario = Callable[[], Coroutine[Any, Any, None]]


def run(scenario: Scenario, uvloop: bool) -> None:
    async def bounded() -> None:
        with anyio.fail_after(PATIENCE):
            await scenario()

    anyio.run(bounded, backend="asyncio", backend_options={"use_uvloop": uvloop})


@asynccontextmanager
async def shell(kind: str, script: str) -> AsyncGenerator[Child, None]:
    child = await KINDS[kind](["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}, None)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await Process(child, "of this test").stop()  # with all that the shell has started
        await child.stdout.ended.wait()
        await child.stderr.ended.wait()


@every_loop
@every_kind
def test_lines_come_in_order_and_whole_and_the_end_comes_after_the_last(kind: str, uvloop: bool) -> None:
    async def scenario() -> None:
        taken: list[bytes] = []
        async with shell(kind, "seq 50000; printf unfinished") as child:
            lines = Lines(child.stdout, taken.append, LIMIT)
            lines.begin()
            await lines.ended.wait()
        assert taken == [str(number).encode() for number in range(1, 50_001)]
        assert not lines.fault

    run(scenario, uvloop)


async def test_what_was_on_its_way_when_the_first_piece_was_held_comes_after_that() -> None:
    source, taken = Source(), list[bytes]()
    source.data_received(b"first")
    source.read(taken.append)
    source.data_received(b"second")
    await asyncio.sleep(0)
    source.data_received(b"third")
    assert taken == [b"first", b"second", b"third"]


class FakePipe(asyncio.ReadTransport):
    """A pipe that knows whether it is read."""

    is_read = True

    def is_reading(self) -> bool:
        return self.is_read

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def is_closing(self) -> bool:
        return False


async def test_a_flood_that_comes_at_once_when_somebody_reads_is_not_read_on_while_it_is_handed_on() -> None:
    source, pipe, taken = Source(), FakePipe(), list[bytes]()
    source.connection_made(pipe)
    Lines(source, taken.append, LIMIT).begin()
    # Before the next turn: uvloop looks at its pipes ahead of what was called soon.
    source.data_received(b"\n" * (4 * TURN // LEAST))
    while len(taken) < 4 * TURN // LEAST:
        assert not pipe.is_read, (
            "else what waits here would grow as long as more comes, and the end of it would be lost"
        )
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pipe.is_read


async def test_a_pipe_is_read_again_when_somebody_takes_what_nobody_took() -> None:
    source, pipe, taken = Source(), FakePipe(), list[bytes]()
    source.connection_made(pipe)
    source.read(taken.append)
    source.stop()
    assert not pipe.is_read
    source.read(taken.append)
    source.data_received(b"first")
    assert pipe.is_read and taken == [b"first"]


@every_loop
@every_kind
def test_what_comes_before_anybody_reads_waits_in_the_pipe(kind: str, uvloop: bool) -> None:
    async def scenario() -> None:
        taken: list[bytes] = []
        async with shell(kind, "(seq 200000; echo written >&2)") as child:
            said: list[bytes] = []
            child.stderr.read(said.append)
            for _ in range(100):
                await asyncio.sleep(0)
            assert sum(map(len, child.stdout._held)) <= 256 * 1024 and not said
            lines = Lines(child.stdout, taken.append, LIMIT)
            lines.begin()
            await lines.ended.wait()
            await child.stderr.ended.wait()
        assert len(taken) == 200_000 and said == [b"written\n"]

    run(scenario, uvloop)


FLOODS = {
    "long lines": "head -c 5000000 /dev/zero | tr '\\0' 'x' | fold -w 999",
    "empty lines": "head -c 300000 /dev/zero | tr '\\0' '\\n'",
    "empty messages": "yes '{}' | head -n 100000",
}


@every_loop
@every_kind
@pytest.mark.parametrize("flood", list(FLOODS))
def test_a_flood_of_lines_is_handed_on_in_turns(flood: str, kind: str, uvloop: bool) -> None:
    async def scenario() -> None:
        in_a_row = most = 0

        def take(line: bytes) -> None:
            nonlocal in_a_row, most
            in_a_row += len(line) + LEAST
            most = max(most, in_a_row)

        async with shell(kind, FLOODS[flood]) as child:
            lines = Lines(child.stdout, take, LIMIT)
            lines.begin()
            while not lines.ended.is_set():
                in_a_row = 0
                await asyncio.sleep(0)
        assert most <= 2 * TURN + 1000  # what one turn hands on, and the one that begins before we are asked

    run(scenario, uvloop)


@every_loop
@every_kind
def test_what_was_on_its_way_when_the_reading_was_paused_overtakes_nothing(kind: str, uvloop: bool) -> None:
    async def scenario() -> None:
        taken: list[bytes] = []
        has_come = asyncio.Event()

        def take(line: bytes) -> None:
            taken.append(line)
            if line == b"late":
                has_come.set()

        async with shell(kind, "cat") as child:
            lines = Lines(child.stdout, take, LIMIT)
            lines.begin()
            await asyncio.sleep(0)
            numbers = [str(number).encode() for number in range(10_000)]
            child.stdout.data_received(b"\n".join([*numbers, b""]))
            assert 0 < len(taken) < len(numbers)
            child.stdout.data_received(b"late\n")
            await has_come.wait()
        assert taken == [*numbers, b"late"]

    run(scenario, uvloop)


@every_loop
@every_kind
def test_a_line_that_is_too_long_ends_the_lines_and_nothing_more_is_read(kind: str, uvloop: bool) -> None:
    async def scenario() -> None:
        taken: list[bytes] = []
        async with shell(kind, "echo first; head -c 3000000 /dev/zero; echo; echo last; cat") as child:
            lines = Lines(child.stdout, taken.append, LIMIT)
            lines.begin()
            await lines.ended.wait()
            assert taken == [b"first"]
            assert lines.fault == f"a line of more than {LIMIT} bytes"

    run(scenario, uvloop)


@every_loop
@every_kind
def test_whoever_stops_in_the_middle_of_many_lines_gets_no_more(kind: str, uvloop: bool) -> None:
    async def scenario() -> None:
        taken: list[bytes] = []
        stopped = asyncio.Event()

        def take(line: bytes) -> None:
            taken.append(line)
            if line == b"100000":
                lines.stop()
                stopped.set()

        async with shell(kind, "seq 1000000; cat") as child:
            lines = Lines(child.stdout, take, LIMIT)
            lines.begin()
            await stopped.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            assert int(taken[-1]) == len(taken) == 100_000

    run(scenario, uvloop)


@every_loop
@every_kind
def test_a_fault_in_whoever_takes_a_line_ends_the_lines_and_is_told(kind: str, uvloop: bool) -> None:
    async def scenario() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        taken: list[bytes] = []

        def take(line: bytes) -> None:
            taken.append(line)
            if line == b"2":
                raise RuntimeError("canary")

        async with shell(kind, "seq 9; cat") as child:
            lines = Lines(child.stdout, take, LIMIT)
            lines.begin()
            await lines.ended.wait()
        assert taken == [b"1", b"2"] and lines.fault == "a fault in the broker"
        assert [str(one["exception"]) for one in told] == ["canary"]

    run(scenario, uvloop)


class InSteps:
    """Takes messages: one that begins with a digit in so many steps."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.turns = 0

    def __call__(self, line: bytes) -> Steps[None] | None:
        if not line[:1].isdigit():
            self.taken.append(line)
            return None
        return self._steps(line)

    def _steps(self, line: bytes) -> Steps[None]:
        for _ in range(int(line[:1])):
            self.turns += 1
            yield
        self.taken.append(line)


async def settled(source: FakePipe) -> None:
    """Wait until it is read again."""
    with anyio.fail_after(PATIENCE):
        while not source.is_read:  # noqa: ASYNC110 - what is waited for are the turns of this loop themselves
            await asyncio.sleep(0)


@given(st.lists(st.sampled_from([b"a", b"b" * 300, b"0", b"1x", b"5y", b"x" * TURN]), max_size=40), st.data())
def test_no_message_overtakes_one_that_is_read_in_steps(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))

    async def scenario() -> None:
        source, pipe, take = Source(), FakePipe(), InSteps()
        source.connection_made(pipe)
        lines = Lines(source, take, LIMIT)
        lines.begin()
        for begin, end in itertools.pairwise([0, *cuts, len(stream)]):
            source.data_received(stream[begin:end])
            if data.draw(st.booleans()):  # else it was on its way when the reading was paused
                await settled(pipe)
        await settled(pipe)
        assert take.taken == messages and not lines.fault
        assert take.turns == sum(int(line[:1]) for line in messages if line[:1].isdigit())

    anyio.run(scenario)


async def test_nothing_is_read_while_a_message_is_read_in_steps_and_its_end_is_the_end_of_it() -> None:
    source, pipe, take = Source(), FakePipe(), InSteps()
    source.connection_made(pipe)
    lines = Lines(source, take, LIMIT)
    lines.begin()
    source.data_received(b"9z\nafter\n")
    assert not pipe.is_read and take.taken == []
    await asyncio.sleep(0)
    lines.stop()
    for _ in range(20):
        await asyncio.sleep(0)
    assert take.taken == [] and take.turns <= 2 and not pipe.is_read


async def test_a_fault_in_a_step_ends_the_stream() -> None:
    def broken() -> Steps[None]:
        yield
        raise KeyError

    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    source, pipe, taken = Source(), FakePipe(), list[bytes]()
    source.connection_made(pipe)
    lines = Lines(source, lambda line: taken.append(line) if taken else (taken.append(line), broken())[1], LIMIT)
    lines.begin()
    source.data_received(b"one\ntwo\n")
    await asyncio.wait_for(lines.ended.wait(), PATIENCE)
    assert lines.fault == "a fault in the broker" and taken == [b"one"] and isinstance(faults[0], KeyError)
