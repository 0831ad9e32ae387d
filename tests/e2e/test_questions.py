"""The four cells: what an upstream asks in the middle of a call reaches its caller, and the answer comes back.

{legacy, modern} caller x {legacy, modern} upstream, over every front and every transport, by callers that see the very
messages.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from tests.callers.caller import Answer, Caller, Failed, Rejected
from tests.callers.pipe import Pipe, piped
from tests.callers.web import OldWeb, Web, streamed
from tests.e2e.brokers import Brokers, Json, command, until
from tests.e2e.world import CALLERS, PROBES, World, public_uri
from tests.peers import Peers
from tests.servers.probe import ASK_URI, FORM_QUESTION

ALL: Json = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {"listChanged": True}}
ADA: Json = {"action": "accept", "content": {"name": "Ada"}}
URL: Json = {"mode": "url", "message": "Sign in", "url": "https://example.com/login?x=1"}
SAMPLE: Json = {
    "messages": [
        {"role": "user", "content": {"type": "text", "text": "What is this?"}},
        {"role": "user", "content": {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"}},
    ],
    "maxTokens": 100,
    "systemPrompt": "Be brief.",
    "stopSequences": ["END"],
    "temperature": 0.5,
    "modelPreferences": {"hints": [{"name": "small"}], "speedPriority": 1.0},
    "tools": [{"name": "look", "inputSchema": {"type": "object", "properties": {"at": {"type": "string"}}}}],
    "toolChoice": {"mode": "auto"},
    "metadata": {"vendor": [1, 2]},
}
SAMPLED: Json = {
    "role": "assistant",
    "content": [
        {"type": "text", "text": "a picture"},
        {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
        {"type": "tool_use", "id": "1", "name": "look", "input": {"at": "it"}},
    ],
    "model": "m-1",
    "stopReason": "toolUse",
    "_meta": {"example.com/kept": {"deep": [1]}},
}
ROOTS: Json = {"roots": [{"uri": "file:///home/ada", "name": "home"}], "_meta": {"example.com/kept": 1}}


def politely(method: str, params: Json) -> Json:
    """An answer to anything."""
    return {"elicitation/create": ADA, "sampling/createMessage": SAMPLED, "roots/list": ROOTS}[method]


def always(answer: Json) -> Answer:
    return lambda method, params: answer


class Person(Caller):
    """A caller that can be asked, and answers politely unless it is told otherwise."""

    def __init__(self, *where: Any, capabilities: Json = ALL) -> None:
        super().__init__(*where)
        self.capabilities, self.answer = capabilities, politely


class WebPerson(Person, Web):
    pass


class PipePerson(Person, Pipe):
    pass


class OldWebPerson(Person, OldWeb):
    pass


@asynccontextmanager
async def web_person(url: str, era: str, capabilities: Json = ALL) -> AsyncGenerator[Person, None]:
    yield await WebPerson(url, era, capabilities=capabilities).greet()


EARLY = ("every-pipe", "every-web")
"""Servers that ask for roots as soon as hands are shaken."""


class People:
    """One caller of each kind for all tests of this module, each in front of all upstreams."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self.world = world
        self._stack = stack
        self._known: dict[str, Person] = {}

    async def one(self, name: str) -> Person:
        if name not in self._known:
            transport, _, era = name.partition("-")
            if transport == "pipe":
                opened = piped(PipePerson(era), self.world.front("stdio").argv)
            elif transport == "web":
                opened = web_person(self.world.served.url, era)
            else:
                opened = streamed(OldWebPerson(self.world.served.sse))
            self._known[name] = await self._stack.enter_async_context(opened)
            if name == "pipe-legacy":
                # The caller of a pipe owns its servers: those that ask for roots before any call have asked by then.
                await until(lambda: len(self._known[name].questions) >= sum(key in self.world.servers for key in EARLY))
        person = self._known[name]
        person.questions.clear()
        person.answer, person.released = politely, None
        return person


@pytest.fixture(scope="module")
async def people(world: World) -> AsyncGenerator[People, None]:
    async with AsyncExitStack() as stack:
        yield People(world, stack)


by_caller = pytest.mark.parametrize("name", CALLERS)
by_upstream = pytest.mark.parametrize("key", PROBES)


def is_modern(key: str) -> bool:
    """Whether a probe of that key speaks the modern era."""
    return key.startswith("new")


def ask(key: str, questions: Json | None = None, **more: Any) -> Json:
    arguments = {**({} if questions is None else {"questions": questions}), **more}
    return {"name": f"{key}__ask", "arguments": arguments}


def of_one(method: str, params: Json | None = None) -> Json:
    return {"q": {"method": method, **({} if params is None else {"params": params})}}


def labelled(key: str, params: Json) -> Json:
    return {**params, "message": f"[{key}] {params['message']}"}


def answers_in(result: Json) -> Json:
    return result["structuredContent"]["answers"]


@by_caller
@by_upstream
@pytest.mark.parametrize("kind", ["tool", "prompt", "resource"])
async def test_a_form_is_asked_in_the_middle_of_any_request(people: People, name: str, key: str, kind: str) -> None:
    person = await people.one(name)
    method, params = {
        "tool": ("tools/call", ask(key)),
        "prompt": ("prompts/get", {"name": f"{key}__ask"}),
        "resource": ("resources/read", {"uri": public_uri(key, ASK_URI)}),
    }[kind]
    result = await person.talk(method, params)
    text = {
        "tool": lambda: result["content"][0]["text"],
        "prompt": lambda: result["messages"][0]["content"]["text"],
        "resource": lambda: result["contents"][0]["text"],
    }[kind]()
    assert text == f"{key}:{json.dumps({'form': ADA}, sort_keys=True)}"
    [question] = person.questions
    assert question["method"] == "elicitation/create"
    assert question["params"] == labelled(key, FORM_QUESTION["params"])


ACTIONS: dict[str, Json] = {
    "accept": {"action": "accept", "content": {"text": "grüß \u2028", "n": 5, "f": 1.5, "yes": True, "many": ["a"]}},
    "decline": {"action": "decline"},
    "cancel": {"action": "cancel", "_meta": {"example.com/why": "no time"}},
}


@by_caller
@by_upstream
@pytest.mark.parametrize("action", ACTIONS)
async def test_accept_decline_and_cancel_reach_the_upstream(people: People, name: str, key: str, action: str) -> None:
    person = await people.one(name)
    person.answer = always(ACTIONS[action])
    result = await person.talk("tools/call", ask(key))
    assert answers_in(result) == {"form": ACTIONS[action]}


@by_caller
@by_upstream
async def test_a_url_is_shown_in_full_and_has_an_id_in_the_legacy_era_only(people: People, name: str, key: str) -> None:
    person = await people.one(name)
    person.answer = always({"action": "accept"})
    given = URL if is_modern(key) else {**URL, "elicitationId": "theirs"}
    result = await person.talk("tools/call", ask(key, of_one("elicitation/create", given)))
    assert answers_in(result) == {"q": {"action": "accept"}}
    [question] = person.questions
    params = dict(question["params"])
    ident = params.pop("elicitationId", None)
    assert params == labelled(key, URL)
    if person.is_modern:
        assert ident is None
    elif is_modern(key):
        assert isinstance(ident, str) and len(ident) >= 16
    else:
        assert ident == "theirs"


@by_caller
@by_upstream
async def test_sampling_keeps_images_tools_stop_reason_and_metadata_both_ways(
    people: People, name: str, key: str
) -> None:
    person = await people.one(name)
    result = await person.talk("tools/call", ask(key, of_one("sampling/createMessage", SAMPLE)))
    assert answers_in(result) == {"q": SAMPLED}
    [question] = person.questions
    assert question["method"] == "sampling/createMessage" and question["params"] == SAMPLE


@by_caller
@by_upstream
async def test_roots_are_those_of_the_caller(people: People, name: str, key: str) -> None:
    person = await people.one(name)
    result = await person.talk("tools/call", ask(key, of_one("roots/list")))
    assert answers_in(result) == {"q": ROOTS}
    assert [question["method"] for question in person.questions] == ["roots/list"]


@by_caller
@by_upstream
async def test_several_questions_of_one_call_all_have_their_answers(people: People, name: str, key: str) -> None:
    person = await people.one(name)
    forms = {f"f{n}": {**FORM_QUESTION, "params": {**FORM_QUESTION["params"], "message": str(n)}} for n in range(5)}
    person.answer = lambda method, params: (
        {"action": "accept", "content": {"to": params["message"]}}
        if method == "elicitation/create"
        else politely(method, params)
    )
    questions = {
        **forms,
        "roots": {"method": "roots/list"},
        "sample": {"method": "sampling/createMessage", "params": SAMPLE},
    }
    result = await person.talk("tools/call", ask(key, questions))
    expected = {f"f{n}": {"action": "accept", "content": {"to": f"[{key}] {n}"}} for n in range(5)}
    assert answers_in(result) == {**expected, "roots": ROOTS, "sample": SAMPLED}
    assert len(person.questions) == 7


@pytest.mark.parametrize("name", ["pipe-modern", "web-modern"])
@pytest.mark.parametrize("key", [key for key in PROBES if is_modern(key)])
async def test_SP60_a_modern_upstreams_state_comes_back_to_it_and_is_never_shown(
    people: People, name: str, key: str
) -> None:
    person = await people.one(name)
    params = ask(key, state="canary-state \u00fc")
    first = await person.ask("tools/call", params)
    assert "canary" not in json.dumps(first) and first["requestState"].startswith("b1.")
    result = await person.talk("tools/call", params)
    assert answers_in(result) == {"form": ADA, "state": "canary-state \u00fc"}
    with pytest.raises(Failed) as caught:
        retry = {"inputResponses": {"form": ADA}, "requestState": first["requestState"]}
        await person.ask("tools/call", {**ask(key, state="another"), **retry})
    assert (caught.value.code, caught.value.message) == (-32602, "Invalid or expired requestState")


@pytest.mark.parametrize("name", [name for name in CALLERS if name.endswith("legacy")])
@by_upstream
async def test_an_error_of_the_caller_goes_back(people: People, name: str, key: str) -> None:
    """To a legacy upstream, which may go on; a modern one knows no errors among answers, so the call ends with it."""
    person = await people.one(name)

    def reject(method: str, params: Json) -> Json:
        raise Rejected(-1, "User rejected sampling request")

    person.answer = reject
    call = person.talk("tools/call", ask(key, of_one("sampling/createMessage", SAMPLE)))
    if not is_modern(key):
        assert answers_in(await call)["q"]["error"] == {"code": -1, "message": "User rejected sampling request"}
        return
    with pytest.raises(Failed) as caught:
        await call
    assert (caught.value.code, caught.value.message) == (-1, "User rejected sampling request")


LACKING: dict[str, tuple[Json, Json, int]] = {
    "nothing, asked a form": ({}, FORM_QUESTION, -32601),
    "nothing, asked for roots": ({}, {"method": "roots/list"}, -32601),
    "nothing, asked to sample": ({}, {"method": "sampling/createMessage", "params": SAMPLE}, -32601),
    "forms, asked a url": ({"elicitation": {}}, {"method": "elicitation/create", "params": URL}, -32602),
    "sampling without tools": ({"sampling": {}}, {"method": "sampling/createMessage", "params": SAMPLE}, -32602),
}


@pytest.mark.parametrize("name", ["web-modern", "web-legacy", "sse-legacy"])
@by_upstream
@pytest.mark.parametrize("case", LACKING)
async def test_SP30_SP61_a_caller_is_never_asked_what_it_did_not_offer_and_the_upstream_is_told(
    people: People, name: str, key: str, case: str
) -> None:
    capabilities, question, code = LACKING[case]
    transport, _, era = name.partition("-")
    world = people.world
    opened = (
        web_person(world.served.url, era, capabilities)
        if transport == "web"
        else streamed(OldWebPerson(world.served.sse, capabilities=capabilities))
    )
    asked = {
        "q": {**question, "params": {"elicitationId": "x", **question["params"]}} if "params" in question else question
    }
    if is_modern(key):
        asked = {"q": question}
    async with opened as person:
        if not is_modern(key):
            assert answers_in(await person.talk("tools/call", ask(key, asked)))["q"]["error"]["code"] == code
        else:
            with pytest.raises(Failed) as caught:
                await person.talk("tools/call", ask(key, asked, insist=True))
            assert caught.value.code == -32603 and caught.value.data["reason"] == "question"
            if not capabilities:
                with pytest.raises(Failed) as caught:
                    await person.talk("tools/call", ask(key, asked))
                assert caught.value.code == (-32021 if era == "modern" else -32603)
                assert caught.value.data["requiredCapabilities"]
        assert person.questions == []


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("key", PROBES)
async def test_SP64_where_one_server_is_visible_its_question_has_no_label(world: World, key: str, era: str) -> None:
    async with web_person(world.served.view(key), era) as person:
        await person.talk("tools/call", ask(key))
        assert person.questions[0]["params"] == FORM_QUESTION["params"]


def canary_form(canary: str) -> Json:
    return {"q": {**FORM_QUESTION, "params": {**FORM_QUESTION["params"], "message": canary}}}


@pytest.mark.parametrize("eras", [("modern", "modern"), ("modern", "legacy"), ("legacy", "legacy")])
@pytest.mark.parametrize("key", ["old-web", "new-web", "new-pipe"])
async def test_I31_I42_callers_that_are_asked_at_the_same_time_see_their_own_question_only(
    world: World, key: str, eras: tuple[str, str]
) -> None:
    """Same request ids, one shared upstream; all questions are open before the first is answered."""
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(web_person(world.served.url, era)) for era in eras for _ in range(4)]
        released = anyio.Event()
        results: dict[int, Json] = {}

        async def talk(number: int, person: Person) -> None:
            person.released = released
            person.answer = always({"action": "accept", "content": {"secret": f"answer-{number}"}})
            params = ask(key, canary_form(f"canary-{number}"))
            results[number] = await person.talk("tools/call", params)

        async with anyio.create_task_group() as tasks:
            for number, person in enumerate(crowd):
                tasks.start_soon(talk, number, person)
            for person in crowd:
                await person.asked()
            released.set()
    for number, person in enumerate(crowd):
        assert [one["params"]["message"] for one in person.questions] == [f"[{key}] canary-{number}"]
        assert answers_in(results[number])["q"]["content"] == {"secret": f"answer-{number}"}
        everything = json.dumps([person.questions, person.notices, results[number]])
        others = (other for other in range(len(crowd)) if other != number)
        assert not any(f'-{other}"' in everything for other in others)


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("transport", ["stdio", "sse"])
async def test_I31_where_nothing_tells_whose_question_it_is_nobody_gets_it_and_the_error_names_the_remedy(
    peers: Peers, brokers: Brokers, transport: str, era: str
) -> None:
    options = ["--era", "legacy", "--name", "old", "--log", str(peers.directory / "log")]
    if transport == "stdio":
        server = command(peers.command("probe", *options))
    else:
        started = await peers.astart("probe", "--transport", "sse", *options)
        server = {"url": started.url, "transport": "sse"}
    served = await brokers.aserve(brokers.configure({"old": server}))
    async with web_person(served.url, era) as person, web_person(served.url, "legacy") as bystander:
        async with anyio.create_task_group() as tasks:
            slow = {"name": "old__slow", "arguments": {"seconds": 3, "steps": 30}, "_meta": {"progressToken": "t"}}
            tasks.start_soon(bystander.talk, "tools/call", slow)
            await bystander.heard("notifications/progress")
            result = await person.talk("tools/call", ask("old"))
            error = answers_in(result)["form"]["error"]
            assert error["code"] == -32603
            assert "several calls are in flight" in error["message"] and "at a time" in error["message"]
        assert person.questions == bystander.questions == []
        result = await person.talk("tools/call", ask("old"))  # alone again
        assert answers_in(result) == {"form": ADA}
        assert bystander.questions == []


@pytest.mark.parametrize("name", ["web-legacy", "sse-legacy", "pipe-legacy"])
async def test_answers_to_questions_never_asked_or_answered_already_are_dropped(people: People, name: str) -> None:
    person = await people.one(name)
    for ident in (1, 2, 99, 10**18, -1, "1", "q1"):
        await person.put({"jsonrpc": "2.0", "id": ident, "result": ADA})
    person.released = anyio.Event()
    async with anyio.create_task_group() as tasks:
        results: list[Json] = []

        async def talk() -> None:
            results.append(await person.talk("tools/call", ask("old-web")))

        tasks.start_soon(talk)
        await person.asked()
        ident = person.questions[0]["id"]
        for other in (ident + 1, str(ident), ident - 1, float(ident) + 0.5):
            with suppress(AssertionError):  # an id that is none is refused, which is as harmless
                await person.put({"jsonrpc": "2.0", "id": other, "result": {"action": "cancel"}})
        person.released.set()
    assert [answers_in(result) for result in results] == [{"form": ADA}]
    await person.put({"jsonrpc": "2.0", "id": ident, "result": {"action": "cancel"}})
    assert answers_in(await person.talk("tools/call", ask("old-web"))) == {"form": ADA}


async def test_I33_an_answer_from_another_session_answers_nothing(world: World) -> None:
    url = world.served.url
    async with web_person(url, "legacy") as person, web_person(url, "legacy") as mallory:
        person.released = anyio.Event()
        results: list[Json] = []

        async def talk() -> None:
            results.append(await person.talk("tools/call", ask("old-web")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk)
            await person.asked()
            forged = {"jsonrpc": "2.0", "id": person.questions[0]["id"], "result": {"action": "cancel"}}
            await mallory.put(forged)
            assert (await mallory.call("old-web__echo", {"text": "x"}))["content"], "it has been read by now"
            person.released.set()
        assert answers_in(results[0]) == {"form": ADA}


@pytest.mark.parametrize("key", ["old-web", "old-pipe", "old-sse"])
async def test_a_legacy_caller_that_cancels_while_it_is_asked_takes_its_call_with_it(world: World, key: str) -> None:
    async with web_person(world.served.url, "legacy") as person:
        person.released = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def talk() -> None:
                with suppress(Failed, ConnectionError):
                    await person.ask("tools/call", ask(key), ident="mine")

            tasks.start_soon(talk)
            await person.asked()
            await person.tell("notifications/cancelled", {"requestId": "mine"})
            await person.heard("notifications/cancelled")
            cancelled = next(one for one in person.notices if one["method"] == "notifications/cancelled")
            assert cancelled["params"]["requestId"] == person.questions[0]["id"]
            person.released.set()
        person.released = None
        assert answers_in(await person.talk("tools/call", ask("new-web"))) == {"form": ADA}
