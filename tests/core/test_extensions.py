"""What a view declares beyond lists: extensions, experimental features and tasks, as its caller's version has them."""

from typing import Any

import pytest

from broker.core.catalog import Listing
from broker.core.era import LATEST_LEGACY, LATEST_MODERN, LEGACY_VERSIONS, TASKS, Version, knows_tasks
from broker.core.extensions import (
    MAX_NAME,
    MAX_NAMES,
    MAX_SETTINGS,
    has_tasks,
    is_foreign,
    offers,
    share,
    view_capabilities,
)

Json = dict[str, Any]
CHANGED = {"listChanged": True}
ALL_TASKS: Json = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}


def listing(capabilities: Json, version: Version = LATEST_LEGACY) -> Listing:
    return Listing(version, capabilities=capabilities)


def told(
    *visible: Listing, caller: str = LATEST_MODERN, empty: tuple[Listing, ...] = (), is_open: bool = False
) -> Json:
    return view_capabilities(visible, empty, caller=caller, is_open=is_open)


def test_lists_are_declared_of_visible_and_of_empty_servers_and_all_while_one_is_unseen() -> None:
    one, two = listing({"tools": {}}), listing({"prompts": {}, "completions": {}, "logging": {}})
    assert told(one) == {"tools": CHANGED}
    assert told(one, two) == {"tools": CHANGED, "prompts": CHANGED, "completions": {}, "logging": {}}
    assert told(one, empty=(two,)) == {"tools": CHANGED, "prompts": CHANGED}
    assert told(is_open=True) == dict.fromkeys(("tools", "prompts", "resources"), CHANGED)
    assert told() == {}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"subscribe": True}, {**CHANGED, "subscribe": True}),
        ({"subscribe": 1}, CHANGED),
        ({}, CHANGED),
        (None, CHANGED),
    ],
)
def test_subscriptions_are_declared_if_a_server_takes_them(resources: Any, expected: Json) -> None:
    assert told(listing({"resources": resources}))["resources"] == expected


def test_extensions_and_experimental_features_are_those_of_all() -> None:
    one = listing({"extensions": {"a/x": {"v": 1}}, "experimental": {"e": {}}})
    two = listing({"extensions": {"a/x": {"v": 2}, "b/y": {}}})
    assert told(one, two) == {"extensions": {"a/x": {"v": 1}, "b/y": {}}, "experimental": {"e": {}}}
    assert told(two, one)["extensions"]["a/x"] == {"v": 2}, "of two words the first server's stands"


@pytest.mark.parametrize("declared", [None, [], "x", {"a/x": None}, {"a/x": []}, {"n" * (MAX_NAME + 1): {}}])
def test_what_is_no_extension_is_not_declared(declared: Any) -> None:
    assert offers({"extensions": declared}, LATEST_MODERN) == {}


def test_extensions_are_bounded_in_number_and_size() -> None:
    many = {f"a/{number}": {} for number in range(MAX_NAMES + 1)}
    assert len(offers({"extensions": many}, LATEST_MODERN)) == MAX_NAMES
    assert offers({"extensions": {"a/x": {"v": "x" * MAX_SETTINGS}}}, LATEST_MODERN) == {}


def test_the_tasks_extension_is_modern_on_both_sides() -> None:
    declared = {"extensions": {TASKS: {}}}
    assert told(listing(declared, LATEST_MODERN)) == declared
    assert told(listing(declared, LATEST_MODERN), caller=LATEST_LEGACY) == {}
    assert told(listing(declared, LATEST_LEGACY)) == {}


def test_tasks_of_2025_11_25_are_declared_to_that_version_only() -> None:
    server = listing({"tasks": ALL_TASKS})
    assert told(server, caller=LATEST_LEGACY) == {"tasks": ALL_TASKS}
    for version in (*LEGACY_VERSIONS[:-1], LATEST_MODERN):
        assert not knows_tasks(version)
        assert told(server, caller=version) == {}
        assert told(listing({"tasks": ALL_TASKS}, version), caller=LATEST_LEGACY) == {}


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ({**ALL_TASKS, "x": 1}, ALL_TASKS),
        ({"requests": {"tools": {"call": {}}}}, {"requests": {"tools": {"call": {}}}}),
        ({"list": {}, "cancel": {}}, {}),
        ({"requests": {"tools": {"call": True}}}, {}),
        ({"requests": []}, {}),
        (None, {}),
    ],
)
def test_of_tasks_only_what_the_broker_carries_is_declared(tasks: Any, expected: Json) -> None:
    assert told(listing({"tasks": tasks}), caller=LATEST_LEGACY).get("tasks", {}) == expected


def test_a_part_of_tasks_is_there_or_not() -> None:
    server = listing({"tasks": ALL_TASKS})
    assert has_tasks(server) and has_tasks(server, "requests", "tools", "call")
    assert not has_tasks(server, "result") and not has_tasks(listing({"tasks": ALL_TASKS}, LATEST_MODERN))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        *((name, False) for name in ("tools/call", "resources/subscribe", "ping", "roots/list", "tasks/anything")),
        *((f"notifications/{name}", False) for name in ("progress", "tasks", "tasks/status", "initialized")),
        *((name, True) for name in ("a/b", "tools/other", "notifications/other", "ui/notifications/x", "")),
    ],
)
def test_a_method_that_no_version_knows_may_be_an_extensions(method: str, expected: bool) -> None:
    assert is_foreign(method) == expected


def test_two_sides_share_what_both_declare_under_the_same_member() -> None:
    server = listing({"extensions": {"a/x": {}}, "experimental": {"e": {"v": 1}}})
    assert share(server, {"extensions": {"a/x": {"v": 2}}}, LATEST_MODERN)
    assert share(server, {"experimental": {"e": {}}}, LATEST_LEGACY)
    assert not share(server, {"experimental": {"a/x": {}}, "extensions": {"e": {}}}, LATEST_LEGACY)
    assert not share(server, {}, LATEST_LEGACY)
    tasks = listing({"extensions": {TASKS: {}}}, LATEST_MODERN)
    assert share(tasks, {"extensions": {TASKS: {}}}, LATEST_MODERN)
    assert not share(tasks, {"extensions": {TASKS: {}}}, LATEST_LEGACY)
