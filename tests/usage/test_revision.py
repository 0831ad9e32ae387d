"""The hash of a policy in the audit: every fact counts, and a key without terms of its own costs next to nothing."""

from dataclasses import fields, replace
from typing import Any

import pytest

from broker.core.caller import Role
from broker.core.directory import Directory, Key, KeyHash, Organization, Source, Team
from broker.core.grants import Level, Rule, key_level, organization_level, team_level
from broker.core.policy import Policy
from broker.core.quota import LevelLimits, Limits
from broker.usage.revision import Revision
from tests.calls import calls_of

KEY = Key("k1", "ci", key_level("acme", "data", "ci"), (KeyHash("0" * 64),), source=Source.DATABASE)
OTHER: dict[str, Any] = {
    "id": "k2",
    "name": "cd",
    "level": key_level("acme", "data", "cd"),
    "hashes": (KeyHash("1" * 64),),
    "expires": 7.0,
    "role": Role.TEAM_ADMIN,
    "revoked": True,
    "source": Source.FILE,
}
CHANGED: dict[str, Key] = {
    **{name: replace(KEY, **{name: value}) for name, value in OTHER.items()},
    "the end of a hash": replace(KEY, hashes=(KeyHash("0" * 64, 9.0),)),
    "a second hash": replace(KEY, hashes=(*KEY.hashes, KeyHash("1" * 64))),
    "what it allows": replace(KEY, level=replace(KEY.level, allow=())),
    "what it denies": replace(KEY, level=replace(KEY.level, deny=(Rule(),))),
    "its limits": replace(KEY, level=replace(KEY.level, limits=LevelLimits(Limits(concurrency=1)))),
}


def directory(*keys: Key, level: Level | None = None) -> Directory:
    team = Team("data", level or team_level("acme", "data"), {one.id: one for one in keys})
    return Directory({"acme": Organization("acme", organization_level("acme"), {"data": team})})


def revision(*keys: Key, level: Level | None = None) -> str:
    return Revision(Policy(directory=directory(*keys, level=level))).text


def test_the_same_policy_has_the_same_hash() -> None:
    assert revision(KEY) == revision(replace(KEY)) and len(revision(KEY)) == 16


def test_every_field_of_a_key_has_a_change_below() -> None:
    assert {one.name for one in fields(Key)} == set(OTHER)


@pytest.mark.parametrize("what", CHANGED)
def test_every_fact_of_a_key_counts(what: str) -> None:
    assert revision(CHANGED[what]) != revision(KEY)


def test_what_is_above_a_key_counts() -> None:
    assert len({revision(KEY), revision(), revision(KEY, level=team_level("acme", "data", ()))}) == 3


def test_a_key_without_terms_of_its_own_costs_a_few_calls() -> None:
    def calls(count: int) -> int:
        many = [replace(KEY, id=f"k{number}") for number in range(count)]
        made = Revision(Policy(directory=directory(*many)))
        return calls_of(lambda: made.text)

    assert (calls(1010) - calls(10)) / 1000 < 30
