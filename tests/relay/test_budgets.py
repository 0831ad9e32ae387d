"""Costs over a whole broker and a real store: however a call ends, its budget is settled or released, once."""

import json
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.config import load
from broker.core.amount import UNIT
from broker.core.caller import Caller
from broker.core.era import TASKS
from broker.errors import BrokerError, BudgetReached, UpstreamTimedOut
from broker.stores.location import Location
from broker.stores.opening import open_usage
from broker.stores.usage_rows import Seen
from broker.usage.pocket import TICK
from tests.guardrails.test_calls import BLOCK, configured
from tests.relay.fake import (
    LEGACY,
    MODERN,
    TIMEOUT,
    Answer,
    Fake,
    Gate,
    House,
    Json,
    answering,
    house,
    refusing,
    write_config,
)
from tests.relay.test_parking import ADA as ANSWER
from tests.relay.test_parking import ALL, form

CALL: Json = {"name": "one__echo", "arguments": {}}
READ: Json = {"uri": "one+file:///readme"}
NAMED: Json = {"call": 1, "result": "structuredContent.usage.cost", "max": 3}
BUDGET = 8
ADA = Caller("jwt:https://login.acme.dev ada", "acme", "data")
ACME: Json = {
    "allow": [{"servers": ["*"]}],
    "limits": {"budget": {"month": 100}},
    "teams": {"data": {"limits": {"budget": {"day": BUDGET}}}},
}


@cache
def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


async def empty_store() -> Path:
    """A store that is made once: its tables take longer than a test."""
    found = Path(_home().name) / "broker.db"
    if not found.exists():
        await (await open_usage(Location(found.parent, found), "")).database.aclose()
    return found


@asynccontextmanager
async def budgeted(
    directory: Path, answer: Answer | None = None, *, cost: Any = 1, **more: Any
) -> AsyncGenerator[House]:
    """A broker in which the team of `ADA` may spend 8 a day."""
    state = directory / "state"
    state.mkdir()
    shutil.copy(await empty_store(), state / "broker.db")
    fake = Fake(
        answers={} if answer is None else {"echo": answer},
        resources=[{"uri": "file:///readme", "name": "r"}],
        templates=[],
        prompts=[{"name": "greet"}],
        **more.pop("fake", {}),
    )
    servers = {"one": {"cost": cost, **more.pop("server", {})}}
    async with house(directory, {"one": fake}, servers=servers, organizations={"acme": ACME}, **more) as place:
        yield place


def books(place: House) -> tuple[float, float]:
    """What is reserved of the team's budget, and what is spent, in units. The organization's must say the same."""
    pockets = {one.limit.where: one.purse for one in place.broker.budgets.purses}
    organization, team = pockets["org:acme"], pockets["team:acme/data"]
    assert (organization.reserved, organization.spent) == (team.reserved, team.spent)
    return team.reserved / UNIT, team.spent / UNIT


def paid(value: Any) -> Answer:
    return answering({"content": [], "structuredContent": {"usage": {"cost": value}}})


@pytest.mark.parametrize(
    ("result", "spent"),
    [({"content": []}, 1), ({"content": [], "isError": True}, 1), ({"content": [], "vendor": 3}, 1)],
)
async def test_a_result_is_paid_also_one_that_is_an_error_of_the_tool(tmp_path: Path, result: Json, spent: int) -> None:
    async with budgeted(tmp_path, answering(result)) as place:
        await place.ask("tools/call", CALL, caller=ADA)
        assert books(place) == (0, spent)


@pytest.mark.parametrize(("named", "spent"), [(0.5, 1.5), ("2", 3), (0, 1), (-1, 4), (3.1, 4), (None, 4), ("free", 4)])
async def test_what_a_result_names_is_paid_and_when_in_doubt_all_that_was_reserved(
    tmp_path: Path, named: Any, spent: float
) -> None:
    async with budgeted(tmp_path, paid(named), cost=NAMED) as place:
        await place.ask("tools/call", CALL, caller=ADA)
        assert books(place) == (0, spent)


@pytest.mark.parametrize("version", [LEGACY, MODERN])
async def test_an_error_of_the_server_costs_nothing(tmp_path: Path, version: Any) -> None:
    async with budgeted(tmp_path, refusing(-32000)) as place:
        with pytest.raises(BrokerError):
            await place.ask("tools/call", CALL, caller=ADA, version=version)
        assert books(place) == (0, 0)


async def test_a_call_that_is_cancelled_costs_nothing(tmp_path: Path) -> None:
    async with budgeted(tmp_path, Gate()) as place:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: place.ask("tools/call", CALL, caller=ADA))
            await place.fakes["one"].until(lambda: bool(place.fakes["one"].asked))
            assert books(place) == (1, 0)
            tasks.cancel_scope.cancel()
        assert books(place) == (0, 0)


async def test_a_call_that_takes_too_long_costs_nothing(tmp_path: Path) -> None:
    async with budgeted(tmp_path, Gate(), server={"timeout": 0.05}) as place:
        with pytest.raises(UpstreamTimedOut):
            await place.ask("tools/call", CALL, caller=ADA)
        assert books(place) == (0, 0)


async def test_a_call_that_is_refused_for_another_limit_costs_nothing_and_is_no_use(tmp_path: Path) -> None:
    async with budgeted(tmp_path, server={"limits": {"rate": "1/day"}}) as place:
        for _ in range(3):
            await place.ask("tools/call", CALL, caller=ADA)
        assert books(place) == (0, 1)
    assert await used(place) == {"echo": (1, 0, 0, 1 * UNIT)}


async def test_a_parked_call_and_its_retry_cost_one_call(tmp_path: Path) -> None:
    async with budgeted(tmp_path, form, cost=NAMED) as place:
        asked = await place.ask("tools/call", CALL, version=MODERN, capabilities=ALL, caller=ADA)
        assert books(place) == (0, 1)
        retry = {
            **CALL,
            "requestState": asked["requestState"],
            "inputResponses": dict.fromkeys(asked["inputRequests"], ANSWER),
        }
        await place.ask("tools/call", retry, version=MODERN, capabilities=ALL, caller=ADA)
        assert books(place) == (0, 4)  # its result names nothing
    assert await used(place) == {"echo": (1, 0, 0, 4 * UNIT)}


async def test_a_task_is_paid_when_it_is_made_and_asking_for_it_is_not(tmp_path: Path) -> None:
    extension: Json = {"extensions": {TASKS: {}}}
    task = {"resultType": "task", "taskId": "t", "status": "working", "ttlMs": 60_000}
    more: Json = {"version": MODERN, "capabilities": dict(extension)}
    async with budgeted(tmp_path, answering(task), cost=NAMED, fake=more) as place:
        place.fakes["one"].answers["tasks/get"] = answering({**task, "resultType": "complete"})
        await place.ask("tools/call", CALL, version=MODERN, capabilities=extension, caller=ADA)
        await place.ask("tasks/get", {"taskId": "one.t"}, version=MODERN, capabilities=extension, caller=ADA)
        assert books(place) == (0, 4)


async def test_who_has_spent_it_all_is_told_which_and_until_when_and_nothing_is_sent(tmp_path: Path) -> None:
    async with budgeted(tmp_path, cost=5) as place:
        fake = place.fakes["one"]
        await place.ask("tools/call", CALL, caller=ADA)
        place.clock.advance(3600)
        fake.asked.clear()
        result = await place.ask("tools/call", CALL, caller=ADA)
        said = "team acme/data has used up its budget of 8/day: it begins anew at 1970-01-02T00:00:00Z"
        assert (result["isError"], result["content"][0]["text"]) == (True, said)
        with pytest.raises(BudgetReached) as refusal:
            await place.ask("resources/read", READ, caller=ADA)
        assert refusal.value.to_json() == {
            "code": 4290,
            "message": said,
            "data": {
                "level": "team:acme/data",
                "limit": "budget 8/day",
                "retryAfter": 86_400 - 3600,
                "resets": "1970-01-02T00:00:00Z",
            },
        }
        assert fake.asked == [] and books(place) == (0, 5)
        place.clock.advance(86_400 - 3600)
        assert not (await place.ask("tools/call", CALL, caller=ADA)).get("isError")
    assert await used(place) == {"echo": (2, 0, 1, 10 * UNIT), "": (0, 0, 1, 0)}


async def test_what_costs_nothing_goes_on_when_the_budget_is_spent(tmp_path: Path) -> None:
    server = {"tool_costs": {"slow": 0}}
    async with budgeted(tmp_path, cost=8, server=server, fake={"capabilities": {"completions": {}}}) as place:
        await place.ask("tools/call", CALL, caller=ADA)
        await place.ask("tools/list", {}, caller=ADA)
        assert not (await place.ask("tools/call", {**CALL, "name": "one__slow"}, caller=ADA)).get("isError")
        reference = {"type": "ref/prompt", "name": "one__greet"}
        await place.ask("completion/complete", {"ref": reference, "argument": {"name": "a", "value": ""}}, caller=ADA)
        with pytest.raises(BudgetReached):
            await place.ask("prompts/get", {"name": "one__greet"}, caller=ADA)


async def test_of_64_calls_at_once_one_gets_the_last_unit(tmp_path: Path) -> None:
    async with budgeted(tmp_path, cost=BUDGET) as place:
        found: list[Json] = []

        async def call() -> None:
            found.append(await place.ask("tools/call", CALL, caller=ADA))

        async with anyio.create_task_group() as tasks:
            for _ in range(64):
                tasks.start_soon(call)
        assert sum(not one.get("isError") for one in found) == 1
        assert books(place) == (0, BUDGET)


@pytest.mark.parametrize(("phase", "spent"), [("request", 0), ("result", 1)])
async def test_what_a_guardrail_blocks_is_paid_if_the_server_has_done_it(
    tmp_path: Path, phase: str, spent: int
) -> None:
    guardrails = configured(tmp_path, no=(BLOCK, {"phases": [phase]}))
    async with budgeted(tmp_path, guardrails=guardrails) as place:
        assert (await place.ask("tools/call", CALL, caller=ADA)).get("isError")
        assert books(place) == (0, spent)


async def test_a_price_of_a_tool_that_is_not_there_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with budgeted(tmp_path, server={"tool_costs": {"ecko": 3, "slow": 1}}) as place:
        assert place.broker.generation.unserved("one") == ("ecko",)
    assert [one.message for one in caplog.records if "tool_costs" in one.message] == [
        "servers.one.tool_costs.ecko: the server serves no tool of this name"
    ]


async def test_at_80_per_cent_somebody_is_told_once_and_callers_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with budgeted(tmp_path, cost=7, audit={"enabled": True}) as place:
        result = await place.ask("tools/call", CALL, caller=ADA)
        assert "budget" not in repr(result)
        with anyio.fail_after(TIMEOUT):
            while any(one.purse.is_dirty for one in place.broker.budgets.purses):
                place.clock.advance(TICK)
                await anyio.wait_all_tasks_blocked()
        gauges = {one.name: one.value for one in place.broker.budgets.gauges()}
        assert (gauges["budget_warnings"], gauges["budgets_failing"]) == (1, 0)
    said = [one.message for one in caplog.records if "nearly" in one.message]
    assert said == ["the budget team:acme/data/budget/day is nearly used up: 7 of 8 are spent"]
    lines = b"".join(path.read_bytes() for path in (tmp_path / "state" / "audit").iterdir()).splitlines()
    (record,) = [one for one in map(json.loads, lines) if one["event"] == "admin"]
    assert (record["action"], record["target"]) == ("budget.warning", "team:acme/data/budget/day")


async def test_refusals_and_doubts_are_counted_by_kinds_that_no_caller_can_make_up(tmp_path: Path) -> None:
    async with budgeted(tmp_path, cost={**NAMED, "max": 7}) as place:
        for _ in range(2):
            await place.ask("tools/call", CALL, caller=ADA)
        found = {(one.name, *one.labels.values()): one.value for one in place.broker.gauges() if "budget" in one.name}
        assert found[("budget_refusals", "team", "spent")] == 1
        assert found[("budget_doubts",)] == 1


async def test_the_local_user_has_no_budget(tmp_path: Path) -> None:
    async with budgeted(tmp_path, cost=1000) as place:
        assert not (await place.ask("tools/call", CALL)).get("isError")
        assert len(place.broker.budgets.purses) == 0


async def test_a_budget_and_a_cost_that_are_changed_by_a_reload_are_in_force_at_once(tmp_path: Path) -> None:
    async with budgeted(tmp_path, cost=8) as place:
        await place.ask("tools/call", CALL, caller=ADA)
        assert (await place.ask("tools/call", CALL, caller=ADA)).get("isError")
        more = {**ACME, "teams": {"data": {"limits": {"budget": {"day": 2 * BUDGET}}}}}
        path = write_config(tmp_path, {"one": {"cost": 7}}, organizations={"acme": more})
        await place.broker.reload(load(path, {}))
        assert not (await place.ask("tools/call", CALL, caller=ADA)).get("isError")
        assert books(place) == (0, 15)
        assert (await place.ask("tools/call", CALL, caller=ADA)).get("isError")


async def used(place: House) -> dict[str, tuple[int, int, int, int]]:
    """What is in the store: calls, failed, refused and cost, by the name of the tool."""
    state = Path(place.broker.loaded.config.broker.state_dir or "")
    store = await open_usage(Location(state, state / "broker.db"), "reader")
    try:
        found = await store.read("tool", 0, 1e11, 86_400 * 365, Seen(everything=True))
    finally:
        await store.database.aclose()
    return {row.of["name"]: (row.sums.calls, row.sums.failed, row.sums.refused, row.sums.cost) for row in found}
