"""Servers that run only while somebody needs them: `start: lazy` and `idle_stop`."""

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.core.caller import LOCAL
from broker.core.request import Request
from broker.errors import UpstreamUnavailable
from broker.relay.notify import Subscriber
from broker.relay.watches import Watches
from broker.upstream.demand import LOOKS
from broker.upstream.lease import Asker
from tests.hostile.cost import children
from tests.hostile.harness import broker_over, command, needs_proc, until
from tests.peers import ROOT
from tests.relay.fake import LEGACY, TIMEOUT, Fake, Gate, House, house

LAZY: dict[str, Any] = {"start": "lazy"}
IDLE: dict[str, Any] = {"idle_stop": 8}


def upstream(place: House, key: str = "one") -> Any:
    return place.broker.generation.pool.upstreams[key]


async def tick(place: House, times: int = LOOKS) -> None:
    """A fourth of `idle_stop` passes, each time."""
    for _ in range(times):
        await anyio.wait_all_tasks_blocked()
        place.clock.advance(8 / LOOKS)
    await anyio.wait_all_tasks_blocked()


async def tools(place: House) -> list[str]:
    return [one["name"] for one in (await place.ask("tools/list"))["tools"]]


async def rested(directory: Path, fake: Fake) -> None:
    """A broker that has seen it leaves a snapshot behind."""
    async with house(directory, {"one": fake}):
        pass
    fake.links.clear()


async def test_a_lazy_server_is_listed_from_its_snapshot_and_started_by_the_first_call(tmp_path: Path) -> None:
    fake = Fake()
    await rested(tmp_path, fake)
    fake.state = "lazy"
    async with house(tmp_path, {"one": fake}, servers={"one": LAZY}) as place:
        listed = await place.ask("tools/list")
        assert [one["name"] for one in listed["tools"]] == ["one__echo", "one__slow"]
        assert "_meta" not in listed, "nothing is missing"
        assert fake.links == [] and upstream(place).state.phase == "idle" and not upstream(place).is_down
        assert (await place.ask("tools/call", {"name": "one__echo"}))["content"]
        assert len(fake.links) == 1 and upstream(place).is_ready


async def test_a_lazy_server_that_was_never_seen_is_started_by_the_first_list(tmp_path: Path) -> None:
    fake = Fake(state="lazy")
    async with house(tmp_path, {"one": fake}, servers={"one": LAZY}) as place:
        await anyio.wait_all_tasks_blocked()
        assert fake.links == []
        assert await tools(place) == ["one__echo", "one__slow"] and len(fake.links) == 1


async def test_calls_at_once_start_a_lazy_server_once(tmp_path: Path) -> None:
    fake = Fake(state="lazy")
    async with house(tmp_path, {"one": fake}, servers={"one": LAZY}) as place, anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(place.ask, "tools/call", {"name": "one__echo"})
    assert len(fake.links) == 1 and len(fake.asked) == 8


async def test_a_lazy_server_that_fails_is_tried_again_when_it_is_called_again(tmp_path: Path) -> None:
    fake = Fake()
    await rested(tmp_path, fake)
    fake.state = "down"
    async with house(tmp_path, {"one": fake}, servers={"one": LAZY}) as place:
        with pytest.raises(UpstreamUnavailable, match="it is down"):
            await place.ask("tools/call", {"name": "one__echo"})
        assert upstream(place).is_down
        place.clock.advance(60)
        await anyio.wait_all_tasks_blocked()
        assert upstream(place).state.phase == "idle", "nobody asked again, so nobody tries"
        fake.state = "up"
        assert (await place.ask("tools/call", {"name": "one__echo"}))["content"]


async def test_a_server_that_nobody_uses_is_stopped_and_the_next_call_starts_it(tmp_path: Path) -> None:
    fake = Fake()
    async with house(tmp_path, {"one": fake}, servers={"one": IDLE | {"when_down": "hide"}}) as place:
        told: list[str] = []
        place.broker.engine.hub.add(Subscriber(LOCAL, "", lambda method, params: told.append(method)))
        await tick(place, LOOKS - 1)
        await place.ask("tools/call", {"name": "one__echo"})
        await tick(place, LOOKS)
        assert upstream(place).is_ready, "it was used a moment ago"
        await tick(place)
        assert not upstream(place).is_ready and not upstream(place).is_down and fake.links[0].lost is not None
        assert await tools(place) == ["one__echo", "one__slow"], "it is not down, so it is not hidden"
        assert (await place.ask("tools/call", {"name": "one__echo"}))["content"]
        assert len(fake.links) == 2 and told == []


async def test_a_server_with_a_call_in_flight_or_a_subscription_is_not_stopped(tmp_path: Path) -> None:
    gate = Gate()
    fake = Fake(
        resources=[{"uri": "file:///a", "name": "a"}],
        capabilities={"resources": {"subscribe": True}},
        answers={"slow": gate, "resources/subscribe": Gate()},
    )
    fake.answers["resources/subscribe"] = gate
    async with house(tmp_path, {"one": fake}, servers={"one": IDLE}) as place:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.ask, "tools/call", {"name": "one__slow"})
            await tick(place, LOOKS + 1)
            assert upstream(place).is_ready
            gate.opened.set()
        watches = Watches()
        await tick(place, LOOKS + 1)
        assert not upstream(place).is_ready
        who = Request("resources/subscribe", {}, LEGACY, "")
        await place.broker.engine.router.watch("one+file:///a", who, LOCAL, Asker("local", "s"), watches)
        await tick(place, LOOKS + 1)
        assert upstream(place).is_ready, "it was started for the subscription, and stays for it"
        watches.clear()
        await tick(place, LOOKS + 1)
        assert not upstream(place).is_ready


async def test_a_server_that_is_lost_while_it_rests_is_nothing_to_speak_of(tmp_path: Path) -> None:
    """One that fails when it is started again is down, and hidden if it is configured so."""
    fake = Fake()
    async with house(tmp_path, {"one": fake, "two": Fake()}, servers={"one": IDLE | {"when_down": "hide"}}) as place:
        told: list[str] = []
        await tick(place)
        await tick(place)
        fake.state = "down"
        place.broker.engine.hub.add(Subscriber(LOCAL, "one", lambda method, params: told.append(method)))
        with pytest.raises(UpstreamUnavailable):
            await place.ask("tools/call", {"name": "one__echo"})
        assert upstream(place).is_down and await tools(place) == ["two__echo", "two__slow"]
        assert told == ["notifications/tools/list_changed"]


@needs_proc
async def test_the_process_of_an_idle_server_ends_and_another_one_serves_the_next_call(tmp_path: Path) -> None:
    server = command([sys.executable, "-S", str(ROOT / "tests/servers/raw.py")], idle_stop=1, start="lazy")
    async with broker_over(tmp_path, {"lazy": server}, first_wait=20) as run:
        await run.ready("good")
        assert len(children()) == 1
        assert await run.text("lazy__ok", text="x") == "ok x"
        first = run.pid("lazy")
        await until(lambda: not run.upstream("lazy").is_ready and first not in children())
        with anyio.fail_after(TIMEOUT):
            assert await run.text("lazy__ok", text="y") == "ok y"
        assert run.pid("lazy") != first
