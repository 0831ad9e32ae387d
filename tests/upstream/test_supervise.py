"""One upstream, kept alive: back-off, refreshes, times to live. Time is a fake that moves when told to."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.clock import FakeClock
from broker.config.model import HttpServer
from broker.core.catalog import Listing
from broker.core.lifecycle import Phase
from broker.core.request import Kind
from broker.errors import UpstreamUnavailable
from broker.upstream import connect
from broker.upstream.link import Link
from broker.upstream.process import CannotStart
from broker.upstream.snapshot import Snapshots
from broker.upstream.supervise import Upstream
from broker.upstream.supplies import Supplies
from tests.hostile.harness import until
from tests.patience import PATIENCE
from tests.upstream.fakes import INITIALIZED, ScriptedLink, error, silence, tool

TOOLS = "tools/list"
SERVER = HttpServer.model_validate({"url": "http://127.0.0.1:1/mcp"})


class RecordingClock(FakeClock):
    """Remembers what was slept."""

    def __init__(self) -> None:
        super().__init__(now=1000.0)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(seconds)


class Stage:
    """An upstream whose connections a test hands out: each opening takes the next link, or raises."""

    def __init__(self, directory: Path) -> None:
        self.clock = RecordingClock()
        self.links: list[Link | Exception] = []
        self.opened = 0
        self.heard: list[frozenset[Kind]] = []
        supplies = Supplies(self.clock, Snapshots(directory), self._on_listing)
        self.upstream = Upstream("up", SERVER, "f" * 64, supplies)

    def _on_listing(self, key: str, listing: Listing, changed: frozenset[Kind]) -> None:
        self.heard.append(changed)

    async def open(self, name: str, server: Any, connect_timeout: float) -> Link:
        self.opened += 1
        link = self.links.pop(0) if len(self.links) > 1 else self.links[0]
        if isinstance(link, Exception):
            raise link
        return link

    async def discovered(self) -> None:
        await until(lambda: self.upstream.connect_seconds is not None and self.upstream.is_ready)

    async def is_waiting(self, times: int) -> None:
        await until(lambda: self.opened == times and self.upstream.state.phase is Phase.WAITING)


Play = Callable[..., Any]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    @asynccontextmanager
    async def run(*links: Link | Exception) -> AsyncGenerator[Stage, None]:
        stage = Stage(tmp_path)
        stage.links = list(links)
        monkeypatch.setattr(connect, "open_link", stage.open)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stage.upstream.run)
                yield stage
                tasks.cancel_scope.cancel()
        assert stage.upstream.state.phase is Phase.STOPPED

    return run


def up(tools: Any = None, **script: Any) -> ScriptedLink:
    """A legacy link that lists `one`, or what is given."""
    return ScriptedLink({"initialize": INITIALIZED, TOOLS: tools or {"tools": [tool("one")]}, **script})


async def settle() -> None:
    """Let every task run until nothing more happens by itself."""
    for _ in range(20):
        await anyio.wait_all_tasks_blocked()


async def test_failures_back_off_up_to_a_minute_and_the_reason_stays(play: Play) -> None:
    async with play(CannotStart("no such thing")) as stage:
        for attempt in range(1, 11):
            await stage.is_waiting(attempt)
            assert stage.upstream.trouble == "no such thing" and stage.upstream.first_try.is_set()
            stage.clock.advance(stage.upstream.state.delay)
    # FakeClock's chance is 0.5: three quarters of the full delay.
    assert stage.clock.slept[:4] == [0.375, 0.75, 1.5, 3.0] and stage.clock.slept[8:10] == [45.0, 45.0]


@pytest.mark.parametrize(("lived", "failures"), [(1.0, 4), (31.0, 1)])
async def test_a_link_that_dies_young_counts_as_a_failure_an_old_one_begins_anew(
    play: Play, lived: float, failures: int
) -> None:
    refusal, link = UpstreamUnavailable("up", "no"), up()
    async with play(refusal, refusal, refusal, link) as stage:
        for attempt in (1, 2, 3):
            await stage.is_waiting(attempt)
            stage.clock.advance(60)
        await stage.discovered()
        stage.clock.advance(lived)
        link.lose("it died")
        await stage.is_waiting(4)
        assert stage.upstream.state.failures == failures and stage.upstream.trouble == "it died"


async def test_a_loss_is_known_at_once_however_long_the_clearing_away_takes(play: Play) -> None:
    link = up()
    link.may_close = anyio.Event()
    async with play(link) as stage:
        await stage.discovered()
        link.lose("it died")
        await until(lambda: stage.upstream.state.phase is Phase.WAITING)
        assert not link.closed.is_set() and not stage.upstream.is_ready
        with pytest.raises(UpstreamUnavailable, match="it died"):
            stage.upstream.link()
        link.may_close.set()


async def test_F104_a_fault_of_ours_costs_one_connection(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    broken, link = up(ZeroDivisionError("secret")), up()
    async with play(broken, link) as stage:
        await stage.is_waiting(1)
        assert "internal error" in (stage.upstream.trouble or "") and "secret" not in (stage.upstream.trouble or "")
        assert "secret" in caplog.text and broken.closed.is_set()
        stage.clock.advance(60)
        await stage.discovered()
        assert stage.upstream.trouble is None


async def test_what_an_upstream_says_of_itself_is_escaped_and_cut(play: Play) -> None:
    words = error(-32000, message="go\x1b[31m away\r\n" + "x" * 5000)
    link = ScriptedLink({"initialize": words})
    async with play(link) as stage:
        await stage.is_waiting(1)
        trouble = stage.upstream.trouble or ""
        assert "-32000" in trouble and trouble.isprintable() and len(trouble) < 300


async def test_F26_announcements_are_followed_once_at_once_then_a_second_apart(play: Play) -> None:
    link = up()
    async with play(link) as stage:
        await stage.discovered()
        link.announce()
        await until(lambda: link.count(TOOLS) == 2)
        for _ in range(100):
            link.announce()
        await settle()
        assert link.count(TOOLS) == 2
        stage.clock.advance(0.5)
        await settle()
        assert link.count(TOOLS) == 2
        stage.clock.advance(0.5)
        await until(lambda: link.count(TOOLS) == 3)
        stage.clock.advance(10)
        await settle()
        assert link.count(TOOLS) == 3
    assert stage.heard[1:] == [frozenset({Kind.TOOL})] * 2, "told of, even if the lists look the same"


async def test_what_is_announced_during_the_discovery_is_fetched_after_it(play: Play) -> None:
    going, go_on = anyio.Event(), anyio.Event()

    async def prompts(params: dict[str, Any]) -> dict[str, Any]:
        going.set()
        await go_on.wait()
        return {"prompts": []}

    tools = [{"tools": [tool("one")]}, {"tools": [tool("one"), tool("two")]}]
    hello = {**INITIALIZED, "capabilities": {"tools": {"listChanged": True}, "prompts": {}}}
    link = up(tools, **{"prompts/list": prompts, "initialize": hello})
    async with play(link) as stage:
        await going.wait()
        await until(lambda: link.count(TOOLS) == 1)
        link.announce()
        await settle()
        go_on.set()
        await until(lambda: len((stage.upstream.listing or Listing()).items.get(Kind.TOOL, ())) == 2)
        assert link.count(TOOLS) == 2


@pytest.mark.parametrize(("ttl", "lasts"), [(None, 300), (60_000, 60), (0, 5), (10**18, 300)])
async def test_a_list_that_is_asked_for_and_too_old_is_fetched_once(play: Play, ttl: int | None, lasts: int) -> None:
    link = up({"tools": [tool("one")], **({"ttlMs": ttl} if ttl is not None else {})})
    async with play(link) as stage:
        await stage.discovered()
        assert stage.upstream.remaining(Kind.TOOL) == lasts
        stage.clock.advance(lasts - 1)
        stage.upstream.touch(Kind.TOOL)
        await settle()
        assert link.count(TOOLS) == 1, "no timer polls, and it is fresh"
        stage.clock.advance(1)
        for _ in range(5):
            stage.upstream.touch(Kind.TOOL)
        await until(lambda: link.count(TOOLS) == 2)
        await settle()
        assert link.count(TOOLS) == 2 and stage.upstream.remaining(Kind.TOOL) == lasts


async def test_a_refresh_that_fails_keeps_the_list_and_is_tried_when_somebody_asks(play: Play) -> None:
    link = up([{"tools": [tool("one")]}, error(-32603), {"tools": [tool("two")]}])
    async with play(link) as stage:
        await stage.discovered()
        link.announce()
        await until(lambda: link.count(TOOLS) == 2 and stage.upstream.remaining(Kind.TOOL) == 0)
        assert stage.upstream.listing is not None and stage.upstream.listing.items[Kind.TOOL] == (tool("one"),)
        stage.clock.advance(1)
        await settle()
        stage.upstream.touch(Kind.TOOL)
        await until(
            lambda: stage.upstream.listing is not None and stage.upstream.listing.items[Kind.TOOL] == (tool("two"),)
        )


async def test_a_server_whose_lists_cannot_be_had_is_not_ready_for_long(play: Play) -> None:
    link = up(error(-32603, message="no lists today"))
    async with play(link) as stage:
        await stage.is_waiting(1)
        assert "no lists today" in (stage.upstream.trouble or "")


async def test_a_handshake_that_hangs_ends_at_the_connect_time_out(play: Play) -> None:
    link = ScriptedLink({"initialize": silence, "server/discover": silence})
    async with play(link) as stage:
        stage.upstream.server = HttpServer.model_validate({"url": "http://127.0.0.1:1/mcp", "connect_timeout": 0.2})
        await stage.is_waiting(1)
        assert "handshake within 0.2 s" in (stage.upstream.trouble or "") and link.closed.is_set()
