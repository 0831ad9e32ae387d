"""Keys: their form, what is stored of them, and one refusal for all that are not good."""

import multiprocessing
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import Secret
from broker.core.caller import Role
from broker.core.directory import Directory, Key, KeyHash, Organization, Source, Team
from broker.core.grants import key_level, organization_level, team_level
from broker.identity.key_secret import FILE, NoKeySecret, make_key_secret, read_key_secret
from broker.identity.keys import ENTROPY, BadKey, KeyTable, Minted, hash_of, mint
from tests.calls import calls_of

SECRET = Secret("s" * 40)
NOW = 1_000_000.0


def minted(number: int = 1) -> Minted:
    return mint(bytes([number]) * ENTROPY)


def text_of(key: Minted) -> str:
    return key.text.reveal()


def key(made: Minted, *, source: Source = Source.DATABASE, expires: float = inf, revoked: bool = False) -> Key:
    level = key_level("acme", "data", "ci")
    hashes = (KeyHash(hash_of(text_of(made), SECRET)),)
    return Key(made.id, "ci", level, hashes, expires, Role.TEAM_ADMIN, revoked, source)


def directory(*keys: Key) -> Directory:
    team = Team("data", team_level("acme", "data"), {one.id: one for one in keys})
    return Directory({"acme": Organization("acme", organization_level("acme"), {"data": team})})


def table(*keys: Key) -> KeyTable:
    return KeyTable(SECRET, directory(*keys))


def why(table: KeyTable, text: str, now: float = NOW) -> str:
    with pytest.raises(BadKey) as refused:
        table.verify(text, now)
    return refused.value.why


@given(st.binary(min_size=ENTROPY, max_size=ENTROPY))
def test_a_key_has_a_readable_prefix_an_id_and_256_random_bits(entropy: bytes) -> None:
    made = mint(entropy)
    text = text_of(made)
    assert re.fullmatch(r"mcpb_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", text)
    assert made.id == text[5:17]
    assert mint(entropy).text == made.text
    assert text not in repr(made) and text not in f"{made}"


@given(st.binary(min_size=ENTROPY, max_size=ENTROPY), st.integers(0, ENTROPY * 8 - 1))
def test_every_random_bit_of_the_secret_counts(entropy: bytes, bit: int) -> None:
    other = bytearray(entropy)
    other[bit // 8] ^= 1 << bit % 8
    # Of the 64 bits that the id is made of, it has 60.
    if bit >= 64 or bit < 56:
        assert mint(bytes(other)).text != mint(entropy).text


def test_a_rotated_key_keeps_its_id() -> None:
    made = minted()
    again = mint(bytes([2]) * ENTROPY, made.id)
    assert again.id == made.id and again.text != made.text and text_of(again)[5:17] == made.id
    with pytest.raises(ValueError, match="40 random bytes"):
        mint(b"too few")


def test_a_hash_depends_on_the_secret_and_on_the_whole_text() -> None:
    text = text_of(minted())
    assert re.fullmatch(r"[0-9a-f]{64}", hash_of(text, SECRET))
    assert len({hash_of(text, SECRET), hash_of(text, Secret("t" * 40)), hash_of(text[:-1], SECRET)}) == 3
    assert hash_of("\ud800", SECRET)


def test_a_good_key_gives_its_caller() -> None:
    made, of_file = minted(1), minted(2)
    known = table(key(made, expires=NOW + 1), replace(key(of_file, source=Source.FILE), id="ci"))
    caller = known.verify(text_of(made), NOW).caller
    assert (caller.principal, caller.organization, caller.team, caller.key) == (
        f"key:{made.id}",
        "acme",
        "data",
        made.id,
    )
    assert (caller.role, caller.expires) == (Role.TEAM_ADMIN, NOW + 1)
    assert known.verify(text_of(of_file), NOW).caller.principal == "key:acme/data/ci"
    assert repr(known) == "KeyTable(2 hashes)"


def test_unknown_revoked_and_expired_keys_are_refused_alike_and_only_the_log_knows_why() -> None:
    gone, old, other = minted(1), minted(2), minted(3)
    known = table(key(gone, revoked=True), key(old, expires=NOW))
    assert why(known, text_of(other)) == "unknown key"
    assert why(known, text_of(gone)) == f"key:{gone.id} is revoked"
    assert why(known, text_of(old)) == f"key:{old.id} has expired"
    assert known.verify(text_of(old), NOW - 0.1)


@given(st.one_of(st.text(), st.from_regex(r"mcpb_[a-z2-7]{11,13}_[A-Za-z0-9_-]{42,44}", fullmatch=True)))
def test_no_part_of_a_wrong_key_gets_into_what_is_said(text: str) -> None:
    said = why(table(key(minted())), text)
    assert said in ("not a key", "unknown key")


def test_a_rotated_text_ends_with_its_overlap_and_the_new_one_goes_on() -> None:
    old, new = minted(1), mint(bytes([9]) * ENTROPY, minted(1).id)
    hashes = (KeyHash(hash_of(text_of(old), SECRET), NOW + 60), KeyHash(hash_of(text_of(new), SECRET)))
    known = table(replace(key(old), hashes=hashes))
    assert known.verify(text_of(old), NOW).caller.expires == NOW + 60, "open streams of the old text end then"
    assert known.verify(text_of(new), NOW).caller.expires == inf
    assert why(known, text_of(old), NOW + 60).endswith("has expired")


def test_a_hash_of_two_keys_is_good_for_neither() -> None:
    made = minted()
    twin = replace(key(made), id="other")
    assert why(table(key(made), twin, replace(twin, id="third")), text_of(made)) == "unknown key"


def test_what_was_verified_is_in_force_until_the_key_changes() -> None:
    made = minted()
    known = table(key(made, expires=NOW + 9))
    holder = known.verify(text_of(made), NOW)
    assert known.is_in_force(holder, NOW) and table(key(made, expires=NOW + 9)).is_in_force(holder, NOW)
    assert not known.is_in_force(holder, NOW + 9)
    assert not table().is_in_force(holder, NOW)
    assert not table(key(made, expires=NOW + 9, revoked=True)).is_in_force(holder, NOW)
    assert not table(replace(key(made, expires=NOW + 9), role=Role.MEMBER)).is_in_force(holder, NOW)


def test_the_key_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    home = tmp_path / "state"
    assert read_key_secret(home) is None
    made = make_key_secret(home, secrets.token_bytes)
    assert make_key_secret(home, secrets.token_bytes) == made == read_key_secret(home)
    assert len(made.reveal()) == 43
    assert [path.name for path in home.iterdir()] == [FILE]
    assert (home / FILE).stat().st_mode & 0o777 == 0o600


def _make(arguments: tuple[str, int]) -> str:
    directory, count = arguments
    del count
    return make_key_secret(Path(directory), os.urandom).reveal()


def test_processes_that_come_at_once_get_the_same_key_secret(tmp_path: Path) -> None:
    home = tmp_path / "state"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.map(_make, [(str(home), number) for number in range(9)], chunksize=1)
    assert len(set(found)) == 1
    assert [path.name for path in home.iterdir()] == [FILE]


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40, b"a" * 5000, b"a" * 20 + b"\n" + b"b" * 20])
def test_a_key_secret_that_does_not_hold_is_an_error_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / FILE
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(NoKeySecret, match="rotate every key"):
        make_key_secret(tmp_path, secrets.token_bytes)
    assert file.read_bytes() == content


def open_to_all(file: Path) -> None:
    file.write_bytes(b"x" * 43)
    file.chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (open_to_all, "chmod 600"),
        (lambda file: file.mkdir(mode=0o700), "not a file"),
        (os.mkfifo, "not a file"),
    ],
    ids=["readable by others", "a directory", "a pipe"],
)
def test_a_key_secret_of_a_wrong_kind_is_an_error(
    tmp_path: Path, spoil: Callable[[Path], object], expected: str
) -> None:
    spoil(tmp_path / FILE)
    with pytest.raises(NoKeySecret, match=expected):
        read_key_secret(tmp_path)


def test_where_no_key_secret_can_be_made_the_remedy_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    with pytest.raises(NoKeySecret, match=r"Not a directory|broker\.state_dir"):
        make_key_secret(tmp_path / "state", secrets.token_bytes)


def many(count: int) -> Directory:
    """A directory with so many keys, of the database."""
    return directory(
        *(replace(key(minted()), id=f"k{number}", hashes=(KeyHash(f"{number:064x}"),)) for number in range(count))
    )


def test_a_table_of_a_thousand_keys_is_made_without_calling_anything_for_each() -> None:
    few, large = many(10), many(1000)
    assert calls_of(lambda: KeyTable(SECRET, large)) == calls_of(lambda: KeyTable(SECRET, few))


def test_whether_somebody_may_come_back_is_looked_up_and_not_searched_for() -> None:
    known = [KeyTable(SECRET, many(count)) for count in (10, 1000)]
    for one in known:
        assert one.is_anyone("key:k3", NOW) and not one.is_anyone("key:k1001", NOW)
    for principal in ("key:k4", "key:gone"):
        few, large = (calls_of(lambda one=one, who=principal: one.is_anyone(who, NOW)) for one in known)
        assert few == large


def test_a_key_that_was_moved_to_another_team_may_still_come_back() -> None:
    made = key(minted())
    home = Team("data", team_level("acme", "data"), {})
    moved = Team("web", team_level("acme", "web"), {made.id: replace(made, level=key_level("acme", "web", "ci"))})
    teams = {"data": home, "web": moved}
    known = KeyTable(SECRET, Directory({"acme": Organization("acme", organization_level("acme"), teams)}))
    assert not known.is_in_force(table(made).verify(text_of(minted()), NOW), NOW)
    assert known.is_anyone(made.principal, NOW)


TEXTS = [minted(number) for number in range(1, 7)]


def placed(holds: Mapping[tuple[int, int], tuple[frozenset[int], bool]]) -> Directory:
    """A directory of two places: (place, key) -> the numbers of its texts, and whether it is revoked."""
    teams: dict[str, dict[str, Key]] = {"a": {}, "b": {}}
    for (place, number), (texts, revoked) in holds.items():
        team = "ab"[place]
        hashes = tuple(KeyHash(hash_of(text_of(TEXTS[one]), SECRET)) for one in sorted(texts))
        made = Key(f"k{number}", "ci", key_level("acme", team, f"k{number}"), hashes, revoked=revoked)
        teams[team][made.id] = made
    level = organization_level("acme")
    made_teams = {name: Team(name, team_level("acme", name), keys) for name, keys in teams.items() if keys}
    return Directory({"acme": Organization("acme", level, made_teams)})


def found_in(table: KeyTable) -> list[object]:
    """What each text is to it."""
    found: list[object] = []
    for one in TEXTS:
        try:
            found.append(table.verify(text_of(one), NOW))
        except BadKey as error:
            found.append(error.why)
    return [*found, len(table), *(table.is_anyone(f"key:acme/{team}/k{key}", NOW) for team in "ab" for key in range(3))]


@given(
    st.lists(
        st.dictionaries(
            st.tuples(st.integers(0, 1), st.integers(0, 2)),
            st.tuples(st.frozensets(st.integers(0, 5), max_size=3), st.booleans()),
        ).map(placed),
        min_size=2,
        max_size=6,
    )
)
def test_a_table_that_follows_another_says_what_one_says_that_is_made_anew(directories: list[Directory]) -> None:
    following = KeyTable(SECRET, directories[0])
    for one in directories[1:]:
        following = KeyTable(SECRET, one, following)
        assert found_in(following) == found_in(KeyTable(SECRET, one))
