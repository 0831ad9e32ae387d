"""One suite over every store: what is written is read, wholly or not at all, and a change is noticed."""

import gc
import threading
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from broker.core.caller import Role
from broker.core.directory import Directory, KeyHash, Membership, Source, merge
from broker.core.grants import Rule
from broker.core.match import Pattern
from broker.core.quota import UNLIMITED, LevelLimits, Limits, Rate
from broker.stores import tables
from broker.stores.directory import DirectoryStore
from broker.stores.errors import Conflict
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.rows import HashRow, KeyRow, MembershipRow, OrganizationRow, TeamRow
from tests.hostile.cost import LoopWatch
from tests.stores.conftest import Open

SQL = [{"servers": ["sql"]}]
LIMITS = {"rate": ["20/minute", "500/day"], "servers": {"sql": {"concurrency": 2}}}
CI = KeyRow("aaaaaaaaaaaa", "acme", "data", "ci", Role.TEAM_ADMIN, SQL, None, 1.5, 2e9, 3.25, None, LIMITS)
DIGEST, OTHER = "a" * 64, "b" * 64


async def fill(store: DirectoryStore) -> None:
    async with store.changing() as change:
        await change.add(OrganizationRow("acme", [{"servers": ["*"]}], None, 1.0))
        await change.add(TeamRow("acme", "data", None, [{"servers": ["hr"]}], 2.0))
        await change.add(CI)
        await change.add(HashRow(DIGEST, CI.id))
        await change.add(HashRow(OTHER, CI.id, 77.5))
        await change.add(MembershipRow("jwt:https://login.acme.dev ada", "acme", "", Role.ORG_ADMIN, 1.0))


async def loaded(store: DirectoryStore) -> Directory:
    return (await store.load()).directory


async def test_what_was_written_is_read_as_the_values_of_core(opened: Open) -> None:
    await fill(await opened())
    stored = await (await opened()).load()
    acme = stored.directory.organizations["acme"]
    data = acme.teams["data"]
    key = data.keys[CI.id]
    assert stored.revision == 1
    assert acme.level is not None and acme.level.allow == (Rule((Pattern("*"),)),) and acme.source is Source.DATABASE
    assert data.level is not None and (data.level.where, data.level.allow) == ("team:acme/data", None)
    assert data.level.deny == (Rule((Pattern("hr"),)),)
    assert (key.level.where, key.level.allow) == ("key:acme/data/ci", (Rule((Pattern("sql"),)),))
    assert key.level.limits == LevelLimits(Limits((Rate(20, 60), Rate(500, 86_400))), {"sql": Limits((), 2)})
    assert data.level.limits == UNLIMITED
    assert set(key.hashes) == {KeyHash(DIGEST, inf), KeyHash(OTHER, 77.5)}
    assert (key.expires, key.role, key.revoked, key.source) == (2e9, Role.TEAM_ADMIN, False, Source.DATABASE)
    assert stored.directory.memberships == (Membership("jwt:https://login.acme.dev ada", "acme", "", Role.ORG_ADMIN),)


async def test_rows_come_back_as_they_were_put(opened: Open) -> None:
    store = await opened()
    await fill(store)
    async with store.reading() as reading:
        assert await reading.all(KeyRow) == [CI]
        assert await reading.one(KeyRow, organization="acme", team="data", name="ci") == CI
        assert await reading.one(KeyRow, id="nobody") is None
        assert await reading.one(OrganizationRow, name="acme") == OrganizationRow(
            "acme", [{"servers": ["*"]}], None, 1.0
        )


async def test_a_place_without_a_row_is_one_that_only_the_file_defines(opened: Open) -> None:
    store = await opened()
    async with store.changing() as change:
        await change.add(CI)
        await change.add(replace(CI, id="bbbbbbbbbbbb", team="", name="direct"))
    directory = await loaded(store)
    assert directory.organizations["acme"].level is None
    assert directory.organizations["acme"].teams["data"].level is None
    assert list(directory.organizations["acme"].keys) == ["bbbbbbbbbbbb"]
    merged, said = merge(Directory(), directory)
    assert not merged.organizations, "a deleted team's keys are served nothing"
    assert said == ("organization acme is defined nowhere: its keys are not served",)


@pytest.mark.parametrize(
    ("deny", "limits"), [([{"srevers": ["hr"]}], None), (None, {"rate": "many"}), (None, {"rates": ["5/minute"]})]
)
async def test_a_level_whose_rules_or_limits_cannot_be_read_allows_nothing(
    opened: Open, deny: list[dict[str, Any]] | None, limits: dict[str, Any] | None
) -> None:
    store = await opened()
    async with store.changing() as change:
        await change.add(TeamRow("acme", "data", None, deny, 2.0, limits))
    level = (await loaded(store)).organizations["acme"].teams["data"].level
    assert level is not None and level.allow == ()


async def test_a_role_of_a_later_program_has_no_power(opened: Open) -> None:
    store = await opened()
    await fill(store)
    async with store.changing() as change:
        await change.set(KeyRow, {"role": "emperor"}, id=CI.id)
    assert (await loaded(store)).organizations["acme"].teams["data"].keys[CI.id].role is Role.MEMBER


async def test_a_change_that_fails_changes_nothing(opened: Open) -> None:
    store = await opened()
    await fill(store)
    before = await store.load()
    with pytest.raises(Conflict):
        async with store.changing() as change:
            await change.add(OrganizationRow("other", None, None, 1.0))
            await change.add(replace(CI, id="cccccccccccc"))
    with pytest.raises(RuntimeError, match="on purpose"):
        async with store.changing() as change:
            await change.remove(KeyRow, id=CI.id)
            raise RuntimeError("on purpose")
    assert await store.load() == before


async def test_hashes_go_with_their_key_and_one_hash_has_one_key(opened: Open) -> None:
    store = await opened()
    await fill(store)
    with pytest.raises(Conflict):
        async with store.changing() as change:
            await change.add(replace(CI, id="cccccccccccc", name="other"))
            await change.add(HashRow(DIGEST, "cccccccccccc"))
    async with store.changing() as change:
        assert await change.remove(KeyRow, id=CI.id) == 1
        assert await change.all(HashRow) == []
    with pytest.raises(Conflict):
        async with store.changing() as change:
            await change.add(HashRow(DIGEST, "of no key"))


async def test_a_change_of_another_process_is_noticed_once(opened: Open) -> None:
    mine, theirs = await opened(), await opened()
    assert await mine.revision_if_touched() == 0
    await fill(theirs)
    assert await mine.revision_if_touched() == 1
    unchanged = await mine.revision_if_touched()
    assert unchanged in (None, 1)
    async with theirs.changing() as change:
        await change.set(KeyRow, {"revoked": 5.0}, id=CI.id)
    assert await mine.revision_if_touched() == 2
    assert (await loaded(mine)).organizations["acme"].teams["data"].keys[CI.id].revoked


async def test_sqlite_says_without_reading_that_nothing_changed(at_file: Location) -> None:
    store = await open_store(at_file)
    try:
        assert await store.revision_if_touched() == 0
        assert await store.revision_if_touched() is None
    finally:
        await store.aclose()


RULE = [{"servers": ["docs"], "tools": ["docs__*"]}]


async def add_keys(store: DirectoryStore, count: int, rule: list[dict[str, Any]] | None) -> None:
    """So many keys, each with this rule, in one team."""
    rows = [replace(CI, id=f"k{number:011}", name=f"n{number}", allow=rule, limits=None) for number in range(count)]
    async with store.database.writing() as connection:
        await connection.execute(insert(tables.organizations), [asdict(OrganizationRow("acme", RULE, None, 0.0))])
        await connection.execute(insert(tables.teams), [asdict(TeamRow("acme", "data", None, None, 0.0))])
        await connection.execute(insert(tables.keys), [asdict(row) for row in rows])
        hashes = [asdict(HashRow(f"{number:064}", row.id)) for number, row in enumerate(rows)]
        await connection.execute(insert(tables.key_hashes), hashes)


async def test_a_large_directory_is_read_beside_the_loop_and_not_in_it(opened: Open) -> None:
    """Fifteen hundred keys, each with a rule: more work than any call may wait for."""
    store = await opened()
    await add_keys(store, 1500, RULE)
    watch = LoopWatch()
    with watch.watching():
        stored = await store.load()
    assert len(stored.directory.organizations["acme"].teams["data"].keys) == 1500
    assert watch.worst < 0.05, watch.who


async def test_a_large_directory_is_not_searched_for_garbage_while_it_is_read(opened: Open) -> None:
    """But once, when all is made: the collector goes on then."""
    store = await opened()
    await add_keys(store, 3000, None)
    looks: list[str] = []

    def looked(phase: str, _facts: dict[str, int]) -> None:
        if phase == "start":
            looks.append(threading.current_thread().name)

    gc.callbacks.append(looked)
    try:
        directory = await loaded(store)
    finally:
        gc.callbacks.remove(looked)
    keys = directory.organizations["acme"].teams["data"].keys
    assert len(keys) == 3000
    assert keys["k00000000007"].hashes == (KeyHash(f"{7:064}"),)
    assert sum("AnyIO worker" in one for one in looks) <= 1
    assert gc.isenabled()


async def test_what_did_not_change_is_the_very_same_when_it_is_read_again(opened: Open) -> None:
    store = await opened()
    await fill(store)
    async with store.changing() as change:
        await change.add(replace(CI, id="bbbbbbbbbbbb", team="web"))
        await change.add(replace(CI, id="cccccccccccc", name="cd"))
    before = await loaded(store)
    async with store.changing() as change:
        await change.set(KeyRow, {"revoked": 7.0}, id="cccccccccccc")
    after = (await store.load(before)).directory
    assert after == await loaded(store) and after != before
    teams = [one.organizations["acme"].teams for one in (before, after)]
    assert teams[0]["web"].keys is teams[1]["web"].keys
    assert teams[0]["data"].keys is not teams[1]["data"].keys
    assert teams[0]["data"].keys[CI.id] is teams[1]["data"].keys[CI.id]
    assert teams[1]["data"].keys["cccccccccccc"].revoked


@pytest.mark.parametrize("gone", ["a key", "a hash", "a team", "the organization"])
async def test_what_is_gone_is_gone_when_it_is_read_again(opened: Open, gone: str) -> None:
    store = await opened()
    await fill(store)
    before = await loaded(store)
    async with store.changing() as change:
        match gone:
            case "a key":
                await change.remove(KeyRow, id=CI.id)
            case "a hash":
                await change.remove(HashRow, hash=OTHER)
            case "a team":
                await change.remove(TeamRow, organization="acme", name="data")
            case _:
                await change.remove(OrganizationRow, name="acme")
    after = (await store.load(before)).directory
    assert after == await loaded(store) and after != before


async def test_many_keys_are_not_walked_by_the_collector_once_they_are_read(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a hundred thousand it took nearly a second, with every request waiting."""
    store = await opened()
    await add_keys(store, 500, None)
    frozen = gc.get_freeze_count()
    await store.load(Directory())
    monkeypatch.setattr("broker.stores.assembly.MANY", 500)
    await loaded(store)
    assert gc.get_freeze_count() == frozen, "few, or kept by nobody"
    many = (await store.load(Directory())).directory
    try:
        count = gc.get_freeze_count()
        assert count > frozen + 500 and gc.isenabled()
        assert (await store.load(many)).directory == many
        assert gc.get_freeze_count() <= count, "where nothing is new, nothing more is"
    finally:
        gc.unfreeze()


async def test_a_store_below_a_relative_path_is_looked_into_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    location = Location(Path("state"), Path("state/broker.db"))
    assert not location.holds_something()
    store = await open_store(location)
    assert not location.holds_something()
    await fill(store)
    await store.aclose()
    assert location.holds_something()
