"""A modern caller and a legacy upstream that asks: the call is parked, resumed once by its own caller, or given up."""

import asyncio
import base64
import gc
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.core.caller import LOCAL, Caller
from broker.core.seal import Claims, Sealer, digest_of
from broker.errors import BrokerError, UpstreamUnavailable
from broker.relay import parking, spent
from broker.relay.parking import MAX_KEPT, PARKED_FOR, ParkedCall
from tests.relay.fake import (
    LEGACY,
    MODERN,
    TIMEOUT,
    Answer,
    Asked,
    Fake,
    Gate,
    House,
    Json,
    Refuse,
    answering,
    house,
    tool,
)

ALL: Json = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}
FORM: Json = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
ADA: Json = {"action": "accept", "content": {"name": "Ada"}}
ECHO: Json = {"name": "one__echo", "arguments": {"a": 1}}
FROZEN: Json = {
    "code": -32602,
    "message": "Invalid or expired requestState",
    "data": {"reason": "invalid_request_state"},
}
KINDS: list[tuple[str, Json]] = [
    ("tools/call", ECHO),
    ("prompts/get", {"name": "one__greet", "arguments": {"name": "x"}}),
    ("resources/read", {"uri": "one+file:///readme"}),
]


def done(value: Any = "done") -> Json:
    return {"content": [{"type": "text", "text": "done"}], "vendor": value}


async def form(asked: Asked) -> Json:
    """Asks one form, and answers with the answer."""
    return done(await asked.ask("elicitation/create", FORM))


@dataclass
class Person:
    """One modern caller, and what it was told."""

    place: House
    caller: Caller = LOCAL
    told: list[tuple[str, Json]] = field(default_factory=list[tuple[str, Json]])

    async def call(
        self, params: Json = ECHO, method: str = "tools/call", *, level: str | None = None, **retry: Any
    ) -> Json:
        return await self.place.ask(
            method,
            {**params, **retry},
            version=MODERN,
            caller=self.caller,
            capabilities=ALL,
            log_level=level,
            emit=lambda name, params: self.told.append((name, params)),
        )

    async def refused(self, params: Json = ECHO, method: str = "tools/call", **retry: Any) -> Json:
        with pytest.raises(BrokerError) as caught:
            await self.call(params, method, **retry)
        return caught.value.to_json()


def a_fake(answer: Answer = form, **more: Answer) -> Fake:
    return Fake(
        version=LEGACY,
        tools=[tool("echo"), tool("slow"), tool("other")],
        prompts=[{"name": "greet"}],
        resources=[{"uri": "file:///readme", "name": "r"}, {"uri": "file:///other", "name": "o"}],
        templates=[],
        answers={"echo": answer, "greet": answer, "resources/read": answer, "other": answer, **more},
    )


@asynccontextmanager
async def parked(directory: Path, answer: Answer = form, **more: Any) -> AsyncGenerator[tuple[Person, Fake], None]:
    fake = a_fake(answer)
    async with house(directory, {"one": fake}, **more) as place:
        yield Person(place), fake


def keys(result: Json) -> list[str]:
    assert result["resultType"] == "input_required"
    return list(result["inputRequests"])


def answers(result: Json, answer: Json = ADA) -> Json:
    return dict.fromkeys(keys(result), answer)


async def settle(is_true: Callable[[], bool]) -> None:
    """Let other tasks go on until it is so: they need no time, only turns."""
    with anyio.fail_after(TIMEOUT):
        while not is_true():
            await anyio.lowlevel.checkpoint()


async def expire(person: Person) -> None:
    person.place.clock.advance(PARKED_FOR)
    await settle(lambda: len(person.place.broker.parking) == 0)


# --- asked and resumed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "params"), KINDS, ids=[method for method, _ in KINDS])
async def test_a_question_is_a_result_and_the_retry_resumes_the_same_call(
    tmp_path: Path, method: str, params: Json
) -> None:
    async with parked(tmp_path) as (person, fake):
        first = await person.call(params, method)
        [key] = keys(first)
        assert first["inputRequests"][key] == {"method": "elicitation/create", "params": FORM}, "no label: one server"
        assert isinstance(first["requestState"], str) and len(person.place.broker.parking) == 1
        assert set(first) - {"_meta"} == {"resultType", "inputRequests", "requestState"}
        final = await person.call(params, method, inputResponses={key: ADA}, requestState=first["requestState"])
        assert final["vendor"]["result"] == ADA, "byte-exact"
        assert final["resultType"] == "complete" and len(fake.asked) == 1, "one call upstream"
        assert not {"inputResponses", "requestState"} & set(fake.asked[0].params)
        assert len(person.place.broker.parking) == 0 and fake.cancelled == []


@pytest.mark.parametrize("given", [{}, None, [], {"q": ADA}, {"nobody": ADA}, "drop"], ids=repr)
async def test_a_retry_without_the_answer_is_asked_again(tmp_path: Path, given: Any) -> None:
    """A key that nobody gave out is as good as none."""
    async with parked(tmp_path) as (person, fake):
        first = await person.call()
        retry = {} if given == "drop" else {"inputResponses": given}
        again = await person.call(**retry, requestState=first["requestState"])
        assert again["inputRequests"] == first["inputRequests"]
        assert again["requestState"] != first["requestState"]
        final = await person.call(inputResponses=answers(again), requestState=again["requestState"])
        assert final["vendor"]["result"] == ADA and len(fake.asked) == 1


async def test_an_answer_that_is_no_object_is_none_and_any_object_reaches_the_upstream(tmp_path: Path) -> None:
    """What an answer says is the upstream's to judge; an error object is an object too."""
    error = {"code": -1, "message": "User rejected"}
    async with parked(tmp_path) as (person, _):
        result = await person.call()
        for value in (None, "yes", 5, [ADA]):
            given = dict.fromkeys(keys(result), value)
            result = await person.call(inputResponses=given, requestState=result["requestState"])
        final = await person.call(inputResponses=answers(result, error), requestState=result["requestState"])
        assert final["vendor"]["result"] == error


async def test_questions_within_a_moment_go_out_together_and_the_missing_ones_again(tmp_path: Path) -> None:
    async def three(asked: Asked) -> Json:
        found: Json = {}

        async def put(name: str, method: str, params: Json) -> None:
            found[name] = (await asked.ask(method, params))["result"]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put, "form", "elicitation/create", FORM)
            tasks.start_soon(put, "roots", "roots/list", {})
            tasks.start_soon(put, "sample", "sampling/createMessage", {"messages": [], "maxTokens": 1})
        return done(found)

    async with parked(tmp_path, three) as (person, fake):
        first = await person.call()
        by_method = {request["method"]: key for key, request in first["inputRequests"].items()}
        assert set(by_method) == {"elicitation/create", "roots/list", "sampling/createMessage"}
        assert "params" not in first["inputRequests"][by_method["roots/list"]]
        some = {by_method["roots/list"]: {"roots": []}}
        second = await person.call(inputResponses=some, requestState=first["requestState"])
        assert second["inputRequests"] == {
            key: request for key, request in first["inputRequests"].items() if request["method"] != "roots/list"
        }
        # An answer that was given stands: the second one to it changes nothing.
        more = {**answers(second, {"x": 1}), by_method["roots/list"]: {"roots": ["another"]}}
        final = await person.call(inputResponses=more, requestState=second["requestState"])
        assert final["vendor"] == {"form": {"x": 1}, "sample": {"x": 1}, "roots": {"roots": []}}
        assert len(fake.asked) == 1


async def test_one_question_after_the_other_is_one_retry_after_the_other(tmp_path: Path) -> None:
    async def rounds(asked: Asked) -> Json:
        return done([(await asked.ask("elicitation/create", {**FORM, "message": str(n)}))["result"] for n in range(4)])

    async with parked(tmp_path, rounds) as (person, fake):
        result, states, seen = await person.call(), set[str](), set[str]()
        for number in range(4):
            [key] = keys(result)
            assert result["inputRequests"][key]["params"]["message"] == str(number)
            states.add(result["requestState"])
            seen.add(key)
            result = await person.call(inputResponses={key: {"n": number}}, requestState=result["requestState"])
        assert result["vendor"] == [{"n": number} for number in range(4)]
        assert len(states) == len(seen) == 4, "no answer can be taken for that of another question"
        assert len(fake.asked) == 1


async def test_what_the_upstream_may_not_ask_is_refused_and_its_call_goes_on(tmp_path: Path) -> None:
    async def forbidden(asked: Asked) -> Json:
        return done(
            [
                (await asked.ask("elicitation/create", {**FORM, "mode": mode}))["error"]["code"]
                for mode in ("voice", ["form"], {})
            ]
        )

    async with parked(tmp_path, forbidden) as (person, _):
        assert (await person.call())["vendor"] == [-32602] * 3


# --- what comes while nobody is there --------------------------------------------------------------------------------


async def test_progress_and_logs_are_kept_for_the_retry_under_its_token(tmp_path: Path) -> None:
    entered, told = anyio.Event(), anyio.Event()

    async def chatty(asked: Asked) -> Json:
        asked.progress(1)

        async def talk() -> None:
            await entered.wait()
            asked.progress(2, message="while parked")
            for level in ("debug", "error"):
                asked.waiting.notice("notifications/message", {"level": level, "data": "while parked"})
            told.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk)
            answer = await asked.ask("elicitation/create", FORM)
        asked.progress(3)
        return done(answer)

    async with parked(tmp_path, chatty) as (person, _):
        params = {**ECHO, "_meta": {"progressToken": "first"}}
        first = await person.call(params, level="debug")
        assert person.told == [("notifications/progress", {"progress": 1, "progressToken": "first"})]
        person.told.clear()
        entered.set()
        await told.wait()
        assert person.told == [], "nobody is there"
        retry = {**ECHO, "_meta": {"progressToken": 7}}
        await person.call(retry, level="info", inputResponses=answers(first), requestState=first["requestState"])
        assert person.told == [
            ("notifications/progress", {"progress": 2, "message": "while parked", "progressToken": 7}),
            ("notifications/message", {"level": "error", "data": "while parked"}),
            ("notifications/progress", {"progress": 3, "progressToken": 7}),
        ]


async def test_a_retry_that_asked_for_no_progress_and_no_logs_gets_none(tmp_path: Path) -> None:
    async def chatty(asked: Asked) -> Json:
        answer = await asked.ask("elicitation/create", FORM)
        asked.progress(1)
        asked.waiting.notice("notifications/message", {"level": "emergency", "data": "x"})
        return done(answer)

    async with parked(tmp_path, chatty) as (person, _):
        first = await person.call({**ECHO, "_meta": {"progressToken": "first"}}, level="debug")
        await person.call(inputResponses=answers(first), requestState=first["requestState"])
        assert person.told == []


async def test_SP35_the_last_progress_of_a_flood_comes_before_the_result_and_nothing_after(tmp_path: Path) -> None:
    async def flood(asked: Asked) -> Json:
        answer = await asked.ask("elicitation/create", FORM)
        for step in range(100):
            asked.progress(step)
        return done(answer)

    async with parked(tmp_path, flood) as (person, _):
        params = {**ECHO, "_meta": {"progressToken": 1}}
        first = await person.call(params)
        await person.call(params, inputResponses=answers(first), requestState=first["requestState"])
        assert person.told[-1][1]["progress"] == 99
        count = len(person.told)
        person.place.clock.advance(10)
        await settle(lambda: True)
        assert len(person.told) == count


async def test_F25_what_is_kept_is_bounded_and_the_latest_stay(tmp_path: Path) -> None:
    entered, told = anyio.Event(), anyio.Event()

    async def flood(asked: Asked) -> Json:
        async def talk() -> None:
            await entered.wait()
            for number in range(20_000):
                asked.waiting.notice("notifications/message", {"level": "info", "data": number})
                asked.progress(number)
            told.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk)
            answer = await asked.ask("elicitation/create", FORM)
        return done(answer)

    async with parked(tmp_path, flood) as (person, _):
        params = {**ECHO, "_meta": {"progressToken": 1}}
        first = await person.call(params, level="debug")
        entered.set()
        await told.wait()
        await person.call(params, level="debug", inputResponses=answers(first), requestState=first["requestState"])
        assert len(person.told) <= MAX_KEPT + 2
        assert [params for name, params in person.told if "progress" in name][-1]["progress"] == 19_999


@pytest.mark.parametrize("outcome", ["result", "error"])
async def test_an_outcome_that_comes_while_parked_waits_for_the_retry(tmp_path: Path, outcome: str) -> None:
    """The upstream does not wait for its answer: whatever the retry brings comes too late, and does no harm."""
    go_on, gone_on = anyio.Event(), anyio.Event()

    async def impatient(asked: Asked) -> Json:
        with anyio.CancelScope() as patience:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(asked.ask, "elicitation/create", FORM)
                await go_on.wait()
                patience.cancel()
        gone_on.set()
        if outcome == "error":
            raise Refuse(-1, {"x": 1})
        return done("without you")

    async with parked(tmp_path, impatient) as (person, fake):
        first = await person.call()
        go_on.set()
        await gone_on.wait()
        retry = {"inputResponses": answers(first), "requestState": first["requestState"]}
        if outcome == "error":
            assert await person.refused(**retry) == {"code": -1, "message": "said the upstream", "data": {"x": 1}}
        else:
            assert (await person.call(**retry))["vendor"] == "without you"
        assert len(person.place.broker.parking) == 0 and len(fake.asked) == 1


async def test_the_upstreams_time_stands_still_while_its_caller_thinks(tmp_path: Path) -> None:
    """The wait for further questions alone is longer than this upstream may take."""
    async with parked(tmp_path, servers={"one": {"timeout": 0.02}}) as (person, fake):
        first = await person.call()
        again = await person.call(requestState=first["requestState"])
        final = await person.call(inputResponses=answers(again), requestState=again["requestState"])
        assert final["vendor"]["result"] == ADA and fake.cancelled == []


# --- the one frozen answer -------------------------------------------------------------------------------------------

Misuse = Callable[[Person, Json], Awaitable[Json]]


def claims(person: Person, **more: Any) -> Claims:
    digest = digest_of(ECHO["arguments"])
    made = Claims(LOCAL.principal, "one", "tools/call", "echo", digest, digest, person.place.clock.wall() + 60, "s")
    return changed(made, **more)


async def flipped(person: Person, first: Json) -> Json:
    state = first["requestState"]
    middle = len(state) // 2
    flip = "A" if state[middle] != "A" else "B"
    return await person.refused(requestState=state[:middle] + flip + state[middle + 1 :], inputResponses=answers(first))


async def padded(person: Person, first: Json) -> Json:
    return await person.refused(requestState=first["requestState"] + "=", inputResponses=answers(first))


async def another_caller(person: Person, first: Json) -> Json:
    mallory = Person(person.place, person.place.guest("mallory"))
    return await mallory.refused(requestState=first["requestState"], inputResponses=answers(first))


def with_params(params: Json, method: str = "tools/call") -> Misuse:
    async def misuse(person: Person, first: Json) -> Json:
        return await person.refused(params, method, requestState=first["requestState"], inputResponses=answers(first))

    return misuse


def with_state(state: Any) -> Misuse:
    async def misuse(person: Person, first: Json) -> Json:
        return await person.refused(requestState=state, inputResponses=answers(first))

    return misuse


async def sealed_by_another_process(person: Person, first: Json) -> Json:
    state = Sealer([b"x" * 32]).seal(claims(person, parked="token-1"), b"n" * 12)
    return await person.refused(requestState=state)


async def parked_in_another_process(person: Person, first: Json) -> Json:
    return await person.refused(requestState=person.place.broker.parking.seal(claims(person), parked="elsewhere"))


async def of_an_empty_id(person: Person, first: Json) -> Json:
    return await person.refused(requestState=person.place.broker.parking.seal(claims(person), parked=""))


MISUSES: dict[str, Misuse] = {
    "tampered": flipped,
    "padded": padded,
    "another caller": another_caller,
    "other arguments": with_params({**ECHO, "arguments": {"a": 2}}),
    "no arguments": with_params({"name": "one__echo"}),
    "more arguments": with_params({**ECHO, "arguments": {"a": 1, "b": None}}),
    "another tool": with_params({**ECHO, "name": "one__other"}),
    "another method": with_params({"name": "one__greet", "arguments": {"a": 1}}, "prompts/get"),
    "a read": with_params({"uri": "one+file:///readme"}, "resources/read"),
    "another server": with_params({**ECHO, "name": "two__echo"}),
    "sealed by another process": sealed_by_another_process,
    "parked in another process": parked_in_another_process,
    "an empty id": of_an_empty_id,
    "garbage": with_state("garbage"),
    "empty": with_state(""),
    "null": with_state(None),
    "a number": with_state(5),
    "a list": with_state(["b1."]),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES.keys())
async def test_SP57_SP58_any_misuse_of_a_state_is_one_frozen_answer_and_spends_nothing(
    tmp_path: Path, misuse: Misuse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fakes = {"one": a_fake(), "two": a_fake()}
    async with house(tmp_path, fakes) as place:
        person = Person(place)
        first = await person.call()
        assert await misuse(person, first) == FROZEN
        assert "requestState refused" in caplog.text, "the log says why"
        assert first["requestState"] not in caplog.text
        assert len(fakes["one"].asked) == 1 and fakes["two"].asked == [], "nothing went upstream"
        final = await person.call(inputResponses=answers(first), requestState=first["requestState"])
        assert final["vendor"]["result"] == ADA, "the right retry still works"


async def test_SP59_a_state_resumes_once(tmp_path: Path) -> None:
    async with parked(tmp_path) as (person, fake):
        first = await person.call()
        again = await person.call(requestState=first["requestState"])
        retry: Json = {"inputResponses": answers(first)}
        assert await person.refused(**retry, requestState=first["requestState"]) == FROZEN, "older than the latest"
        await person.call(**retry, requestState=again["requestState"])
        for state in (first["requestState"], again["requestState"]):
            assert await person.refused(**retry, requestState=state) == FROZEN
        assert len(fake.asked) == 1


async def test_SP59_of_two_retries_at_once_one_resumes(tmp_path: Path) -> None:
    async with parked(tmp_path) as (person, fake):
        first = await person.call()
        outcomes: list[Any] = []

        async def retry() -> None:
            try:
                found = await person.call(inputResponses=answers(first), requestState=first["requestState"])
                outcomes.append(found["vendor"]["result"])
            except BrokerError as error:
                outcomes.append(error.to_json())

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(retry)
        assert outcomes.count(FROZEN) == 4 and outcomes.count(ADA) == 1
        assert len(fake.asked) == 1


async def test_a_state_shows_nothing_of_what_it_holds(tmp_path: Path) -> None:
    async with parked(tmp_path) as (person, _):
        state = (await person.call())["requestState"]
        opened = base64.urlsafe_b64decode(state[3:] + "=" * (-len(state[3:]) % 4))
        assert not any(word in opened for word in (b"echo", b"local", b"token", b"tools"))


# --- given up --------------------------------------------------------------------------------------------------------


async def test_expiry_cancels_upstream_and_the_state_is_dead(tmp_path: Path) -> None:
    async with parked(tmp_path) as (person, fake):
        first = await person.call()
        person.place.clock.advance(PARKED_FOR - 1)
        await settle(lambda: True)
        assert len(person.place.broker.parking) == 1 and fake.cancelled == []
        person.place.clock.advance(1)
        await fake.until(lambda: fake.cancelled == ["echo"])
        assert len(person.place.broker.parking) == 0
        assert await person.refused(inputResponses=answers(first), requestState=first["requestState"]) == FROZEN


async def test_a_retry_begins_the_time_anew(tmp_path: Path) -> None:
    async with parked(tmp_path) as (person, fake):
        result = await person.call()
        for _ in range(3):
            person.place.clock.advance(PARKED_FOR * 0.9)
            result = await person.call(requestState=result["requestState"])
        assert fake.cancelled == []
        await person.call(inputResponses=answers(result), requestState=result["requestState"])


async def test_a_caller_that_vanishes_while_parked_leaves_nothing_behind(tmp_path: Path) -> None:
    async with parked(tmp_path) as (person, fake):
        await settle(lambda: True)
        before = len(asyncio.all_tasks())
        result = await person.call()
        await person.call(requestState=result["requestState"])
        await expire(person)
        await fake.until(lambda: fake.cancelled == ["echo"])
        person.place.clock.advance(PARKED_FOR)  # and what was remembered of used states
        place = person.place.broker.parking
        await settle(lambda: not place._spent and len(asyncio.all_tasks()) <= before)
        assert fake.link is not None and not fake.link._in_flight.calls() and not fake.link._questions


async def test_a_call_that_was_looked_at_while_it_was_parked_is_kept_by_nobody_once_it_has_ended(
    tmp_path: Path,
) -> None:
    async with parked(tmp_path) as (person, fake):
        first = await person.call()
        place = person.place.broker.parking
        [call] = map(weakref.ref, place._parked.values())
        looks = list[int]()
        place._spent.forget = looks.append  # pyright: ignore[reportAttributeAccessIssue]
        person.place.clock.advance(1)
        await settle(lambda: bool(looks))
        await person.call(inputResponses=answers(first), requestState=first["requestState"])
        fake.asked.clear()
        await settle(lambda: True)
        gc.collect()
        assert call() is None


@pytest.mark.parametrize("moment", ["before the question", "in the retry"])
async def test_a_request_that_is_cancelled_takes_its_upstream_call_with_it(tmp_path: Path, moment: str) -> None:
    async def slow(asked: Asked) -> Json:
        if moment == "in the retry":
            await asked.ask("elicitation/create", FORM)
        return await Gate()(asked)

    async with parked(tmp_path, slow) as (person, fake):
        retry: Json = {}
        if moment == "in the retry":
            first = await person.call()
            retry = {"inputResponses": answers(first), "requestState": first["requestState"]}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: person.call(**retry))
            await fake.until(lambda: bool(fake.asked))
            await settle(lambda: len(person.place.broker.parking) == 0)
            tasks.cancel_scope.cancel()
        await fake.until(lambda: fake.cancelled == ["echo"])
        assert len(person.place.broker.parking) == 0


async def test_shutdown_cancels_what_is_parked_upstream_and_leaves_no_task(tmp_path: Path) -> None:
    before = len(asyncio.all_tasks())
    async with parked(tmp_path) as (person, fake):
        for number in range(3):
            await person.call({**ECHO, "arguments": {"n": number}})
        assert len(person.place.broker.parking) == 3
    assert fake.cancelled == ["echo"] * 3
    assert len(asyncio.all_tasks()) == before and len(person.place.broker.parking) == 0


async def test_an_upstream_that_is_lost_while_parked_is_said_by_the_retry(tmp_path: Path) -> None:
    async with parked(tmp_path) as (person, fake):
        first = await person.call()
        assert fake.link is not None
        fake.link.lose("it exited with code 3")
        found = await person.refused(inputResponses=answers(first), requestState=first["requestState"])
        assert found["code"] == -32603 and found["data"]["upstream"] == "one"


async def test_an_outcome_is_delivered_also_if_its_upstream_is_gone_by_then(tmp_path: Path) -> None:
    async def one_of_two(asked: Asked) -> Json:
        """Asks, but does not wait for the answer."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked.ask, "elicitation/create", FORM)
            await asked.link.fake.until(release.is_set)
            tasks.cancel_scope.cancel()
        return done("at last")

    release = anyio.Event()
    async with parked(tmp_path, one_of_two) as (person, fake):
        first = await person.call()
        assert keys(first)
        release.set()
        fake.changed.set()
        [call] = person.place.broker.parking._parked.values()
        await settle(lambda: call.outcome is not None)
        fake.state = "down"
        assert fake.link is not None
        fake.link.lose("it was ended by signal 9")
        final = await person.call(requestState=first["requestState"], inputResponses=answers(first))
        assert final["vendor"] == "at last"


async def test_a_state_is_not_spent_on_a_modern_upstream_that_is_gone(tmp_path: Path) -> None:
    left = [{"resultType": "input_required", "requestState": "theirs"}, done()]

    async def ask(asked: Asked) -> Json:
        return dict(left.pop(0))

    async with house(tmp_path, {"one": Fake(version=MODERN, answers={"echo": ask})}) as place:
        person = Person(place)
        state = (await person.call())["requestState"]
        upstream = place.broker.generation.pool.upstreams["one"]
        alive, upstream.live = upstream.live, None
        assert (await person.refused(requestState=state))["data"]["upstream"] == "one"
        upstream.live = alive
        assert (await person.call(requestState=state))["vendor"] == "done"
        assert await person.refused(requestState=state) == FROZEN


async def test_parked_calls_are_bounded_for_each_principal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "MAX_PARKED", 2)
    async with parked(tmp_path) as (person, fake):
        states = [await person.call() for _ in range(2)]
        error = await person.refused()
        assert error["code"] == -32603 and "2 calls wait" in error["message"]
        await fake.until(lambda: fake.cancelled == ["echo"])
        other = Person(person.place, person.place.guest("other"))
        assert keys(await other.call()), "the bound of one is no bound of another"
        await person.call(inputResponses=answers(states[0]), requestState=states[0]["requestState"])
        assert keys(await person.call()), "one has made room"
        assert fake.cancelled == ["echo"]


async def test_used_states_are_bounded_for_each_principal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spent, "MAX_SPENT", 1)
    async with parked(tmp_path) as (person, _):
        again = await person.call(requestState=(await person.call())["requestState"])
        retry: Json = {"inputResponses": answers(again), "requestState": again["requestState"]}
        assert "1 questions were answered" in (await person.refused(**retry))["message"]
        other = Person(person.place, person.place.guest("other"))
        theirs = await other.call()
        await other.call(inputResponses=answers(theirs), requestState=theirs["requestState"])
        person.place.clock.advance(PARKED_FOR - 1)
        assert "1 questions" in (await person.refused(**retry))["message"], "the first would still be good"


async def test_F24_one_call_cannot_ask_without_end(tmp_path: Path) -> None:
    async def greedy(asked: Asked) -> Json:
        codes: list[int] = []

        async def put() -> None:
            answer = await asked.ask("elicitation/create", FORM)
            codes.append(answer.get("error", {}).get("code", 0))

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(put)
        return done(codes)

    async with parked(tmp_path, greedy) as (person, _):
        first = await person.call()
        assert len(keys(first)) == 64
        final = await person.call(inputResponses=answers(first), requestState=first["requestState"])
        assert sorted(final["vendor"]) == [-32603] * 136 + [0] * 64


# --- who is not parked -----------------------------------------------------------------------------------------------


async def test_a_caller_that_offers_nothing_is_never_parked(tmp_path: Path) -> None:
    async with parked(tmp_path) as (person, _):
        result = await person.place.ask("tools/call", ECHO, version=MODERN)
        assert result["vendor"]["error"]["code"] == -32601
        assert len(person.place.broker.parking) == 0


async def test_an_upstream_that_asks_nothing_answers_as_ever(tmp_path: Path) -> None:
    async with parked(tmp_path, answering(done(1))) as (person, _):
        assert (await person.call())["vendor"] == 1
        assert len(person.place.broker.parking) == 0


async def test_a_fault_of_the_broker_in_a_parked_call_says_an_id_and_nothing_else(tmp_path: Path) -> None:
    async def broken(asked: Asked) -> Json:
        raise RuntimeError("secret")

    async with parked(tmp_path, broken) as (person, _):
        error = await person.refused()
        assert error["message"] == "Internal error" and set(error["data"]) == {"errorId"}


async def test_of_an_error_that_nobody_has_fetched_only_what_it_says_is_kept() -> None:
    """Else the frames that it and its causes went through would be kept with it, and all lists of their time."""
    claims = Claims(LOCAL.principal, "one", "tools/call", "echo", digest_of({}), digest_of({}), 60.0, "s")
    calls = [ParkedCall(claims, lambda: False) for _ in range(2)]
    ways: list[weakref.ref[Fake]] = []

    def lost() -> None:
        way = Fake()
        ways.append(weakref.ref(way))
        raise BrokenPipeError

    def unavailable(cause: Exception | None) -> None:
        try:
            lost()
        except OSError as fault:
            raise UpstreamUnavailable("one", "it is gone") from cause or fault

    for call, cause in zip(calls, (None, KeyError()), strict=True):
        try:
            unavailable(cause)
        except UpstreamUnavailable as error:
            call.finish(error)
    gc.collect()
    assert [way() for way in ways] == [None, None]
    assert all(isinstance(call.outcome, UpstreamUnavailable) for call in calls)
