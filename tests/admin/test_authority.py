"""Roles and places, and when one level is within another: pure."""

from hypothesis import given
from hypothesis import strategies as st

from broker.admin.authority import Authority, is_within
from broker.core.caller import LOCAL, Role
from broker.core.conditions import Condition, Op
from broker.core.directory import Membership
from broker.core.grants import Level, Rule
from broker.core.match import Pattern
from broker.core.request import Kind
from tests.admin.conftest import user

SERVERS = ["a", "ab", "b"]
OWN = ["x", "xy", "y"]
patterns = st.lists(st.text("ab*", min_size=1, max_size=3).map(Pattern), min_size=1, max_size=2).map(tuple)
names = st.lists(st.text("ab_xy*", min_size=1, max_size=6).map(Pattern), min_size=1, max_size=2).map(tuple)
rules = st.builds(
    Rule, st.none() | patterns, st.dictionaries(st.sampled_from([Kind.TOOL, Kind.PROMPT]), names, max_size=2)
)
lists = st.lists(rules, max_size=3).map(tuple)
levels = st.builds(Level, st.just("level"), st.none() | lists, lists)


def lets_through(level: Level, kind: Kind, server: str, own: str) -> bool:
    def covered(found: tuple[Rule, ...]) -> bool:
        return any(rule.covers(kind, server, own) for rule in found)

    return (level.allow is None or covered(level.allow)) and not covered(level.deny)


@given(levels, levels)
def test_a_level_within_another_lets_through_no_more(level: Level, limit: Level) -> None:
    if is_within(level, limit):
        for kind in (Kind.TOOL, Kind.PROMPT):
            for server in SERVERS:
                for own in OWN:
                    assert not lets_through(level, kind, server, own) or lets_through(limit, kind, server, own)


@given(levels)
def test_a_level_of_rules_that_speak_of_something_is_within_itself(level: Level) -> None:
    rules = (*(level.allow or ()), *level.deny)
    assert is_within(level, level) or any(rule.servers is None and not rule.names for rule in rules)


def when(value: object) -> Rule:
    return Rule((Pattern("sql"),), {}, (Condition(("database",), Op.EQUALS, value),))  # pyright: ignore[reportArgumentType]


def test_conditions_can_be_added_but_not_left_out_nor_changed() -> None:
    bare, one, true = Rule((Pattern("sql"),)), when(1), when(True)
    assert is_within(Level("", (one,)), Level("", (bare,)))
    assert not is_within(Level("", (bare,)), Level("", (one,)))
    assert not is_within(Level("", (true,)), Level("", (one,))), "JSON's true is not 1"
    assert is_within(Level("", None, (bare,)), Level("", None, (one,))), "to deny more is within"
    assert not is_within(Level("", None, (one,)), Level("", None, (bare,)))


def test_nothing_is_within_everything_and_everything_within_silence() -> None:
    nothing, everything, silent = Level("", ()), Level("", (Rule((Pattern("*"),)),)), Level("")
    assert is_within(nothing, everything) and is_within(everything, silent)
    assert not is_within(silent, everything), "what is left out is all that the team may, whatever that becomes"


def test_a_role_counts_at_its_place_and_below() -> None:
    boss = Authority.of(user("b", "acme", role=Role.ORG_ADMIN), ())
    admin = Authority.of(user("a", "acme", "data", Role.TEAM_ADMIN), ())
    assert boss.has(Role.TEAM_ADMIN, "acme", "data") and boss.has(Role.ORG_ADMIN, "acme")
    assert boss.role_at("beta") is None and not boss.has(Role.MEMBER)
    assert admin.role_at("acme", "data") is Role.TEAM_ADMIN and admin.role_at("acme") is Role.MEMBER
    assert admin.role_at("acme", "web") is None and admin.role_at("beta", "data") is None
    assert Authority.of(LOCAL, ()).has(Role.ADMIN, "any", "where")
    assert Authority.of(user("n", ""), ()).roles == {}, "who has no place has no role"


def test_memberships_add_up_and_give_no_more_than_their_place() -> None:
    def with_membership(team: str, role: Role) -> Authority:
        return Authority.of(user("u", "acme", "data"), [Membership("jwt:x u", "beta", team, role)])

    assert with_membership("web", Role.TEAM_ADMIN).role_at("beta", "web") is Role.TEAM_ADMIN
    assert with_membership("", Role.TEAM_ADMIN).role_at("beta") is Role.MEMBER, "a team-admin of no team"
    assert with_membership("", Role.ADMIN).role_at("beta") is Role.ORG_ADMIN
    assert with_membership("", Role.ADMIN).role_at("gamma") is None
    assert with_membership("web", Role.TEAM_ADMIN).role_at("acme", "data") is Role.MEMBER
