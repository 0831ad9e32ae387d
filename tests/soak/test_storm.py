"""Mixed traffic while everything around the broker fails. `make soak` takes longer."""

from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.hostile.harness import needs_proc
from tests.soak.storm import Report, is_granted, outcome_of, still, storm
from tests.soak.town import Resident, residents

SEED = 11


@needs_proc
async def test_in_a_storm_of_faults_every_call_has_one_answer_and_nothing_is_left(tmp_path: Path, tell: Tell) -> None:
    enough = False
    for seconds in (6, 30):  # the second is for a machine that was too busy for anything
        (directory := tmp_path / str(seconds)).mkdir()
        report = await storm(directory, seconds=seconds, seed=SEED, people=10)
        tell("storm", report.text())
        assert report.findings.broken == []
        assert report.left_behind() == {}
        assert report.unanswered == 0
        enough = report.findings.outcomes["result: plain"] > 10 and report.faults.total() > 3
        if enough:
            break
    assert enough


def test_what_is_left_behind_is_found_also_if_it_grows_from_round_to_round() -> None:
    figures = {"tasks": 10, "parked": 0, "resident KiB": 100_000}
    report = Report(1, 1, rounds=[figures, {**figures, "tasks": 12}, {**figures, "parked": 1}])
    assert report.left_behind() == {"parked": (0, 1)}
    report.rounds.append({**figures, "resident KiB": 130_000})
    assert report.left_behind() == {"resident KiB": (100_000, 130_000)}


ADA = Resident(1, "http", "modern", "initech", "key")
UNKNOWN = {"error": {"code": -32602, "message": "Unknown tool: x"}}
BLOCKED = {"error": {"code": 4030, "message": "blocked by guardrail no-bad", "data": {"guardrail": "no-bad"}}}


@pytest.mark.parametrize(
    ("server", "answer", "expected"),
    [
        ("old-pipe", {"result": {"content": [{"type": "text", "text": ADA.canary}]}}, "result: plain"),
        ("old-pipe", {"result": {"content": [{"type": "text", "text": "canary-00002"}]}}, ""),
        ("old-pipe", {"result": {"content": [{"type": "text", "text": "nonsense"}], "isError": True}}, ""),
        ("old-pipe", {"error": {"code": -32603, "message": "internal error", "data": {"errorId": "x"}}}, ""),
        ("old-pipe", {"error": {"code": -32603, "message": "down", "data": {"upstream": "old-pipe"}}}, "error: server"),
        ("old-pipe", {"error": {"code": -32603, "message": "down", "data": {"upstream": "new-pipe"}}}, ""),
        ("old-pipe", UNKNOWN, ""),
        ("new-web", UNKNOWN, "refused: unknown"),
        ("new-pipe", BLOCKED, "refused: blocked"),
        ("old-pipe", BLOCKED, ""),
    ],
)
def test_only_what_must_be_is_a_good_answer(server: str, answer: dict[str, object], expected: str) -> None:
    assert outcome_of(ADA, server, still(ADA), answer) == expected


@pytest.mark.parametrize(
    ("server", "asks", "expected"),
    [("turned", True, "refused: given up"), ("turned", False, ""), ("old-pipe", True, "")],
)
def test_a_parked_call_is_given_up_only_on_a_server_that_is_taken_out_and_put_back(
    server: str, asks: bool, expected: str
) -> None:
    error = {"code": -32602, "message": "Invalid or expired requestState", "data": {"reason": "invalid_request_state"}}
    assert outcome_of(ADA, server, {**still(ADA), "asks": asks}, {"error": error}) == expected


def refused_with(code: int, message: str) -> dict[str, object]:
    return {"error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    ("answer", "may_be"),
    [
        (refused_with(-32602, "Failed to retrieve task: Task not found"), True),
        (refused_with(-32603, "Task not found"), False),
        (refused_with(-32603, "Internal error"), False),
        (refused_with(-32602, "params.taskId must be a string"), False),
        ({"result": {"content": [{"type": "text", "text": "has reached its limit"}], "isError": True}}, True),
        ({"result": {"content": [{"type": "text", "text": "nonsense"}], "isError": True}}, False),
    ],
)
def test_of_a_task_too_only_what_must_be_is_a_good_answer(answer: dict[str, object], may_be: bool) -> None:
    report = Report(1, 1)
    assert not is_granted(report, ADA, "old-pipe", answer, "Task not found")
    assert (report.findings.broken == []) is may_be


def test_every_kind_of_caller_takes_part() -> None:
    people = residents(10)
    assert {(one.front, one.era) for one in people} == {
        *(("stdio", era) for era in ("modern", "legacy")),
        *(("http", era) for era in ("modern", "legacy")),
        ("sse", "legacy"),
    }
    assert {one.organization for one in people} == {"", "acme", "globex", "initech"}
    assert len({one.key for one in people if one.key}) == 8
