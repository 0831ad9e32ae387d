"""One decision for listing and for using; deny wins; what is hidden looks like what does not exist."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.caller import LOCAL
from broker.core.catalog import Catalog, Entry, Listing, shelve
from broker.core.match import Rules
from broker.core.names import Mount, Naming
from broker.core.policy import Denied, Permit, Policy, decide, view_entries
from broker.core.request import KIND_OF_LIST, LISTS, NAMED, Kind, Request
from tests.calls import measured

PATTERNS = st.lists(
    st.sampled_from(["*", "a*", "*b", "ab", "a", "x*", "file:///a*", "file:///{id}", "*{*"]), max_size=3
)
SERVERS = ["one", "two"]
OWN = {
    Kind.TOOL: ["a", "ab", "b", "x.y"],
    Kind.PROMPT: ["a", "x"],
    Kind.RESOURCE: ["file:///a", "file:///b", "ui://a"],
    Kind.TEMPLATE: ["file:///{id}", "ui://{x}"],
}


def listing() -> Listing:
    return Listing(
        items={
            kind: tuple({LISTS[kind].name_key: own, "inputSchema": {}} for own in names) for kind, names in OWN.items()
        }
    )


def catalog() -> Catalog:
    naming = Naming.of(Mount(key, key) for key in SERVERS)
    known = Catalog.empty(naming)
    for mount in naming.mounts:
        known = known.with_shelf(shelve(naming, mount, listing()))
    return known


CATALOG = catalog()


def policy_of(rules: Rules, kind: Kind = Kind.RESOURCE, **views: set[str]) -> Policy:
    return Policy({"one": {kind: rules}}, {name: frozenset(members) for name, members in views.items()})


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    kinds = st.sets(st.sampled_from([Kind.TOOL, Kind.PROMPT, Kind.RESOURCE]))
    rules = {
        server: {kind: Rules.from_texts(draw(PATTERNS), draw(PATTERNS)) for kind in draw(kinds)}
        for server in draw(st.sets(st.sampled_from(SERVERS)))
    }
    return Policy(rules, {"v": frozenset(draw(st.sets(st.sampled_from(SERVERS)))), "one": frozenset({"one"})})


VIEWS = st.sampled_from(["", "v", "one", "nobody"])


def seen(policy: Policy, view: str) -> list[Entry]:
    return [entry for kind in Kind for entry in view_entries(policy, LOCAL, view, CATALOG, kind)]


@given(policies(), VIEWS)
def test_what_is_listed_is_what_may_be_used(policy: Policy, view: str) -> None:
    for kind in Kind:
        permitted = [
            entry
            for entry in CATALOG.entries(kind)
            if isinstance(decide(policy, LOCAL, view, CATALOG.lookup(kind, entry.public)), Permit)
        ]
        assert list(view_entries(policy, LOCAL, view, CATALOG, kind)) == permitted


@given(policies(), VIEWS, st.sampled_from(SERVERS), st.sampled_from(list(Kind)), PATTERNS)
def test_one_more_denial_never_shows_more(policy: Policy, view: str, server: str, kind: Kind, new: list[str]) -> None:
    rules = dict(policy.rules.get(server, {}))
    before = rules.get(kind, Rules())
    rules[kind] = Rules(before.allow, (*before.deny, *Rules.from_texts([], new).deny))
    narrower = Policy({**policy.rules, server: rules}, policy.views)
    after = seen(narrower, view)
    assert [entry for entry in seen(policy, view) if entry in after] == after


@given(policies(), VIEWS)
def test_a_view_never_shows_more_than_everything(policy: Policy, view: str) -> None:
    everything = seen(policy, "")
    assert all(entry in everything for entry in seen(policy, view))
    assert policy.has_view(view) is (view in ("v", "one"))
    if not policy.has_view(view) and view:
        assert seen(policy, view) == []


@given(policies(), VIEWS, st.sampled_from([*OWN[Kind.RESOURCE], "file:///q", "x", "", "file:///{id}"]))
def test_no_rule_that_denies_a_uri_is_dodged_by_not_being_listed(policy: Policy, view: str, own: str) -> None:
    """A deny pattern that matches the own URI wins over whatever covers it."""
    entry = CATALOG.lookup(Kind.RESOURCE, f"one+{own}")
    assert entry is not None
    decision = decide(policy, LOCAL, view, entry)
    rules = policy.rules.get("one", {}).get(Kind.RESOURCE, Rules())
    if any(pattern.matches(own) for pattern in rules.deny):
        assert isinstance(decision, Denied)


@given(policies(), VIEWS)
def test_every_denial_names_its_rule_and_hides(policy: Policy, view: str) -> None:
    for kind in Kind:
        for entry in [*CATALOG.entries(kind), None]:
            decision = decide(policy, LOCAL, view, entry)
            assert decision.rule
            if isinstance(decision, Denied):
                assert decision.is_hidden and decision.reason


def test_a_permit_names_who_what_and_why() -> None:
    entry = CATALOG.lookup(Kind.TOOL, "one__ab")
    policy = policy_of(Rules.from_texts(["x*", "a*"], []), Kind.TOOL)
    assert entry is not None
    assert decide(policy, LOCAL, "", entry) == Permit(LOCAL, entry, "server:one/tools/allow/1")


@pytest.mark.parametrize(
    ("view", "public", "rule"),
    [
        ("", "one__nothing", "unknown"),
        ("two", "one__ab", "view:two"),
        ("nobody", "one__ab", "view:nobody"),
        ("", "one__b", "server:one/tools/allow"),
        ("", "one__a", "server:one/tools/deny/1"),
    ],
)
def test_the_first_failure_wins_and_is_named(view: str, public: str, rule: str) -> None:
    policy = policy_of(Rules.from_texts(["a*"], ["x*", "a"]), Kind.TOOL, one={"one"}, two={"two"})
    decision = decide(policy, LOCAL, view, CATALOG.lookup(Kind.TOOL, public))
    assert isinstance(decision, Denied) and decision.rule == rule and decision.is_hidden


def test_templates_are_judged_by_the_rules_for_resources() -> None:
    policy = policy_of(Rules.from_texts(["file:*"], []))
    shown = [entry.own for entry in view_entries(policy, LOCAL, "one", CATALOG, Kind.TEMPLATE)]
    assert shown == [] and not policy.has_view("one")
    shown = [entry.own for entry in view_entries(policy, LOCAL, "", CATALOG, Kind.TEMPLATE) if entry.server == "one"]
    assert shown == ["file:///{id}"]


def judged(rules: Rules, own: str) -> bool:
    entry = CATALOG.lookup(Kind.RESOURCE, f"one+{own}")
    assert entry is not None
    decision = decide(policy_of(rules), LOCAL, "", entry)
    assert isinstance(decision, Permit) or decision.rule.startswith("server:one/resources/")
    return isinstance(decision, Permit)


def test_a_uri_that_a_template_covers_may_be_read_by_the_name_of_the_template() -> None:
    assert judged(Rules.from_texts(["file:///{id}"], []), "file:///anything")
    assert not judged(Rules.from_texts(["file:///{id}"], []), "http://anything")
    assert not judged(Rules.from_texts(["file:///{id}"], ["*secret*"]), "file:///secret")
    assert not judged(Rules.from_texts(["*"], ["file:///{id}"]), "file:///anything")


UNSAFE = [
    "file:///a/../secret",
    "file:///a/..",
    "file:///a/./secret",
    "file:///a/..?x",
    "file:///a/..#x",
    "file:../secret",
    "file:.",
    "..",
    "file:///a/%2e%2e/secret",
    "file:///a/%2E%2e/secret",
    "file:///a/.%2e/secret",
    "file:///a%2fsecret",
    "file:///a%5csecret",
    "file:///a\\secret",
    "file:///a\\..\\secret",
    "file:///a%00.txt",
    "file:///a\0",
    "file:///a b",
    "file:///a\n",
    "\tfile:///secret",
    "file:///a\x7f",
    "file:///%73ecret",
    "file:///secre%74",
    "file:///a%5Fb",
    "file:///a%7eb",
    "file:///a%2Db",
    "file:///a%39",
    "FILE:///secret",
    "fIle:///secret",
    "file:/secret",
    "file://localhost/secret",
    "file:////secret",
    "file:secret",
    "file:///a//secret",
]
SAFE = [
    "file:///secret",
    "file:///a/.hidden",
    "file:///a/..b",
    "file:///a/b..",
    "file:///a/...",
    "file:///a%20b",
    "file:///a%C3%A9",
    "file:///100%25",
    "file:///a%3Fb",
    "file:///A/README.md",
    "file:///",
    "repo://Owner/name",
    "https://host//x",
    "mailto:a+b@c.d",
    "data:,x",
    "docs/Readme",
]


@pytest.mark.parametrize("own", UNSAFE, ids=ascii)
def test_where_patterns_judge_a_uri_has_one_spelling(own: str) -> None:
    assert not judged(Rules.from_texts(["*"], ["nothing"]), own)
    assert not judged(Rules.from_texts(["file:*"], []), own)
    assert judged(Rules(), own), "without rules there is nothing to dodge: the upstream decides"
    assert judged(Rules.from_texts(["*"], []), own)


@pytest.mark.parametrize("own", SAFE)
def test_a_plain_uri_is_not_taken_for_an_unsafe_one(own: str) -> None:
    assert judged(Rules.from_texts(["*"], ["nothing"]), own)


@pytest.mark.parametrize("own", UNSAFE, ids=ascii)
def test_what_the_upstream_lists_may_be_spelled_as_it_likes(own: str) -> None:
    naming = Naming.of([Mount("one", "one")])
    shelf = shelve(naming, naming.mounts[0], Listing(items={Kind.RESOURCE: ({"uri": own},)}))
    entry = Catalog.empty(naming).with_shelf(shelf).lookup(Kind.RESOURCE, f"one+{own}")
    assert isinstance(decide(policy_of(Rules.from_texts(["*"], ["nothing"])), LOCAL, "", entry), Permit)


@pytest.mark.parametrize("unit", ["A", "a", ".", "/", "%", "..", "file:", "//", "%2", "a:"])
def test_a_uri_of_64_kilobytes_is_judged_at_once(unit: str) -> None:
    for own in (unit * (65536 // len(unit)), "file:///" + unit * (65536 // len(unit))):
        with measured() as spent:
            judged(Rules.from_texts(["*"], ["*x*y*z"]), own)
        assert spent.seconds < 0.05


def test_the_tables_of_methods_fit_each_other() -> None:
    assert {KIND_OF_LIST[listed.method] for listed in LISTS.values()} == set(Kind)
    assert all(LISTS[kind].name_key == key for kind, key in NAMED.values())
    assert Request("tools/list", {}, CATALOG.shelves["one"].listing.version).view == ""
    assert Policy().is_same_for_all
