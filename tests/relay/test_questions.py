"""The four cells at the level of the relay: who is asked what, what goes back upstream, and where it ends."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.core.era import Version
from broker.core.questions import Question
from broker.errors import BrokerError
from broker.relay import forward
from broker.relay.forward import MAX_ROUNDS
from tests.relay.fake import LEGACY, MODERN, Asked, Fake, House, Json, answering, house, refusing, tool

ALL: Json = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}
FORM: Json = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
URL: Json = {"mode": "url", "message": "Sign in", "url": "https://example.com/"}
ADA: Json = {"action": "accept", "content": {"name": "Ada"}}
ECHO: Json = {"name": "one__echo", "arguments": {"a": 1}}
ASKS_FORM: Json = {"q": {"method": "elicitation/create", "params": FORM}}


class Channel:
    """A legacy caller that answers what it is told to."""

    def __init__(self, *answers: Json | BrokerError) -> None:
        self.questions: list[Question] = []
        self.answers = list(answers)

    async def ask(self, question: Question) -> Json:
        self.questions.append(question)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BrokerError):
            raise answer
        return answer


class Never:
    """A caller that is asked, and never answers."""

    def __init__(self) -> None:
        self.is_asked = anyio.Event()

    async def ask(self, question: Question) -> Json:
        self.is_asked.set()
        await anyio.sleep_forever()
        raise AssertionError


def needs(requests: Json | None = None, state: Any = None, **more: Any) -> Json:
    asked = {} if requests is None else {"inputRequests": requests}
    return {"resultType": "input_required", **asked, **({} if state is None else {"requestState": state}), **more}


def modern(*results: Json) -> Fake:
    """Answers one after the other; the last one for ever."""
    left = list(results)

    async def answer(asked: Asked) -> Json:
        return dict(left.pop(0) if len(left) > 1 else left[0])

    return Fake(version=MODERN, tools=[tool("echo")], answers={"echo": answer})


DONE: Json = {"content": [], "vendor": "done"}


async def refused(place: House, **more: Any) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        await place.ask("tools/call", ECHO, capabilities=ALL, **more)
    return caught.value


# --- a modern upstream and a legacy caller ---------------------------------------------------------------------------


async def test_a_legacy_caller_is_asked_itself_and_the_call_is_made_again_with_its_answers(tmp_path: Path) -> None:
    requests: Json = {**ASKS_FORM, "r": {"method": "roots/list"}}
    fake, channel = modern(needs(requests, "their \u00fc state"), DONE), Channel(ADA)
    async with house(tmp_path, {"one": fake}) as place:
        result = await place.ask("tools/call", ECHO, capabilities=ALL, channel=channel)
    assert result == DONE
    assert sorted(question.method for question in channel.questions) == ["elicitation/create", "roots/list"]
    first, second = (dict(asked.params) for asked in fake.asked)
    assert first["_meta"]["io.modelcontextprotocol/clientCapabilities"] == ALL, "it is told what this caller can do"
    assert not {"inputResponses", "requestState"} & set(first)
    assert second["inputResponses"] == {"q": ADA, "r": ADA}
    assert second["requestState"] == "their \u00fc state", "byte-exact"
    assert (second["name"], second["arguments"]) == ("echo", {"a": 1})


async def test_each_round_has_its_own_answers_and_its_own_state(tmp_path: Path) -> None:
    second = {"z": {"method": "roots/list"}}
    fake, channel = modern(needs(ASKS_FORM, "s1"), needs(second), needs(None, "s3"), DONE), Channel(ADA, {"roots": []})
    async with house(tmp_path, {"one": fake}) as place:
        await place.ask("tools/call", ECHO, capabilities=ALL, channel=channel)
    sent = [(asked.params.get("inputResponses"), asked.params.get("requestState")) for asked in fake.asked]
    assert sent == [(None, None), ({"q": ADA}, "s1"), ({"z": {"roots": []}}, None), ({}, "s3")]


async def test_SP66_an_upstream_that_asks_without_end_is_cut(tmp_path: Path) -> None:
    fake, channel = modern(needs(ASKS_FORM)), Channel(ADA)
    async with house(tmp_path, {"one": fake}) as place:
        error = await refused(place, channel=channel)
    assert len(fake.asked) == len(channel.questions) == MAX_ROUNDS
    assert error.code == -32603 and str(MAX_ROUNDS) in error.message


async def test_a_legacy_callers_error_is_the_answer_to_its_call(tmp_path: Path) -> None:
    fake, channel = modern(needs(ASKS_FORM), DONE), Channel(BrokerError("no", {"why": 1}, code=-1))
    async with house(tmp_path, {"one": fake}) as place:
        error = await refused(place, channel=channel)
    assert error.to_json() == {"code": -1, "message": "no", "data": {"why": 1}}
    assert len(fake.asked) == 1


async def test_a_legacy_caller_that_never_answers_holds_no_call_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "ANSWER_TIMEOUT", 0.05)
    channel = Never()
    async with house(tmp_path, {"one": modern(needs(ASKS_FORM))}) as place:
        error = await refused(place, channel=channel)
    assert channel.is_asked.is_set() and error.code == -32603 and "0.05 s" in error.message


# --- a modern upstream and a modern caller ---------------------------------------------------------------------------


async def test_SP60_a_modern_question_passes_and_the_state_goes_back_byte_exact(tmp_path: Path) -> None:
    fake = modern(needs(ASKS_FORM, "their \u00fc state", vendor=1), DONE)
    async with house(tmp_path, {"one": fake}) as place:
        first = await place.ask("tools/call", ECHO, version=MODERN, capabilities=ALL)
        assert first["inputRequests"] == ASKS_FORM and first["vendor"] == 1
        assert "their" not in first["requestState"]
        retry = {"inputResponses": {"q": ADA}, "requestState": first["requestState"]}
        final = await place.ask("tools/call", {**ECHO, **retry}, version=MODERN, capabilities=ALL)
        assert final["vendor"] == "done"
        sent = fake.asked[1].params
        assert (sent["inputResponses"], sent["requestState"]) == ({"q": ADA}, "their \u00fc state")
        with pytest.raises(BrokerError, match="Invalid or expired requestState"):
            await place.ask("tools/call", {**ECHO, **retry}, version=MODERN, capabilities=ALL)
        assert len(fake.asked) == 2, "used twice: nothing goes upstream"
        assert len(place.broker.parking) == 0


async def test_a_question_without_a_state_gets_none_and_its_answers_pass(tmp_path: Path) -> None:
    fake = modern(needs(ASKS_FORM), DONE)
    async with house(tmp_path, {"one": fake}) as place:
        first = await place.ask("tools/call", ECHO, version=MODERN, capabilities=ALL)
        assert "requestState" not in first
        params = {**ECHO, "inputResponses": {"q": ADA}}
        await place.ask("tools/call", params, version=MODERN, capabilities=ALL)
    assert fake.asked[1].params["inputResponses"] == {"q": ADA} and "requestState" not in fake.asked[1].params


async def test_SP60_the_state_of_one_upstream_never_reaches_another(tmp_path: Path) -> None:
    fakes = {"one": modern(needs(ASKS_FORM, "of one")), "two": modern(needs(ASKS_FORM, "of two"))}
    async with house(tmp_path, fakes) as place:
        first = await place.ask("tools/call", ECHO, version=MODERN, capabilities=ALL)
        with pytest.raises(BrokerError, match="Invalid or expired requestState"):
            params = {**ECHO, "name": "two__echo", "requestState": first["requestState"]}
            await place.ask("tools/call", params, version=MODERN, capabilities=ALL)
        with pytest.raises(BrokerError, match="Invalid or expired requestState"):
            params = {**ECHO, "requestState": "of one"}
            await place.ask("tools/call", params, version=MODERN, capabilities=ALL)
    assert fakes["two"].asked == [] and len(fakes["one"].asked) == 1


@pytest.mark.parametrize("upstream", [LEGACY, MODERN])
async def test_only_a_modern_caller_may_send_what_belongs_to_a_retry(tmp_path: Path, upstream: Version) -> None:
    fake = Fake(version=upstream, tools=[tool("echo")], answers={"echo": answering(DONE)})
    async with house(tmp_path, {"one": fake}) as place:
        await place.ask("tools/call", {**ECHO, "inputResponses": {"q": ADA}, "requestState": "x"}, capabilities=ALL)
    assert not {"inputResponses", "requestState"} & set(fake.asked[0].params)


MALFORMED: dict[str, Json] = {
    "neither question nor state": needs(),
    "a state that is no text": needs(ASKS_FORM, 5),
    "no object": needs([]),  # type: ignore[arg-type]
    "a method that is none": needs({"q": {"method": "tools/call"}}),
    "a method that is no text": needs({"q": {"method": ["roots/list"]}}),
}


@pytest.mark.parametrize("caller", [LEGACY, MODERN])
@pytest.mark.parametrize("result", MALFORMED.values(), ids=MALFORMED.keys())
async def test_F22_a_malformed_question_is_the_upstreams_fault(tmp_path: Path, result: Json, caller: Version) -> None:
    channel = Channel(ADA)
    async with house(tmp_path, {"one": modern(result)}) as place:
        error = await refused(place, version=caller, channel=channel if caller == LEGACY else None)
    assert error.code == -32603 and error.data == {"upstream": "one", "reason": "malformed"}
    assert channel.questions == []


@pytest.mark.parametrize("caller", [LEGACY, MODERN])
@pytest.mark.parametrize(
    ("capabilities", "question"),
    [
        ({"sampling": {}}, {"method": "elicitation/create", "params": FORM}),
        ({"elicitation": {}}, {"method": "elicitation/create", "params": URL}),
        ({"elicitation": {}}, {"method": "elicitation/create", "params": {**URL, "mode": []}}),
        ({"sampling": {}}, {"method": "sampling/createMessage", "params": {"tools": [{}]}}),
        ({}, {"method": "roots/list"}),
    ],
    ids=["no elicitation", "no urls", "no mode", "no tools", "no roots"],
)
async def test_SP61_one_question_too_many_and_none_is_asked(
    tmp_path: Path, capabilities: Json, question: Json, caller: Version
) -> None:
    channel = Channel(ADA)
    async with house(tmp_path, {"one": modern(needs({"a": question}, "s"))}) as place:
        with pytest.raises(BrokerError) as caught:
            await place.ask(
                "tools/call",
                ECHO,
                version=caller,
                capabilities=capabilities,
                channel=channel if caller == LEGACY else None,
            )
    assert caught.value.data == {"upstream": "one", "reason": "question"}
    assert channel.questions == []


# --- a legacy upstream ---------------------------------------------------------------------------------------------


async def test_a_legacy_question_to_a_legacy_caller_is_the_same_question_and_the_same_answer(tmp_path: Path) -> None:
    async def asks(asked: Asked) -> Json:
        one = await asked.ask("elicitation/create", {**FORM, "vendor": [1]})
        two = await asked.ask("elicitation/create", FORM)
        return {"content": [], "vendor": [one, two]}

    fake, channel = Fake(answers={"echo": asks}), Channel({**ADA, "x": 1}, BrokerError("no", {"d": 1}, code=-1))
    async with house(tmp_path, {"one": fake}) as place:
        result = await place.ask("tools/call", ECHO, capabilities=ALL, channel=channel)
    assert channel.questions == [
        Question("elicitation/create", {**FORM, "vendor": [1]}),
        Question("elicitation/create", FORM),
    ]
    assert result["vendor"][0]["result"] == {**ADA, "x": 1}
    assert result["vendor"][1]["error"] == {"code": -1, "message": "no", "data": {"d": 1}}


@pytest.mark.parametrize(
    "params", [{"mode": []}, {"mode": {}}, {"mode": None}, {"message": 5}, {"tools": "x"}], ids=repr
)
@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list", "ping", "x"])
async def test_a_strange_question_costs_no_connection(tmp_path: Path, method: str, params: Json) -> None:
    async def asks(asked: Asked) -> Json:
        return {"content": [], "vendor": await asked.ask(method, params)}

    async with house(tmp_path, {"one": Fake(answers={"echo": asks})}) as place:
        result = await place.ask("tools/call", ECHO, capabilities=ALL, channel=Channel(ADA))
        answer = result["vendor"]
        assert ("result" in answer) != ("error" in answer)
        assert place.broker.generation.pool.upstreams["one"].is_ready


@pytest.mark.parametrize("upstream", [LEGACY, MODERN])
@pytest.mark.parametrize("caller", [LEGACY, MODERN])
@pytest.mark.parametrize(("servers", "label"), [(1, ""), (2, "[one] ")], ids=["one server", "two servers"])
async def test_SP64_with_several_visible_servers_a_question_says_who_asks(
    tmp_path: Path, upstream: Version, caller: Version, servers: int, label: str
) -> None:
    async def asks(asked: Asked) -> Json:
        return {"content": [], "vendor": await asked.ask("elicitation/create", FORM)}

    one = Fake(answers={"echo": asks}) if upstream == LEGACY else modern(needs(ASKS_FORM), DONE)
    channel = Channel(ADA)
    async with house(tmp_path, {"one": one, **({"two": Fake()} if servers == 2 else {})}) as place:
        if caller == LEGACY:
            await place.ask("tools/call", ECHO, capabilities=ALL, channel=channel)
            [params] = [question.params for question in channel.questions]
        else:
            first = await place.ask("tools/call", ECHO, version=MODERN, capabilities=ALL)
            [params] = [request["params"] for request in first["inputRequests"].values()]
        view = await place.ask("tools/call", ECHO, view="one", capabilities=ALL, channel=channel)
        assert view["content"] == []
    assert params == {**FORM, "message": f"{label}Who?"}
    assert channel.questions == [] or upstream == MODERN or channel.questions[-1].params == FORM


# --- -32042 of a legacy upstream -----------------------------------------------------------------------------------

WANTED: Json = {"elicitations": [{**URL, "elicitationId": "e1"}]}


async def test_a_url_error_becomes_its_question_for_a_modern_caller_and_the_retry_is_the_call_again(
    tmp_path: Path,
) -> None:
    calls = 0

    async def answer(asked: Asked) -> Json:
        nonlocal calls
        calls += 1
        return await (refusing(-32042, WANTED) if calls == 1 else answering(DONE))(asked)

    fake = Fake(answers={"echo": answer})
    async with house(tmp_path, {"one": fake}) as place:
        first = await place.ask("tools/call", ECHO, version=MODERN, capabilities=ALL)
        assert first["inputRequests"] == {"url1": {"method": "elicitation/create", "params": URL}}
        retry = {"inputResponses": {"url1": {"action": "accept"}}, "requestState": first["requestState"]}
        final = await place.ask("tools/call", {**ECHO, **retry}, version=MODERN, capabilities=ALL)
        assert final["vendor"] == "done"
        assert [asked.params.get("arguments") for asked in fake.asked] == [{"a": 1}, {"a": 1}]
        assert not {"inputResponses", "requestState"} & set(fake.asked[1].params), "its era knows neither"
        with pytest.raises(BrokerError, match="Invalid or expired requestState"):
            await place.ask("tools/call", {**ECHO, **retry}, version=MODERN, capabilities=ALL)


@pytest.mark.parametrize(
    ("capabilities", "data"),
    [({}, WANTED), ({"elicitation": {}}, WANTED), (ALL, {"elicitations": []}), (ALL, None)],
    ids=["offers nothing", "offers forms", "no question in it", "no data"],
)
async def test_a_url_error_that_cannot_be_asked_is_an_error(tmp_path: Path, capabilities: Json, data: Any) -> None:
    async with house(tmp_path, {"one": Fake(answers={"echo": refusing(-32042, data)})}) as place:
        with pytest.raises(BrokerError) as caught:
            await place.ask("tools/call", ECHO, version=MODERN, capabilities=capabilities)
        assert caught.value.code == -32603
        with pytest.raises(BrokerError) as caught:
            await place.ask("tools/call", ECHO, capabilities=capabilities, channel=Channel(ADA))
        assert (caught.value.code, caught.value.data) == (-32042, data)
