"""How much may be asked: how it is written, and which limits apply to whom."""

import pytest

from broker.core.caller import LOCAL, Caller
from broker.core.directory import Directory, Key, Organization, Team
from broker.core.grants import key_level, organization_level, team_level
from broker.core.limits import LimitRules, all_budgets, budgets_of
from broker.core.period import Period
from broker.core.quota import (
    MAX_COUNT,
    MAX_SECONDS,
    NO_LIMITS,
    LevelLimits,
    Limits,
    Rate,
    ServerLimits,
    is_as_tight,
    rate_of,
)

TEN = Limits((Rate(10, 60),))
FIVE = Limits((Rate(5, 60),))
TWO_AT_A_TIME = Limits(concurrency=2)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/minute", Rate(100, 60)),
        ("1/second", Rate(1, 1)),
        ("20000/day", Rate(20_000, 86_400)),
        ("5/hour", Rate(5, 3600)),
        ("20/90s", Rate(20, 90)),
        ("500/6h", Rate(500, 21_600)),
        ("7/7d", Rate(7, 604_800)),
        (f"{MAX_COUNT}/31d", Rate(MAX_COUNT, MAX_SECONDS)),
    ],
)
def test_a_rate_is_read_as_it_is_written(text: str, rate: Rate) -> None:
    assert rate_of(text) == rate and str(rate) == text


@pytest.mark.parametrize(("text", "shortest"), [("5/60s", "5/minute"), ("5/120m", "5/2h"), ("5/90m", "5/90m")])
def test_a_rate_is_named_by_the_largest_unit_that_fits(text: str, shortest: str) -> None:
    assert str(rate_of(text)) == shortest


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "5/", "/minute", "0/minute", "-1/minute", "+1/minute", "1.5/minute", "05/minute", "5/minutes"),
        *("5 / minute", "5/m", "5/0s", "5/01s", "5/1w", "5/fortnight", "5/32d", "5/2678401s", "9999999999/day"),
        *("5/minute\n", "\u0665/minute", "1e3/minute", "5/60s/60s"),
    ],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        rate_of(text)


def rules(
    organization: LevelLimits | None = None,
    team: LevelLimits | None = None,
    key: LevelLimits | None = None,
    **servers: ServerLimits,
) -> LimitRules:
    ci = Key("ci", "ci", key_level("acme", "data", "ci", limits=key or LevelLimits()))
    boss = Key("boss", "boss", key_level("acme", "", "boss", limits=LevelLimits(FIVE)))
    teams = {
        "data": Team("data", team_level("acme", "data", limits=team or LevelLimits()), {"ci": ci}),
        "nowhere": Team("nowhere", None),
    }
    level = organization_level("acme", limits=organization or LevelLimits())
    acme = Organization("acme", level, teams, {"boss": boss} if organization else {})
    return LimitRules(Directory({"acme": acme, "gone": Organization("gone", None)}), servers)


CI = Caller("key:ci", "acme", "data", "ci")


def applied(found: LimitRules, caller: Caller, server: str = "sql") -> dict[str, Limits]:
    return {one.level: one.limits for one in found.applying(caller, server)}


def test_every_level_of_the_callers_place_and_the_server_apply_from_the_outermost_in() -> None:
    found = rules(
        LevelLimits(TEN, {"sql": FIVE}),
        LevelLimits(TWO_AT_A_TIME, {"docs": TEN}),
        LevelLimits(FIVE),
        sql=ServerLimits(TEN, FIVE),
        docs=ServerLimits(NO_LIMITS, FIVE),
    )
    assert list(applied(found, CI).items()) == [
        ("org:acme", TEN),
        ("org:acme/servers/sql", FIVE),
        ("team:acme/data", TWO_AT_A_TIME),
        ("key:acme/data/ci", FIVE),
        ("server:sql", TEN),
        ("server:sql/per_caller", FIVE),
    ]
    assert list(applied(found, CI, "docs")) == [
        *("org:acme", "team:acme/data", "team:acme/data/servers/docs", "key:acme/data/ci", "server:docs/per_caller")
    ]
    assert list(applied(found, CI, "other")) == ["org:acme", "team:acme/data", "key:acme/data/ci"]
    assert [one.is_per_caller for one in found.applying(CI, "sql")] == [False] * 5 + [True]


def test_somebody_outside_of_teams_has_the_limits_of_the_organization_and_of_the_key() -> None:
    found = rules(LevelLimits(TEN))
    assert applied(found, Caller("key:boss", "acme", "", "boss")) == {"org:acme": TEN, "key:acme/boss": FIVE}
    assert applied(found, Caller("jwt:x", "acme")) == {"org:acme": TEN}


def test_the_local_user_has_the_limits_of_servers_only() -> None:
    found = rules(LevelLimits(TEN), sql=ServerLimits(FIVE))
    assert applied(found, LOCAL) == {"server:sql": FIVE}


def test_places_that_are_not_there_have_no_limits_of_their_own() -> None:
    found = rules(LevelLimits(TEN), LevelLimits(TEN))
    assert applied(found, Caller("x", "gone")) == {}
    assert list(applied(found, Caller("x", "acme", "nowhere", "ci"))) == ["org:acme"]
    assert list(applied(found, Caller("x", "acme", "data", "other"))) == ["org:acme", "team:acme/data"]


def test_the_budgets_of_a_call_are_those_of_the_levels_of_its_caller() -> None:
    day, hour = LevelLimits(budget={Period.DAY: 5}), LevelLimits(budget={Period.HOUR: 1, Period.DAY: 2})
    found = rules(day, hour, LevelLimits(TEN))
    assert rules(team=hour).is_empty, "budgets are not counted"
    paid = [(one.where, one.period, one.amount) for one in budgets_of(found.directory, CI)]
    team = "team:acme/data"
    assert paid == [("org:acme", Period.DAY, 5), (team, Period.HOUR, 1), (team, Period.DAY, 2)]
    every = [(*place, one.where, one.period) for *place, one in all_budgets(found.directory)]
    assert every == [
        ("acme", "", "org:acme", Period.DAY),
        ("acme", "data", team, Period.HOUR),
        ("acme", "data", team, Period.DAY),
    ]


@pytest.mark.parametrize(
    ("found", "is_empty"),
    [
        (LimitRules(), True),
        (rules(sql=ServerLimits()), True),
        (rules(sql=ServerLimits(TEN)), False),
        (rules(sql=ServerLimits(per_caller=TEN)), False),
        (rules(LevelLimits(TWO_AT_A_TIME)), False),
        (rules(team=LevelLimits(NO_LIMITS, {"sql": TEN})), False),
        (rules(team=LevelLimits(NO_LIMITS, {"sql": NO_LIMITS})), True),
        (rules(key=LevelLimits(TEN)), False),
    ],
)
def test_where_nobody_has_a_limit_nobody_needs_to_look(found: LimitRules, is_empty: bool) -> None:
    assert found.is_empty is is_empty


def level(*rates: str, at_a_time: int | None = None, **servers: str) -> LevelLimits:
    everywhere = Limits(tuple(map(rate_of, rates)), at_a_time)
    return LevelLimits(everywhere, {key: Limits((rate_of(text),)) for key, text in servers.items()})


@pytest.mark.parametrize(
    ("one", "limit", "is_tight"),
    [
        (level(), level(), True),
        (level("5/minute"), level(), True),
        (level(), level("5/minute"), False),
        (level("5/minute"), level("5/minute"), True),
        (level("6/minute"), level("5/minute"), False),
        (level("5/hour"), level("5/minute"), True),
        (level("5/second"), level("5/minute"), False),
        (level("5/minute"), level("5/minute", "20/day"), False),
        (level("5/minute", "20/day"), level("5/minute", "20/day"), True),
        (level(at_a_time=2), level(at_a_time=3), True),
        (level(at_a_time=4), level(at_a_time=3), False),
        (level(), level(at_a_time=3), False),
        (level(), level(sql="5/minute"), False),
        (level(sql="5/minute"), level(sql="5/minute"), True),
        (level(docs="5/minute"), level(sql="5/minute"), False),
        (level("5/minute"), level(sql="5/minute"), True),
        (level(sql="5/minute"), level("5/minute"), False),
        (LevelLimits(), LevelLimits(budget={Period.DAY: 5}), False),
        (LevelLimits(budget={Period.DAY: 6}), LevelLimits(budget={Period.DAY: 5}), False),
        (LevelLimits(budget={Period.DAY: 5, Period.HOUR: 1}), LevelLimits(budget={Period.DAY: 5}), True),
    ],
)
def test_a_level_is_as_tight_as_another_if_it_allows_no_more_anywhere(
    one: LevelLimits, limit: LevelLimits, is_tight: bool
) -> None:
    assert is_as_tight(one, limit) is is_tight


def test_a_call_is_paid_from_every_budget_of_its_place_and_from_no_other() -> None:
    spends = LevelLimits(budget={Period.DAY: 5, Period.MONTH: 50})
    directory = rules(spends, spends, LevelLimits(budget={Period.HOUR: 1})).directory
    found = budgets_of(directory, CI)
    assert [one.rule for one in found] == [
        "org:acme/budget/day",
        "org:acme/budget/month",
        "team:acme/data/budget/day",
        "team:acme/data/budget/month",
        "key:acme/data/ci/budget/hour",
    ]
    assert budgets_of(directory, Caller("x", "acme", "data", "other")) == found[:4]
    assert budgets_of(directory, LOCAL) == budgets_of(directory, Caller("x", "gone")) == ()


def test_every_budget_is_found_with_the_place_that_it_belongs_to() -> None:
    daily = LevelLimits(budget={Period.DAY: 5})
    found = all_budgets(rules(daily, daily, daily).directory)
    assert [(organization, team, one.where) for organization, team, one in found] == [
        ("acme", "", "org:acme"),
        ("acme", "data", "team:acme/data"),
        ("acme", "data", "key:acme/data/ci"),
    ]
