"""One suite over every kind of link: whatever carries the messages, these promises hold.

Peers are tests/servers/probe.py, on the real SDK, over real pipes and sockets. Those that listen serve the whole file.
"""

import itertools
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.errors import UpstreamAnsweredError, UpstreamTimedOut, UpstreamUnavailable
from broker.upstream import web
from broker.upstream.handshake import agree
from broker.upstream.http import HttpLink
from broker.upstream.httpwire import can_carry
from broker.upstream.link import Link
from broker.upstream.pipe import PipeLink
from broker.upstream.sse import SseDuplex
from broker.upstream.stdio import StdioDuplex
from broker.upstream.web import WebClient
from tests.hostile.harness import AT_ONCE, BOUND, until
from tests.patience import PATIENCE
from tests.peers import Peer, Peers

KINDS = {
    "stdio-legacy": ("stdio", "legacy"),
    "stdio-modern": ("stdio", "modern"),
    "sse": ("sse", "legacy"),
    "http-legacy": ("http", "legacy"),
    "http-modern": ("http", "modern"),
    "http-legacy-aiohttp": ("http", "legacy"),
    "http-modern-aiohttp": ("http", "modern"),
}


_numbers = itertools.count()


class Linked:
    """A link in use, and its peer's log of this test."""

    def __init__(self, link: Link, log: Path) -> None:
        self.link, self.log = link, log
        self.tag = f"test-{next(_numbers)}-"

    async def call(self, name: str, arguments: Mapping[str, Any], timeout: float = 20, **more: Any) -> dict[str, Any]:
        return await self.link.request("tools/call", {"name": name, "arguments": arguments}, timeout=timeout, **more)

    async def slow(self, label: str, seconds: float = 1000, steps: int = 1, **more: Any) -> dict[str, Any]:
        return await self.call("slow", {"label": self.tag + label, "seconds": seconds, "steps": steps}, **more)

    def lines(self) -> list[str]:
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [line.replace(self.tag, "") for line in lines if self.tag in line]

    async def says(self, *expected: str) -> None:
        await until(lambda: set(expected) <= set(self.lines()))


class Probes:
    """The listening probes, started when they are first asked for."""

    def __init__(self, directory: Path) -> None:
        self.peers = Peers(directory)
        self.log = directory / "log"
        self._listening: dict[str, Peer] = {}

    async def open(self, kind: str, *, own: bool = False) -> Link:
        """A link to the probe of this kind; `own`: to one that nobody else uses."""
        transport, era = KINDS[kind]
        flags = ["--era", era, "--log", self.log, "--name", "p"]
        if transport == "stdio":
            return PipeLink("p", await StdioDuplex.open("p", self.peers.command("probe", *flags), {}, None))
        is_general = kind.endswith("-aiohttp")  # the client for TLS and proxies, held to the same promises
        kind = kind.removesuffix("-aiohttp")
        peer = None if own else self._listening.get(kind)
        if peer is None:
            peer = await self.peers.astart("probe", "--transport", transport, *flags)
            self._listening.setdefault(kind, peer)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(web, "can_carry", lambda url: not is_general and can_carry(url))
            client = await WebClient.open("p", peer.url, {}, 10)
        return HttpLink(client) if transport == "http" else PipeLink("p", await SseDuplex.open(client))


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probes]:
    started = Probes(tmp_path_factory.mktemp("probes"))
    try:
        yield started
    finally:
        started.peers.close()


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """Not here: the listening probes outlive their test."""


async def nothing() -> Mapping[str, Any]:
    return {}


@asynccontextmanager
async def linked(probes: Probes, kind: str, *, own: bool = False) -> AsyncGenerator[Linked, None]:
    is_pipe, is_legacy = kind.startswith("stdio"), kind == "sse"
    with anyio.fail_after(BOUND):
        link = await probes.open(kind, own=own)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(link.serve)
                await agree(link, pinned=None, is_pipe=is_pipe, timeout=20, declare=nothing, is_legacy=is_legacy)
                yield Linked(link, probes.log)
                tasks.cancel_scope.cancel()
        finally:
            await link.aclose()


every_kind = pytest.mark.parametrize("kind", list(KINDS))


@every_kind
async def test_calls_overlap_and_answers_are_the_same_everywhere(probes: Probes, kind: str) -> None:
    async with linked(probes, kind) as run:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.slow, "a", 0.5)
            tasks.start_soon(run.slow, "b", 0.5)
        assert sorted(run.lines()[:2]) == ["started a", "started b"]
        assert sorted(run.lines()[2:]) == ["finished a", "finished b"]
        result = await run.call("echo", {"text": "hi \u2028 \U0001f600"})
        assert result["content"] == [{"type": "text", "text": "p:hi \u2028 \U0001f600"}]
        assert result["structuredContent"] == {"text": "hi \u2028 \U0001f600"}
        assert result["probeUnknownField"] == {"from": "p"} and result["_meta"]["example.com/vendor"] == {"kept": True}
        assert (await run.call("fail", {}))["isError"] is True
        assert run.link.peer.info["name"] == "p" and run.link.peer.has("tools")


@every_kind
async def test_fifty_calls_at_once_get_each_its_own_answer(probes: Probes, kind: str) -> None:
    answers: dict[int, str] = {}
    async with linked(probes, kind) as run:

        async def call(n: int) -> None:
            answers[n] = (await run.call("echo", {"text": str(n)}))["structuredContent"]["text"]

        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(call, n)
    assert answers == {n: str(n) for n in range(50)}


@every_kind
async def test_progress_reaches_its_own_call_only(probes: Probes, kind: str) -> None:
    heard: dict[str, list[Any]] = {"a": [], "b": [], "c": []}
    async with linked(probes, kind) as run:

        async def call(label: str, wants: bool) -> None:
            def notice(method: str, params: dict[str, Any]) -> None:
                heard[label].append((method, params["message"].replace(run.tag, "")))

            await run.slow(label, 0.2, 2, on_notice=notice, wants_progress=wants)

        async with anyio.create_task_group() as tasks:
            for label in heard:
                tasks.start_soon(call, label, label != "c")
    for label in "ab":
        assert heard[label] == [("notifications/progress", f"p:{label} {n}/2") for n in (1, 2)]
    assert heard["c"] == []


@every_kind
async def test_a_cancellation_reaches_exactly_the_call_that_it_is_for(probes: Probes, kind: str) -> None:
    async with linked(probes, kind) as run, anyio.create_task_group() as others:
        others.start_soon(run.slow, "kept", 1.5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.slow, "dropped")
            await run.says("started dropped", "started kept")
            tasks.cancel_scope.cancel()
        await run.says("cancelled dropped")
        assert "cancelled kept" not in run.lines()
        await run.says("finished kept")
        assert (await run.call("echo", {"text": "x"}))["structuredContent"] == {"text": "x"}


@every_kind
async def test_a_time_out_cancels_upstream_and_the_link_lives_on(probes: Probes, kind: str) -> None:
    async with linked(probes, kind) as run:
        with pytest.raises(UpstreamTimedOut):
            await run.slow("late", timeout=0.3)
        await run.says("cancelled late")
        assert (await run.call("echo", {"text": "x"}))["structuredContent"] == {"text": "x"}


@every_kind
async def test_SP33_progress_extends_the_time_out_up_to_a_maximum(probes: Probes, kind: str) -> None:
    async with linked(probes, kind) as run:
        await run.slow("patient", 3, 30, timeout=1.5, wants_progress=True)
        with anyio.fail_after(PATIENCE), pytest.raises(UpstreamTimedOut):
            await run.slow("endless", 1000, 20_000, timeout=0.2, wants_progress=True)
        await run.says("cancelled endless")


@every_kind
async def test_errors_pass_as_they_are(probes: Probes, kind: str) -> None:
    async with linked(probes, kind) as run:
        with pytest.raises(UpstreamAnsweredError) as refusal:
            await run.call("nobody", {})
        assert (refusal.value.code, refusal.value.message) == (-32602, "Unknown tool: nobody")
        with pytest.raises(UpstreamAnsweredError) as refusal:
            await run.link.request("resources/read", {"uri": "probe://nowhere"}, timeout=20)
        assert refusal.value.code == -32602 and refusal.value.data == {"uri": "probe://nowhere"}
        with pytest.raises(UpstreamAnsweredError) as refusal:
            await run.link.request("nobody/knows", {}, timeout=20)
        assert refusal.value.code == -32601


@every_kind
async def test_a_loss_fails_what_is_in_flight_at_once(probes: Probes, kind: str) -> None:
    failed: list[str] = []
    async with linked(probes, kind, own=True) as run:

        async def call(label: str) -> None:
            try:
                await run.slow(label)
            except UpstreamUnavailable as error:
                failed.append(error.data["upstream"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "a")
            tasks.start_soon(call, "b")
            await run.says("started a", "started b")
            with anyio.fail_after(AT_ONCE):
                with pytest.raises(UpstreamUnavailable):
                    await run.call("crash", {})
                await until(lambda: len(failed) == 2)
        with pytest.raises(UpstreamUnavailable), anyio.fail_after(AT_ONCE):
            await run.call("echo", {"text": "x"})


@every_kind
async def test_a_closed_link_refuses_and_closes_twice(probes: Probes, kind: str) -> None:
    async with linked(probes, kind) as run:
        with anyio.fail_after(AT_ONCE):
            await run.link.aclose()
            await run.link.aclose()
        assert run.link.lost == "closed" and await run.link.gone() == "closed" and "closed" in repr(run.link)
        with pytest.raises(UpstreamUnavailable, match="closed"):
            await run.call("echo", {"text": "x"})


@every_kind
async def test_closing_fails_what_is_in_flight(probes: Probes, kind: str) -> None:
    async with linked(probes, kind) as run:

        async def call() -> None:
            with pytest.raises(UpstreamUnavailable):
                await run.slow("a")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await run.says("started a")
            with anyio.fail_after(AT_ONCE):
                await run.link.aclose()


@every_kind
async def test_announcements_that_no_request_owns_are_heard(probes: Probes, kind: str) -> None:
    heard = anyio.Event()
    async with linked(probes, kind) as run, anyio.create_task_group() as tasks:
        run.link.on_event = lambda method, params: heard.set() if method.endswith("tools/list_changed") else None
        if "modern" in kind:
            wanted = {"notifications": {"toolsListChanged": True}}
            tasks.start_soon(lambda: run.link.request("subscriptions/listen", wanted, timeout=float("inf")))
        with anyio.fail_after(PATIENCE):
            while not heard.is_set():  # the stream of a session opens beside its calls: the first may be too early
                await run.call("add_tool", {})
                with anyio.move_on_after(0.2):
                    await heard.wait()
        tasks.cancel_scope.cancel()
