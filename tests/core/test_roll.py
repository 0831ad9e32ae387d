"""A change of one key costs what has changed: what was made of the keys of other places is kept."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from broker.config import Secret
from broker.core.directory import Directory, Key, KeyHash, Merger, Organization, Source, Team, hashes_in
from broker.core.grants import key_level, organization_level, team_level
from broker.core.limits import LimitRules, all_budgets
from broker.core.period import Period
from broker.core.policy import Policy
from broker.core.quota import LevelLimits, Limits
from broker.core.roll import Roll, rolled
from broker.identity.keys import KeyTable
from broker.usage.revision import Revision
from tests.calls import watched

SECRET = Secret("a secret of these tests, as long as it has to be")


def of_file(number: int) -> Team:
    name = f"t{number}"
    key = Key("of-file", "x", key_level("acme", name, "x"), (KeyHash(f"file {number}"),))
    return Team(name, team_level("acme", name), {key.id: key})


FILE = Directory(
    {"acme": Organization("acme", organization_level("acme"), {f"t{number}": of_file(number) for number in range(20)})}
)


def stored(team: int, number: int, *, revoked: bool = False) -> Key:
    level = key_level("acme", f"t{team}", f"k{number}")
    hashes = (KeyHash(f"{team} {number}"),)
    return Key(f"k{team}-{number}", f"k{number}", level, hashes, revoked=revoked, source=Source.DATABASE)


def keys_of(team: int, count: int) -> Mapping[str, Key]:
    return {one.id: one for one in (stored(team, number) for number in range(count))}


def database(teams: Mapping[int, Mapping[str, Key]]) -> Directory:
    made = {f"t{number}": Team(f"t{number}", None, keys, Source.DATABASE) for number, keys in teams.items()}
    return Directory({"acme": Organization("acme", None, made, source=Source.DATABASE)})


def calls_in(work: Callable[[], object]) -> Counter[str]:
    """Which functions of ours were called, and how often."""
    called = Counter[str]()
    with watched(lambda frame, event, _: called.update([frame.f_code.co_name]) if event == "call" else None):
        work()
    return called


def test_a_hash_that_two_keys_of_a_place_have_is_known_to_come_twice() -> None:
    other, same = stored(1, 1), replace(stored(1, 2), hashes=stored(1, 1).hashes)
    found = hashes_in(rolled({one.id: one for one in (stored(1, 0), other, same)}))
    assert found.twice == {other.hashes[0].hex} and set(found.keys) == {stored(1, 0).hashes[0].hex, other.hashes[0].hex}


def test_what_is_made_of_a_roll_is_made_once_and_a_roll_is_no_copy_of_itself() -> None:
    asked: list[int] = []

    def made(roll: Roll[int]) -> int:
        asked.append(len(roll))
        return sum(roll.values())

    roll = rolled({"a": 1, "b": 2})
    assert (roll.derived(made), roll.derived(made), asked) == (3, 3, [2])
    assert rolled(roll) is roll and roll == {"a": 1, "b": 2}
    roll.know(made, 7)
    assert roll.derived(made) == 7


def a_change(count: int) -> tuple[Counter[str], Counter[str]]:
    """What is called when one of `count` keys of each of 20 teams is revoked, from the directory on; and when the next
    record of the audit names the policy."""
    merger, teams = Merger(FILE), {number: rolled(keys_of(number, count)) for number in range(20)}
    before, _ = merger.merge(database(teams))
    table, policy = KeyTable(SECRET, before), Policy(directory=before)
    assert Revision(policy).text and LimitRules(before).is_empty and not all_budgets(before)
    after = database({**teams, 3: rolled({**teams[3], "k3-0": stored(3, 0, revoked=True)})})
    changed: list[Policy] = []

    def put_in_force() -> None:
        directory, _ = merger.merge(after)
        changed.append(policy.with_directory(directory))
        assert LimitRules(directory).is_empty and not all_budgets(directory)
        assert len(KeyTable(SECRET, directory, table)) == 20 * count + 20

    return calls_in(put_in_force), calls_in(lambda: Revision(changed[0]).text)


def test_putting_a_change_of_one_key_in_force_calls_the_same_with_ten_times_as_many_keys() -> None:
    (few, _), (many, _) = a_change(10), a_change(100)
    assert few == many
    assert few["_limited_in"] == 1 and few["hashes_in"] <= 1, "of one team of twenty"


def test_only_the_place_that_was_changed_is_digested_anew_for_the_audit() -> None:
    _, called = a_change(10)
    assert called["_digest_in"] == 1 and called["_plain"] == 10 + 1


def test_a_place_whose_keys_are_as_before_has_the_same_roll_in_force() -> None:
    merger, teams = Merger(FILE), {number: rolled(keys_of(number, 3)) for number in range(20)}
    before, _ = merger.merge(database(teams))
    after, _ = merger.merge(database({**teams, 3: rolled(keys_of(3, 2))}))
    again, _ = merger.merge(database({**teams, 3: rolled(keys_of(3, 2))}))
    rolls = [{team: roll for _, team, roll in one.rolls() if team} for one in (before, after, again)]
    assert {team for team, roll in rolls[1].items() if roll is not rolls[0][team]} == {"t3"}
    assert after == again == Merger(FILE).merge(database({**teams, 3: keys_of(3, 2)}))[0]
    assert len(rolls[1]["t3"]) == 3 and len(rolls[1]["t4"]) == 4


def test_what_is_left_out_of_the_database_is_said_each_time() -> None:
    taken = Key("mine", "mine", key_level("acme", "t1", "mine"), (KeyHash("file 7"),), source=Source.DATABASE)
    known = database({1: rolled({"mine": taken, **keys_of(1, 1)})})
    merger = Merger(FILE)
    for _ in range(3):
        directory, said = merger.merge(known)
        assert [one for one in said if "mine" in one] and list(directory.organizations["acme"].teams["t1"].keys) == [
            "of-file",
            "k1-0",
        ]


def test_the_hashes_of_joined_keys_are_those_that_are_found_by_looking() -> None:
    directory, _ = Merger(FILE).merge(database({1: rolled(keys_of(1, 5))}))
    roll = rolled(directory.organizations["acme"].teams["t1"].keys)
    assert roll.derived(hashes_in) == hashes_in(Roll(roll))
    assert len(roll.derived(hashes_in).keys) == 6


def test_a_limit_of_one_key_among_many_is_found() -> None:
    limits = LevelLimits(Limits(concurrency=1), budget={Period.DAY: 5})
    limited = Key("l", "l", key_level("acme", "t1", "l", limits=limits), (KeyHash("l"),))
    directory, _ = Merger(FILE).merge(database({1: rolled({"l": limited, **keys_of(1, 5)})}))
    assert not LimitRules(directory).is_empty
    ((organization, team, budget),) = all_budgets(directory)
    assert (organization, team, budget.where, budget.amount) == ("acme", "t1", "key:acme/t1/l", 5)
