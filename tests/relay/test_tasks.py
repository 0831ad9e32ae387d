"""Tasks pass between sides that know them, and are their caller's alone."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.core.caller import LOCAL, Caller
from broker.core.directory import Directory, Organization
from broker.core.era import RELATED_TASK, TASKS, Version
from broker.core.grants import Rule, full_name, organization_level
from broker.core.match import Pattern
from broker.core.request import Kind
from broker.downstream.engine import Who
from broker.downstream.message import Incoming
from broker.errors import BrokerError
from broker.relay import tasks as tasks_module
from broker.relay.notify import Subscriber
from broker.relay.task_requests import MAX_PAGES
from tests.relay.fake import (
    LEGACY,
    MODERN,
    TIMEOUT,
    Asked,
    Fake,
    Gate,
    House,
    Json,
    Refuse,
    answering,
    house,
    refusing,
    tool,
)

ALL: Json = {"tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}}
EXTENSION: Json = {"extensions": {TASKS: {}}}
BOB = Caller("bob", "guests")
OLD = Version("2025-06-18")


def legacy_server(**more: Any) -> Fake:
    fake = Fake(
        tools=[tool("work", execution={"taskSupport": "required"}), tool("echo")],
        resources=[{"uri": "a:b", "name": "r"}],
        templates=[],
        capabilities=dict(ALL),
        **more,
    )
    fake.answers["work"] = make
    return fake


def modern_server(**more: Any) -> Fake:
    fake = Fake(MODERN, tools=[tool("work")], capabilities=dict(EXTENSION), **more)
    fake.answers["work"] = make
    return fake


async def make(asked: Asked) -> Json:
    """A task whose id is the argument."""
    task = {"taskId": asked.params["arguments"]["id"], "status": "working", "ttl": 60_000, "ttlMs": 60_000}
    if asked.link.version == MODERN:
        return {"resultType": "task", **task}
    return {"task": task} if "task" in asked.params else {"content": []}


async def create(place: House, ident: str, *, key: str = "one", modern: bool = False, **more: Any) -> Json:
    params = {"name": f"{key}__work", "arguments": {"id": ident}, "_meta": {"progressToken": "mine"}}
    if modern:
        return await place.ask("tools/call", params, version=MODERN, capabilities=EXTENSION, **more)
    return await place.ask("tools/call", {**params, "task": {"ttl": 60_000}}, version=LEGACY, **more)


async def refused(place: House, method: str, params: Json, **more: Any) -> Json:
    with pytest.raises(BrokerError) as caught:
        await place.ask(method, params, **more)
    return caught.value.to_json()


async def test_a_task_is_made_looked_at_and_ended_under_its_public_id(tmp_path: Path) -> None:
    one, two = legacy_server(), legacy_server()
    state = {"taskId": "t.1", "status": "completed", "ttl": None}
    link = {"type": "resource_link", "uri": "a:b", "name": "r"}
    one.answers["tasks/get"] = answering(state)
    one.answers["tasks/cancel"] = answering({**state, "status": "cancelled"})
    one.answers["tasks/result"] = answering({"content": [link], "_meta": {RELATED_TASK: {"taskId": "t.1"}}})
    async with house(tmp_path, {"one": one, "two": two}) as place:
        place.guest("bob")
        assert (await create(place, "t.1"))["task"]["taskId"] == "one.t.1"
        assert await place.ask("tasks/get", {"taskId": "one.t.1"}) == {**state, "taskId": "one.t.1"}
        result = await place.ask("tasks/result", {"taskId": "one.t.1"})
        assert result["content"][0]["uri"] == "one+a:b"
        assert result["_meta"][RELATED_TASK]["taskId"] == "one.t.1"
        assert (await place.ask("tasks/cancel", {"taskId": "one.t.1"}))["status"] == "cancelled"
        assert [asked.params["taskId"] for asked in one.asked[1:]] == ["t.1"] * 3 and not two.asked


@pytest.mark.parametrize("modern", [False, True])
async def test_sp68_i32_a_task_of_somebody_else_answers_like_one_that_never_was(tmp_path: Path, modern: bool) -> None:
    one = modern_server() if modern else legacy_server()
    version, methods = (MODERN, ("get", "update", "cancel")) if modern else (LEGACY, ("get", "result", "cancel"))
    known: Json = {"version": version, "capabilities": EXTENSION if modern else {}}
    async with house(tmp_path, {"one": one}, groups={"both": ["one"]}) as place:
        place.guest("bob")
        await create(place, "t", modern=modern)
        one.asked.clear()
        for method in methods:
            never = await refused(place, f"tasks/{method}", {"taskId": "one.never"}, **known)
            assert never["code"] == -32602
            for params in ({"taskId": "one.t"}, {"taskId": "t"}, {"taskId": 1}, {}):
                assert await refused(place, f"tasks/{method}", params, caller=BOB, **known) == never
        assert not one.asked, "the server hears nothing of it"
        await place.ask("tasks/get", {"taskId": "one.t"}, view="both", **known)
        assert len(one.asked) == 1, "the caller itself reaches it through every view that shows its server"


async def test_who_may_no_longer_call_the_tool_has_no_task_of_it(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": legacy_server(), "two": legacy_server()}) as place:
        place.guest("bob")
        await create(place, "t")
        unknown = await refused(place, "tasks/get", {"taskId": "one.never"}, view="two")
        assert await refused(place, "tasks/get", {"taskId": "one.t"}, view="two") == unknown


async def test_sp69_a_list_has_the_callers_own_tasks_of_all_servers_and_no_others(tmp_path: Path) -> None:
    one, two, down = legacy_server(), legacy_server(), legacy_server()

    async def pages(asked: Asked) -> Json:
        if "cursor" not in asked.params:
            return {"tasks": [{"taskId": "bobs"}, {"taskId": "t"}, {"taskId": 1}], "nextCursor": "2"}
        return {"tasks": [{"taskId": "u", "status": "working"}], "nextCursor": "2"}

    async def refuse(asked: Asked) -> Json:
        raise Refuse(-32603)

    one.answers["tasks/list"], two.answers["tasks/list"] = pages, answering({"tasks": [{"taskId": "t"}]})
    down.answers["tasks/list"] = refuse
    async with house(tmp_path, {"one": one, "two": two, "down": down}) as place:
        place.guest("bob")
        for ident in ("t", "u"):
            await create(place, ident)
        await create(place, "t", key="two")
        await create(place, "bobs", caller=BOB)
        mine = await place.ask("tasks/list")
        assert [task["taskId"] for task in mine["tasks"]] == ["one.t", "one.u", "two.t"]
        assert [task["taskId"] for task in (await place.ask("tasks/list", caller=BOB))["tasks"]] == ["one.bobs"]
        assert (await refused(place, "tasks/list", {"cursor": "x"}))["code"] == -32602
        assert (await refused(place, "tasks/list", {}, view="down"))["code"] == -32603
        assert sum(asked.method == "tasks/list" for asked in one.asked) <= 2 * MAX_PAGES


async def test_a_list_of_tasks_meets_the_rules_of_the_moment_at_each_page(tmp_path: Path) -> None:
    one, pages = legacy_server(), 0

    async def denying(asked: Asked) -> Json:
        nonlocal pages
        pages += 1
        if pages == 2:
            place.broker.generation.adopt(Directory())
        return {"tasks": [{"taskId": "t", "status": "working"}], "nextCursor": str(pages)}

    one.answers["tasks/list"] = denying
    async with house(tmp_path, {"one": one}) as place:
        place.guest("bob")
        await create(place, "t", caller=BOB)
        assert await place.ask("tasks/list", {}, caller=BOB) == {"tasks": []}
        assert pages == 2


async def test_a_task_is_of_its_era_and_who_knows_none_makes_none(tmp_path: Path) -> None:
    one, two = legacy_server(), modern_server()
    async with house(tmp_path, {"one": one, "two": two}) as place:
        place.guest("bob")
        await create(place, "t")
        for method in ("tasks/get", "tasks/result"):
            error = await refused(place, method, {"taskId": "one.t"}, version=MODERN, capabilities=EXTENSION)
            assert error["code"] == (-32602 if method == "tasks/get" else -32601)
        hidden = await refused(place, "tools/call", {"name": "one__work"}, version=MODERN)
        assert hidden == await refused(place, "tools/call", {"name": "one__work"}, version=OLD)
        assert hidden["code"] == -32602
        await place.ask("tools/call", {"name": "one__echo", "task": {}}, version=MODERN)
        await place.ask("tools/call", {"name": "one__echo", "task": {}}, version=OLD)
        assert all("task" not in asked.params for asked in one.asked if asked.params.get("name") == "echo")
        assert (await refused(place, "tasks/get", {"taskId": "x"}, version=OLD))["code"] == -32601


async def test_a_modern_task_needs_the_extension_of_both_sides(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": modern_server(), "plain": Fake(MODERN)}) as place:
        place.guest("bob")
        missing = await refused(place, "tasks/get", {"taskId": "one.t"}, version=MODERN)
        assert missing["code"] == -32021
        assert missing["data"] == {"requiredCapabilities": EXTENSION}
        assert (await refused(place, "tasks/get", {}, version=MODERN, view="plain"))["code"] == -32601
        call = {"name": "one__work", "arguments": {"id": "t"}}
        for more in ({"version": MODERN}, {"version": LEGACY}):
            assert (await refused(place, "tools/call", call, **more))["code"] == -32603, "nobody asked for a task"


async def test_a_modern_task_brings_its_result_its_questions_and_takes_answers(tmp_path: Path) -> None:
    one = modern_server(resources=[{"uri": "a:b", "name": "r"}], templates=[])
    question = {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {"type": "object"}}}
    states: list[Json] = [
        {"taskId": "t", "status": "input_required", "inputRequests": {"q": question}},
        {"taskId": "t", "status": "completed", "result": {"content": [{"type": "resource_link", "uri": "a:b"}]}},
    ]

    async def state(asked: Asked) -> Json:
        return {"resultType": "complete", **states[0]}

    one.answers["tasks/get"], one.answers["tasks/update"] = state, answering({"resultType": "complete"})
    known: Json = {"version": MODERN, "capabilities": {**EXTENSION, "elicitation": {}}}
    async with house(tmp_path, {"one": one, "two": Fake()}) as place:
        place.guest("bob")
        await create(place, "t", modern=True)
        asked = await place.ask("tasks/get", {"taskId": "one.t"}, **known)
        assert asked["inputRequests"]["q"]["params"]["message"] == "[one] Who?" and asked["taskId"] == "one.t"
        error = await refused(place, "tasks/get", {"taskId": "one.t"}, version=MODERN, capabilities=EXTENSION)
        assert error["code"] == -32603, "it did not offer to answer that"
        answers = {"q": {"action": "accept", "content": {}}}
        await place.ask("tasks/update", {"taskId": "one.t", "inputResponses": answers}, **known)
        assert one.asked[-1].params["inputResponses"] == answers and one.asked[-1].params["taskId"] == "t"
        states.pop(0)
        done = await place.ask("tasks/get", {"taskId": "one.t"}, **known)
        assert done["result"]["content"][0]["uri"] == "one+a:b"


async def test_news_of_a_task_reach_its_session_or_who_waits_for_it_and_nobody_else(tmp_path: Path) -> None:
    one = legacy_server()
    gate = one.answers["tasks/result"] = Gate()
    async with house(tmp_path, {"one": one}) as place:
        place.guest("bob")
        heard: dict[str, list[Any]] = {"mine": [], "bobs": [], "call": []}
        hub = place.broker.engine.hub
        hub.add(Subscriber(LOCAL, "", lambda *said: heard["mine"].append(said), session="s"))
        hub.add(Subscriber(BOB, "", lambda *said: heard["bobs"].append(said), session="s"))
        await create(place, "t", session="s")
        await create(place, "bobs", caller=BOB, session="s")
        assert one.link is not None
        status = {"taskId": "t", "status": "working"}
        progress = {"progressToken": 1, "progress": 1, "_meta": {RELATED_TASK: {"taskId": "t"}}}
        message = {"level": "info", "data": 1, "_meta": {RELATED_TASK: {"taskId": "t"}}}
        news = {"status": status, "progress": progress, "message": message}

        def say() -> None:
            assert one.link is not None
            one.link.on_event("notifications/tasks/status", status)
            one.link.on_event("notifications/progress", progress)
            one.link.on_event("notifications/message", message)
            one.link.on_event("notifications/tasks/status", {**status, "taskId": "never"})
            one.link.on_event("notifications/tasks/status", {**status, "taskId": 1})

        related = {"_meta": {RELATED_TASK: {"taskId": "one.t"}}}
        told = [
            ("notifications/tasks/status", {**news["status"], "taskId": "one.t"}),
            ("notifications/progress", {"progressToken": "mine", "progress": 1, **related}),
        ]
        say()
        assert heard == {"mine": told, "bobs": [], "call": []}
        async with anyio.create_task_group() as tasks:
            heard["mine"].clear()
            tasks.start_soon(
                lambda: place.ask(
                    "tasks/result",
                    {"taskId": "one.t"},
                    emit=lambda *said: heard["call"].append(said),
                    log_level="debug",
                )
            )
            with anyio.fail_after(TIMEOUT):
                await gate.reached.wait()
            say()
            gate.opened.set()
        logged = ("notifications/message", {"level": "info", "data": 1, **related})
        assert heard == {"mine": [], "bobs": [], "call": [*told, logged]}


async def test_a_question_of_a_task_reaches_who_waits_for_it_whatever_stream_it_came_on(tmp_path: Path) -> None:
    one = legacy_server()
    answers: list[Json] = []

    async def stranger(asked: Asked) -> Json:
        """On the stream of another caller's call the server asks what belongs to a task."""
        for ident in ("t", "never"):
            meta = {"_meta": {RELATED_TASK: {"taskId": ident}}}
            answers.append(await asked.ask("elicitation/create", {"message": "Who?", **meta}))
        return {"content": []}

    class Host:
        def __init__(self) -> None:
            self.asked: list[Json] = []

        async def ask(self, question: Any) -> Json:
            self.asked.append(question.params)
            return {"action": "decline", "_meta": question.params["_meta"]}

    mine, theirs = Host(), Host()
    gate = one.answers["tasks/result"] = Gate()
    one.answers["echo"] = stranger
    offers: Json = {"capabilities": {"elicitation": {}}}
    async with house(tmp_path, {"one": one}) as place:
        place.guest("bob")
        await create(place, "t")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: place.ask("tasks/result", {"taskId": "one.t"}, channel=mine, **offers))
            with anyio.fail_after(TIMEOUT):
                await gate.reached.wait()
            await place.ask("tools/call", {"name": "one__echo"}, caller=BOB, channel=theirs, **offers)
            gate.opened.set()
    assert [asked["_meta"][RELATED_TASK]["taskId"] for asked in mine.asked] == ["one.t"] and not theirs.asked
    assert answers[0]["result"]["_meta"][RELATED_TASK]["taskId"] == "t", "the answer names the task as its server does"
    assert answers[1]["error"]["code"] == -32603


async def test_what_a_caller_says_of_a_foreign_task_goes_no_further(tmp_path: Path) -> None:
    one = legacy_server()
    async with house(tmp_path, {"one": one}) as place:
        place.guest("bob")
        await create(place, "t")
        for caller, ident in ((LOCAL, "one.t"), (BOB, "one.t"), (BOB, "t")):
            meta = {RELATED_TASK: {"taskId": ident}}
            await place.ask("tools/call", {"name": "one__echo", "_meta": meta}, caller=caller)
        found = [asked.params.get("_meta", {}).get(RELATED_TASK) for asked in one.asked[1:]]
        assert found == [{"taskId": "t"}, None, None]


async def test_tasks_are_bounded_and_forgotten_when_their_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "MAX_TASKS", 2)
    monkeypatch.setattr(tasks_module, "MAX_TASKS_IN_ALL", 3)
    one = legacy_server()
    one.answers["tasks/get"] = answering({"status": "working"})
    async with house(tmp_path, {"one": one}) as place:
        place.guest("bob")
        tasks = place.broker.engine.hub.tasks
        for ident in ("a", "b", "b", "c"):
            await create(place, ident)
        assert len(tasks) == 2, "one id is one task"
        assert (await refused(place, "tasks/get", {"taskId": "one.a"}))["code"] == -32602, "the oldest is forgotten"
        await place.ask("tasks/get", {"taskId": "one.b"})
        for ident in ("d", "e"):
            await create(place, ident, caller=BOB)
        assert len(tasks) == 3, "also of all callers together"
        place.clock.advance(61.0)
        assert (await refused(place, "tasks/get", {"taskId": "one.c"}))["code"] == -32602
        await create(place, "f", caller=BOB)
        await create(place, "g", caller=BOB)
        assert len(tasks) == 2, "what is over makes room first"
        one.answers["work"] = answering({"task": {"taskId": ""}})
        assert (await refused(place, "tools/call", {"name": "one__work", "task": {}, "arguments": {"id": ""}}))["data"][
            "reason"
        ] == "malformed"


async def test_tasks_whose_time_is_over_are_forgotten_as_others_are_made_also_those_of_callers_that_are_gone(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, {"one": legacy_server()}) as place:
        place.guest("bob")
        tasks = place.broker.engine.hub.tasks
        for ident in ("a", "b", "c"):
            await create(place, ident, caller=BOB)
        for number in range(100):
            place.clock.advance(10.0)
            await create(place, str(number))
            assert len(tasks) <= 10
        assert tasks.own_id(BOB.principal, "one", "one.a") is None


async def test_a_task_that_somebody_waits_for_is_not_forgotten_however_many_others_are_made(tmp_path: Path) -> None:
    one = legacy_server()
    gate = one.answers["tasks/result"] = Gate()
    async with house(tmp_path, {"one": one}) as place:
        place.guest("bob")
        await create(place, "t")
        heard: list[Any] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                lambda: place.ask("tasks/result", {"taskId": "one.t"}, emit=lambda *said: heard.append(said[0]))
            )
            with anyio.fail_after(TIMEOUT):
                await gate.reached.wait()
            place.clock.advance(61.0)
            for ident in ("a", "b", "c"):
                await create(place, ident)
                await create(place, ident, caller=BOB)
            assert one.link is not None
            one.link.on_event("notifications/tasks/status", {"taskId": "t", "status": "working"})
            gate.opened.set()
        assert heard == ["notifications/tasks/status"]
        place.clock.advance(61.0)
        for ident in ("d", "e", "f"):
            await create(place, ident)
        assert place.broker.engine.hub.tasks.own_id(LOCAL.principal, "one", "one.t") is None


async def test_what_is_known_of_a_task_keeps_no_definition_of_its_tool(tmp_path: Path) -> None:
    """A server may have new ones all the time, as large as they may be, and a task lives for a day."""
    async with house(tmp_path, {"one": legacy_server()}) as place:
        await create(place, "a")
        task = place.broker.engine.hub.tasks.known(LOCAL.principal, "one", "one.a")
        assert task is not None
        assert task.entry.definition == {"name": "work"}
        [listed] = [entry for entry in place.broker.generation.catalog.entries(Kind.TOOL) if entry.own == "work"]
        assert task.entry == listed and task.entry.judged_by == listed.judged_by


async def test_a_modern_caller_listens_for_its_own_tasks_and_for_no_others(tmp_path: Path) -> None:
    one = modern_server(resources=[{"uri": "a:b", "name": "r"}], templates=[])
    capabilities: Json = {**EXTENSION, "elicitation": {}}
    async with house(tmp_path, {"one": one, "two": Fake()}) as place:
        bob = place.guest("bob")
        await create(place, "t", modern=True)
        await create(place, "bobs", modern=True, caller=bob)
        engine, said, heard = place.broker.engine, list[tuple[str, Json]](), anyio.Event()

        def emit(method: str, params: Json) -> None:
            said.append((method, params))
            heard.set()

        asked: Json = {"notifications": {"taskIds": ["one.t", "one.bobs", "one.never", 1]}}
        async with anyio.create_task_group() as tasks:
            unable = await engine.answer(Incoming(8, "subscriptions/listen", asked), Who(LOCAL, MODERN))
            assert unable.code == -32021
            incoming = Incoming(9, "subscriptions/listen", asked)
            tasks.start_soon(engine.answer, incoming, Who(LOCAL, MODERN, capabilities=capabilities), emit)
            with anyio.fail_after(TIMEOUT):
                await heard.wait()
            tag = {"io.modelcontextprotocol/subscriptionId": 9}
            assert said.pop() == (
                "notifications/subscriptions/acknowledged",
                {"notifications": {"taskIds": ["one.t"]}, "_meta": tag},
            )
            question = {"method": "elicitation/create", "params": {"message": "Who?"}}
            news: list[Json] = [
                {"taskId": "t", "inputRequests": {"q": question}, "_meta": {"k": 1, **tag}},
                {"taskId": "t", "result": {"content": [{"type": "resource_link", "uri": "a:b"}]}},
                {"taskId": "t", "inputRequests": {"q": {"method": "sampling/createMessage", "params": {}}}},
                {"taskId": "bobs"},
                {"taskId": "never"},
            ]
            assert one.link is not None
            for params in news:
                one.link.on_event("notifications/tasks", params)
            assert [method for method, _ in said] == ["notifications/tasks"] * 2
            (_, first), (_, second) = said
            assert first["taskId"] == "one.t" and first["_meta"] == {"k": 1, **tag}
            assert first["inputRequests"]["q"]["params"]["message"] == "[one] Who?"
            assert second["result"]["content"][0]["uri"] == "one+a:b"
            tasks.cancel_scope.cancel()


async def test_i32_on_links_of_their_own_equal_ids_are_two_tasks_and_each_caller_hears_of_its_own(
    tmp_path: Path,
) -> None:
    one = modern_server()
    async with house(tmp_path, {"one": one}, servers={"one": {"isolation": "caller"}}) as place:
        bob = place.guest("bob")
        said: dict[str, list[Json]] = {"local": [], "bob": []}
        heard = anyio.Event()

        def emit_of(name: str) -> Any:
            def emit(method: str, params: Json) -> None:
                said[name].append(params)
                if all(said.values()):
                    heard.set()

            return emit

        async with anyio.create_task_group() as tasks:
            for name, caller in (("local", LOCAL), ("bob", bob)):
                await create(place, "1", modern=True, caller=caller)
                asked: Json = {"notifications": {"taskIds": ["one.1"]}}
                who = Who(caller, MODERN, capabilities=EXTENSION)
                incoming = Incoming(9, "subscriptions/listen", asked)
                tasks.start_soon(place.broker.engine.answer, incoming, who, emit_of(name))
            with anyio.fail_after(TIMEOUT):
                await heard.wait()
            links = [asked.link for asked in one.asked]
            assert links[0] is not links[1]
            for _ in range(200):  # more than one caller may hear at once: it must not cost the other one's news
                links[0].on_event("notifications/tasks", {"taskId": "1", "status": "working"})
            links[1].on_event("notifications/tasks", {"taskId": "1", "status": "completed", "result": {"x": "bobs"}})
            assert all(params.get("status") == "working" for params in said["local"][1:])
            assert [params["status"] for params in said["bob"][1:]] == ["completed"]
            tasks.cancel_scope.cancel()


async def test_who_may_no_longer_call_the_tool_finds_no_task_of_it_in_the_list_and_none_for_an_extension(
    tmp_path: Path,
) -> None:
    one = legacy_server()
    one.capabilities = {**ALL, "extensions": {"a/x": {}}}
    one.answers["tasks/list"] = answering({"tasks": [{"taskId": "t", "status": "working"}]})
    known: Json = {"capabilities": {"extensions": {"a/x": {}}}, "caller": BOB}
    async with house(tmp_path, {"one": one}) as place:
        place.guest("bob")
        await create(place, "t", caller=BOB)
        assert [task["taskId"] for task in (await place.ask("tasks/list", {}, caller=BOB))["tasks"]] == ["one.t"]
        await place.ask("x/do", {"taskId": "one.t"}, **known)
        rule = (Rule(names={Kind.TOOL: (Pattern(full_name(Kind.TOOL, "one", "echo")),)}),)
        level = organization_level("guests", rule)
        place.broker.generation.adopt(Directory({"guests": Organization("guests", level)}))
        assert await place.ask("tasks/list", {}, caller=BOB) == {"tasks": []}
        assert (await refused(place, "x/do", {"taskId": "one.t"}, **known))["code"] == -32602


async def test_an_error_about_a_task_names_it_as_its_caller_does(tmp_path: Path) -> None:
    one = legacy_server()
    one.answers["tasks/cancel"] = refusing(-32602, {"taskId": "t", "status": "completed"})
    async with house(tmp_path, {"one": one}) as place:
        await create(place, "t")
        error = await refused(place, "tasks/cancel", {"taskId": "one.t"})
        assert error["data"] == {"taskId": "one.t", "status": "completed"}
