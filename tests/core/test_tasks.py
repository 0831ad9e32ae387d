"""Where task ids stand, and their public form; what is no id is left alone."""

from typing import Any

import pytest

from broker.core.era import ALL_VERSIONS, LATEST_LEGACY, LATEST_MODERN, LEGACY_VERSIONS, RELATED_TASK
from broker.core.tasks import (
    MAX_TASK_ID,
    MAX_TTL,
    TASK_METHODS,
    created_task,
    is_task_id,
    listed_tasks,
    own_related,
    publish_related,
    publish_task_content,
    related_task,
    task_methods,
    tells_all,
    ttl_of,
)

Json = dict[str, Any]


def public(uri: str) -> str:
    return f"key+{uri}"


def related(task_id: object, **more: Any) -> Json:
    return {"_meta": {RELATED_TASK: {"taskId": task_id, "x": 1}, "other": 2}, **more}


def test_each_era_has_its_own_requests() -> None:
    assert task_methods(LATEST_MODERN) == {"tasks/get", "tasks/update", "tasks/cancel"}
    assert task_methods(LATEST_LEGACY) == {"tasks/get", "tasks/result", "tasks/cancel", "tasks/list"}
    assert all(task_methods(version) == frozenset() for version in LEGACY_VERSIONS[:-1])
    assert frozenset().union(*map(task_methods, ALL_VERSIONS)) == TASK_METHODS


@pytest.mark.parametrize("value", ["", "x" * (MAX_TASK_ID + 1), None, 1, ["a"], {}])
def test_what_cannot_be_kept_is_no_id(value: object) -> None:
    assert not is_task_id(value)
    assert is_task_id("a.b " + chr(0x2028))


@pytest.mark.parametrize(
    ("task", "seconds"),
    [
        ({"ttl": 1500}, 1.5),
        ({"ttlMs": 1500}, 1.5),
        ({"ttlMs": 1000, "ttl": 5}, 1.0),
        ({"ttl": -1}, 0.0),
        ({"ttl": 10**18}, MAX_TTL),
        *(({"ttl": bad}, MAX_TTL) for bad in (None, True, "1", [])),
        ({}, MAX_TTL),
    ],
)
def test_a_task_is_kept_as_long_as_its_server_says_but_not_for_ever(task: Json, seconds: float) -> None:
    assert ttl_of(task) == seconds


def test_a_result_creates_a_task_in_the_manner_of_its_era() -> None:
    flat: Json = {"resultType": "task", "taskId": "t"}
    nested: Json = {"task": {"taskId": "t"}}
    assert created_task(flat, LATEST_MODERN) == flat and created_task(nested, LATEST_MODERN) is None
    assert created_task(nested, LATEST_LEGACY) == {"taskId": "t"} and created_task(flat, LATEST_LEGACY) is None
    assert created_task({"task": "t"}, LATEST_LEGACY) is None


@pytest.mark.parametrize("holder", [{}, {"_meta": None}, {"_meta": {RELATED_TASK: "t"}}, related(1), related(None)])
def test_what_names_no_task_stays_as_it_is(holder: Json) -> None:
    assert related_task(holder) is None
    assert publish_related(holder, "key") is holder
    assert own_related(holder, lambda public: "never") is holder


def test_a_related_task_is_published_and_resolved_and_nothing_else_changes() -> None:
    sent = publish_related(related("t.1", y=3), "key")
    assert sent == related("key.t.1", y=3)
    assert own_related(sent, {"key.t.1": "t.1"}.get) == related("t.1", y=3)


def test_a_related_task_that_is_not_the_callers_goes_no_further() -> None:
    assert own_related(related("other.t", y=3), lambda public: None) == {"_meta": {"other": 2}, "y": 3}


def test_what_a_task_carries_inside_has_public_uris() -> None:
    link = {"type": "resource_link", "uri": "a:b"}
    task: Json = {"result": {"content": [dict(link)]}, "error": {"code": 1, "data": {"uri": "a:b"}}}
    task["result"]["_meta"] = {RELATED_TASK: {"taskId": "t"}}
    publish_task_content(task, "key", public)
    assert task["result"]["content"] == [{**link, "uri": "key+a:b"}]
    assert task["result"]["_meta"] == {RELATED_TASK: {"taskId": "key.t"}}
    assert task["error"] == {"code": 1, "data": {"uri": "key+a:b"}}
    bare: Json = {"result": None, "error": {"code": 1}}
    publish_task_content(bare, "key", public)
    assert bare == {"result": None, "error": {"code": 1}}


@pytest.mark.parametrize("tasks", [None, {}, "x", 1])
def test_a_list_that_is_none_has_no_tasks(tasks: object) -> None:
    assert listed_tasks({"tasks": tasks}) == []
    assert listed_tasks({"tasks": [{"taskId": "t", "x": 1}, {"taskId": 1}, None, {}]}) == [{"taskId": "t", "x": 1}]


@pytest.mark.parametrize(
    ("method", "result", "legacy", "modern"),
    [
        ("tasks/result", {"content": []}, True, True),
        ("tasks/get", {"status": "working"}, False, False),
        ("tasks/get", {"status": "completed"}, False, True),
        ("tasks/get", {"status": "failed"}, False, True),
        ("tasks/cancel", {"status": "cancelled"}, True, True),
        ("tasks/update", {}, False, False),
        ("tasks/get", {"status": {}}, False, False),
    ],
)
def test_a_task_is_over_once_its_caller_has_all_of_it(method: str, result: Json, legacy: bool, modern: bool) -> None:
    assert tells_all(method, result, LATEST_LEGACY) is legacy
    assert tells_all(method, result, LATEST_MODERN) is modern
