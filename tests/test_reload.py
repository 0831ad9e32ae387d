"""A reload: what has not changed goes on untouched, what has is swapped at once, and a mistake changes nothing."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.config import Changes, Config, load
from broker.core.caller import LOCAL
from broker.core.request import Kind, Request
from broker.errors import UnknownName, UpstreamUnavailable
from broker.generation import Generation
from broker.relay.notify import Subscriber, Watches
from broker.relay.parking import InvalidState
from broker.reload import FIXED, Reloads
from broker.upstream.lease import Asker
from tests.hostile.harness import until
from tests.relay.fake import LEGACY, MODERN, TIMEOUT, Fake, Gate, House, Json, answering, house, tool, write_config

TOOLS_CHANGED = "notifications/tools/list_changed"


@dataclass
class Place:
    """A broker, and the file that it was read from."""

    directory: Path
    house: House
    reloads: Reloads
    told: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def broker(self) -> Any:
        return self.house.broker

    def upstream(self, key: str) -> Any:
        return self.broker.generation.pool.upstreams[key]

    def listen(self, *views: str) -> None:
        """What callers of these views are told is in `told`."""
        for view in views:
            self.broker.engine.hub.add(
                Subscriber(LOCAL, view, lambda method, params, view=view: self.told.append((view, method)))
            )

    async def reload(self, servers: dict[str, Any], **more: Any) -> bool:
        write_config(self.directory, servers, **more)
        with anyio.fail_after(TIMEOUT):
            return await self.reloads.reload()

    async def tools(self, view: str = "") -> list[str]:
        return [one["name"] for one in (await self.house.ask("tools/list", view=view))["tools"]]

    async def call(self, name: str, **more: Any) -> Json:
        return await self.house.ask("tools/call", {"name": name}, **more)


@asynccontextmanager
async def place(directory: Path, fakes: dict[str, Fake], **more: Any) -> AsyncGenerator[Place, None]:
    async with house(directory, fakes, **more) as found:
        yield Place(directory, found, Reloads(found.broker, {"SECRET": "rotated"}))


async def test_a_server_that_has_not_changed_keeps_its_link_and_a_call_on_it_finishes(tmp_path: Path) -> None:
    gate = Gate()
    async with place(tmp_path, {"one": Fake(answers={"slow": gate}), "two": Fake()}) as found:
        one, link = found.upstream("one"), found.upstream("one").link()
        answers: list[Json] = []

        async def call() -> None:
            answers.append(await found.call("one__slow"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await found.house.fakes["one"].until(lambda: bool(found.house.fakes["one"].asked))
            assert await found.reload({"one": {"timeout": 7}})
            gate.opened.set()
        assert answers == [{"content": [{"type": "text", "text": "done"}]}]
        assert found.upstream("one") is one and one.link() is link and one.server.timeout == 7
        assert await found.tools() == ["one__echo", "one__slow"]


async def test_what_a_carried_server_says_afterwards_reaches_the_new_configuration(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake()}) as found:
        assert await found.reload({"one": {"prefix": "uno"}})
        fake = found.house.fakes["one"]
        fake.tools = [tool("new")]
        before = found.broker.generation.catalog
        fake.announce()
        with anyio.fail_after(TIMEOUT):
            while found.broker.generation.catalog is before:
                found.house.clock.advance(1)
                await anyio.lowlevel.checkpoint()
        assert await found.tools() == ["uno__new"] and len(fake.links) == 1


async def test_a_removed_server_vanishes_at_once_and_ends_with_the_last_call_on_it(tmp_path: Path) -> None:
    gate = Gate()
    async with place(tmp_path, {"one": Fake(), "two": Fake(answers={"slow": gate})}) as found:
        found.listen("", "one", "two")
        two = found.upstream("two").link()
        answers: list[Json] = []

        async def call() -> None:
            answers.append(await found.call("two__slow"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await found.house.fakes["two"].until(lambda: bool(found.house.fakes["two"].asked))
            assert await found.reload({"one": {}})
            assert await found.tools() == ["one__echo", "one__slow"]
            assert sorted(found.told) == [("", TOOLS_CHANGED), ("two", TOOLS_CHANGED)], "whom it concerns, and once"
            with pytest.raises(UnknownName):
                await found.call("two__echo")
            assert two.lost is None and len(found.broker.fleet) == 2
            gate.opened.set()
        assert answers[0]["content"][0]["text"] == "done"
        await until(lambda: two.lost is not None and len(found.broker.fleet) == 1)


async def test_a_call_on_a_removed_server_that_takes_too_long_is_cut_and_told_why(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake(), "two": Fake(answers={"slow": Gate()})}) as found:
        failures: list[str] = []

        async def call() -> None:
            with pytest.raises(UpstreamUnavailable) as caught:
                await found.call("two__slow")
            failures.append(caught.value.message)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await found.house.fakes["two"].until(lambda: bool(found.house.fakes["two"].asked))
            assert await found.reload({"one": {}}, broker={"drain": 0})
        assert "not configured any more" in failures[0]


async def test_a_server_with_another_secret_is_another_server(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake(), "two": Fake()}) as found:
        one, two = found.upstream("one"), found.upstream("two")
        assert await found.reload({"one": {"headers": {"X-Token": "${env:SECRET}"}}, "two": {}})
        assert found.upstream("one") is not one and found.upstream("two") is two
        await found.house.ready()
        assert await found.tools() == ["one__echo", "one__slow", "two__echo", "two__slow"]
        assert len(found.house.fakes["one"].links) == 2 and len(found.house.fakes["two"].links) == 1


async def test_a_server_that_is_added_is_listed_and_callers_are_told(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake()}) as found:
        found.listen("", "one")
        found.house.fakes["two"] = Fake(tools=[tool("fresh")])
        assert await found.reload({"one": {}, "two": {}})
        await found.house.ready()
        assert await found.tools() == ["one__echo", "one__slow", "two__fresh"]
        assert found.told == [("", TOOLS_CHANGED)]
        assert (await found.call("two__fresh"))["content"]


async def test_what_a_reload_does_not_change_for_a_caller_it_is_not_told(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake(), "two": Fake()}) as found:
        found.listen("", "one", "two")
        assert await found.reload({"one": {"timeout": 9}, "two": {"tools": {"deny": ["slow"]}}})
        assert sorted(found.told) == [("", TOOLS_CHANGED), ("two", TOOLS_CHANGED)]
        found.told.clear()
        assert await found.reload({"one": {"prefix": "uno"}, "two": {"tools": {"deny": ["slow"]}}})
        assert sorted(found.told) == [("", TOOLS_CHANGED), ("one", TOOLS_CHANGED)]
        assert [len(fake.links) for fake in found.house.fakes.values()] == [1, 1]


async def test_a_parked_call_outlives_a_reload(tmp_path: Path) -> None:
    async def answer(asked: Any) -> Json:
        told = await asked.ask("elicitation/create", {"message": "Who?", "requestedSchema": {"type": "object"}})
        return {"content": [{"type": "text", "text": told["result"]["content"]["who"]}]}

    async with place(tmp_path, {"one": Fake(answers={"echo": answer}), "two": Fake()}) as found:
        caller: Json = {"version": MODERN, "capabilities": {"elicitation": {"form": {}}}}
        asked = await found.call("one__echo", **caller)
        assert asked["resultType"] == "input_required"
        assert await found.reload({"one": {}})
        responses = {key: {"action": "accept", "content": {"who": "me"}} for key in asked["inputRequests"]}
        retry = {"name": "one__echo", "requestState": asked["requestState"], "inputResponses": responses}
        done = await found.house.ask("tools/call", retry, **caller)
        assert done["content"][0]["text"] == "me"


async def asks(asked: Any) -> Json:
    await asked.ask("elicitation/create", {"message": "Who?", "requestedSchema": {"type": "object"}})
    return {"content": []}


ASKED: Json = {"version": MODERN, "capabilities": {"elicitation": {"form": {}}}}


async def test_a_server_with_a_parked_call_waits_for_it_where_it_is_reached_in_another_way(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake(answers={"echo": asks}), "two": Fake()}) as found:
        one = found.upstream("one")
        asked = await found.call("one__echo", **ASKED)
        assert one.in_use.count == 1
        assert await found.reload({"one": {"headers": {"X-Key": "another"}}, "two": {}})
        assert found.upstream("one") is not one and one.in_use.count == 1 and one.is_ready
        retry = {"name": "one__echo", "requestState": asked["requestState"]}
        responses = {key: {"action": "decline"} for key in asked["inputRequests"]}
        assert (await found.house.ask("tools/call", {**retry, "inputResponses": responses}, **ASKED))["content"] == []


async def test_a_second_question_of_a_parked_call_is_judged_by_the_guardrails_that_it_began_with(
    tmp_path: Path,
) -> None:
    """Their processes run until it has ended: without them whatever it asks would be refused."""
    seconds: list[Json] = []

    async def asks_twice(asked: Any) -> Json:
        form = {"message": "Who?", "requestedSchema": {"type": "object"}}
        await asked.ask("elicitation/create", form)
        seconds.append(await asked.ask("elicitation/create", form))
        return {"content": []}

    guardrails = {"g": {"file": "g.py", "phases": ["question"], "timeout": 5.0}}
    (tmp_path / "g.py").write_text("def check(ctx):\n    return {'action': 'allow'}\n", encoding="utf-8")
    async with place(tmp_path, {"one": Fake(answers={"echo": asks_twice})}, guardrails=guardrails) as found:
        asked = await found.call("one__echo", **ASKED)
        guards = found.broker.generation.guards
        (tmp_path / "g.py").write_text("# another\ndef check(ctx):\n    return {'action': 'allow'}\n", encoding="utf-8")
        assert await found.reload({"one": {}}, guardrails=guardrails)
        assert found.broker.generation.guards is not guards and guards.in_use.count == 1
        for _ in range(2):
            responses = {key: {"action": "decline"} for key in asked["inputRequests"]}
            retry = {"name": "one__echo", "requestState": asked["requestState"], "inputResponses": responses}
            asked = await found.house.ask("tools/call", retry, **ASKED)
        assert asked["content"] == [] and seconds[0]["result"] == {"action": "decline"}
        await until(lambda: guards.in_use.count == 0)


async def test_a_parked_call_on_a_removed_server_is_given_up_at_once_with_its_place(tmp_path: Path) -> None:
    """Nobody can come back for it: its name is unknown from then on, also to its retry."""
    async with place(tmp_path, {"one": Fake(answers={"echo": asks}), "two": Fake(answers={"echo": asks})}) as found:
        one, parking = found.upstream("one"), found.broker.parking
        asked = await found.call("one__echo", **ASKED)
        await found.call("two__echo", **ASKED)
        assert len(parking) == 2
        assert await found.reload({"two": {}})
        assert len(parking) == 1, "the other one is still waited for"
        await until(lambda: one.in_use.count == 0)
        retry = {"name": "one__echo", "requestState": asked["requestState"], "inputResponses": {}}
        with pytest.raises(UnknownName):
            await found.house.ask("tools/call", retry, **ASKED)
        assert await found.reload({"one": {}, "two": {}})
        await until(lambda: found.upstream("one").is_ready)
        with pytest.raises(InvalidState):
            await found.house.ask("tools/call", retry, **ASKED)


async def test_a_call_that_asks_after_its_server_was_removed_is_told_so_and_not_parked(tmp_path: Path) -> None:
    gate = Gate()

    async def asks_late(asked: Any) -> Json:
        await gate.opened.wait()
        return await asks(asked)

    async with place(tmp_path, {"one": Fake(answers={"echo": asks_late}), "two": Fake()}) as found:
        one, failures = found.upstream("one"), list[str]()

        async def call() -> None:
            with pytest.raises(UpstreamUnavailable) as caught:
                await found.call("one__echo", **ASKED)
            failures.append(caught.value.message)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await found.house.fakes["one"].until(lambda: bool(found.house.fakes["one"].asked))
            assert await found.reload({"two": {}})
            gate.opened.set()
        assert "not configured any more" in failures[0]
        assert len(found.broker.parking) == 0
        await until(lambda: one.in_use.count == 0)


async def test_a_watched_resource_is_heard_of_after_a_reload(tmp_path: Path) -> None:
    fake = Fake(resources=[{"uri": "file:///a", "name": "a"}], capabilities={"resources": {"subscribe": True}})
    async with place(tmp_path, {"one": fake}) as found:
        told: list[Json] = []
        watches = Watches()
        await found.broker.engine.router.watch(
            "one+file:///a", Request("resources/subscribe", {}, LEGACY, ""), LOCAL, Asker("local", "s"), watches
        )
        found.broker.engine.hub.add(Subscriber(LOCAL, "", lambda method, params: told.append(params), watches))
        assert await found.reload({"one": {"prefix": "uno"}})
        told.clear()
        assert fake.link is not None
        fake.link.on_event("notifications/resources/updated", {"uri": "file:///a"})
        assert told == [{"uri": "uno+file:///a"}]


@pytest.mark.parametrize("change", ["reached in another way", "taken out, and put back"])
async def test_a_watched_resource_is_asked_for_again_where_its_server_is_another(tmp_path: Path, change: str) -> None:
    subscribed: list[tuple[object, str]] = []

    async def subscribe(asked: Any) -> Json:
        subscribed.append((asked.link, asked.params["uri"]))
        return {}

    answers: dict[str, Any] = {"resources/subscribe": subscribe, "resources/unsubscribe": subscribe}
    capabilities: Json = {"resources": {"subscribe": True}}
    fake = Fake(resources=[{"uri": "file:///a", "name": "a"}], capabilities=capabilities, answers=answers)
    async with place(tmp_path, {"one": fake, "two": Fake()}) as found:
        watches = Watches()

        async def watch() -> None:
            who = Request("resources/subscribe", {}, LEGACY, "")
            await found.broker.engine.router.watch("one+file:///a", who, LOCAL, Asker("local", "s"), watches)

        await watch()
        if change == "taken out, and put back":
            assert await found.reload({"two": {}})
        assert await found.reload({"one": {"headers": {"X-Token": "other"}}, "two": {}})
        await found.house.ready()
        await watch()
        await fake.until(lambda: len(subscribed) == 2)
        assert [uri for _, uri in subscribed] == ["file:///a"] * 2 and subscribed[0][0] is not subscribed[1][0]
        watches.clear()
        await fake.until(lambda: len(subscribed) == 3)
        assert subscribed[2][0] is subscribed[1][0], "and no more, when nobody listens"


async def test_a_cursor_of_before_is_good_afterwards(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake(tools=[tool(f"t{n:04}") for n in range(1001)])}) as found:
        first = await found.house.ask("tools/list")
        assert await found.reload({"one": {"timeout": 9}})
        second = await found.house.ask("tools/list", {"cursor": first["nextCursor"]})
        assert [one["name"] for one in second["tools"]] == ["one__t1000"]


async def test_what_a_store_has_said_stays_in_force(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake()}) as found:
        guest = found.house.guest("key:guests/ci")
        assert await found.reload({"one": {"timeout": 9}})
        assert (await found.call("one__echo", caller=guest))["content"]


@pytest.mark.parametrize("broken", ["file", "guardrail"])
async def test_F101_a_file_with_a_mistake_changes_nothing_and_what_mends_it_is_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    (tmp_path / "g.py").write_text("import os\n", encoding="utf-8")
    changes: dict[str, Any] = {"file": {"groups": {"g": ["nobody"]}}}
    changes["guardrail"] = {"guardrails": {"g": {"file": "g.py", "phases": ["request"]}}}
    async with place(tmp_path, {"one": Fake(), "two": Fake()}) as found:
        generation = found.broker.generation
        with caplog.at_level(logging.INFO):
            assert not await found.reload({"one": {}}, **changes[broken])
        assert found.broker.generation is generation and "what was in force before stays" in caplog.text
        assert found.reloads.trouble and (found.reloads.done, found.reloads.failed) == (0, 1)
        assert {one.name: one.value for one in found.reloads.gauges()}["reload_failed"] == 1
        assert await found.tools() == ["one__echo", "one__slow", "two__echo", "two__slow"]
        assert await found.reload({"one": {}})
        assert found.reloads.trouble == "" and await found.tools() == ["one__echo", "one__slow"]


async def test_F101_a_file_or_a_secret_that_is_gone_changes_nothing_and_is_looked_for(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    servers: dict[str, Any] = {"one": {"headers": {"X-Token": f"${{file:{secret}}}"}}}
    async with place(tmp_path, {"one": Fake()}) as found:
        assert not await found.reload(servers)
        secret.write_text("s3cr3t", encoding="utf-8")
        assert [await found.reloads._has_changed() for _ in range(2)] == [False, True], "what mends it is looked at"
        assert await found.reloads.reload()
        found.broker.loaded.path.unlink()
        assert not await found.reloads.reload() and "there is no such file" in found.reloads.trouble
        assert found.upstream("one").server.headers["X-Token"].reveal() == "s3cr3t"


async def test_F102_a_guardrail_is_swapped_with_its_processes_and_a_call_keeps_the_one_it_began_with(
    tmp_path: Path,
) -> None:
    deny = "def check(ctx):\n    return {'action': 'block', 'reason': 'no'}\n"
    (tmp_path / "g.py").write_text("def check(ctx):\n    return {'action': 'allow'}\n", encoding="utf-8")
    guardrails = {"g": {"file": "g.py", "phases": ["result"]}}
    gate = Gate()
    async with place(tmp_path, {"one": Fake(answers={"slow": gate})}, guardrails=guardrails) as found:
        before = found.broker.generation.guards
        answers: list[Json] = []

        async def call() -> None:
            answers.append(await found.call("one__slow"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await found.house.fakes["one"].until(lambda: bool(found.house.fakes["one"].asked))
            assert await found.reload({"one": {"timeout": 9}}, guardrails=guardrails)
            assert found.broker.generation.guards is before, "nothing of them has changed"
            (tmp_path / "g.py").write_text(deny, encoding="utf-8")
            assert await found.reload({"one": {}}, guardrails=guardrails)
            assert found.broker.generation.guards is not before and before.pool.pids()
            refused = await found.call("one__echo")
            assert refused["isError"]
            gate.opened.set()
        assert not answers[0].get("isError"), "judged by the text that was in force when it began"
        await until(lambda: not before.pool.pids())


async def test_what_needs_a_restart_is_named_and_stays_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(tmp_path, {"one": Fake()}) as found:
        with caplog.at_level(logging.WARNING):
            assert await found.reload({"one": {}}, metrics={"access": "public"}, broker={"state_dir": "/elsewhere"})
        assert "what has changed in metrics, broker.state_dir needs a restart" in caplog.text
        config = found.broker.loaded.config
        assert config.metrics.access == "off" and config.broker.state_dir == str(tmp_path / "state")


def test_every_section_of_the_file_is_put_in_force_or_needs_a_restart() -> None:
    """A new section stands in one of the two, and whoever adds it says which."""
    in_force = {"broker", "naming", "server", "identity", "servers", "organizations", "groups", "guardrails"}
    assert in_force | {name for name in FIXED if "." not in name} == set(Config.model_fields)


async def test_the_last_reload_wins_and_none_runs_beside_another(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake()}) as found, anyio.create_task_group() as tasks:
        tasks.start_soon(found.reloads.serve)
        for timeout in range(1, 6):
            write_config(tmp_path, {"one": {"timeout": timeout}})
            found.reloads.want()
        await until(lambda: found.upstream("one").server.timeout == 5)
        assert found.reloads.done <= 5
        tasks.cancel_scope.cancel()


async def test_a_name_of_a_server_that_goes_while_it_is_waited_for_is_unknown(tmp_path: Path) -> None:
    fakes = {"one": Fake(), "two": Fake(state="silent")}
    async with place(tmp_path, fakes, broker={"first_wait": 60}) as found, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(UnknownName):
                await found.call("two__echo")

        tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        assert await found.reload({"one": {}}, broker={"first_wait": 60, "drain": 0})


async def test_a_server_that_goes_while_a_greeting_waits_for_it_is_not_in_the_greeting(tmp_path: Path) -> None:
    fakes = {"one": Fake(), "two": Fake(state="silent")}
    async with place(tmp_path, fakes, broker={"first_wait": 60}) as found, anyio.create_task_group() as tasks:
        greetings: list[Json] = []

        async def discover() -> None:
            greetings.append(await found.house.ask("server/discover", version=MODERN))

        tasks.start_soon(discover)
        await anyio.wait_all_tasks_blocked()
        assert await found.reload({"one": {}}, broker={"first_wait": 60, "drain": 0})
        await until(lambda: bool(greetings))
        assert "two" not in str(greetings)


async def test_an_isolated_link_goes_on_and_that_of_a_removed_server_is_closed(tmp_path: Path) -> None:
    apart = {"isolation": "caller"}
    servers = {"one": apart, "two": apart}
    async with place(tmp_path, {"one": Fake(), "two": Fake()}, servers=servers) as found:
        await found.call("one__echo")
        await found.call("two__echo")
        one, two = found.broker.generation.pool.isolated["one"], found.broker.generation.pool.isolated["two"]
        assert await found.reload({"one": {**apart, "isolation_max": 3}})
        assert found.broker.generation.pool.isolated["one"] is one and len(one) == 1
        await found.call("one__echo")
        assert len(found.house.fakes["one"].links) == 2, "the supervised link, and the caller's own"
        await until(lambda: not len(two) and len(found.broker.fleet) == 1)
        assert all(link.lost for link in found.house.fakes["two"].links)


async def test_a_listing_that_comes_while_a_generation_is_built_is_not_lost(tmp_path: Path) -> None:
    async with place(tmp_path, {"one": Fake()}) as found:
        before, hub = found.broker.generation, found.broker.engine.hub
        built = Generation.build(load(found.broker.loaded.path, {}), found.house.clock, hub, before=before)
        fake = found.house.fakes["one"]
        fake.tools = [tool("fresh")]
        catalog = before.catalog
        fake.announce()
        with anyio.fail_after(TIMEOUT):
            while before.catalog is catalog:
                found.house.clock.advance(1)
                await anyio.lowlevel.checkpoint()
        before.adopt(found.broker.generation._database)
        built.take_over()
        assert [entry.public for entry in built.catalog.entries(Kind.TOOL)] == ["one__fresh"]


def test_changes_are_seen_once_they_have_settled_and_only_if_the_content_differs(tmp_path: Path) -> None:
    file, secret = tmp_path / "servers.yaml", tmp_path / "secret"
    file.write_text("a", encoding="utf-8")
    changes = Changes([file, secret])
    assert not changes.look()
    file.write_text("b", encoding="utf-8")
    assert not changes.look(), "it may be in the middle of it"
    assert changes.look()
    assert not changes.look()
    replacement = tmp_path / "new"
    replacement.write_text("b", encoding="utf-8")
    replacement.replace(file)
    assert [changes.look(), changes.look(), changes.look()] == [False, False, False], "another file, the same content"
    secret.write_text("s", encoding="utf-8")
    assert [changes.look(), changes.look()] == [False, True]
    secret.unlink()
    assert [changes.look(), changes.look()] == [False, True]
    other = tmp_path / "other"
    changes.follow([file, other])
    other.write_text("o", encoding="utf-8")
    changes.note()
    assert [changes.look(), changes.look()] == [False, False], "it was read"


async def test_limits_change_at_once_and_what_was_counted_and_what_runs_counts_on(tmp_path: Path) -> None:
    def limited(rate: str, at_a_time: int, **more: Any) -> Json:
        return {"one": {"limits": {"rate": rate, "concurrency": at_a_time, "queue": 0}, **more}}

    def said(result: Json) -> str:
        return result["content"][0]["text"]

    gate = Gate()
    fakes = {"one": Fake(answers={"slow": gate})}
    async with place(tmp_path, fakes, servers=limited("9/hour", 1)) as found, anyio.create_task_group() as tasks:
        tasks.start_soon(found.call, "one__slow")
        await fakes["one"].until(lambda: bool(fakes["one"].asked))
        assert "1 at a time" in said(await found.call("one__echo"))
        # Also over a change that gives the server another link.
        assert await found.reload(limited("3/hour", 2, url="http://127.0.0.1:1/other"))
        await found.house.ready()
        assert said(await found.call("one__echo")) == "{}"
        assert said(await found.call("one__echo")) == "{}"
        assert "3/hour" in said(await found.call("one__echo"))
        assert await found.reload(limited("9/hour", 1, url="http://127.0.0.1:1/other"))
        assert "1 at a time" in said(await found.call("one__echo")), "the slow one still runs"
        gate.opened.set()


async def test_of_a_call_that_waited_for_its_turn_secrets_are_hidden_as_the_file_says_when_it_is_sent(
    tmp_path: Path,
) -> None:
    def servers(redact: str) -> Json:
        return {"one": {"limits": {"concurrency": 1}, "redact": redact}}

    gate, token = Gate(), "ghp_" + "a1B2" * 9
    secret = answering({"content": [{"type": "text", "text": token}]})
    fakes = {"one": Fake(answers={"slow": gate, "echo": secret})}
    async with place(tmp_path, fakes, servers=servers("off")) as found, anyio.create_task_group() as tasks:
        gates = found.broker.quotas.counters
        tasks.start_soon(found.call, "one__slow")
        await fakes["one"].until(lambda: bool(fakes["one"].asked))
        results: list[Json] = []

        async def waiting() -> None:
            results.append(await found.call("one__echo"))

        tasks.start_soon(waiting)
        await until(lambda: any(one.value for one in gates.gauges()))
        assert await found.reload(servers("results"))
        gate.opened.set()
    assert token not in results[0]["content"][0]["text"]
