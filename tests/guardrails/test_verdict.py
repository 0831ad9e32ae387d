"""Whatever a process says that is not one of the three answers denies."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.guardrails.source import Flaw
from broker.guardrails.verdict import PASS, Fault, Pass, Reject, Rewrite, read_flaws, read_verdict

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NEARLY = st.dictionaries(
    st.sampled_from(["action", "reason", "args", "result", "error", "ok"]),
    st.sampled_from(["allow", "block", "modify", "Allow", "", {}, {"a": 1}, [], None, True, 1]) | JSON,
    max_size=4,
)


def test_the_three_answers() -> None:
    assert read_verdict({"ok": {"action": "allow"}}, "args") == PASS
    assert read_verdict({"ok": {"action": "allow", "reason": "fine"}}, "args") == PASS
    assert read_verdict({"ok": {"action": "block"}}, "args") == Reject("")
    assert read_verdict({"ok": {"action": "block", "reason": "x" * 5000}}, "args") == Reject("x" * 1024)
    assert read_verdict({"ok": {"action": "modify", "args": {"a": 1}}}, "args") == Rewrite({"a": 1})
    assert read_verdict({"ok": {"action": "modify", "result": {}}}, "result") == Rewrite({})


@pytest.mark.parametrize(
    "said",
    [
        True,
        None,
        "allow",
        [],
        ["action", "allow"],
        {},
        {"action": True},
        {"action": "ALLOW"},
        {"action": ["allow"]},
        {"action": "allow", "reason": 1},
        {"action": "allow", "args": {}},
        {"action": "allow", "prev": None},
        {"action": "block", "args": {}},
        {"action": "modify"},
        {"action": "modify", "args": None},
        {"action": "modify", "args": []},
        {"action": "modify", "result": {}},
        {"action": "modify", "args": {}, "result": {}},
    ],
)
def test_anything_else_is_a_fault(said: Any) -> None:
    assert isinstance(read_verdict({"ok": said}, "args"), Fault)


@given(st.one_of(NEARLY, st.fixed_dictionaries({"ok": NEARLY | JSON}), st.dictionaries(st.text(), JSON)))
def test_only_an_exact_answer_lets_anything_pass(answer: dict[str, Any]) -> None:
    verdict = read_verdict(answer, "args")
    said: Any = answer.get("ok")
    if isinstance(verdict, Pass):
        assert set(answer) == {"ok"} and said["action"] == "allow" and set(said) <= {"action", "reason"}
    if isinstance(verdict, Rewrite):
        assert said["action"] == "modify" and verdict.value == said["args"]


@given(st.dictionaries(st.sampled_from(["kind", "line", "text"]), JSON) | JSON)
def test_an_error_is_a_fault_whatever_it_holds_and_says_nothing_of_its_text(error: Any) -> None:
    verdict = read_verdict({"error": error}, "args")
    assert isinstance(verdict, Fault)
    assert verdict.why == "its process answered nonsense" or re.fullmatch(r"\w+( in line -?\d+)?", verdict.why)


def test_flaws_are_read_strictly() -> None:
    assert read_flaws({"ok": None}) == ()
    assert read_flaws({"flaws": [[2, "no"]]}) == [Flaw(2, "no")]
    for nonsense in ({}, {"ok": 1}, {"flaws": []}, {"flaws": [[True, "x"]]}, {"flaws": [["2", "x"]]}, {"flaws": [1]}):
        assert read_flaws(nonsense) is None, nonsense
