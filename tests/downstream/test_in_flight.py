"""A request that can be cancelled by its id: its end is its own, and a cancellation of anybody else passes."""

import asyncio

import pytest

from broker.downstream.in_flight import InFlight


class Work:
    """A request in a task, which waits until it is cancelled, and what has become of it."""

    def __init__(self) -> None:
        self.held: dict[str | int, InFlight] = {}
        self.request = InFlight(self.held, 1)
        self.began = asyncio.Event()
        self.went_on = False

    async def run(self) -> None:
        with self.request:
            self.began.set()
            await asyncio.Event().wait()
        self.went_on = True
        task = asyncio.current_task()
        assert task is not None and not task.cancelling(), "nothing is left that would end its next wait"
        await asyncio.sleep(0)


async def test_F73_a_cancelled_request_ends_and_its_task_goes_on() -> None:
    work = Work()
    task = asyncio.create_task(work.run())
    await work.began.wait()
    assert work.held == {1: work.request}
    work.request.cancel()
    work.request.cancel()
    await task
    assert work.went_on and not work.held


async def test_one_that_was_cancelled_before_it_began_ends_at_its_first_wait() -> None:
    work = Work()
    work.request.cancel()
    await asyncio.create_task(work.run())
    assert work.began.is_set() and work.went_on and not work.held


@pytest.mark.parametrize("is_cancelled_too", [False, True])
async def test_a_cancellation_of_the_task_by_somebody_else_is_not_swallowed(is_cancelled_too: bool) -> None:
    work = Work()
    task = asyncio.create_task(work.run())
    await work.began.wait()
    if is_cancelled_too:
        work.request.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not work.went_on and not work.held


async def test_a_fault_passes_and_so_does_a_result_that_was_there_first() -> None:
    held: dict[str | int, InFlight] = {}
    with pytest.raises(ValueError, match="a fault"), InFlight(held, 1):
        raise ValueError("a fault")
    request = InFlight(held, "a")
    with request:
        pass
    request.cancel()
    await asyncio.sleep(0)
    assert not held
