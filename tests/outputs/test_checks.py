"""Results of tools are looked at in a real process: what is counted, what is said, and what nobody can do with it."""

import logging
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.clock import FakeClock
from broker.guardrails import process as processes
from broker.outputs import checks as module
from broker.outputs.checks import MAX_CONTENT, MAX_SCHEMA, REST, SPACING, SPACING_OF_ALL, Sampled, is_light
from broker.outputs.tally import MAX_SAID, Tally
from tests.hostile.harness import exists, needs_proc
from tests.patience import PATIENCE

Json = dict[str, Any]
NUMBER: Json = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
REDOS = "^(a+)+$"
EVIL = "a" * 40 + "!"


class Hand(FakeClock):
    """A clock that is set by hand."""

    @property
    def time(self) -> float:
        return self._now

    @time.setter
    def time(self, now: float) -> None:
        self._now = now


class House:
    """`Sampled` with a clock that only the test moves on, and the counts of one server."""

    def __init__(self, checks: Sampled, clock: Hand) -> None:
        self.checks, self.clock, self.tally = checks, clock, Tally()
        self.first = 0
        """The first process."""

    def offer(self, schema: object, result: Json, tool: str = "tool", tally: Tally | None = None) -> None:
        self.checks.offer("one", tally or self.tally, tool, schema, result)

    async def look(self, schema: object, content: object, tool: str = "tool") -> str:
        """What a content is counted as."""
        before = self.tally.counts.copy()
        self.clock.time = max(self.tally.due, self.clock.time + SPACING)
        self.offer(schema, {"content": [], "structuredContent": content}, tool)
        await self.done()
        self.first = self.first or next(iter(self.checks.pids()), 0)
        (found,) = self.tally.counts - before
        return found

    async def done(self) -> None:
        await until(lambda: not self.checks._is_busy)


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for what another process does: there is no event that it could set."""
    with anyio.fail_after(PATIENCE):
        while not is_true():  # noqa: ASYNC110
            await anyio.sleep(0.01)


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    for place, name in ((module, "TIMEOUT"), (processes, "COMPILE_TIMEOUT"), (processes, "START_TIMEOUT")):
        monkeypatch.setattr(place, name, PATIENCE)  # everybody else goes first, and the machine may be loaded
    clock = Hand()
    checks = Sampled(clock)
    async with checks.running():
        yield House(checks, clock)
    assert checks.pids() == []


async def test_a_content_that_fits_is_matched_and_another_is_mismatched(house: House) -> None:
    assert await house.look(NUMBER, {"n": 1, "more": [None]}) == "matched"
    assert await house.look(NUMBER, {"n": "1"}) == "mismatched"
    assert await house.look(NUMBER, {}) == "mismatched"
    assert await house.look(NUMBER, {"n": 2**70}) == "matched"
    assert await house.look(True, 7) == "matched"
    assert await house.look(False, 7) == "mismatched"


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
PAIR = [{"type": "string"}, {"type": "integer"}]


async def test_a_schema_is_read_by_the_dialect_that_it_names_and_else_by_2020_12(house: House) -> None:
    assert await house.look({"prefixItems": PAIR}, ["a", "b"]) == "mismatched"
    assert await house.look({"items": PAIR}, ["a", "b"]) == "bad_schema"
    assert await house.look({"$schema": DRAFT_7, "items": PAIR}, ["a", "b"]) == "mismatched"
    assert await house.look({"$schema": DRAFT_7, "prefixItems": PAIR}, ["a", "b"]) == "matched"


MULTIPLES: dict[str, tuple[Json, object, str]] = {
    "a price": ({"multipleOf": 0.01}, 19.99, "matched"),
    "no price": ({"multipleOf": 0.01}, 19.995, "mismatched"),
    "of an integer": ({"multipleOf": 3}, 10**30, "mismatched"),
    "a large float": ({"multipleOf": 3}, 9e300, "matched"),
    "far apart": ({"multipleOf": 1e-300}, 1e300, "matched"),
    "no number": ({"multipleOf": 0.01}, True, "matched"),
    "an older word": ({"$schema": "http://json-schema.org/draft-03/schema#", "divisibleBy": 0.01}, 19.99, "matched"),
    "an older dialect": ({"$schema": DRAFT_7, "multipleOf": 0.1}, 0.3, "matched"),
}


async def test_F36_a_number_is_a_multiple_of_another_as_both_are_written(house: House) -> None:
    found = {case: await house.look(schema, content) for case, (schema, content, _) in MULTIPLES.items()}
    assert found == {case: expected for case, (_, _, expected) in MULTIPLES.items()}


BAD: dict[str, object] = {
    "no schema": {"type": 7},
    "a list": [],
    "null": None,
    "a dialect that nobody knows": {"$schema": "https://example.com/mine"},
    "a dialect that is no text": {"$schema": 7},
    "a dialect that is no address": {"$schema": "http://["},
    "a dialect in the middle that is no text": {"allOf": [{"x": {"$schema": 7}}, {"$ref": "#/allOf/0/x"}]},
    "a circle": {"$ref": "#"},
    "a circle of two": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "a circle of what is evaluated": {"unevaluatedProperties": False, "$ref": "#"},
    "nowhere": {"$ref": "#/$defs/nothing"},
    "the network": {"$ref": "http://127.0.0.1:9/schema"},
    "a file": {"$ref": "file:///etc/passwd"},
    "looking around": {"properties": {"a": {"pattern": "(?=a)"}}},
    "a reference back": {"properties": {"a": {"pattern": r"(a)\1"}}},
    "half a pattern": {"properties": {"a": {"pattern": "("}}},
    "a long pattern": {"properties": {"a": {"pattern": "a" * 5000}}},
    "a keyword that is none": {"$defs": {"a": {}}, "x": {"properties": 5}, "$ref": "#/x"},
}


async def test_F35_what_is_no_schema_is_counted_as_that_and_never_as_a_mismatch(house: House) -> None:
    found = {case: await house.look(schema, {"a": "a", "b": 1}) for case, schema in BAD.items()}
    assert found == dict.fromkeys(BAD, "bad_schema")
    assert house.checks.pids() == [house.first], "none of them has ended the process"


PATTERNS: dict[str, tuple[Json, Json]] = {
    "pattern": ({"properties": {"a": {"pattern": REDOS}}}, {"a": EVIL}),
    "patternProperties": ({"patternProperties": {REDOS: False}}, {EVIL: 1}),
    "additionalProperties": ({"patternProperties": {REDOS: True}, "additionalProperties": False}, {EVIL: 1}),
    "unevaluatedProperties": ({"patternProperties": {REDOS: True}, "unevaluatedProperties": False}, {EVIL: 1}),
    "propertyNames": ({"propertyNames": {"pattern": REDOS}}, {EVIL: 1}),
    "2019-09": (
        {
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "patternProperties": {REDOS: True},
            "unevaluatedProperties": False,
        },
        {EVIL: 1},
    ),
}


async def test_F35_patterns_take_linear_time_wherever_they_stand(house: House) -> None:
    for case, (schema, content) in PATTERNS.items():
        expected = ["mismatched", "matched"] if case != "patternProperties" else ["matched", "mismatched"]
        assert [await house.look(schema, one) for one in (content, {"a" * 40: 1})] == expected, case
    assert house.checks.pids() == [house.first], "none of them has ended the process"


def doubled(levels: int) -> Json:
    defs = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**defs, f"d{levels}": {}}, "$ref": "#/$defs/d0"}


async def test_F35_a_schema_that_takes_for_ever_costs_its_server_a_rest_and_the_process(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    with caplog.at_level(logging.INFO):
        assert await house.look(doubled(40), {"secret": "s3cret"}) == "unchecked"
    await until(lambda: house.checks.pids() == [])
    assert "tool tool: its results are not compared with its outputSchema for 300 s" in caplog.text
    assert "s3cret" not in caplog.text
    assert house.tally.due == house.clock.time + REST
    house.clock.time += SPACING
    other = Tally()
    house.offer(NUMBER, {"structuredContent": {"n": 1}})
    house.offer(NUMBER, {"structuredContent": {"n": 1}}, tally=other)
    await house.done()
    assert house.tally.counts == {"unchecked": 2} and other.counts == {"matched": 1}


async def test_F35_what_is_quadratic_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    assert await house.look({"uniqueItems": True}, [{"a": n} for n in range(1500)]) == "unchecked"
    await until(lambda: house.checks.pids() == [])


@needs_proc
async def test_F35_what_needs_all_memory_is_given_up(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "MEMORY", 2**20)
    schema = {"anyOf": [{"items": {"const": 1}}]}  # every item of it that does not fit is kept, with all around it
    found = await house.look(schema, [0] * 3000)
    assert found == "unchecked", caplog.text
    assert "it needed more memory than 1 MiB" in caplog.text
    await until(lambda: house.checks.pids() == [])


async def test_a_recursive_schema_judges_a_content_as_deep_as_one_may_be(house: House) -> None:
    branch: Json = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}
    tree = {"type": "object", "properties": {"next": branch}, "unevaluatedProperties": False}
    schema = {"$defs": {"tree": {"allOf": [tree]}}, "$ref": "#/$defs/tree"}
    deep: Json = {"next": None}
    wrong: Json = {"next": 7}
    for _ in range(58):
        deep, wrong = {"next": deep}, {"next": wrong}
    assert await house.look(schema, deep) == "matched"
    assert await house.look(schema, wrong) == "mismatched"


async def test_what_is_large_is_not_looked_at_and_never_counted_as_matched(house: House) -> None:
    large: list[object] = [
        "x" * MAX_CONTENT,
        [0] * MAX_CONTENT,
        {str(n): n for n in range(MAX_CONTENT // 8)},
        [[]] * MAX_CONTENT,
        {"x" * MAX_CONTENT: 1},
    ]
    for content in large:
        assert await house.look(True, content) == "unchecked"
    assert await house.look({"$comment": "x" * MAX_SCHEMA}, {}) == "unchecked"
    assert house.checks.pids() == []
    assert not is_light([["x"] * 10 for _ in range(10**6)], MAX_CONTENT)
    assert is_light({"a": ["b", 1, None, {}]}, 98) and not is_light({"a": ["b", 1, None, {}]}, 97)


async def test_to_find_that_a_content_is_large_costs_the_loop_next_to_nothing() -> None:
    contents: list[object] = [[{"n": n} for n in range(300_000)], {str(n): [n] for n in range(200_000)}]
    for content in contents:
        began = time.process_time()
        assert not is_light(content, MAX_CONTENT)
        assert time.process_time() - began < 0.05


@pytest.mark.parametrize("large", ['é"\n' * 2**20, [[]] * 2**17], ids=["text", "values"])
async def test_a_schema_that_is_large_is_not_even_written_down(
    house: House, monkeypatch: pytest.MonkeyPatch, large: object
) -> None:
    written: list[object] = []
    monkeypatch.setattr(module.wire, "encode", lambda value: written.append(value) or b"")
    assert await house.look({"examples": large}, {}) == "unchecked" and not written


async def test_a_schema_of_many_small_values_is_looked_at(house: House) -> None:
    assert await house.look({"enum": [*range(1, 9), *[{}] * (MAX_SCHEMA // 4)]}, 1) == "matched"


async def test_one_is_looked_at_at_a_time_and_each_server_now_and_then(house: House) -> None:
    house.clock.time = 1000.0
    other, third = Tally(), Tally()
    good = {"structuredContent": {"n": 1}}
    house.offer(NUMBER, good)
    house.offer(NUMBER, good)
    house.clock.time += SPACING
    house.offer(NUMBER, good, tally=other)  # the first is still looked at
    await house.done()
    house.offer(NUMBER, good, tally=other)
    await house.done()
    house.clock.time += SPACING_OF_ALL / 2
    house.offer(NUMBER, good, tally=third)  # too early for anybody
    house.clock.time += SPACING_OF_ALL
    house.offer(NUMBER, good, tally=third)
    house.offer(NUMBER, good, tally=other)  # too early for this one
    await house.done()
    assert house.tally.counts == {"matched": 1, "unchecked": 1}
    assert other.counts == {"matched": 1, "unchecked": 2}
    assert third.counts == {"matched": 1, "unchecked": 1}


async def test_no_rhythm_of_a_server_is_met_by_a_rhythm_of_looks() -> None:
    dues: set[float] = set()
    for chance in (0.0, 0.25, 0.999):
        checks, tally = Sampled(FakeClock(chance=chance)), Tally()
        async with checks.running():
            checks.offer("one", tally, "tool", NUMBER, {})
        dues.add(round(tally.due, 2))
    assert dues == {0.5 * SPACING, 0.75 * SPACING, 1.5 * SPACING}


async def test_a_result_without_structured_content_is_a_mismatch(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.offer(NUMBER, {"content": []})
    assert house.tally.counts == {"mismatched": 1} and house.checks.pids() == []
    assert "answered without structuredContent" in caplog.text


async def test_a_mismatch_is_said_once_for_each_tool_and_schema_and_nothing_of_the_content_is(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    schema = {"properties": {"a\nb": {"patternProperties": {".": {"const": 1}}}, "c": {"enum": ["x"]}}}
    content = {"a\nb": {"s3cret-key": "s3cret-value"}}
    for _ in range(3):
        assert await house.look(schema, content, "to\nol") == "mismatched"
    assert await house.look({**schema, "title": "another"}, {"c": "s3cret-value"}, "to\nol") == "mismatched"
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        r"one: tool to\nol: what it answered does not fit its outputSchema, at "
        r"properties/a\nb/patternProperties/./const",
        r"one: tool to\nol: what it answered does not fit its outputSchema, at properties/c/enum",
    ]
    assert "s3cret" not in caplog.text


def test_a_server_gets_so_many_lines_and_no_more() -> None:
    tally = Tally()
    assert sum(tally.is_new(f"tool{n}", "digest", "mismatched") for n in range(10 * MAX_SAID)) == MAX_SAID


@needs_proc
async def test_the_process_has_nothing_and_everybody_else_goes_first(house: House) -> None:
    assert house.checks.pids() == []
    await house.look(NUMBER, {"n": 1})
    (pid,) = house.checks.pids()
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    limits = await anyio.Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    assert re.search(r"Max open files +0 +0 ", limits)
    assert await anyio.Path(f"/proc/{pid}/environ").read_bytes() == b""


async def test_a_process_that_dies_is_replaced(house: House, caplog: pytest.LogCaptureFixture) -> None:
    assert await house.look(NUMBER, {"n": 1}) == "matched"
    (pid,) = house.checks.pids()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: house.checks.pids() == [])
    assert await house.look(NUMBER, {"n": 1}) == "matched"
    assert house.checks.pids() not in ([], [pid])


async def test_a_process_that_nobody_needs_ends_and_comes_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 0.01)
    assert await house.look(NUMBER, {"n": 1}) == "matched"
    await until(lambda: house.checks.pids() == [])
    assert await house.look(NUMBER, {"n": "x"}) == "mismatched"


async def test_where_no_process_can_be_started_nothing_is_looked_at(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PROGRAM", module.Program("broker.outputs", ("nothing_of_that_name",)))
    assert await house.look(NUMBER, {"n": 1}) == "unchecked"
    house.clock.time += SPACING
    house.offer(NUMBER, {"structuredContent": {"n": 1}})
    assert "no process can be started: nothing_of_that_name is not installed" in caplog.text
    assert house.tally.counts == {"unchecked": 2} and len(caplog.records) == 1
    monkeypatch.setattr(module, "_PROGRAM", module.Program("broker.nowhere", ("broker",)))
    house.clock.time += REST
    assert await house.look(NUMBER, {"n": 1}) == "unchecked"
    assert "the process that does it ended at once" in caplog.text


async def test_a_fault_of_ours_is_logged_and_ends_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("s3cret")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_read", fail)
        house.offer(NUMBER, {"structuredContent": {"n": 1}})
        await house.done()
    assert "one: internal error" in caplog.text
    assert await house.look(NUMBER, {"n": 1}) == "matched"


@needs_proc
async def test_a_broker_that_stops_in_the_middle_of_a_look_leaves_no_process() -> None:
    clock = Hand()
    checks = Sampled(clock)
    async with checks.running():
        house = House(checks, clock)
        assert await house.look(NUMBER, {"n": 1}) == "matched"
        clock.time += SPACING
        house.offer(doubled(40), {"structuredContent": {}})
        await anyio.lowlevel.checkpoint()
        pids = checks.pids()
    assert pids and not exists(*pids)
    house.offer(NUMBER, {"structuredContent": {"n": 1}})
    assert house.tally.counts == {"matched": 1, "unchecked": 1}
