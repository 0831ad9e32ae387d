"""The laws of access: listed iff callable, deny wins, levels only narrow, names are no way around, and every decision
has a rule with a name.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import policy as policy_module
from broker.core import ruling
from broker.core.caller import LOCAL, Caller
from broker.core.catalog import Catalog, Entry, Listing, shelve
from broker.core.conditions import Condition, Op, is_in
from broker.core.directory import Directory, Key, Organization, Team
from broker.core.explain import explain
from broker.core.grants import Level, Rule, key_level, organization_level, team_level
from broker.core.match import Pattern, Rules, template_covers
from broker.core.names import Mount, Naming
from broker.core.policy import ANY, Denied, Permit, Policy, decide, view_entries
from broker.core.request import Kind
from broker.core.ruling import TOO_COMPLEX
from broker.core.satisfy import Clause, can_all_hold
from tests.calls import calls_of, measured
from tests.core.access import (
    ARGUMENTS,
    CALLERS,
    CATALOG,
    ENTRIES,
    NAMING,
    catalog_of,
    levels_of,
    patterns,
    policies,
    rule_names,
    rules,
)

CALLER = st.sampled_from(CALLERS)
VIEW = st.sampled_from(["", "v", "one", "nobody"])


def permits(policy: Policy, caller: Caller, view: str, entry: Entry, arguments: object = ANY) -> bool:
    return isinstance(decide(policy, caller, view, entry, arguments), Permit)


@settings(max_examples=40)
@given(policies(), CALLER, VIEW)
def test_an_entry_is_listed_iff_some_call_of_it_could_be_permitted(policy: Policy, caller: Caller, view: str) -> None:
    listed = {kind: list(view_entries(policy, caller, view, CATALOG, kind)) for kind in Kind}
    for entry in ENTRIES:
        if not entry.listed:
            continue
        callable_with: Any = ARGUMENTS if entry.kind is Kind.TOOL else [{}]
        assert (entry in listed[entry.kind]) is any(
            permits(policy, caller, view, entry, arguments) for arguments in callable_with
        )


def says_allow(rule: Rule, arguments: Any) -> bool:
    return all(is_in(one.allowed, arguments, one.path) for one in rule.when)


def says_deny(rule: Rule, arguments: Any) -> bool:
    return all(not is_in(one.spared, arguments, one.path) for one in rule.when)


@settings(max_examples=40)
@given(policies(), CALLER, st.sampled_from([entry for entry in ENTRIES if entry.listed]), st.data())
def test_every_level_must_allow_and_none_may_deny(
    policy: Policy, caller: Caller, entry: Entry, data: st.DataObject
) -> None:
    arguments = data.draw(st.sampled_from(ARGUMENTS)) if entry.kind is Kind.TOOL else {}
    decision = decide(policy, caller, "", entry, arguments)
    kind = Kind.RESOURCE if entry.kind is Kind.TEMPLATE else entry.kind
    expected = policy.rules.get(entry.server, {}).get(kind, Rules()).judge(entry.own).allowed
    is_known = caller is LOCAL or not isinstance(decision, Denied) or not decision.rule.endswith(("unknown", "revoked"))
    if caller.organization and is_known:
        about = (entry.kind, entry.server, entry.own)
        for level in levels_of(policy.directory, caller):
            allow = level.allow
            expected &= allow is None or any(one.covers(*about) and says_allow(one, arguments) for one in allow)
            expected &= not any(one.covers(*about) and says_deny(one, arguments) for one in level.deny)
    else:
        expected &= caller is LOCAL
    assert isinstance(decision, Permit) is expected


@settings(max_examples=40)
@given(policies(), CALLER, VIEW, st.sampled_from(ENTRIES), st.sampled_from(ARGUMENTS))
def test_every_decision_has_the_name_of_a_rule_and_hides_unless_another_call_could_pass(
    policy: Policy, caller: Caller, view: str, entry: Entry, arguments: Any
) -> None:
    names = rule_names(policy)
    could = decide(policy, caller, view, entry)
    made = decide(policy, caller, view, entry, arguments)
    assert could.rule in names and made.rule in names
    if isinstance(could, Denied):
        assert made == could and could.is_hidden and could.reason and not could.argument
    elif isinstance(made, Denied):
        assert not made.is_hidden and made.argument in ("db", "db.name", "n") and made.argument in made.reason
    for decision, given_arguments in ((could, ANY), (made, arguments)):
        *before, last = explain(policy, caller, view, entry, given_arguments)
        assert (last.rule, last.passed) == (decision.rule, isinstance(decision, Permit))
        assert all(step.reason and (step.rule in names | {"entry", "place"} or "/" in step.rule) for step in before)
    again = decide(replace(policy), caller, view, entry, arguments)
    assert again == made, "a policy that was compiled anew says the same, by the same names"


def narrowed(directory: Directory, which: str, allow: tuple[Rule, ...] | None, deny: tuple[Rule, ...]) -> Directory:
    """One more list, or longer one, at one level."""

    def narrow(level: Level | None) -> Level:
        assert level is not None
        both = level.allow if allow is None or level.allow is not None else allow
        return Level(level.where, both, (*level.deny, *deny))

    acme = directory.organizations["acme"]
    data = acme.teams["data"]
    match which:
        case "org":
            acme = replace(acme, level=narrow(acme.level))
        case "team":
            acme = replace(acme, teams={**acme.teams, "data": replace(data, level=narrow(data.level))})
        case _:
            keys = {**data.keys, "ci": replace(data.keys["ci"], level=narrow(data.keys["ci"].level))}
            acme = replace(acme, teams={**acme.teams, "data": replace(data, keys=keys)})
    return replace(directory, organizations={"acme": acme})


@settings(max_examples=40)
@given(
    policies(),
    CALLER,
    st.sampled_from(["org", "team", "key"]),
    st.none() | st.lists(rules(), max_size=2).map(tuple),
    st.lists(rules(), max_size=2).map(tuple),
    st.sampled_from(ARGUMENTS),
)
def test_what_a_level_says_only_narrows(
    policy: Policy, caller: Caller, which: str, allow: tuple[Rule, ...] | None, deny: tuple[Rule, ...], arguments: Any
) -> None:
    narrower = Policy(policy.rules, policy.views, narrowed(policy.directory, which, allow, deny))
    for entry in ENTRIES:
        for asked in (ANY, arguments):
            assert permits(policy, caller, "", entry, asked) >= permits(narrower, caller, "", entry, asked)


@settings(max_examples=40)
@given(policies(), st.sampled_from(ENTRIES), st.sampled_from(ARGUMENTS))
def test_a_key_has_never_more_than_its_team_nor_a_team_more_than_its_organization(
    policy: Policy, entry: Entry, arguments: Any
) -> None:
    organization, team, key = Caller("o", "acme"), Caller("t", "acme", "data"), Caller("k", "acme", "data", "ci")
    chain = [permits(policy, who, "", entry, arguments) for who in (LOCAL, organization, team, key)]
    assert chain == sorted(chain, reverse=True)


@settings(max_examples=40)
@given(
    policies(),
    CALLER,
    st.sampled_from(["", "one", "short", "prefix-of-its-own"]),
    st.sampled_from([42, 47, 64]),
    st.sampled_from(ARGUMENTS),
)
def test_no_published_form_of_a_name_is_a_way_around_a_rule(
    policy: Policy, caller: Caller, prefix: str, max_length: int, arguments: Any
) -> None:
    """Prefixed, replaced, shortened or bare: rules match the key of the server and the own name, and nothing else."""
    other = catalog_of(Naming.of([Mount("one", prefix), Mount("two", "two")], max_length))
    for entry in ENTRIES:
        renamed = next(
            (one for one in other.entries(entry.kind) if (one.server, one.own) == (entry.server, entry.own)), None
        )
        if renamed is not None and entry.listed:
            before, after = (decide(policy, caller, "", one, arguments) for one in (entry, renamed))
            assert before.rule == after.rule and type(before) is type(after)


def policy_of(*levels: Level, scopes: Any = None, servers: Any = None, key: Level | None = None) -> Policy:
    """A policy of an organization, and perhaps a team, with these levels; the caller is `ANN`."""
    organization, team = levels[0], levels[1] if len(levels) > 1 else team_level("acme", "data")
    keys = {"ci": Key("ci", "ci", key or key_level("acme", "data", "ci"))}
    acme = Organization("acme", organization, {"data": Team("data", team, keys)})
    return Policy(servers or {}, {}, Directory({"acme": acme}, (), scopes or {}))


ANN = Caller("ann", "acme", "data")
CI = Caller("ci", "acme", "data", "ci")


def rule(*servers: str, when: list[Condition] | None = None, **names: list[str]) -> Rule:
    kinds = {Kind(kind): patterns(*texts) for kind, texts in names.items()}
    return Rule(patterns(*servers) if servers else None, kinds, tuple(when or ()))


ALL = organization_level("acme", (rule("*"),))


def entry(kind: Kind, public: str) -> Entry:
    found = CATALOG.lookup(kind, public)
    assert found is not None
    return found


TOOL = entry(Kind.TOOL, "one__a")


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        (LOCAL, "server:one/tools/allow/0"),
        (Caller("key:forged"), "unplaced"),
        (Caller("local", "acme", "data"), "org:acme/allow/0"),
        (Caller("x", "other"), "org:other/unknown"),
        (Caller("x", "acme", "other"), "team:acme/other/unknown"),
        (Caller("x", "acme", "data", "other"), "key:acme/data/other/unknown"),
        (Caller("x", "acme", "", "ci"), "key:acme/ci/unknown"),
        (CI, "org:acme/allow/0"),
    ],
)
def test_a_caller_stands_where_the_policy_knows_its_place(caller: Caller, expected: str) -> None:
    assert decide(policy_of(ALL), caller, "", TOOL).rule == expected


def test_levels_stand_above_everybody_but_the_local_user() -> None:
    policy = policy_of(ALL)
    assert policy.has_levels(ANN) and policy.has_levels(Caller("x", "gone")) and not policy.has_levels(LOCAL)


def test_a_revoked_key_and_a_place_without_a_definition_are_denied() -> None:
    key = Key("ci", "ci", key_level("acme", "data", "ci"), revoked=True)
    acme = Organization(
        "acme", ALL, {"data": Team("data", team_level("acme", "data"), {"ci": key}), "x": Team("x", None)}
    )
    policy = Policy({}, {}, Directory({"acme": acme, "void": Organization("void", None)}))
    assert decide(policy, CI, "", TOOL).rule == "key:acme/data/ci/revoked"
    assert decide(policy, Caller("x", "acme", "x"), "", TOOL).rule == "team:acme/x/unknown"
    assert decide(policy, Caller("x", "void"), "", TOOL).rule == "org:void/unknown"


def test_the_narrowest_list_that_allows_is_the_rule_of_a_permit() -> None:
    team = team_level("acme", "data", (rule("two"), rule(tools=["one__*"])))
    assert decide(policy_of(ALL, team), ANN, "", TOOL).rule == "team:acme/data/allow/1"
    key = key_level("acme", "data", "ci", None, (rule(tools=["*__ab"]),))
    policy = policy_of(ALL, team, key=key)
    assert decide(policy, CI, "", TOOL).rule == "team:acme/data/allow/1"
    assert decide(policy, CI, "", entry(Kind.TOOL, "one__ab")).rule == "key:acme/data/ci/deny/0"
    assert decide(policy, ANN, "", entry(Kind.PROMPT, "one__a")).rule == "team:acme/data/allow"


def test_scopes_of_a_token_narrow_where_their_issuer_maps_them() -> None:
    scopes = {"https://i": {"read": (rule(tools=["*"]),), "write": (rule("two"), rule("one"))}}
    policy = policy_of(ALL, scopes=scopes)

    def with_scopes(*held: str, issuer: str = "https://i") -> str:
        return decide(policy, Caller(f"jwt:{issuer} ann", "acme", scopes=frozenset(held)), "", TOOL).rule

    assert with_scopes("read", "unmapped") == "scope:https://i/read/0"
    assert with_scopes("write") == "scope:https://i/write/1"
    assert with_scopes("unmapped") == with_scopes() == "scope:https://i/allow"
    assert with_scopes(issuer="https://other") == "org:acme/allow/0", "an issuer that maps none leaves it to the levels"
    assert decide(policy, Caller("key:x", "acme"), "", TOOL).rule == "org:acme/allow/0"
    assert not policy.is_same_for_all and Policy().is_same_for_all


PROD = Condition(("db",), Op.NOT_IN, ("prod",))


def test_the_argument_and_the_rule_that_refuse_a_call_are_named() -> None:
    team = team_level(
        "acme",
        "data",
        (rule(tools=["one__a"], when=[Condition(("n",), Op.MAX, 5)]), rule(tools=["one__*"], when=[PROD])),
        (rule("one", when=[Condition(("a", "b"), Op.EXISTS, True), Condition(("n",), Op.MIN, 3)]),),
    )
    policy = policy_of(ALL, team)
    assert decide(policy, ANN, "", TOOL).rule == "team:acme/data/allow/0"
    assert decide(policy, ANN, "", TOOL, {"n": 1}).rule == "team:acme/data/allow/0"
    assert decide(policy, ANN, "", TOOL, {"n": 9, "db": "test"}).rule == "team:acme/data/allow/1"
    assert decide(policy, ANN, "", TOOL, {"n": 9}) == Denied(
        "team:acme/data/allow/0", "its argument 'n' is not one that the rule lets through", False, "n"
    )
    denied = decide(policy, ANN, "", TOOL, {"n": 4, "a": {"b": 1}})
    assert isinstance(denied, Denied) and (denied.rule, denied.argument) == ("team:acme/data/deny/0", "a.b")
    for what in (None, [], "x", 3):
        assert not permits(policy, ANN, "", TOOL, what), "arguments that are no object are in doubt"


def test_conditions_that_cannot_all_hold_hide_the_tool_and_the_first_one_too_many_is_named() -> None:
    needs = rule(tools=["*"], when=[Condition(("db",), Op.EQUALS, "prod")])
    hides = rule(tools=["*"], when=[Condition(("db",), Op.PREFIX, "p")])
    denied = decide(policy_of(ALL, team_level("acme", "data", (needs,), (hides,))), ANN, "", TOOL, {"db": "prod"})
    assert denied == Denied("team:acme/data/allow", "no arguments could satisfy the conditions")
    denied = decide(
        policy_of(ALL, team_level("acme", "data", (needs,)), key=key_level("acme", "data", "ci", None, (hides,))),
        CI,
        "",
        TOOL,
    )
    assert denied.rule == "key:acme/data/ci/deny/0"


def test_conditions_that_are_too_many_to_search_deny() -> None:
    """Eight pigeons and seven holes again, as rules."""

    def put(pigeon: int, hole: int, op: Op) -> Condition:
        value = (True,) if op is Op.NOT_IN else True
        return Condition((f"v{pigeon}{hole}",), op, value)

    crowded = [
        rule(tools=["*"], when=[put(one, hole, Op.EQUALS), put(two, hole, Op.EQUALS)])
        for hole in range(7)
        for one, two in itertools.combinations(range(8), 2)
    ]
    homeless = [rule(tools=["*"], when=[put(pigeon, hole, Op.NOT_IN) for hole in range(7)]) for pigeon in range(8)]
    policy = policy_of(organization_level("acme", (rule("*"),), (*crowded, *homeless)))
    assert decide(policy, ANN, "", TOOL).rule == TOO_COMPLEX


def test_the_same_conditions_on_many_tools_are_searched_once_and_in_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred and one denials, the last two of which leave nothing, over fifty tools: not five thousand searches."""
    searched: list[int] = []

    def counted(clauses: Sequence[Clause]) -> bool:
        searched.append(len(clauses))
        return can_all_hold(clauses)

    monkeypatch.setattr(ruling, "can_all_hold", counted)
    choices = [
        rule(tools=["*"], when=[Condition((f"searched{number}{side}",), Op.EXISTS, True) for side in "ab"])
        for number in range(99)
    ]
    never = [rule(tools=["*"], when=[Condition(("searched",), Op.EXISTS, is_there)]) for is_there in (True, False)]
    policy = policy_of(organization_level("acme", (rule("*"),), (*choices, *never)))
    tools = [Entry(Kind.TOOL, f"one__{number}", "one", str(number), {"name": str(number)}) for number in range(50)]
    assert {decide(policy, ANN, "", tool).rule for tool in tools} == {"org:acme/deny/100"}
    assert len(searched) < 10 and max(searched) == 101


@settings(max_examples=40)
@given(policies(), CALLER)
def test_a_server_of_which_something_may_be_used_is_within_reach(policy: Policy, caller: Caller) -> None:
    assert policy.has_levels(caller) is (caller is not LOCAL) or not policy.standing(caller).tiers
    for one in ENTRIES:
        assert policy.reaches(caller, one.server) >= permits(policy, caller, "", one)


@pytest.mark.parametrize(
    ("allow", "deny", "reached"),
    [
        ([rule("*")], [], {"one", "two"}),
        ([rule("one")], [], {"one"}),
        ([rule(tools=["two__*"])], [], {"two"}),
        ([rule(tools=["*__a"]), rule("none")], [], {"one", "two"}),
        ([rule("one", tools=["two__a"])], [], set[str]()),
        ([rule(resources=["two+x"], tools=["two+x"])], [], {"two"}),
        ([rule("*")], [rule("two"), rule("one", tools=["*"]), rule("one", when=[PROD])], {"one"}),
        ([], [], set[str]()),
    ],
)
def test_what_is_never_within_reach_is_not_waited_for(allow: list[Rule], deny: list[Rule], reached: set[str]) -> None:
    policy = policy_of(ALL, team_level("acme", "data", tuple(allow), tuple(deny)))
    assert {server for server in ("one", "two") if policy.reaches(ANN, server)} == reached
    assert not policy.reaches(Caller("x", "gone"), "one") and policy.reaches(LOCAL, "one")


@given(st.text("ab*", max_size=4), st.text("ab", max_size=2))
def test_a_pattern_could_begin_with_what_some_longer_name_that_fits_begins_with(text: str, beginning: str) -> None:
    names = ("".join(end) for length in range(1, 6) for end in itertools.product("ab", repeat=length))
    assert Pattern(text).could_begin(beginning) is any(Pattern(text).matches(beginning + end) for end in names)


# -- a URI that nobody lists -------------------------------------------------------------------------------------------

READABLE: list[tuple[Any, Any, str, str]] = [
    # what the team may see                                   URI                     readable, by which rule
    ({"templates": ["*file:///{id}"]}, [], "file:///c", "team:acme/data/allow/0"),
    ({"templates": ["*file:///{id}"]}, [], "file:///a/b", "team:acme/data/allow"),
    ({"templates": ["*deep*"]}, [], "file:///deep/a/b", "team:acme/data/allow/0"),
    ({"templates": ["*deep*"]}, [], "file:///c", "team:acme/data/allow"),
    ({"templates": ["*ui:*"]}, [], "data:x", "team:acme/data/allow"),
    ({"resources": ["one+data:*"]}, [], "data:x", "team:acme/data/allow/0"),
    ({"resources": ["one+file:*"]}, [], "file:///deep/a/b", "team:acme/data/allow/0"),
    ({"resources": ["one+file:*"]}, [{"templates": ["*deep*"]}], "file:///deep/a/b", "team:acme/data/deny/0"),
    ({"resources": ["one+file:*"]}, [{"templates": ["*deep*"]}], "file:///c", "team:acme/data/allow/0"),
    ({"templates": ["*"]}, [{"resources": ["*+file:///c"]}], "file:///c", "team:acme/data/deny/0"),
    ({"templates": ["*"]}, [{"resources": ["*+file:///c"]}], "file:///d", "team:acme/data/allow/0"),
    ({"templates": ["*deep*"]}, [], "file:///deep/../a", "team:acme/data/unsafe-uri"),
    ({"resources": ["*", "one+file:*"]}, [], "file:///%61", "team:acme/data/unsafe-uri"),
    ({"tools": ["*"]}, [], "file:///c", "team:acme/data/allow"),
]


@pytest.mark.parametrize(("allow", "deny", "own", "expected"), READABLE)
def test_an_unlisted_uri_is_readable_iff_a_visible_template_or_every_level_lets_it(
    allow: Any, deny: Any, own: str, expected: str
) -> None:
    team = team_level("acme", "data", (rule(**allow),), tuple(rule(**one) for one in deny))
    assert decide(policy_of(ALL, team), ANN, "", entry(Kind.RESOURCE, f"one+{own}")).rule == expected


def test_where_whole_servers_are_granted_every_uri_of_them_is_readable_as_it_is_spelled() -> None:
    odd = entry(Kind.RESOURCE, "one+file:///deep/../a")
    assert decide(policy_of(ALL), ANN, "", odd).rule == "org:acme/allow/0"
    assert decide(policy_of(organization_level("acme", (rule("two"),))), ANN, "", odd).rule == "org:acme/allow"
    two = organization_level("acme", (rule("one"), rule("two", resources=["two+file:*"])))
    assert decide(policy_of(two), ANN, "", odd).rule == "org:acme/allow/0", "patterns of other servers judge it not"
    everything = organization_level("acme", (rule(resources=["*"]),))
    assert decide(policy_of(everything), ANN, "", odd).rule == "org:acme/allow/0"


def test_a_template_that_the_server_itself_hides_lets_nobody_in() -> None:
    servers = {"one": {Kind.RESOURCE: Rules.from_texts(["*"], ["file:///deep/*"])}}
    team = team_level("acme", "data", (rule(templates=["*"]),))
    policy = policy_of(ALL, team, servers=servers)
    assert decide(policy, ANN, "", entry(Kind.RESOURCE, "one+file:///deep/a")).rule == "server:one/resources/deny/0"
    assert permits(policy, ANN, "", entry(Kind.RESOURCE, "one+file:///c"))


@pytest.mark.parametrize(
    ("template", "uri", "covered"),
    [
        ("a://{x}", "a://b", True),
        ("a://{x}", "a://", True),
        ("a://{x}", "a://b/c", False),
        ("a://{x}", "a://b?c", False),
        ("a://{+x}", "a://b/c?d#e", True),
        ("a://{x}/{y}", "a://b/c", True),
        ("a://{x}/{y}", "a://b/c/d", False),
        ("a://{x}-{y}.z", "a://b-c-d.z", True),
        ("a://{x}-{y}.z", "a://bc.z", False),
        ("a://b{/x*}", "a://b/c/d", True),
        ("a://b{/x*}", "a://bc", False),
        ("a://b{/x*}", "a://b", True),
        ("a://b{?q,r}", "a://b?q=1&r=2/3", True),
        ("a://b{?q}", "a://b", True),
        ("a://b{?q}", "a://b#c", False),
        ("a://b{#f}", "a://b#c", True),
        ("a://b{#f}", "a://b/c", False),
        ("a://b{.f}", "a://b.txt", True),
        ("a://b{;f}{?g}", "a://b;f=1?g=2", True),
        ("a://b", "a://b", True),
        ("a://b", "a://b/c", False),
        ("{+a}/{b}/x", "p/q/r/x", True),
        ("{+a}{?b}", "x?y", True),
        ("{+x}", "y" * 1024, True),
        ("{+x}", "y" * 1025, False),
        ("{x}" * 16, "y", True),
        ("{x}" * 17, "y", False),
    ],
)
def test_a_template_covers_what_it_could_expand_to(template: str, uri: str, covered: bool) -> None:
    assert template_covers(template, uri) is covered


def test_a_template_that_fits_in_endless_ways_is_compared_in_bounded_time() -> None:
    with measured() as spent:
        assert not template_covers("{+a}a" * 16 + "b", "a" * 1024)
    assert spent.seconds < 0.05


# -- cost --------------------------------------------------------------------------------------------------------------


def test_a_call_behind_two_hundred_rules_costs_what_it_costs_behind_one() -> None:
    def cost(policy: Policy) -> int:
        """Functions that a call goes through, once it is known what the rules say."""
        decide(policy, CI, "", TOOL, {"db": "test"})
        return calls_of(lambda: decide(policy, CI, "", TOOL, {"db": "test"}))

    def with_rules(count: int) -> Policy:
        many = tuple(rule("one", tools=[f"one__x{n}*"]) for n in range(count - 1))
        allow = (*many, rule(tools=["one__a"], when=[Condition(("db",), Op.NOT_IN, ("prod",))]))
        return policy_of(ALL, team_level("acme", "data", allow, many))

    one, many = with_rules(1), with_rules(200)
    assert 0 < cost(many) == cost(one)


def test_callers_at_places_that_say_nothing_share_what_was_computed() -> None:
    keys = {f"k{n}": Key(f"k{n}", f"k{n}", key_level("acme", "data", f"k{n}")) for n in range(10)}
    acme = Organization("acme", ALL, {"data": Team("data", team_level("acme", "data", (rule("one"),)), keys)})
    policy = Policy({}, {}, Directory({"acme": acme}))
    standings = {policy.standing(Caller("x", "acme", "data", name)) for name in keys}
    assert len(standings) == 1 and policy.standing(ANN) in standings
    assert policy.standing(Caller("x", "acme")) not in standings
    assert policy.standing(Caller("x", "gone")) is not policy.standing(Caller("x", "gone")), "it is not kept"


def test_what_was_computed_stays_where_another_directory_has_the_same_levels() -> None:
    def directory(deny: tuple[Rule, ...], *names: str) -> Directory:
        keys = {name: Key(name, name, key_level("acme", "data", name)) for name in names}
        teams = {
            "data": Team("data", team_level("acme", "data", (rule("one"),)), keys),
            "web": Team("web", team_level("acme", "web", None, deny)),
        }
        return Directory({"acme": Organization("acme", ALL, teams)})

    policy = Policy(directory=directory((), "k"))
    web = Caller("w", "acme", "web")
    before = {who: policy.standing(who) for who in (LOCAL, ANN, web)}
    assert permits(policy, ANN, "", TOOL) and permits(policy, web, "", TOOL)
    after = policy.with_directory(directory((rule("one"),), "k", "another"))
    assert after.standing(ANN) is before[ANN] and after.standing(LOCAL) is before[LOCAL]
    assert after.standing(Caller("x", "acme", "data", "another")) is before[ANN]
    assert after.standing(web) is not before[web] and not permits(after, web, "", TOOL)
    back = after.with_directory(directory((), "k"))
    assert permits(back, web, "", TOOL) and back == policy


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "MAX_RULINGS", 10)
    policy = policy_of(ALL)
    for number in range(100):
        assert permits(policy, ANN, "", entry(Kind.RESOURCE, f"one+file:///{number}"))
    assert len(policy.standing(ANN).rulings) <= 10
    long = entry(Kind.RESOURCE, "one+file:///" + "x" * 1000)
    before = len(policy.standing(ANN).rulings)
    assert permits(policy, ANN, "", long) and len(policy.standing(ANN).rulings) == before


def test_who_has_no_place_is_refused_each_time_and_nothing_is_kept_of_it() -> None:
    policy = policy_of(ALL)
    for nobody in (Caller("key:nobody"), Caller("key:x", "gone"), Caller("key:x", "acme", "data", "gone")):
        standing = policy.standing(nobody)
        assert standing.refusal is not None
        for _ in range(2):
            assert isinstance(decide(policy, nobody, "", TOOL), Denied) and not standing.rulings


def test_a_uri_that_is_listed_later_is_judged_again() -> None:
    """What is listed and what is not have other rules, and one URI may be both, one after the other."""
    team = team_level("acme", "data", (rule(resources=["*..*"]),))
    policy = policy_of(ALL, team)
    assert not permits(policy, ANN, "", entry(Kind.RESOURCE, "one+file:///x/../a"))
    listing = Listing(items={Kind.RESOURCE: ({"uri": "file:///x/../a", "name": "n"},)})
    later = Catalog.empty(NAMING).with_shelf(shelve(NAMING, NAMING.mounts[0], listing))
    found = later.lookup(Kind.RESOURCE, "one+file:///x/../a")
    assert found is not None and permits(policy, ANN, "", found)


def test_explain_says_why_at_every_rung() -> None:
    team = team_level("acme", "data", (rule(tools=["one__*"], when=[PROD]),))
    policy = Policy({}, {"one": frozenset({"one"})}, policy_of(ALL, team).directory)

    def told(caller: Caller, view: str, what: Entry | None, arguments: object = ANY) -> list[tuple[str, bool]]:
        return [(step.rule, step.passed) for step in explain(policy, caller, view, what, arguments)]

    above = [("entry", True), ("view:one", True), ("place", True), ("server:one/tools/allow/0", True)]
    levels = [("org:acme/allow/0", True), ("team:acme/data/allow/0", True)]
    assert told(ANN, "one", TOOL) == [*above, *levels, ("team:acme/data/allow/0", True)]
    assert told(ANN, "one", TOOL, {"db": "x"}) == [*above, *levels, *levels[1:] * 2]
    refused = ("team:acme/data/allow/0", False)
    assert told(ANN, "one", TOOL, {"db": "prod"}) == [*above, *levels, refused, refused]
    assert told(ANN, "nobody", TOOL) == [("entry", True), ("view:nobody", False)]
    assert told(ANN, "", None) == [("unknown", False)]
    assert told(Caller("x", "gone"), "", TOOL) == [("entry", True), ("org:gone/unknown", False)]
    assert "no levels" in explain(policy, LOCAL, "", TOOL)[1].reason
    elsewhere = policy_of(organization_level("acme", (rule("two"),))).directory
    assert told(ANN, "", TOOL)[-1][1]
    *_, level, last = explain(Policy({}, {}, elsewhere), ANN, "", TOOL)
    assert not level.passed and not last.passed and level.rule == last.rule
    unserved = Policy({"one": {Kind.TOOL: Rules((), ())}}, {}, policy.directory)
    *_, place, last = explain(unserved, ANN, "", TOOL)
    assert place.rule == "place" and not last.passed and last.rule.startswith("server:one")
