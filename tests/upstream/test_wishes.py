"""What callers watch at one upstream: nothing that changes is missed, and nothing is asked for in the wrong order."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.clock import FakeClock
from broker.core.era import LATEST_LEGACY, LATEST_MODERN
from broker.errors import BrokerError, NotWatched, UpstreamUnavailable
from broker.relay.watches import Watches
from broker.upstream import wishes as wishes_module
from broker.upstream.link import ACKNOWLEDGED
from broker.upstream.listening import filter_of, resource, task
from broker.upstream.pool import Watching
from broker.upstream.waiting import Waiting
from broker.upstream.wishes import Wishes
from tests.upstream.fakes import ScriptedLink

A, B = resource("x:a"), resource("x:b")
TIMEOUT = 10.0


class Watched(ScriptedLink):
    """`streams` are the filters of the open `subscriptions/listen`, the oldest first."""

    def __init__(self, version: Any) -> None:
        super().__init__({"resources/subscribe": {}, "resources/unsubscribe": {}})
        self.version = version
        self.streams: list[tuple[dict[str, Any], Waiting]] = []
        self.answers = anyio.Event()
        """Set: a legacy upstream answers at once."""
        self.answers.set()
        self.is_busy = False
        """Whether a modern one refuses further streams."""
        self.refusals = 0

    @property
    def filters(self) -> list[dict[str, Any]]:
        return [wanted for wanted, _ in self.streams]

    async def _exchange(self, method: str, params: dict[str, Any], body: bytes, waiting: Waiting) -> dict[str, Any]:
        if method != "subscriptions/listen":
            answer = await super()._exchange(method, params, body, waiting)
            await self.answers.wait()
            return answer
        if self.is_busy:
            self.refusals += 1
            raise UpstreamUnavailable(self.upstream, "busy")
        stream = (params["notifications"], waiting)
        self.streams.append(stream)
        try:
            await anyio.sleep_forever()
        finally:
            self.streams.remove(stream)
        raise AssertionError

    def agree(self, *topics: Any, to: int = -1) -> None:
        self.streams[to][1].notice(ACKNOWLEDGED, {"notifications": filter_of(topics)})

    def words(self) -> list[tuple[str, str]]:
        return [(method.removeprefix("resources/"), params["uri"]) for method, params in self.asked]


async def settle(is_true: Any) -> None:
    with anyio.fail_after(TIMEOUT):
        while not is_true():
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def modern() -> AsyncGenerator[tuple[Wishes, Watched, Any], None]:
    wishes, link = Wishes(FakeClock(), TIMEOUT), Watched(LATEST_MODERN)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wishes.listen, link)
        yield wishes, link, tasks
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def legacy() -> AsyncGenerator[tuple[Wishes, Watched, Any], None]:
    wishes, link = Wishes(FakeClock(), TIMEOUT), Watched(LATEST_LEGACY)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wishes.speak, link)
        yield wishes, link, tasks
        tasks.cancel_scope.cancel()


class Outcome:
    """How a watch ended, if it has."""

    error: BrokerError | None = None
    is_there = False

    async def of(self, wishes: Wishes, link: Watched, topic: Any) -> None:
        try:
            await wishes.watch(link, topic)
        except BrokerError as error:
            self.error = error
        self.is_there = True


async def test_a_resource_is_watched_only_once_a_modern_upstream_has_acknowledged_it() -> None:
    async with modern() as (wishes, link, tasks):
        outcome = Outcome()
        tasks.start_soon(outcome.of, wishes, link, A)
        await settle(lambda: link.filters == [{"resourceSubscriptions": ["x:a"]}])
        assert not outcome.is_there
        link.agree(A)
        await settle(lambda: outcome.is_there)
        assert outcome.error is None and wishes.has_watches


async def test_what_a_modern_upstream_does_not_agree_to_is_refused_until_it_agrees() -> None:
    async with modern() as (wishes, link, tasks):
        ours, theirs = Outcome(), Outcome()
        tasks.start_soon(ours.of, wishes, link, A)
        tasks.start_soon(theirs.of, wishes, link, task("t1"))
        await settle(lambda: link.filters == [{"resourceSubscriptions": ["x:a"], "taskIds": ["t1"]}])
        link.agree(task("t1"))
        await settle(lambda: ours.is_there and theirs.is_there)
        assert isinstance(ours.error, NotWatched) and theirs.error is None
        again = Outcome()
        tasks.start_soon(again.of, wishes, link, A)
        await settle(lambda: len(link.filters) == 2)
        assert not again.is_there, "what was refused is asked for anew"
        link.agree(A, task("t1"))
        await settle(lambda: again.is_there)
        assert again.error is None


async def test_a_stream_ends_only_once_the_next_one_is_acknowledged() -> None:
    async with modern() as (wishes, link, tasks):
        first, second = Outcome(), Outcome()
        tasks.start_soon(first.of, wishes, link, A)
        await settle(lambda: link.filters)
        link.agree(A)
        tasks.start_soon(second.of, wishes, link, B)
        await settle(lambda: len(link.filters) == 2)
        assert first.is_there and not second.is_there
        link.agree(A, B)
        await settle(lambda: second.is_there and link.filters == [{"resourceSubscriptions": ["x:a", "x:b"]}])


async def test_a_stream_goes_on_while_none_can_be_had_in_its_place_and_no_longer() -> None:
    async with modern() as (wishes, link, tasks):
        outcomes = [Outcome() for _ in range(4)]
        tasks.start_soon(outcomes[0].of, wishes, link, A)
        await settle(lambda: link.filters)
        link.agree(A)
        link.is_busy = True
        tasks.start_soon(outcomes[1].of, wishes, link, B)
        await settle(lambda: outcomes[1].is_there)
        assert isinstance(outcomes[1].error, NotWatched)
        tasks.start_soon(outcomes[2].of, wishes, link, A)
        await settle(lambda: outcomes[2].is_there)
        assert outcomes[2].error is None and link.filters == [{"resourceSubscriptions": ["x:a"]}]
        await settle(lambda: link.refusals == 2)  # the second is for what is left
        link.is_busy = False
        tasks.start_soon(outcomes[3].of, wishes, link, B)
        await settle(lambda: len(link.filters) == 2)
        link.agree(A, B)
        await settle(lambda: link.filters == [{"resourceSubscriptions": ["x:a", "x:b"]}])
        assert outcomes[3].error is None
        for topic in (A, A, B):
            wishes.unwatch(topic)
        await settle(lambda: not link.filters)


async def test_a_stream_brings_too_much_for_a_while_and_then_another_one_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with modern() as (wishes, link, tasks):
        for topic in (A, B):
            tasks.start_soon(Outcome().of, wishes, link, topic)
        await settle(lambda: link.filters == [{"resourceSubscriptions": ["x:a", "x:b"]}])
        link.agree(A, B)
        wishes.unwatch(A)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(link.filters) == 1, "a second stream could bring a change twice"
        again = Outcome()
        tasks.start_soon(again.of, wishes, link, A)
        await settle(lambda: again.is_there)
        assert again.error is None and len(link.filters) == 1
        monkeypatch.setattr(wishes_module, "SHRINK_AFTER", 0.01)
        wishes.unwatch(A)
        await settle(lambda: link.filters[-1] == {"resourceSubscriptions": ["x:b"]})
        late = Outcome()
        tasks.start_soon(late.of, wishes, link, A)
        await anyio.lowlevel.checkpoint()
        assert not late.is_there, "the stream that has it is about to end"
        link.agree(B)
        await settle(lambda: link.filters[-1] == {"resourceSubscriptions": ["x:a", "x:b"]})
        link.agree(A, B)
        await settle(lambda: late.is_there)
        assert late.error is None


async def test_who_waits_for_an_agreement_learns_at_once_that_the_connection_is_gone() -> None:
    wishes, link, outcome = Wishes(FakeClock(), TIMEOUT), Watched(LATEST_MODERN), Outcome()
    async with anyio.create_task_group() as waiting, anyio.create_task_group() as tasks:
        tasks.start_soon(wishes.listen, link)
        waiting.start_soon(outcome.of, wishes, link, A)
        await settle(lambda: link.filters)
        link.lose("gone")
        tasks.cancel_scope.cancel()
    assert isinstance(outcome.error, UpstreamUnavailable) and not wishes.has_watches


async def test_a_legacy_upstream_hears_the_latest_word_on_a_resource_last() -> None:
    async with legacy() as (wishes, link, tasks):
        for topic in (A, B):
            await wishes.watch(link, topic)
        link.answers = anyio.Event()
        wishes.unwatch(A)
        wishes.unwatch(B)
        await settle(lambda: len(link.asked) == 3)
        first_given_up = link.asked[-1][1]["uri"]
        again = [Outcome(), Outcome()]
        for topic, outcome in zip((A, B), again, strict=True):
            tasks.start_soon(outcome.of, wishes, link, topic)
        await anyio.lowlevel.checkpoint()
        assert len(link.asked) == 3, "an unsubscribe is under way; a subscribe must not overtake it"
        link.answers.set()
        await settle(lambda: all(outcome.is_there for outcome in again))
        await anyio.lowlevel.checkpoint()
        assert link.words()[2:] == [("unsubscribe", first_given_up), ("subscribe", first_given_up)]
        assert not wishes._locks


class _Place:
    """Counts what one caller watches."""

    key = "one"

    def __init__(self) -> None:
        self.count = 0
        self.answers = anyio.Event()

    async def watch(self, topic: Any) -> None:
        await self.answers.wait()
        self.count += 1

    def unwatch(self, topic: Any) -> None:
        self.count -= 1


@pytest.mark.parametrize("is_over", [False, True])
async def test_two_requests_at_once_for_one_resource_leave_one_watch_and_none_when_the_caller_goes(
    is_over: bool,
) -> None:
    watches, place = Watches(), _Place()
    where: Watching = place  # type: ignore[assignment]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watches.add, where, "x:a")
        tasks.start_soon(watches.add, where, "x:a")
        await anyio.lowlevel.checkpoint()
        if is_over:
            watches.clear()
        place.answers.set()
    assert (place.count, len(watches)) == ((0, 0) if is_over else (1, 1))
    watches.clear()
    assert place.count == 0
