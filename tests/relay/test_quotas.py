"""Where a permitted call is admitted: nothing is sent before, and what it holds is given back once, however it ends."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.core.era import TASKS
from broker.core.policy import Permit
from broker.errors import BrokerError, LimitReached
from tests.relay.fake import LEGACY, MODERN, Fake, Gate, House, Json, Refuse, answering, house, tool
from tests.relay.test_parking import ADA, ALL, form

CALL: Json = {"name": "one__echo", "arguments": {}}
READ: Json = {"uri": "one+file:///readme"}


class Reserved:
    """One reservation, and what became of it."""

    def __init__(self, method: str, is_retry: bool) -> None:
        self.method, self.is_retry = method, is_retry
        self.ends: list[Any] = []

    def settle(self, result: Mapping[str, Any]) -> None:
        self.ends.append(dict(result))

    def release(self) -> None:
        self.ends.append("released")


class Ledger:
    """Budgets that keep all that happens; `is_spent` refuses."""

    is_on = True

    def __init__(self) -> None:
        self.made: list[Reserved] = []
        self.is_spent = False

    async def reserve(self, permit: Permit, method: str, *, is_retry: bool) -> Reserved:
        if self.is_spent:
            raise LimitReached("team:acme/data", "10 units a day", 3599.2)
        self.made.append(Reserved(method, is_retry))
        return self.made[-1]


def ledger_of(place: House) -> Ledger:
    ledger = Ledger()
    place.broker.quotas.budgets = ledger
    return ledger


def resourceful(**more: Any) -> Fake:
    return Fake(resources=[{"uri": "file:///readme", "name": "r"}], templates=[], **more)


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
            ("tools/call", {**CALL, "name": "one__slow", "requestState": state}),
            ("resources/read", {**READ, "requestState": state}),
        ]
        for method, params in wrong:
            with pytest.raises(BrokerError, match="requestState"):
                await place.ask(method, params, version=MODERN, capabilities=ALL)
        used = {**CALL, "requestState": state}
        await place.ask("tools/call", used, version=MODERN, capabilities=ALL)
        with pytest.raises(BrokerError, match="requestState"):
            await place.ask("tools/call", used, version=MODERN, capabilities=ALL)
        assert [one.is_retry for one in ledger.made] == [False, False, False, False, True, False]


async def test_further_pages_of_a_servers_tasks_go_on_with_the_first(tmp_path: Path) -> None:
    async def page(asked: Any) -> Json:
        return {"tasks": []} if asked.params.get("cursor") else {"tasks": [], "nextCursor": "2"}

    listing = {"tasks": {"list": {}, "requests": {"tools": {"call": {}}}}}
    fake = Fake(capabilities=listing, tools=[tool("echo")], answers={"tasks/list": page})
    async with house(tmp_path, {"one": fake}) as place:
        ledger = ledger_of(place)
        await place.ask("tasks/list", {}, version=LEGACY)
        assert [one.is_retry for one in ledger.made] == [False, True]


async def test_a_task_is_settled_with_the_task(tmp_path: Path) -> None:
    made = answering({"resultType": "task", "taskId": "t", "status": "working", "ttlMs": 60_000})
    extension: Json = {"extensions": {TASKS: {}}}
    fake = Fake(MODERN, capabilities=dict(extension), answers={"echo": made})
    async with house(tmp_path, {"one": fake}) as place:
        ledger = ledger_of(place)
        await place.ask("tools/call", CALL, version=MODERN, capabilities=extension)
        assert [one["taskId"] for one in ledger.made[0].ends] == ["one.t"]
