"""The comparison itself, on results that are written down here: it must not overlook a loss."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import compare, suite
from tests.conformance.compare import Cell
from tests.conformance.suite import Check

GOOD = Check("SUCCESS", successes=1)


def lost_of(cell: Cell) -> set[str]:
    return {loss.check for loss in cell.losses}


def losses(direct: dict[str, Check], through: dict[str, Check]) -> list[tuple[str, str]]:
    """By check id and status, for one scenario."""
    known = Cell("2025-11-25", "direct", {"scenario": direct})
    cell = compare.against(known, Cell("2025-11-25", "http", {"scenario": through} if through else {}))
    assert cell.kept == int(not cell.losses)
    kept = [name for name, check in direct.items() if check.status == "SUCCESS" and name not in lost_of(cell)]
    assert cell.checks == (len(kept) if through else 0)
    assert set(cell.excused) == {name for name in kept if through and through[name].status == "INFO"}
    return [(loss.check, loss.status) for loss in cell.losses]


def test_equal_results_lose_nothing() -> None:
    assert losses({"a": GOOD, "b": Check("INFO")}, {"a": GOOD, "b": Check("INFO")}) == []


@pytest.mark.parametrize("status", ["FAILURE", "WARNING", "INFO", "SKIPPED"])
def test_a_success_that_becomes_anything_else_is_lost(status: str) -> None:
    assert losses({"a": GOOD}, {"a": Check(status)}) == [("a", status)]


def test_a_check_that_is_not_reached_is_lost_and_the_error_that_hides_it_is_told() -> None:
    assert losses({"a": GOOD}, {"error": Check("FAILURE")}) == [("a", "ABSENT"), ("error", "FAILURE")]


def test_a_scenario_without_results_is_lost() -> None:
    assert losses({"a": GOOD}, {}) == [("*", "ABSENT")]


def test_a_check_that_succeeds_less_often_is_lost() -> None:
    assert losses({"a": Check("SUCCESS", successes=3)}, {"a": GOOD}) == [("a", "SUCCESS")]


def test_what_already_fails_directly_is_not_held_against_the_broker() -> None:
    assert losses({"a": GOOD, "b": Check("SKIPPED")}, {"a": GOOD, "b": GOOD}) == []


def test_json_in_place_of_streams_is_excused() -> None:
    assert losses({"server-sse-streams-functional": GOOD}, {"server-sse-streams-functional": Check("INFO")}) == []
    failed = {"server-sse-streams-functional": Check("FAILURE")}
    assert losses({"server-sse-streams-functional": GOOD}, failed) == [("server-sse-streams-functional", "FAILURE")]


def test_nothing_else_is_excused() -> None:
    assert {"server-sse-streams-functional", "server-sse-disconnect-resume"} == compare.EXCUSED


def test_a_resumed_stream_is_excused_only_if_the_result_came() -> None:
    name = "server-sse-disconnect-resume"
    assert losses({name: GOOD}, {name: Check("INFO", details={"receivedToolResponse": True})}) == []
    assert losses({name: GOOD}, {name: Check("INFO")}) == [(name, "INFO")]


def test_a_check_that_comes_several_times_is_as_good_as_its_worst_time(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "name": "First", "status": "SUCCESS"},
        {"id": "a", "name": "Second", "status": "FAILURE", "errorMessage": "it broke"},
        {"id": "a", "name": "Third", "status": "SUCCESS"},
        {"id": "b", "name": "Only", "status": "INFO", "details": {"message": "a word"}},
    ]
    directory = tmp_path / "server-some-scenario-2026-01-02T03-04-05-678Z"
    directory.mkdir()
    (directory / "checks.json").write_text(json.dumps(rows), encoding="utf-8")
    assert suite._read(tmp_path) == {
        "some-scenario": {
            "a": Check("FAILURE", "Second: it broke", 2),
            "b": Check("INFO", "Only: a word", 0, {"message": "a word"}),
        }
    }
