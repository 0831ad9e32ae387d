"""Random catalogs, directories and callers, and what the documentation says of them, in the plainest words.

The words are kept apart from the code under test: a decision is looked up rule by rule, and whether a tool could be
called is found by calling it with every object of small arguments.
"""

import itertools
from typing import Any

from hypothesis import strategies as st

from broker.core.caller import LOCAL, Caller
from broker.core.catalog import Catalog, Entry, Listing, shelve
from broker.core.conditions import Condition, Op
from broker.core.directory import Directory, Key, Organization, Source, Team
from broker.core.grants import Level, Rule, key_level, organization_level, team_level
from broker.core.match import Pattern, Rules
from broker.core.names import Mount, Naming
from broker.core.policy import Policy
from broker.core.request import LISTS, Kind

SERVERS = ["one", "two"]
OWN = {
    Kind.TOOL: ["a", "ab", "x.y", "a_very_long_name_that_no_host_would_ever_take_as_it_is"],
    Kind.PROMPT: ["a", "x"],
    Kind.RESOURCE: ["file:///a", "file:///b", "ui://a"],
    Kind.TEMPLATE: ["file:///{id}", "file:///deep/{+rest}", "ui://{x}"],
}
UNLISTED = ["file:///c", "file:///deep/a/b", "file:///deep/../a", "ui://b", "data:x", "file:///a/b"]
ISSUER = "https://issuer"


def catalog_of(naming: Naming) -> Catalog:
    known = Catalog.empty(naming)
    for mount in naming.mounts:
        items = {
            kind: tuple({LISTS[kind].name_key: own, "inputSchema": {}} for own in names) for kind, names in OWN.items()
        }
        known = known.with_shelf(shelve(naming, mount, Listing(items=items)))
    return known


NAMING = Naming.of(Mount(key, key) for key in SERVERS)
CATALOG = catalog_of(NAMING)
PLACES = [("acme", "", ""), ("acme", "", "boss"), ("acme", "data", ""), ("acme", "data", "ci"), ("acme", "ops", "")]
CALLERS = [
    LOCAL,
    Caller("key:nobody"),
    *(Caller(f"key:{org}/{team}/{key}", org, team, key) for org, team, key in PLACES),
    Caller(f"jwt:{ISSUER} ann", "acme", "data", scopes=frozenset({"read"})),
    Caller(f"jwt:{ISSUER} bob", "acme", "", scopes=frozenset({"other", "read", "write"})),
    Caller("jwt:https://other eve", "acme", "data", scopes=frozenset({"read"})),
    Caller("key:x", "nowhere"),
    Caller("key:x", "acme", "nowhere"),
    Caller("key:x", "acme", "data", "gone"),
    Caller("key:x", "acme", "data", "revoked"),
]

_SERVER_PATTERNS = st.lists(st.sampled_from(["*", "one", "two", "t*", "none"]), min_size=1, max_size=2)
_NAME_PATTERNS = {
    Kind.TOOL: ["*", "one__*", "*__a", "two__ab", "one__a*", "*x.y", "*_as_it_is", "a", "three__*"],
    Kind.PROMPT: ["*", "one__*", "two__a"],
    Kind.RESOURCE: ["*", "one+*", "one+file:///a", "*+ui:*", "two+file:*", "*deep*"],
    Kind.TEMPLATE: ["*", "one+*", "two+file:///{id}", "*+ui:*", "*deep*"],
}
_PATHS = [("db",), ("db", "name"), ("n",)]
_VALUES: dict[Op, list[Any]] = {
    Op.EXISTS: [True, False],
    Op.EQUALS: ["prod", 1, None],
    Op.IN: [("prod", "test"), (1, 2), ()],
    Op.NOT_IN: [("prod",), (1, True)],
    Op.PREFIX: ["pr", ""],
    Op.MIN: [1, 2],
    Op.MAX: [1, 2],
}


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    op = draw(st.sampled_from(list(Op)))
    return Condition(draw(st.sampled_from(_PATHS)), op, draw(st.sampled_from(_VALUES[op])))


def patterns(*texts: str) -> tuple[Pattern, ...]:
    return tuple(map(Pattern, texts))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    servers = draw(st.none() | _SERVER_PATTERNS)
    kinds = draw(st.sets(st.sampled_from(list(Kind)), min_size=servers is None, max_size=2))
    names = {kind: patterns(*draw(st.lists(st.sampled_from(_NAME_PATTERNS[kind]), max_size=2))) for kind in kinds}
    when = draw(st.just([]) | st.lists(conditions(), max_size=2))
    return Rule(None if servers is None else patterns(*servers), names, tuple(when))


ALLOWS = st.none() | st.lists(rules(), max_size=3).map(tuple)
DENIES = st.lists(rules(), max_size=2).map(tuple)


@st.composite
def directories(draw: st.DrawFn) -> Directory:
    def key(team: str, name: str, **more: Any) -> Key:
        return Key(name, name, key_level("acme", team, name, draw(ALLOWS), draw(DENIES)), **more)

    wide = (Rule(patterns("*")),)
    organization = organization_level("acme", draw(st.just(wide) | ALLOWS), draw(DENIES))
    data = Team(
        "data",
        team_level("acme", "data", draw(ALLOWS), draw(DENIES)),
        {"ci": key("data", "ci"), "revoked": key("data", "revoked", revoked=True, source=Source.DATABASE)},
    )
    ops = Team("ops", team_level("acme", "ops", draw(ALLOWS), draw(DENIES)))
    acme = Organization("acme", organization, {"data": data, "ops": ops}, {"boss": key("", "boss")})
    scopes = draw(st.just({}) | st.just({ISSUER: {"read": wide, "write": tuple(draw(st.lists(rules(), max_size=2)))}}))
    return Directory({"acme": acme}, (), scopes)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    some = st.lists(st.sampled_from(["*", "a*", "*b", "file:///a*", "file:///{id}"]), min_size=1, max_size=2)
    own = {
        server: {kind: Rules.from_texts(draw(some), draw(some)[1:]) for kind in (Kind.TOOL, Kind.RESOURCE)}
        for server in draw(st.sets(st.sampled_from(SERVERS), max_size=1))
    }
    return Policy(own, {"v": frozenset({"one"}), "one": frozenset({"one"})}, draw(directories()))


def entries() -> list[Entry]:
    """Every entry there is, and some URIs that nobody lists."""
    unlisted = [CATALOG.lookup(Kind.RESOURCE, f"{key}+{own}") for key in SERVERS for own in UNLISTED]
    return [*(entry for kind in Kind for entry in CATALOG.entries(kind)), *(entry for entry in unlisted if entry)]


ENTRIES = entries()


def some_arguments() -> list[dict[str, Any]]:
    """Every object over the arguments that conditions here can tell apart."""
    absent = object()
    leaves: list[Any] = [absent, None, True, False, "prod", "test", "pre", "x", 1, 2, 0, 3, 1.5, [], {}]
    inner = [{} if value is absent else {"name": value} for value in leaves]
    found: list[dict[str, Any]] = []
    for db, n in itertools.product([*leaves, *inner], leaves):
        pairs = (("db", db), ("n", n))
        found.append({key: value for key, value in pairs if value is not absent})
    return found


ARGUMENTS = some_arguments()


def levels_of(directory: Directory, caller: Caller) -> list[Level]:
    """The levels above a caller, scopes as the level that they are."""
    organization = directory.organizations[caller.organization]
    assert organization.level is not None
    found = [organization.level]
    keys = organization.keys
    if caller.team:
        team = organization.teams[caller.team]
        assert team.level is not None
        found, keys = [*found, team.level], team.keys
    if caller.key:
        found.append(keys[caller.key].level)
    mapped = directory.scopes.get(ISSUER) if caller.principal.startswith(f"jwt:{ISSUER} ") else None
    if mapped is not None:
        allow = [rule for scope, rules in mapped.items() if scope in caller.scopes for rule in rules]
        found.append(Level(f"scope:{ISSUER}", tuple(allow)))
    return found


def rule_names(policy: Policy) -> set[str]:
    """Every name that a rule of this policy has."""
    found = {"unknown", "unplaced", "conditions/too-complex", *(f"view:{view}" for view in ("v", "one", "nobody"))}
    for server in SERVERS:
        for kind in (Kind.TOOL, Kind.PROMPT, Kind.RESOURCE):
            own = policy.rules.get(server, {}).get(kind, Rules())
            where = f"server:{server}/{kind}"
            found |= {f"{where}/allow", f"{where}/unsafe-uri", *(f"{where}/allow/{n}" for n in range(len(own.allow)))}
            found |= {f"{where}/deny/{n}" for n in range(len(own.deny))}
    acme = policy.directory.organizations["acme"]
    keys = [*acme.keys.values(), *(key for team in acme.teams.values() for key in team.keys.values())]
    for level in (acme.level, *(team.level for team in acme.teams.values()), *(key.level for key in keys)):
        assert level is not None
        found |= {f"{level.where}/{word}" for word in ("allow", "unsafe-uri", "unknown", "revoked")}
        found |= {f"{level.where}/allow/{n}" for n in range(len(level.allow or ()))}
        found |= {f"{level.where}/deny/{n}" for n in range(len(level.deny))}
    for issuer, scopes in policy.directory.scopes.items():
        found |= {f"scope:{issuer}/allow", f"scope:{issuer}/unsafe-uri"}
        found |= {f"scope:{issuer}/{scope}/{n}" for scope, rules in scopes.items() for n in range(len(rules))}
    return found | {"org:nowhere/unknown", "team:acme/nowhere/unknown", "key:acme/data/gone/unknown"}
