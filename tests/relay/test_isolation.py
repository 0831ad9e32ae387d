"""Links that callers do not share: whose a link is, what belongs to it, and when it is opened and closed."""

import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.clock import FakeClock
from broker.core import wire
from broker.core.caller import Caller
from broker.core.era import LATEST_LEGACY, Version
from broker.core.questions import Question
from broker.core.request import Request
from broker.errors import BrokerError
from broker.relay.exchange import Exchange
from broker.relay.notify import Subscriber
from broker.relay.who import Who
from broker.upstream.lease import Asker
from tests.relay.fake import GUESTS, LEGACY, MODERN, TIMEOUT, Asked, Fake, FakeLink, House, Json, Refuse, house, tool

ADA, BOB = Caller("ada", organization="guests"), Caller("bob", organization="guests")
ALL: Json = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {"listChanged": True}}
FORM: Json = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
ECHO: Json = {"name": "one__echo"}
SLOW: Json = {"name": "one__slow"}
FILE: Json = {"uri": "one+file:///x"}


@dataclass
class Person:
    """A caller in a session, with an open stream once it is `there`; `asked` are the questions that reached it."""

    place: House
    caller: Caller
    session: str = ""
    capabilities: Json = field(default_factory=lambda: dict(ALL))
    version: Version = LEGACY
    asked: list[Question] = field(default_factory=list[Question])
    told: list[tuple[str, Json]] = field(default_factory=list[tuple[str, Json]])
    is_open: bool = True
    subscriber: Subscriber | None = None

    async def call(self, params: Json = ECHO, method: str = "tools/call", **more: Any) -> Json:
        return await self.place.ask(
            method,
            params,
            version=self.version,
            caller=self.caller,
            session=self.session,
            capabilities=self.capabilities,
            channel=self,
            **more,
        )

    async def refused(self, params: Json = ECHO) -> BrokerError:
        with pytest.raises(BrokerError) as caught:
            await self.call(params)
        return caught.value

    async def ask(self, question: Question) -> Json:
        """It is asked on a call's own stream."""
        self.asked.append(question)
        return {"action": "accept", "content": {"who": self.session or self.caller.principal}}

    def talk(self) -> Exchange:
        who = Who(self.caller, LEGACY, "", self.capabilities, "debug")
        return Exchange(self.place.clock, who, lambda method, params: self.told.append((method, params)), self)

    def there(self) -> "Person":
        """Its stream is open."""
        self.subscriber = Subscriber(
            self.caller,
            "",
            lambda method, params: self.told.append((method, params)),
            session=self.session,
            stream=self,
        )
        self.place.broker.engine.hub.add(self.subscriber)
        return self

    @property
    def asker(self) -> Asker:
        return Asker(self.caller.principal, self.session, self.capabilities)


async def unaddressed(link: FakeLink, method: str = "elicitation/create", params: Json | None = None) -> Json:
    """A question that names no call; the answer as its upstream gets it."""
    message = {"jsonrpc": "2.0", "id": link.next_question(), "method": method, "params": params or FORM}
    with anyio.fail_after(TIMEOUT):
        answer = await link._answer_question(message, None)
    assert answer is not None
    return wire.decode_object(answer, wire.FROM_CALLER)


@asynccontextmanager
async def isolating(
    directory: Path, isolation: str = "caller", fake: Fake | None = None, **settings: Any
) -> AsyncGenerator[tuple[House, Fake], None]:
    fake = fake or Fake(resources=[{"uri": "file:///x", "name": "x"}], templates=[], capabilities={"logging": {}})
    async with house(directory, {"one": fake}, servers={"one": {"isolation": isolation, **settings}}) as place:
        place.broker.generation.adopt(GUESTS)
        yield place, fake


def own_links(fake: Fake) -> list[FakeLink]:
    """All but the supervised one."""
    return fake.links[1:]


async def settle(is_true: Any) -> None:
    with anyio.fail_after(TIMEOUT):
        while not is_true():
            await anyio.lowlevel.checkpoint()


# --- whose a link is -------------------------------------------------------------------------------------------------


async def test_a_link_for_each_caller_and_none_of_them_is_the_supervised_one(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        people = [Person(place, ADA, "s1"), Person(place, ADA, "s2"), Person(place, BOB, "s3"), Person(place, BOB)]
        assert len(fake.links) == 1, "on demand"
        for person in (*people, *people):
            await person.call()
        used = [fake.links.index(asked.link) for asked in fake.asked]
    assert used == [1, 1, 2, 2] * 2


async def test_a_link_for_each_session_and_one_for_a_callers_modern_requests(tmp_path: Path) -> None:
    async with isolating(tmp_path, "session") as (place, fake):
        people = [Person(place, ADA, "s1"), Person(place, ADA, "s2"), Person(place, ADA), Person(place, BOB)]
        for person in (*people, *people):
            await person.call()
        used = [fake.links.index(asked.link) for asked in fake.asked]
    assert used == [1, 2, 3, 4] * 2


async def test_a_server_that_is_shared_has_one_link(tmp_path: Path) -> None:
    async with isolating(tmp_path, "shared") as (place, fake):
        await Person(place, ADA, "s1").call()
        await Person(place, BOB, "s2").call()
        assert len(fake.links) == 1


async def test_the_first_call_opens_the_link_once_with_its_callers_capabilities(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        form = Person(place, ADA, "s1", {"elicitation": {"form": {}}})
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(form.call)
        await Person(place, BOB, "s2", {}).call()
        assert len(own_links(fake)) == 2
    assert fake.declared_to[1:] == [{"elicitation": {"form": {}}}, {}]


async def test_a_modern_server_is_told_with_each_request(tmp_path: Path) -> None:
    async with isolating(tmp_path, fake=Fake(version=MODERN)) as (place, fake):
        await Person(place, ADA, "s1", {"roots": {}}).call()
        assert fake.asked[0].params["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {"roots": {}}
        assert fake.asked[0].link is own_links(fake)[0]


# --- questions and logs that no call owns ----------------------------------------------------------------------------


async def test_what_no_call_owns_is_asked_on_the_open_stream_of_the_links_caller(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        ada, bob = Person(place, ADA, "s1").there(), Person(place, BOB, "s2").there()
        await ada.call()
        await bob.call()
        theirs = own_links(fake)
        assert (await unaddressed(theirs[1]))["result"]["content"] == {"who": "s2"}
        assert (await unaddressed(theirs[0]))["result"]["content"] == {"who": "s1"}
        theirs[1]._unsolicited("notifications/message", {"level": "info", "data": "for bob"})
        assert (await unaddressed(fake.links[0]))["error"]["code"] == -32601, "the supervised link has no caller"
    assert (len(ada.asked), len(bob.asked)) == (1, 1)
    assert ada.told == [] and bob.told == [("notifications/message", {"level": "info", "data": "for bob"})]


async def test_of_several_streams_of_one_caller_none_is_asked_and_the_remedy_is_named(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        people = [Person(place, ADA, "s1").there(), Person(place, ADA, "s2").there()]
        await people[0].call()
        error = (await unaddressed(own_links(fake)[0]))["error"]
        assert error["code"] == -32603 and "isolation: session" in error["message"]
    assert not people[0].asked and not people[1].asked


async def test_a_question_waits_for_a_stream_that_is_about_to_open(tmp_path: Path) -> None:
    async with isolating(tmp_path, "session") as (place, fake):
        ada = Person(place, ADA, "s1")
        await ada.call()
        async with anyio.create_task_group() as tasks:
            answers: list[Json] = []

            async def ask() -> None:
                answers.append(await unaddressed(own_links(fake)[0]))

            tasks.start_soon(ask)
            await settle(lambda: own_links(fake)[0].is_asking)
            ada.is_open = False
            ada.there()
            await anyio.lowlevel.checkpoint()
            assert not answers, "its handshake is not complete"
            ada.is_open = True
            place.broker.engine.hub.wake()
        assert answers[0]["result"]["content"] == {"who": "s1"}


async def test_a_modern_caller_has_no_stream_and_is_not_waited_for(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        await Person(place, ADA, version=MODERN).call()
        assert (await unaddressed(own_links(fake)[0]))["error"]["code"] == -32601


@pytest.mark.parametrize(("method", "streams_tell"), [("roots/list", False), ("elicitation/create", True)])
async def test_what_stands_alone_is_asked_on_the_sessions_stream_and_outlives_a_short_call(
    tmp_path: Path, method: str, streams_tell: bool
) -> None:
    asked, answered = anyio.Event(), anyio.Event()

    async def slowly(question: Question) -> Json:
        asked.set()
        await answered.wait()
        return {"roots": [], "action": "decline"}

    async with isolating(tmp_path) as (place, fake):
        ada = Person(place, ADA, "s1").there()
        await ada.call()
        link = own_links(fake)[0]
        link.streams_tell = streams_tell
        fake.asked.clear()
        answers: list[Json] = []

        async def ask() -> None:
            answers.append(await unaddressed(link, method))

        async with anyio.create_task_group() as tasks:
            async with two_in_flight(place, fake, ada) as _:
                ada.ask = slowly  # pyright: ignore[reportAttributeAccessIssue]
                tasks.start_soon(ask)
                await asked.wait()
            await settle(lambda: not link._in_flight.calls())
            answered.set()
        assert "result" in answers[0], answers


async def test_what_stands_alone_belongs_to_the_only_call_while_no_stream_is_open(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        ada = Person(place, ADA, "s1")
        async with two_in_flight(place, fake, ada) as link:
            assert "result" in await unaddressed(link, "roots/list")
    assert [question.method for question in ada.asked] == ["roots/list"]


@asynccontextmanager
async def two_in_flight(place: House, fake: Fake, *people: Person) -> AsyncGenerator[FakeLink, None]:
    release = anyio.Event()

    async def slow(asked: Asked) -> Json:
        await release.wait()
        return {"content": []}

    fake.answers["slow"] = slow
    async with anyio.create_task_group() as tasks:
        for person in people:
            tasks.start_soon(person.call, SLOW)
        await settle(lambda: len(fake.asked) == len(people))
        yield fake.asked[0].link
        release.set()


@pytest.mark.parametrize("isolation", ["shared", "caller", "session"])
async def test_several_calls_of_one_session_are_asked_on_its_stream_unless_the_link_is_shared(
    tmp_path: Path, isolation: str
) -> None:
    async with isolating(tmp_path, isolation) as (place, fake):
        ada, other = Person(place, ADA, "s1").there(), Person(place, ADA, "s2").there()
        async with two_in_flight(place, fake, ada, ada) as link:
            answer = await unaddressed(link)
    if isolation == "shared":
        assert "isolation: caller or session" in answer["error"]["message"] and not ada.asked
    else:
        assert answer["result"]["content"] == {"who": "s1"}
    assert not other.asked


async def test_calls_of_two_sessions_on_one_link_are_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        people = [Person(place, ADA, "s1").there(), Person(place, ADA, "s2").there()]
        async with two_in_flight(place, fake, *people) as link:
            error = (await unaddressed(link))["error"]
    assert "several calls are in flight" in error["message"] and "isolation: session" in error["message"]
    assert not people[0].asked and not people[1].asked


async def test_two_callers_at_once_are_each_asked_what_their_own_link_asks(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        people = [Person(place, ADA, "s1"), Person(place, BOB, "s2")]
        async with two_in_flight(place, fake, *people):
            for asked in fake.asked:
                await unaddressed(asked.link)
    assert [len(person.asked) for person in people] == [1, 1]


# --- what else belongs to a link -------------------------------------------------------------------------------------


async def test_a_log_level_and_changed_roots_go_to_the_callers_own_link(tmp_path: Path) -> None:
    levels: list[tuple[FakeLink, str]] = []

    async def set_level(asked: Asked) -> Json:
        levels.append((asked.link, asked.params["level"]))
        return {}

    async with isolating(tmp_path) as (place, fake):
        fake.answers["logging/setLevel"] = set_level
        ada, bob = Person(place, ADA, "s1"), Person(place, BOB, "s2")
        await ada.call({"level": "error"}, "logging/setLevel")
        await ada.call()
        await bob.call()
        router = place.broker.engine.router
        router.roots_changed("", ADA, "s1")
        mine, theirs = own_links(fake)
        changed = "notifications/roots/list_changed"
        await settle(lambda: changed in mine.told and levels)
        assert levels == [(mine, "error")]
        assert changed not in theirs.told and changed not in fake.links[0].told


async def test_a_watched_resource_is_watched_on_the_callers_own_link_which_stays_open_for_it(tmp_path: Path) -> None:
    subscribed: list[tuple[FakeLink, str]] = []

    async def subscribe(asked: Asked) -> Json:
        subscribed.append((asked.link, asked.method))
        fake.changed.set()
        return {}

    async with isolating(tmp_path, isolation_idle=10) as (place, fake):
        fake.answers |= {"resources/subscribe": subscribe, "resources/unsubscribe": subscribe}
        ada, bob = Person(place, ADA, "s1").there(), Person(place, BOB, "s2").there()
        router = place.broker.engine.router
        for person in (ada, bob):
            assert person.subscriber is not None
            who = Request("resources/subscribe", FILE, LEGACY)
            await router.watch("one+file:///x", who, person.caller, person.asker, person.subscriber.watches)
        mine, theirs = own_links(fake)
        assert subscribed == [(mine, "resources/subscribe"), (theirs, "resources/subscribe")]
        mine.on_event("notifications/resources/updated", {"uri": "file:///x"})
        fake.links[0].on_event("notifications/resources/updated", {"uri": "file:///x"})
        assert ada.told == [("notifications/resources/updated", FILE)] and bob.told == []
        assert bob.subscriber is not None
        bob.subscriber.watches.clear()
        await settle(lambda: (theirs, "resources/unsubscribe") in subscribed)
        for _ in range(3):
            place.clock.advance(11)
            await anyio.lowlevel.checkpoint()
        await settle(lambda: theirs.lost is not None)
        assert mine.lost is None


async def test_lists_are_the_supervised_links_business_alone(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        ada = Person(place, ADA, "s1").there()
        await ada.call()
        own_links(fake)[0].on_event("notifications/tools/list_changed", {})
        fake.tools = [tool("echo"), tool("new")]
        fake.links[0].on_event("notifications/tools/list_changed", {})
        await settle(lambda: ada.told)
        assert ada.told == [("notifications/tools/list_changed", {})]


# --- roots: false ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["shared", "caller"])
async def test_roots_that_are_switched_off_are_neither_declared_nor_given_nor_announced(
    tmp_path: Path, isolation: str
) -> None:
    async def asks(asked: Asked) -> Json:
        answers.append(await asked.ask("roots/list"))
        return {"content": []}

    answers: list[Json] = []
    async with isolating(tmp_path, isolation, roots=False) as (place, fake):
        fake.answers["echo"] = asks
        ada = Person(place, ADA, "s1").there()
        await ada.call()
        link = fake.asked[0].link
        if isolation == "caller":
            answers.append(await unaddressed(link, "roots/list"))
        place.broker.engine.router.roots_changed("", ADA, "s1")
        await ada.call()
    assert not any("roots" in declared for declared in fake.declared_to)
    assert {answer["error"]["code"] for answer in answers} == {-32601} and not ada.asked
    assert not any("roots" in told for link in fake.links for told in link.told)


async def test_roots_that_are_switched_off_are_not_declared_to_a_modern_server(tmp_path: Path) -> None:
    async with isolating(tmp_path, "shared", Fake(version=MODERN), roots=False) as (place, fake):
        await Person(place, ADA, capabilities={"roots": {}, "sampling": {}}, version=MODERN).call()
        assert fake.asked[0].params["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {"sampling": {}}


# --- opened and closed -----------------------------------------------------------------------------------------------


async def test_the_idlest_link_makes_room_and_if_all_are_in_use_the_call_fails_at_once(tmp_path: Path) -> None:
    async with isolating(tmp_path, "session", isolation_max=2) as (place, fake):
        for session in ("s1", "s2", "s3"):
            place.clock.advance(1)
            await Person(place, ADA, session).call()
        first, second, third = own_links(fake)
        assert first.lost is not None and second.lost is None and third.lost is None
        fake.asked.clear()
        async with two_in_flight(place, fake, Person(place, ADA, "s2"), Person(place, ADA, "s3")):
            error = await Person(place, BOB, "s4").refused()
        assert error.code == -32603 and error.data["upstream"] == "one"
        assert "all 2 links" in error.message and "servers.one.isolation_max" in error.message
        await Person(place, BOB, "s4").call()
        assert len(place.broker.generation.pool.isolated["one"]) == 2


async def test_a_link_that_nobody_uses_is_closed_and_opened_anew(tmp_path: Path) -> None:
    async with isolating(tmp_path, isolation_idle=10) as (place, fake):
        ada = Person(place, ADA, "s1")
        await ada.call()
        place.clock.advance(9)
        await ada.call()
        await settle(lambda: place.clock._sleepers)
        place.clock.advance(9)
        await anyio.lowlevel.checkpoint()
        assert own_links(fake)[0].lost is None
        for _ in range(3):
            place.clock.advance(2)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
        await settle(lambda: own_links(fake)[0].lost is not None)
        await ada.call()
        assert len(own_links(fake)) == 2


async def test_a_task_that_nobody_watches_holds_its_link_until_its_time_is_over_or_its_caller_has_all_of_it(
    tmp_path: Path,
) -> None:
    async def make(asked: Asked) -> Json:
        return {"task": {"taskId": asked.params["arguments"]["id"], "status": "working", "ttl": 60_000}}

    fake = Fake(capabilities={"tasks": {"requests": {"tools": {"call": {}}}}})
    fake.answers["echo"] = make
    async with isolating(tmp_path, isolation_idle=10, isolation_max=2, fake=fake) as (place, fake):
        ada, bob = Person(place, ADA, "s1"), Person(place, BOB, "s2")
        for person in (ada, bob):
            await person.call({**ECHO, "arguments": {"id": "t"}, "task": {}})
        theirs = own_links(fake)

        async def later(seconds: float) -> None:
            for _ in range(int(seconds)):
                place.clock.advance(1)
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()

        await later(25)
        assert [link.lost for link in theirs] == [None, None]
        await bob.call({"taskId": "one.t"}, "tasks/result")
        await later(25)
        assert theirs[0].lost is None and theirs[1].lost is not None
        await later(25)
        assert theirs[0].lost is not None


async def test_a_session_that_ends_takes_its_link_with_it_and_no_other(tmp_path: Path) -> None:
    async with isolating(tmp_path, "session") as (place, fake):
        for session in ("s1", "s2"):
            await Person(place, ADA, session).call()
        place.broker.engine.session_ended("s1")
        await settle(lambda: own_links(fake)[0].lost is not None)
        assert own_links(fake)[1].lost is None and len(place.broker.generation.pool.isolated["one"]) == 1


async def test_a_link_that_dies_fails_its_calls_alone_and_the_next_call_opens_another(tmp_path: Path) -> None:
    async with isolating(tmp_path) as (place, fake):
        ada, bob = Person(place, ADA, "s1"), Person(place, BOB, "s2")
        async with two_in_flight(place, fake, bob):
            errors: list[BrokerError] = []

            async def fail() -> None:
                errors.append(await ada.refused(SLOW))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
                await settle(lambda: len(fake.asked) == 2)
                fake.asked[1].link.lose("it was ended by signal 9")
        assert "signal 9" in errors[0].message
        await ada.call()
        assert len(own_links(fake)) == 3


async def test_a_handshake_that_fails_or_hangs_is_said_to_its_caller_and_costs_no_other(tmp_path: Path) -> None:
    async with isolating(tmp_path, connect_timeout=0.2) as (place, fake):
        ada, bob = Person(place, ADA, "s1"), Person(place, BOB, "s2")
        await bob.call()
        greet = fake._greet

        def refuse(result: Json) -> Json:
            raise Refuse(-1, message="no licence")

        fake._greet = refuse  # pyright: ignore[reportAttributeAccessIssue]
        assert "no licence" in (await ada.refused()).message
        fake._greet = greet  # pyright: ignore[reportAttributeAccessIssue]
        fake.state = "silent"
        async with anyio.create_task_group() as tasks:
            errors: list[BrokerError] = []

            async def fail() -> None:
                errors.append(await ada.refused())

            tasks.start_soon(fail)
            await bob.call()
        assert "did not connect within 0.2 s" in errors[0].message
        fake.state = "up"
        await ada.call()


async def test_a_parked_call_holds_its_link(tmp_path: Path) -> None:
    async def asks(asked: Asked) -> Json:
        return {"content": [], "vendor": await asked.ask("elicitation/create", FORM)}

    async with isolating(tmp_path, isolation_max=1) as (place, fake):
        fake.answers["echo"] = asks
        ada = Person(place, ADA, version=MODERN)
        first = await ada.call()
        assert "all 1 links" in (await Person(place, BOB, "s2").refused()).message
        [key] = first["inputRequests"]
        retry = {"inputResponses": {key: {"action": "decline"}}, "requestState": first["requestState"]}
        assert (await ada.call({**ECHO, **retry}))["vendor"]["result"] == {"action": "decline"}
        fake.answers.clear()
        await Person(place, BOB, "s2").call()


async def test_a_caller_that_gives_up_while_its_link_opens_leaves_it_to_others(tmp_path: Path) -> None:
    async with isolating(tmp_path, isolation_max=1) as (place, fake):
        fake.state = "silent"
        with contextlib.suppress(TimeoutError), anyio.fail_after(0.05):
            await Person(place, ADA, "s1").call()
        pool = place.broker.generation.pool
        assert "opening" in repr(pool.isolated["one"]) or "reserved x0" in repr(pool.isolated["one"])
    assert isinstance(place.clock, FakeClock) and LATEST_LEGACY == LEGACY
