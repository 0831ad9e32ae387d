"""Guardrails around real calls: on every method, both ways, in both eras, and on questions and definitions."""

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.config import ConfigError
from broker.core.caller import LOCAL, Caller
from broker.core.conditions import Condition, Op
from broker.core.directory import Directory, Organization
from broker.core.grants import Rule, organization_level
from broker.core.match import Pattern
from broker.core.questions import Question
from broker.core.request import Kind
from broker.errors import Blocked, BrokerError
from broker.guardrails.chain import GuardrailRecord
from broker.guardrails.guards import UNGUARDED, Guards, NoGuards
from tests.patience import PATIENCE
from tests.relay.fake import (
    LEGACY,
    MODERN,
    Asked,
    Fake,
    House,
    Json,
    Judgements,
    Refuse,
    answering,
    house,
    refusing,
    tool,
)

ALLOW = "def check(ctx):\n    return {'action': 'allow'}\n"
BLOCK = "def check(ctx):\n    return {'action': 'block', 'reason': 'because\\x1b[2J'}\n"
CRASH = "def check(ctx):\n    raise ValueError(ctx)\n"
MARK = (
    "def walk(value):\n    if isinstance(value, str):\n        return value.replace('secret', '***')\n"
    "    if isinstance(value, list):\n        return [walk(one) for one in value]\n"
    "    if isinstance(value, dict):\n        return {key: walk(value[key]) for key in value}\n    return value\n"
    "def check(ctx):\n    member = 'args' if ctx['phase'] == 'request' else ctx['phase']\n"
    "    return {'action': 'modify', member: walk(ctx[member])}\n"
)
ASKS: dict[str, tuple[str, Json]] = {
    "tool": ("tools/call", {"name": "one__echo", "arguments": {"text": "secret"}}),
    "prompt": ("prompts/get", {"name": "one__greet", "arguments": {"text": "secret"}}),
    "resource": ("resources/read", {"uri": "one+file:///readme"}),
    "completion": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "one__greet"}, "argument": {"name": "a", "value": "secret"}},
    ),
}
RESULTS: dict[str, Json] = {
    "tools/call": {"content": [{"type": "text", "text": "a secret"}], "structuredContent": {"x": ["secret"]}},
    "prompts/get": {"messages": [{"role": "user", "content": {"type": "text", "text": "a secret"}}]},
    "resources/read": {"contents": [{"uri": "file:///readme", "text": "a secret"}]},
    "completion/complete": {"completion": {"values": ["a secret"]}},
}


def fake(**more: Any) -> Fake:
    return Fake(
        prompts=[{"name": "greet"}],
        resources=[{"uri": "file:///readme", "name": "r"}],
        templates=[],
        capabilities={"completions": {}},
        **{"answers": {method: answering(result) for method, result in RESULTS.items()}, **more},
    )


def configured(directory: Path, **guardrails: tuple[str, Json]) -> Json:
    """`name=(text, settings)`, as a section; the texts are files beside the configuration."""
    section: Json = {}
    for name, (text, settings) in guardrails.items():
        (directory / f"{name}.py").write_text(text, encoding="utf-8")
        section[name.replace("_", "-")] = {"file": f"{name}.py", "timeout": 5.0, **settings}
    return section


@asynccontextmanager
async def guarded(
    directory: Path, one: Fake | None = None, two: Fake | None = None, **guardrails: tuple[str, Json]
) -> AsyncGenerator[House, None]:
    fakes = {"one": one or fake(), **({"two": two} if two else {})}
    async with house(directory, fakes, guardrails=configured(directory, **guardrails)) as place:
        yield place


def records(place: House) -> list[GuardrailRecord]:
    """What the guardrails of a house note from now on."""
    assert isinstance(place.broker.generation.guards, Guards)
    place.trail = trail = Judgements()
    place.broker.generation.guards._record = trail.judged
    return trail.found


async def refused(place: House, method: str, params: Json, **more: Any) -> tuple[int, str]:
    with pytest.raises(BrokerError) as caught:
        await place.ask(method, params, **more)
    return caught.value.code, caught.value.message


def text_of(method: str, result: Json) -> str:
    match method:
        case "tools/call":
            return result["content"][0]["text"]
        case "prompts/get":
            return result["messages"][0]["content"]["text"]
        case "resources/read":
            return result["contents"][0]["text"]
        case _:
            return result["completion"]["values"][0]


@pytest.mark.parametrize("version", [LEGACY, MODERN])
@pytest.mark.parametrize("text", [BLOCK, CRASH])
@pytest.mark.parametrize("phase", ["request", "result"])
@pytest.mark.parametrize("what", ASKS)
async def test_I17_what_is_blocked_is_blocked_on_every_method_and_says_by_whom_only(
    tmp_path: Path, what: str, phase: str, text: str, version: Any, caplog: pytest.LogCaptureFixture
) -> None:
    method, params = ASKS[what]
    async with guarded(tmp_path, no_way=(text, {"phases": [phase]})) as place:
        if what == "tool":
            result = await place.ask(method, params, version=version)
            assert result["content"] == [{"type": "text", "text": "blocked by guardrail no-way"}]
            assert result["isError"] is True and set(result) <= {"content", "isError", "resultType", "_meta"}
            assert (result.get("resultType") == "complete") is (version == MODERN)
        else:
            assert await refused(place, method, params, version=version) == (4030, "blocked by guardrail no-way")
        assert len(place.fakes["one"].asked) == (phase == "result")
    said = "reject" if text == BLOCK else "fault"
    line = next(line for line in caplog.messages if line.startswith("guardrail no-way"))
    assert f": {said}: {phase} of one" in line and "local" in line and "\x1b" not in line and "'text'" not in line


@pytest.mark.parametrize("what", ASKS)
async def test_I17_results_are_rewritten_on_every_method(tmp_path: Path, what: str) -> None:
    method, params = ASKS[what]
    async with guarded(tmp_path, redact=(MARK, {"phases": ["result"]})) as place:
        result = await place.ask(method, params)
        assert text_of(method, result) == "a ***" and "secret" not in json.dumps(result)
        modern = await place.ask(method, params, version=MODERN)
        assert text_of(method, modern) == "a ***" and modern["resultType"] == "complete" and "_meta" in modern


@pytest.mark.parametrize("what", ["tool", "prompt", "completion"])
async def test_arguments_are_rewritten_before_the_upstream_sees_them(tmp_path: Path, what: str) -> None:
    method, params = ASKS[what]
    async with guarded(tmp_path, redact=(MARK, {"phases": ["request"]})) as place:
        await place.ask(method, params)
        asked = json.dumps(place.fakes["one"].asked[0].params)
        assert "***" in asked and "secret" not in asked


async def test_what_is_read_cannot_be_rewritten(tmp_path: Path) -> None:
    other = "def check(ctx):\n    return {'action': 'modify', 'args': {'uri': 'file:///etc/shadow'}}\n"
    async with guarded(tmp_path, other=(other, {"phases": ["request"]})) as place:
        assert await refused(place, *ASKS["resource"]) == (4030, "blocked by guardrail other")
        assert place.fakes["one"].asked == []


SHAPES = {
    "no content": "{'isError': False}",
    "content of no type": "{'content': ['text']}",
    "another type": "{'content': [], 'resultType': 'input_required'}",
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_rewritten_result_of_another_shape_is_blocked(tmp_path: Path, shape: str) -> None:
    text = f"def check(ctx):\n    return {{'action': 'modify', 'result': {SHAPES[shape]}}}\n"
    async with guarded(tmp_path, shape=(text, {"phases": ["result"]})) as place:
        assert (await place.ask(*ASKS["tool"]))["isError"] is True


async def test_guardrails_judge_in_the_order_of_the_file_and_each_what_the_one_before_left(tmp_path: Path) -> None:
    add = "def check(ctx):\n    return {'action': 'modify', 'args': {'was': ctx['args'], 'by': '%s'}}\n"
    async with guarded(
        tmp_path,
        zz_first=(add % "first", {"phases": ["request"]}),
        aa_second=(add % "second", {"phases": ["request"]}),
    ) as place:
        noted = records(place)
        await place.ask("tools/call", {"name": "one__echo", "arguments": {}})
        arguments = place.fakes["one"].asked[0].params["arguments"]
        assert arguments == {"was": {"was": {}, "by": "first"}, "by": "second"}
    assert [(one.guardrail, one.action, one.name, one.caller and one.caller.principal) for one in noted] == [
        ("zz-first", "rewrite", "one__echo", "local"),
        ("aa-second", "rewrite", "one__echo", "local"),
    ]
    assert all(len(one.sha256) == 64 and one.seconds >= 0 for one in noted)


@pytest.mark.parametrize("what", ASKS)
async def test_I17_an_error_of_the_upstream_is_judged_like_a_result(tmp_path: Path, what: str) -> None:
    method, params = ASKS[what]

    async def fail(asked: Asked) -> Json:
        raise Refuse(-32050, {"hint": "secret"}, "no secret here")

    broken = fake(answers={method: fail})
    async with guarded(tmp_path, broken, redact=(MARK, {"phases": ["result"]})) as place:
        with pytest.raises(BrokerError) as caught:
            await place.ask(method, params)
        assert (caught.value.code, caught.value.message, caught.value.data) == (-32050, "no *** here", None)
    async with guarded(tmp_path, broken, quiet=(ALLOW, {"phases": ["result"]})) as place:
        with pytest.raises(BrokerError) as caught:
            await place.ask(method, params)
        assert (caught.value.message, caught.value.data) == ("no secret here", {"hint": "secret"})
    async with guarded(tmp_path, broken, no_way=(BLOCK, {"phases": ["result"]})) as place:
        if what == "tool":
            assert (await place.ask(method, params))["content"][0]["text"] == "blocked by guardrail no-way"
        else:
            assert await refused(place, method, params) == (4030, "blocked by guardrail no-way")


CALLERS = [
    LOCAL,
    Caller("key:1", "acme", "data", "ci"),
    Caller("key:2", "acme", "web", "ci"),
    Caller("key:3", "other", "data", "k2"),
]


@pytest.mark.parametrize(
    ("selector", "blocked"),
    [
        ({}, [True, True, True, True]),
        ({"servers": ["one"]}, [True, True, True, True]),
        ({"servers": ["two"]}, [False, False, False, False]),
        ({"kinds": ["prompts"]}, [False, False, False, False]),
        ({"kinds": ["tools"], "names": ["one__e*"]}, [True, True, True, True]),
        ({"names": ["two__*", "one__slow"]}, [False, False, False, False]),
        ({"organizations": ["acme"]}, [False, True, True, False]),
        ({"teams": ["acme/data"]}, [False, True, False, False]),
        ({"teams": ["*/data"]}, [False, True, False, True]),
        ({"keys": ["ci"]}, [False, True, True, False]),
        ({"keys": ["acme/web/ci", "k2"]}, [False, False, True, True]),
        ({"organizations": ["acme"], "keys": ["k2"]}, [False, False, False, False]),
    ],
)
async def test_a_guardrail_judges_what_and_whom_it_was_chosen_for(
    tmp_path: Path, selector: Json, blocked: list[bool]
) -> None:
    one, two = fake(), fake()
    async with guarded(tmp_path, one, two, chosen=(BLOCK, {"phases": ["request"], **selector})) as place:
        guards = place.broker.generation.guards
        entry = place.broker.generation.catalog.lookup(Kind.TOOL, "one__echo")
        assert isinstance(guards, Guards) and entry is not None
        found = [guards.around(caller, entry, "tools/call") is not UNGUARDED for caller in CALLERS]
        assert found == blocked
        result = await place.ask(*ASKS["tool"])
        assert (result.get("isError") is True) is blocked[0]


async def test_ctx_is_what_the_documentation_says(tmp_path: Path) -> None:
    tell = "def check(ctx):\n    return {'action': 'block', 'reason': json.dumps(ctx)}\n"
    async with guarded(tmp_path, tell=(tell, {"phases": ["request"]})) as place:
        noted = records(place)
        await place.ask("tools/call", {"name": "one__echo", "arguments": {"a": 1}})
        await refused(place, *ASKS["resource"])
    who = {"principal": "local", "organization": "", "team": "", "key": ""}
    assert [json.loads(one.reason) for one in noted] == [
        {
            "phase": "request",
            "server": "one",
            "kind": "tools",
            "name": "one__echo",
            "args": {"a": 1},
            "method": "tools/call",
            "tool": "one__echo",
            "caller": who,
        },
        {
            "phase": "request",
            "server": "one",
            "kind": "resources",
            "name": "one+file:///readme",
            "args": {"uri": "file:///readme"},
            "method": "resources/read",
            "caller": who,
        },
    ]


ELICIT = {"message": "your secret?", "requestedSchema": {"type": "object", "properties": {}}}
OFFER = {"elicitation": {"form": {}}}


class Channel:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def ask(self, question: Any) -> Json:
        self.asked.append(question)
        return {"action": "accept", "content": {}}


async def asks_in_the_middle(asked: Asked) -> Json:
    answer = await asked.ask("elicitation/create", ELICIT)
    return {"content": [{"type": "text", "text": json.dumps(answer.get("error") or answer.get("result"))}]}


@pytest.mark.parametrize("text", [MARK, BLOCK, ALLOW])
async def test_I17_a_question_in_the_middle_of_a_call_is_judged(tmp_path: Path, text: str) -> None:
    one = fake(answers={"echo": asks_in_the_middle})
    async with guarded(tmp_path, one, ask=(text, {"phases": ["question"]})) as place:
        channel = Channel()
        result = await place.ask(*ASKS["tool"], capabilities=OFFER, channel=channel)
        said = result["content"][0]["text"]
        if text == BLOCK:
            assert channel.asked == [] and json.loads(said) == {"code": 4030, "message": "the question is refused"}
        else:
            assert channel.asked[0].params["message"] == ("your ***?" if text == MARK else "your secret?")


@pytest.mark.parametrize("text", [MARK, BLOCK, ALLOW])
async def test_I17_a_question_that_is_a_result_is_judged(tmp_path: Path, text: str) -> None:
    wanted = {
        "resultType": "input_required",
        "inputRequests": {"k": {"method": "elicitation/create", "params": ELICIT}},
        "requestState": "s",
    }
    one = fake(version=MODERN, answers={"echo": answering(wanted)})
    async with guarded(tmp_path, one, ask=(text, {"phases": ["question"]})) as place:
        result = await place.ask(*ASKS["tool"], version=MODERN, capabilities=OFFER)
        if text == BLOCK:
            assert result["isError"] is True and result["content"][0]["text"] == "blocked by guardrail ask"
        else:
            message = result["inputRequests"]["k"]["params"]["message"]
            assert message == ("your ***?" if text == MARK else "your secret?")


@pytest.mark.parametrize("text", [MARK, BLOCK, CRASH])
async def test_I17_a_question_is_no_way_for_a_result_around_its_guardrail(tmp_path: Path, text: str) -> None:
    """A server says that it asks, and says beside it what it would have said in a result."""
    smuggled = {
        "resultType": "input_required",
        "inputRequests": {},
        "requestState": "s",
        "content": [{"type": "text", "text": "a secret"}],
    }
    one = fake(version=MODERN, answers={"echo": answering(smuggled)})
    async with guarded(tmp_path, one, watch=(text, {"phases": ["result"]})) as place:
        result = await place.ask(*ASKS["tool"], version=MODERN, capabilities=OFFER)
        said = result["content"][0]["text"]
        assert said == ("a ***" if text == MARK else "blocked by guardrail watch")


async def test_a_question_with_the_method_changed_is_blocked(tmp_path: Path) -> None:
    text = "def check(ctx):\n    return {'action': 'modify', 'question': {'method': 'roots/list', 'params': {}}}\n"
    one = fake(answers={"echo": asks_in_the_middle})
    async with guarded(tmp_path, one, ask=(text, {"phases": ["question"]})) as place:
        channel = Channel()
        await place.ask(*ASKS["tool"], capabilities=OFFER, channel=channel)
        assert channel.asked == []


JUDGE = (
    "def check(ctx):\n    value = ctx['definition']\n    text = json.dumps(value)\n"
    "    if 'poison' in text:\n        return {'action': 'block', 'reason': 'poison'}\n"
    "    if 'loud' in text:\n        value['description'] = value['description'].replace('loud', 'quiet')\n"
    "        return {'action': 'modify', 'definition': value}\n"
    "    if 'rename' in text:\n        value['name'] = 'other'\n"
    "        return {'action': 'modify', 'definition': value}\n"
    "    return {'action': 'allow'}\n"
)


async def test_I39_definitions_are_judged_when_they_are_discovered(tmp_path: Path) -> None:
    one = fake(
        tools=[tool("fine"), tool("bad", description="poison"), tool("said", description="a loud one"), tool("rename")],
        instructions="drink poison",
    )
    async with guarded(tmp_path, one, judge=(JUDGE, {"phases": ["definition"]})) as place:
        listed = (await place.ask("tools/list"))["tools"]
        assert [(item["name"], item.get("description")) for item in listed] == [
            ("one__fine", None),
            ("one__said", "a quiet one"),
        ]
        shelf = place.broker.generation.catalog.shelves["one"]
        assert [(item.own, item.reason) for item in shelf.dropped] == [
            ("bad", "blocked by guardrail judge"),
            ("rename", "blocked by guardrail judge"),
        ]
        assert shelf.listing.instructions is None
        assert (await refused(place, "tools/call", {"name": "one__bad"}))[0] == -32602
        one.tools = [*(one.tools or []), tool("later", description="more loud poison"), tool("new")]
        one.announce()
        await listed_as(place, ["one__fine", "one__said", "one__new"])
        assert (await place.ask("tools/list"))["tools"][1]["description"] == "a quiet one"
    later = Fake(state="down")
    async with house(
        tmp_path, {"one": later}, guardrails=configured(tmp_path, judge=(JUDGE, {"phases": ["definition"]}))
    ) as place:
        assert len((await place.ask("tools/list"))["tools"]) == 3, "remembered as it was judged"
    changed = configured(tmp_path, judge=(JUDGE + "# stricter\n", {"phases": ["definition"]}))
    async with house(tmp_path, {"one": later}, guardrails=changed) as place:
        assert place.broker.generation.catalog.shelves == {}, "what another text has judged is not served"


async def listed_as(place: House, names: list[str]) -> None:
    with anyio.fail_after(PATIENCE):
        while [item["name"] for item in (await place.ask("tools/list"))["tools"]] != names:
            place.clock.advance(1)
            await anyio.sleep(0.01)


async def test_no_guardrail_costs_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": fake()}) as place:
        assert isinstance(place.broker.generation.guards, NoGuards)
        entry = place.broker.generation.catalog.lookup(Kind.TOOL, "one__echo")
        assert entry is not None
        assert place.broker.generation.guards.around(LOCAL, entry, "tools/call") is UNGUARDED


async def test_F101_a_guardrail_that_cannot_be_used_stops_the_start_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with guarded(
            tmp_path,
            bad=("def check(ctx):\n    return missing\n", {"phases": ["request"]}),
            boot=("x = {}['boot']\n" + ALLOW, {"phases": ["result"]}),
            fine=(ALLOW, {"phases": ["result"]}),
        ):
            pytest.fail("it runs")
    error: Any = caught.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, ConfigError)
    assert str(error) == (
        f"{tmp_path}/bad.py:2: guardrails.bad: there is no name 'missing' here\n"
        f"{tmp_path}/boot.py:1: guardrails.boot: its module fails: KeyError in line 1: 'boot'"
    )


async def test_F102_the_text_that_was_loaded_decides_until_another_configuration_is(tmp_path: Path) -> None:
    async with guarded(tmp_path, rule=(BLOCK, {"phases": ["request"]})) as place:
        guards = place.broker.generation.guards
        before = dict(guards.hashes)
        (tmp_path / "rule.py").write_text(ALLOW, encoding="utf-8")
        assert (await place.ask(*ASKS["tool"]))["isError"] is True
        (tmp_path / "rule.py").unlink()
        assert (await place.ask(*ASKS["tool"]))["isError"] is True
        assert guards.hashes == before == place.broker.generation.guards.hashes


async def test_F102_calls_are_denied_while_no_process_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with guarded(tmp_path, rule=(ALLOW, {"phases": ["request"]})) as place:
        guards = place.broker.generation.guards
        assert isinstance(guards, Guards)
        guards.pool._is_stopping = True
        with caplog.at_level(logging.WARNING):
            assert (await place.ask(*ASKS["tool"]))["isError"] is True
        assert "no guardrail processes are running" in caplog.text
        guards.pool._is_stopping = False
        assert "isError" not in await place.ask(*ASKS["tool"])


async def test_an_upstream_error_code_survives_a_guardrail(tmp_path: Path) -> None:
    one = fake(answers={"echo": refusing(-32011, {"uri": "x"})})
    async with guarded(tmp_path, one, quiet=(ALLOW, {"phases": ["request", "result"]})) as place:
        assert await refused(place, *ASKS["tool"]) == (-32011, "said the upstream")


async def test_rewritten_arguments_are_another_call_and_decided_on_again(tmp_path: Path) -> None:
    text = "def check(ctx):\n    return {'action': 'modify', 'args': {'db': ctx['args']['wanted']}}\n"
    async with guarded(tmp_path, route=(text, {"phases": ["request"]})) as place:
        only_test = Rule((Pattern("*"),), when=(Condition(("db",), Op.NOT_IN, ("prod",)),))
        acme = Organization("acme", organization_level("acme", (only_test,)))
        place.broker.generation.adopt(Directory({"acme": acme}))
        caller = Caller("key:1", "acme")
        for wanted in ("test", "prod"):
            arguments = {"db": "test", "wanted": wanted}
            result = await place.ask("tools/call", {"name": "one__echo", "arguments": arguments}, caller=caller)
            assert (result.get("isError") is True) is (wanted == "prod")
        assert "rule org:acme/allow/0 refuses it" in result["content"][0]["text"]
        assert [asked.params["arguments"] for asked in place.fakes["one"].asked] == [{"db": "test"}]


DONE: Json = {"content": [{"type": "text", "text": "a secret"}]}
TASKS: dict[str, tuple[str, Json]] = {
    "made": ("tools/call", {"task": {"taskId": "t", "status": "working"}}),
    "made, modern": ("tools/call", {"resultType": "task", "taskId": "t", "status": "completed", "result": DONE}),
    "made, with more in it": ("tools/call", {"task": {"taskId": "t"}, **DONE}),
    "looked at": ("tasks/get", {"taskId": "t", "status": "completed", "result": DONE}),
    "failed": ("tasks/get", {"taskId": "t", "status": "failed", "error": {"code": -32000, "message": "a secret"}}),
    "its result": ("tasks/result", DONE),
}


@pytest.mark.parametrize("text", [MARK, BLOCK])
@pytest.mark.parametrize("what", TASKS)
async def test_I17_what_a_task_brings_is_judged_as_what_its_tool_says(tmp_path: Path, what: str, text: str) -> None:
    method, result = TASKS[what]

    async def send(params: Any) -> Json:
        return json.loads(json.dumps(result))

    async with guarded(tmp_path, redact=(text, {"phases": ["result"]})) as place:
        generation = place.broker.generation
        entry = generation.catalog.lookup(Kind.TOOL, "one__echo")
        assert entry is not None and isinstance(generation.guards, Guards)
        call = generation.guards.around(LOCAL, entry, method).call({}, send)
        if text == BLOCK and what != "made":
            with pytest.raises(Blocked):
                await call
        else:
            assert await call == json.loads(json.dumps(result).replace("secret", "***"))
        assert generation.guards.around(LOCAL, entry, "tasks/cancel") is UNGUARDED


async def test_I17_what_belongs_to_no_entry_meets_every_guardrail_of_its_server_and_caller(tmp_path: Path) -> None:
    narrow = {"phases": ["question", "request", "result"], "kinds": ["prompts"], "names": ["one__other"]}
    async with guarded(tmp_path, fake(), fake(), redact=(MARK, {**narrow, "servers": ["one"]})) as place:
        generation = place.broker.generation
        entry = generation.catalog.lookup(Kind.TOOL, "one__echo")
        assert entry is not None and isinstance(generation.guards, Guards)
        asked = Question("elicitation/create", {"message": "a secret"})
        assert (await generation.guards.outside(LOCAL, "one").question(asked)).params == {"message": "a ***"}
        assert (await generation.guards.outside(LOCAL, "two").question(asked)).params == {"message": "a secret"}

        async def send(params: Any) -> Json:
            return {"said": "a secret", "_meta": {}}

        call = generation.guards.around(LOCAL, entry, "x/y", is_foreign=True)
        assert await call.call({"plain": 1, "_meta": {"k": "secret"}}, send) == {"said": "a ***", "_meta": {}}
        with pytest.raises(Blocked):
            await call.call({"text": "secret"}, send)  # what it would be rewritten to is another request
        assert generation.guards.around(LOCAL, entry, "tools/call") is UNGUARDED
