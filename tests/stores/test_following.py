"""What was changed is read, and only that: what is known afterwards is what reading everything says."""

import random
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, replace
from typing import Any

import anyio
import pytest
from sqlalchemy import CursorResult, func, insert, select, update

from broker.core.caller import Role
from broker.core.directory import Directory
from broker.stores import directory, tables
from broker.stores.assembly import assembled
from broker.stores.directory import KEPT, MOST, Change, DirectoryStore, Stored
from broker.stores.errors import Conflict
from broker.stores.rows import HashRow, KeyRow, MembershipRow, OrganizationRow, TeamRow
from tests.stores.conftest import Open

KEY = KeyRow("k0", "acme", "data", "ci", Role.MEMBER, None, None, 1.0)
LIMITS: dict[str, Any] = {"rate": ["20/minute"]}
TEAMS = ("", "data", "web")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[AbstractSet[str] | None]:
    """Of each reading: the ids of the keys that were read; None for all."""
    found: list[AbstractSet[str] | None] = []

    def heard(
        rows: Mapping[type[Any], CursorResult[Any]], before: Directory | None, concerned: AbstractSet[str] | None
    ) -> Directory:
        found.append(concerned)
        return assembled(rows, before, concerned)

    monkeypatch.setattr(directory, "assembled", heard)
    return found


async def filled(store: DirectoryStore, keys: int = 3) -> Stored:
    async with store.changing() as change:
        await change.add(OrganizationRow("acme", [{"servers": ["*"]}], None, 1.0))
        await change.add(TeamRow("acme", "data", None, None, 2.0))
        for number in range(keys):
            await change.add(replace(KEY, id=f"k{number}", name=f"n{number}"))
            await change.add(HashRow(f"{number:064}", f"k{number}"))
    return await store.load()


async def followed(store: DirectoryStore, before: Stored) -> Stored:
    """What is known after reading what was changed; it is what reading everything says, in the same order."""
    after, whole = await store.load(before.directory, before.revision), await store.load()
    assert after == whole
    assert [one.key.id for one in after.directory.places()] == [one.key.id for one in whole.directory.places()]
    return after


async def test_of_a_change_of_one_key_that_key_is_read(opened: Open, read: list[AbstractSet[str] | None]) -> None:
    store = await opened()
    before = await filled(store, 300)
    async with (await opened()).changing() as change:
        await change.set(KeyRow, {"revoked": 7.0}, id="k7")
    read.clear()
    after = await followed(store, before)
    assert read[0] == {"k7"}
    keys = after.directory.organizations["acme"].teams["data"].keys
    assert keys["k7"].revoked and keys["k8"] is before.directory.organizations["acme"].teams["data"].keys["k8"]


async def test_of_a_change_of_no_key_no_key_is_read(opened: Open, read: list[AbstractSet[str] | None]) -> None:
    store = await opened()
    before = await filled(store)
    async with store.changing() as change:
        await change.set(TeamRow, {"limits": LIMITS}, organization="acme", name="data")
        await change.add(MembershipRow("jwt:https://login.acme.dev ada", "acme", "", Role.ORG_ADMIN, 1.0))
    read.clear()
    after = await followed(store, before)
    assert read[0] == frozenset() and len(after.directory.memberships) == 1
    assert (
        after.directory.organizations["acme"].teams["data"].keys
        is before.directory.organizations["acme"].teams["data"].keys
    )


async def _something(change: Change, luck: random.Random, name: str) -> None:
    """One thing that may be done to a directory."""
    key = f"k{luck.randrange(12):02}"
    match luck.randrange(9):
        case 0 | 1:
            await change.remove(KeyRow, id=key)
            await change.add(replace(KEY, id=key, team=luck.choice(TEAMS), name=name))
            await change.add(HashRow(name.rjust(64, "0"), key))
        case 2:
            await change.remove(KeyRow, id=key)
        case 3:
            await change.set(KeyRow, {"team": luck.choice(TEAMS), "name": name}, id=key)
        case 4:
            await change.set(KeyRow, {"revoked": luck.choice([None, 5.0])}, team=luck.choice(TEAMS))
        case 5:
            await change.remove(KeyRow, organization="acme", team=luck.choice(TEAMS))
        case 6:
            await change.set(HashRow, {"not_after": 7.0}, key_id=key)
        case 7:
            await change.remove(HashRow, key_id=key)
        case _:
            await change.remove(TeamRow, organization="acme", name="web")
            await change.add(TeamRow("acme", "web", None, None, luck.random(), LIMITS))


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_done_what_is_followed_is_what_is_there(
    opened: Open, seed: int, read: list[AbstractSet[str] | None]
) -> None:
    store, other, luck = await opened(), await opened(), random.Random(seed)
    known = await filled(store)
    for turn in range(25):
        for step in range(luck.randrange(1, 4)):  # several between two looks
            async with luck.choice([store, other]).changing() as change:
                for part in range(luck.randrange(1, 3)):
                    await _something(change, luck, f"n{turn}-{step}-{part}")
        known = await followed(store, known)
    assert None in read and sum(one is not None for one in read) == 25, "each was followed, and compared with the whole"


async def test_a_reader_beside_two_writers_misses_nothing(opened: Open) -> None:
    store = await opened()
    known = await filled(store, 6)
    writers = [await opened(), await opened()]
    left = len(writers)

    async def write(one: DirectoryStore, name: str) -> None:
        nonlocal left
        luck = random.Random(name)
        for turn in range(15):
            async with one.changing() as change:
                await _something(change, luck, f"{name}{turn}")
        left -= 1

    async with anyio.create_task_group() as tasks:
        for number, one in enumerate(writers):
            tasks.start_soon(write, one, f"w{number}-")
        while left:
            known = await store.load(known.directory, known.revision)
    known = await followed(store, known)
    assert known.revision == 31


async def test_a_change_that_fails_leaves_no_word_of_a_change(
    opened: Open, read: list[AbstractSet[str] | None]
) -> None:
    store = await opened()
    before = await filled(store)
    with pytest.raises(Conflict):
        async with store.changing() as change:
            await change.set(KeyRow, {"revoked": 7.0}, id="k1")
            await change.add(KEY)
    async with store.changing() as change:
        await change.set(KeyRow, {"revoked": 7.0}, id="k2")
    read.clear()
    await followed(store, before)
    assert read[0] == {"k2"}


async def test_a_change_by_somebody_who_does_not_say_what_it_was_about_is_read_whole(
    opened: Open, read: list[AbstractSet[str] | None]
) -> None:
    """An older broker beside this one, or an operator with SQL."""
    store = await opened()
    before = await filled(store)
    async with store.changing() as change:
        await change.set(KeyRow, {"revoked": 7.0}, id="k0")
    async with store.database.writing() as connection:
        await connection.execute(update(tables.keys).where(tables.keys.c.id == "k1").values(revoked=7.0))
        await connection.execute(update(tables.revision).values(number=tables.revision.c.number + 1))
    async with store.changing() as change:
        await change.set(KeyRow, {"name": "new"}, id="k2")
    read.clear()
    after = await followed(store, before)
    assert read[0] is None and after.directory.organizations["acme"].teams["data"].keys["k1"].revoked


async def test_what_is_older_than_what_is_known_is_read_whole(
    opened: Open, read: list[AbstractSet[str] | None]
) -> None:
    """A database that was put back beside a running broker."""
    store = await opened()
    before = await filled(store)
    async with store.database.writing() as connection:
        await connection.execute(update(tables.keys).where(tables.keys.c.id == "k1").values(revoked=7.0))
        await connection.execute(update(tables.revision).values(number=0))
    read.clear()
    await followed(store, before)
    assert read[0] is None


async def test_a_change_of_too_many_keys_and_too_many_changes_are_read_whole(
    opened: Open, read: list[AbstractSet[str] | None]
) -> None:
    store = await opened()
    await filled(store)
    rows = [asdict(replace(KEY, id=f"m{number}", team="many", name=f"m{number}")) for number in range(MOST + 1)]
    async with store.changing() as change:
        await change._connection.execute(insert(tables.keys), rows)  # pyright: ignore[reportPrivateUsage]
    before = await store.load()
    async with store.changing() as change:
        assert await change.remove(KeyRow, team="many") == MOST + 1
    async with store.database.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(tables.key_changes))).scalar_one() < 10
    read.clear()
    before = await followed(store, before)
    async with store.database.writing() as connection:
        numbers = range(before.revision + 1, before.revision + MOST + 2)
        await connection.execute(insert(tables.key_changes), [{"revision": one, "key_id": ""} for one in numbers])
        await connection.execute(update(tables.revision).values(number=numbers[-1]))
    await followed(store, before)
    assert read == [None] * 4


async def test_what_changes_were_about_is_kept_for_a_while(opened: Open) -> None:
    store = await opened()
    async with store.database.writing() as connection:
        await connection.execute(update(tables.revision).values(number=KEPT))
        rows = [{"revision": number, "key_id": ""} for number in range(1, KEPT + 1)]
        await connection.execute(insert(tables.key_changes), rows)
    await filled(store)
    async with store.database.reading() as connection:
        log = tables.key_changes.c.revision
        oldest, newest = (await connection.execute(select(func.min(log), func.max(log)))).one()
    assert (oldest, newest) == (2, KEPT + 1)
