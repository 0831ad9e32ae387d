"""Where a permitted call is admitted: nothing is sent before, and what it holds is given back once, however it ends."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.config import OrganizationSettings, directory_of
from broker.core.caller import LOCAL, Caller
from broker.core.era import TASKS, Version
from broker.core.policy import Permit
from broker.core.request import Request
from broker.errors import BrokerError, LimitReached, UpstreamUnavailable
from broker.relay.forward import Forwarder
from broker.relay.notify import Watches
from broker.upstream.lease import Asker
from broker.usage.quotas import Hold
from broker.usage.terms import Terms
from tests.relay.fake import LEGACY, MODERN, Fake, Gate, House, Json, Refuse, answering, house, tool
from tests.relay.test_parking import ADA, ALL, form

CALL: Json = {"name": "one__echo", "arguments": {}}
READ: Json = {"uri": "one+file:///readme"}


class Reserved(Hold):
    """One reservation, and what became of it. Nothing is ever at hand."""

    def __init__(self, ledger: "Ledger", method: str, is_retry: bool) -> None:
        super().__init__()
        self.is_settled, self.is_short = False, True
        self.ledger, self.method, self.is_retry = ledger, method, is_retry
        self.ends: list[Any] = []

    async def fill(self) -> None:
        await self.ledger.fill(self)

    def settle(self, result: Mapping[str, Any] | None) -> None:
        if not self.is_settled:
            self.is_settled = True
            self.ends.append("released" if result is None else dict(result))

    def forgo(self) -> None:
        self.ends.append("forgone")


class Ledger:
    """Budgets that keep all that happens; `is_spent` refuses."""

    def __init__(self) -> None:
        self.made: list[Reserved] = []
        self.is_spent = False

    def adopt(self, terms: Terms) -> None:
        pass

    def take(self, permit: Permit, method: str, *, is_retry: bool) -> Reserved:
        return Reserved(self, method, is_retry)

    async def fill(self, hold: Reserved) -> None:
        if self.is_spent:
            raise LimitReached("team:acme/data", "10 units a day", 3599.2)
        self.made.append(hold)


class Slow(Ledger):
    """While it is asked, another call takes what there was room for."""

    def __init__(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    async def fill(self, hold: Reserved) -> None:
        await super().fill(hold)
        if len(self.made) == 1:
            await self._meanwhile()


def ledger_of(place: House) -> Ledger:
    ledger = Ledger()
    place.broker.quotas.budgets = ledger
    return ledger


def resourceful(**more: Any) -> Fake:
    return Fake(resources=[{"uri": "file:///readme", "name": "r"}], templates=[], **more)


async def test_a_call_that_is_refused_after_it_has_reserved_is_no_call_that_has_failed(tmp_path: Path) -> None:
    servers = {"one": {"limits": {"rate": "1/minute"}}}
    async with house(tmp_path, {"one": Fake(answers={"echo": answering({"content": []})})}, servers=servers) as place:
        ledger = place.broker.quotas.budgets = Slow(lambda: place.ask("tools/call", CALL))
        assert (await place.ask("tools/call", CALL))["isError"]
        assert [one.ends[0] == "forgone" for one in ledger.made] == [True, False]


async def test_a_call_is_settled_with_what_its_upstream_answered(tmp_path: Path) -> None:
    fake = Fake(answers={"echo": answering({"content": [], "structuredContent": {"tokens": 7}})})
    async with house(tmp_path, {"one": fake}) as place:
        ledger = ledger_of(place)
        await place.ask("tools/call", CALL)
        (made,) = ledger.made
        assert [one["structuredContent"] for one in made.ends] == [{"tokens": 7}] and not made.is_retry


async def test_an_error_of_the_upstream_releases(tmp_path: Path) -> None:
    async def refuse(asked: object) -> Json:
        raise Refuse(-32000)

    async with house(tmp_path, {"one": Fake(answers={"echo": refuse})}) as place:
        ledger = ledger_of(place)
        with pytest.raises(BrokerError):
            await place.ask("tools/call", CALL)
        assert [one.ends for one in ledger.made] == [["released"]]


async def test_a_call_that_nobody_waits_for_any_more_releases(tmp_path: Path) -> None:
    fake = Fake(answers={"echo": Gate()})
    async with house(tmp_path, {"one": fake}) as place:
        ledger = ledger_of(place)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.ask, "tools/call", CALL)
            await fake.until(lambda: bool(fake.asked))
            assert [one.ends for one in ledger.made] == [[]]
            tasks.cancel_scope.cancel()
        assert [one.ends for one in ledger.made] == [["released"]]


async def test_a_call_that_takes_too_long_releases(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": Fake(answers={"echo": Gate()})}, servers={"one": {"timeout": 0.05}}) as place:
        ledger = ledger_of(place)
        with pytest.raises(BrokerError, match="did not answer"):
            await place.ask("tools/call", CALL)
        assert [one.ends for one in ledger.made] == [["released"]]


async def test_a_refused_call_of_a_tool_is_a_result_that_a_model_can_read_and_nothing_is_sent(tmp_path: Path) -> None:
    fake = resourceful()
    async with house(tmp_path, {"one": fake}) as place:
        ledger_of(place).is_spent = True
        for version in (LEGACY, MODERN):
            result = await place.ask("tools/call", CALL, version=version)
            (content,) = result["content"]
            assert result["isError"] is True
            assert content["text"] == "team acme/data has reached its limit of 10 units a day: try again in 3600 s"
            with pytest.raises(LimitReached) as caught:
                await place.ask("resources/read", READ, version=version)
            expected = {"level": "team:acme/data", "limit": "10 units a day", "retryAfter": 3600}
            assert (caught.value.code, caught.value.data) == (4290, expected)
        assert fake.asked == []


async def test_a_parked_call_is_settled_with_its_questions_and_its_retry_with_the_result(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": Fake(answers={"echo": form})}) as place:
        ledger = ledger_of(place)
        asked = await place.ask("tools/call", CALL, version=MODERN, capabilities=ALL)
        answers = dict.fromkeys(asked["inputRequests"], ADA)
        retry = {**CALL, "requestState": asked["requestState"], "inputResponses": answers}
        await place.ask("tools/call", retry, version=MODERN, capabilities=ALL)
        first, second = ledger.made
        assert (first.is_retry, second.is_retry) == (False, True)
        assert [one["resultType"] for one in first.ends] == ["input_required"]
        assert [one["resultType"] for one in second.ends] == ["complete"]


async def test_a_state_that_is_not_good_is_no_retry(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": resourceful(answers={"echo": form})}) as place:
        asked = await place.ask("tools/call", CALL, version=MODERN, capabilities=ALL)
        state = asked["requestState"]
        ledger = ledger_of(place)
        wrong: list[tuple[str, Json]] = [
            ("tools/call", {**CALL, "requestState": "b1.made-up"}),
            ("tools/call", {**CALL, "requestState": 4}),
            ("tools/call", {**CALL, "requestState": None}),
            ("tools/call", {**CALL, "name": "one__slow", "requestState": state}),
            ("tools/call", {**CALL, "arguments": {"other": 1}, "requestState": state}),
            ("resources/read", {**READ, "requestState": state}),
        ]
        for method, params in wrong:
            with pytest.raises(BrokerError, match="requestState"):
                await place.ask(method, params, version=MODERN, capabilities=ALL)
        used = {**CALL, "requestState": state}
        await place.ask("tools/call", used, version=MODERN, capabilities=ALL)
        with pytest.raises(BrokerError, match="requestState"):
            await place.ask("tools/call", used, version=MODERN, capabilities=ALL)
        assert [one.is_retry for one in ledger.made] == [*[False] * 6, True, False]


@pytest.mark.parametrize("params", [{}, {"cursor": None}])
async def test_further_pages_of_a_servers_tasks_go_on_with_the_first(tmp_path: Path, params: Json) -> None:
    async def page(asked: Any) -> Json:
        return {"tasks": []} if asked.params.get("cursor") else {"tasks": [], "nextCursor": "2"}

    listing = {"tasks": {"list": {}, "requests": {"tools": {"call": {}}}}}
    fake = Fake(capabilities=listing, tools=[tool("echo")], answers={"tasks/list": page})
    async with house(tmp_path, {"one": fake}) as place:
        ledger = ledger_of(place)
        await place.ask("tasks/list", params, version=LEGACY)
        assert [one.is_retry for one in ledger.made] == [False, True]
        assert [one.params.get("cursor", "none") for one in fake.asked if one.method == "tasks/list"] == ["none", "2"]


@pytest.mark.parametrize("params", [{}, {"cursor": None}])
async def test_a_list_of_tasks_counts_as_a_call_also_with_a_cursor_that_is_null(tmp_path: Path, params: Json) -> None:
    listing = {"tasks": {"list": {}, "requests": {"tools": {"call": {}}}}}
    fake = Fake(capabilities=listing, tools=[tool("echo")], answers={"tasks/list": answering({"tasks": []})})
    async with house(tmp_path, {"one": fake}, servers={"one": {"limits": {"rate": "1/minute"}}}) as place:
        await place.ask("tasks/list", params, version=LEGACY)
        with pytest.raises(LimitReached):
            await place.ask("tasks/list", params, version=LEGACY)


async def test_a_task_is_settled_with_the_task(tmp_path: Path) -> None:
    made = answering({"resultType": "task", "taskId": "t", "status": "working", "ttlMs": 60_000})
    extension: Json = {"extensions": {TASKS: {}}}
    fake = Fake(MODERN, capabilities=dict(extension), answers={"echo": made})
    async with house(tmp_path, {"one": fake}) as place:
        ledger = ledger_of(place)
        await place.ask("tools/call", CALL, version=MODERN, capabilities=extension)
        assert [one["taskId"] for one in ledger.made[0].ends] == ["one.t"]


@pytest.mark.parametrize("version", [LEGACY, MODERN])
async def test_every_method_that_reaches_a_server_counts_and_lists_do_not(tmp_path: Path, version: Version) -> None:
    fake = resourceful(prompts=[{"name": "greet"}], capabilities={"completions": {}})
    asks: list[tuple[str, Json]] = [
        ("tools/call", CALL),
        ("prompts/get", {"name": "one__greet"}),
        ("resources/read", READ),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "one__greet"}, "argument": {"name": "a", "value": ""}},
        ),
    ]
    async with house(tmp_path, {"one": fake}, servers={"one": {"limits": {"rate": f"{len(asks)}/minute"}}}) as place:
        for method in ("tools/list", "prompts/list", "resources/list"):
            await place.ask(method, {}, version=version)
        fake.asked.clear()
        for method, params in asks:
            await place.ask(method, params, version=version)
        for method, params in asks[1:]:
            with pytest.raises(LimitReached) as caught:
                await place.ask(method, params, version=version)
            assert caught.value.data == {"level": "server:one", "limit": "4/minute", "retryAfter": 60}
        result = await place.ask("tools/call", CALL, version=version)
        assert result["isError"] and "server one has reached its limit of 4/minute" in result["content"][0]["text"]
        assert len(fake.asked) == len(asks)
        await place.ask("tools/list", {}, version=version)
        place.clock.advance(60)
        assert "isError" not in await place.ask("tools/call", CALL, version=version)


async def test_a_name_that_is_hidden_or_refused_says_nothing_of_limits_and_takes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": Fake()}, servers={"one": {"limits": {"rate": "1/minute"}}}) as place:
        for _ in range(3):
            with pytest.raises(BrokerError, match="Unknown tool"):
                await place.ask("tools/call", {"name": "one__nothing"})
        assert "isError" not in await place.ask("tools/call", CALL)
        with pytest.raises(BrokerError, match="Unknown tool"):
            await place.ask("tools/call", {"name": "one__nothing"})


async def test_a_parked_call_counts_once_with_its_retries_and_holds_no_place_while_it_waits(tmp_path: Path) -> None:
    limits = {"one": {"limits": {"rate": "2/minute", "concurrency": 1, "queue": 0}}}
    async with house(tmp_path, {"one": Fake(answers={"echo": form})}, servers=limits) as place:
        asked = await place.ask("tools/call", CALL, version=MODERN, capabilities=ALL)
        slow = {"name": "one__slow", "arguments": {}}
        assert "isError" not in await place.ask("tools/call", slow, version=MODERN)
        assert "2/minute" in (await place.ask("tools/call", slow, version=MODERN))["content"][0]["text"]
        answers = dict.fromkeys(asked["inputRequests"], ADA)
        retry = {**CALL, "requestState": asked["requestState"], "inputResponses": answers}
        assert "isError" not in await place.ask("tools/call", retry, version=MODERN, capabilities=ALL)


async def test_retries_with_other_arguments_are_calls_and_are_refused_beyond_the_limit(tmp_path: Path) -> None:
    """Nothing of them goes upstream, but whatever guards the server has to judge them."""
    limits = {"one": {"limits": {"rate": "3/minute"}}}
    async with house(tmp_path, {"one": Fake(answers={"echo": form})}, servers=limits) as place:
        asked = await place.ask("tools/call", CALL, version=MODERN, capabilities=ALL)
        other = {**CALL, "arguments": {"other": 1}, "requestState": asked["requestState"]}
        for _ in range(2):
            with pytest.raises(BrokerError, match="requestState"):
                await place.ask("tools/call", other, version=MODERN, capabilities=ALL)
        refused = await place.ask("tools/call", other, version=MODERN, capabilities=ALL)
        assert "3/minute" in refused["content"][0]["text"]
        retry = {**CALL, "requestState": asked["requestState"], "inputResponses": {}}
        again = await place.ask("tools/call", retry, version=MODERN, capabilities=ALL)
        assert again["resultType"] == "input_required", "the retry itself still counts with its call"


async def test_a_retry_that_was_let_through_and_ended_before_its_server_is_a_call_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is good once more, but what guards the server has judged it: not for nothing, again and again."""
    async with house(tmp_path, {"one": Fake(answers={"echo": form})}) as place:
        asked = await place.ask("tools/call", CALL, version=MODERN, capabilities=ALL)
        answers = dict.fromkeys(asked["inputRequests"], ADA)
        retry = {**CALL, "requestState": asked["requestState"], "inputResponses": answers}
        ledger = ledger_of(place)

        async def gone(*_: Any) -> Json:
            raise UpstreamUnavailable("one", "it is down")

        with monkeypatch.context() as patch:
            patch.setattr(Forwarder, "forward", gone)
            for _ in range(2):
                with pytest.raises(BrokerError, match="down"):
                    await place.ask("tools/call", retry, version=MODERN, capabilities=ALL)
        assert "isError" not in await place.ask("tools/call", retry, version=MODERN, capabilities=ALL)
        assert [one.is_retry for one in ledger.made] == [True, False, False]


async def test_a_retry_that_finds_no_place_has_not_used_its_state_up(tmp_path: Path) -> None:
    gate = Gate()
    limits = {"one": {"limits": {"concurrency": 1, "queue": 0}}}
    fake = Fake(answers={"echo": form, "slow": gate})
    async with house(tmp_path, {"one": fake}, servers=limits) as place, anyio.create_task_group() as tasks:
        asked = await place.ask("tools/call", CALL, version=MODERN, capabilities=ALL)
        tasks.start_soon(place.ask, "tools/call", {"name": "one__slow", "arguments": {}})
        await fake.until(lambda: len(fake.asked) == 2)
        answers = dict.fromkeys(asked["inputRequests"], ADA)
        retry = {**CALL, "requestState": asked["requestState"], "inputResponses": answers}
        refused = await place.ask("tools/call", retry, version=MODERN, capabilities=ALL)
        assert "1 at a time" in refused["content"][0]["text"]
        gate.opened.set()
        await anyio.wait_all_tasks_blocked()
        assert "isError" not in await place.ask("tools/call", retry, version=MODERN, capabilities=ALL)


@pytest.mark.parametrize("version", [LEGACY, MODERN])
async def test_no_more_calls_are_upstream_than_allowed_and_a_call_that_ends_badly_makes_room(
    tmp_path: Path, version: Version
) -> None:
    gate, now, most = Gate(), 0, 0

    async def counted(asked: Any) -> Json:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        try:
            await gate.opened.wait()
            await anyio.lowlevel.checkpoint()
            if asked.params["arguments"]["n"] % 3 == 0:
                raise Refuse(-32000)
            return {"content": []}
        finally:
            now -= 1

    fake = Fake(answers={"echo": counted})
    limits = {"one": {"limits": {"concurrency": 3}}}
    async with house(tmp_path, {"one": fake}, servers=limits) as place:
        answered: list[str] = []

        async def call(number: int) -> None:
            params = {"name": "one__echo", "arguments": {"n": number}}
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                try:
                    await place.ask("tools/call", params, version=version)
                    answered.append("result")
                except BrokerError as error:
                    answered.append(error.message)

        scopes: list[anyio.CancelScope] = []
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(call, number)
            await fake.until(lambda: len(fake.asked) == 3)
            scopes[1].cancel()  # one that runs
            scopes[20].cancel()  # one that waits
            await fake.until(lambda: len(fake.asked) == 4)
            gate.opened.set()
        assert most == 3 and len(answered) == 28 and answered.count("said the upstream") == 10
        assert len(fake.asked) == 29  # the one that gave up while it waited never was there
        (counter,) = place.broker.quotas.counters._counters.values()  # pyright: ignore[reportPrivateUsage]
        assert counter.gate.is_idle


async def test_limits_of_places_are_in_force_with_the_next_call_and_keep_their_counts(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": Fake()}) as place:

        def adopt(limits: Json) -> Caller:
            settings: Json = {"allow": [{"servers": ["*"]}], "limits": limits}
            acme = OrganizationSettings.model_validate(settings)
            place.broker.generation.adopt(directory_of({"acme": acme}))
            return Caller("jwt:x ann", "acme")

        async def text(caller: Caller) -> str:
            return (await place.ask("tools/call", CALL, caller=caller))["content"][0]["text"]

        ann = adopt({"rate": "2/minute"})
        assert [await text(ann), await text(ann)] == ["{}", "{}"] and "org acme has reached" in await text(ann)
        ann = adopt({"rate": "3/minute"})
        assert await text(ann) == "{}" and "3/minute" in await text(ann)
        ann = adopt({"servers": {"one": {"rate": "1/hour"}}})
        assert await text(ann) == "{}" and "org acme/servers/one has reached its limit of 1/hour" in await text(ann)


async def test_a_subscription_counts_and_its_end_does_not(tmp_path: Path) -> None:
    fake = resourceful(
        capabilities={"resources": {"subscribe": True, "listChanged": True}},
        answers={"resources/subscribe": answering({}), "resources/unsubscribe": answering({})},
    )
    async with house(tmp_path, {"one": fake}, servers={"one": {"limits": {"rate": "2/minute"}}}) as place:
        router, watches, asker = place.broker.engine.router, Watches(), Asker(LOCAL.principal, "")
        request = Request("resources/subscribe", READ, LEGACY)
        for _ in range(2):
            await router.watch(READ["uri"], request, LOCAL, asker, watches)
            await router.unwatch(READ["uri"], request, LOCAL, watches)
        fake.asked.clear()
        with pytest.raises(LimitReached):
            await router.watch(READ["uri"], request, LOCAL, asker, watches)
        assert fake.asked == [] and not len(watches)
