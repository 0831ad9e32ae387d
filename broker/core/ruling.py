"""What the levels of one place say of one entry, as far as it can be said before a call is there.

Patterns are matched here, once for each entry; what is left for a call are its conditions. So a call costs the same
behind two hundred rules as behind one.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from broker.core.conditions import Path, is_in
from broker.core.domain import Domain
from broker.core.grants import Level, Rule, full_name
from broker.core.match import EVERYTHING
from broker.core.request import Kind
from broker.core.satisfy import Clause, Demands, TooComplex, can_all_hold

TOO_COMPLEX: Final = "conditions/too-complex"
"""The rule that denies a tool whose conditions are more than can be searched (`satisfy.MAX_STEPS`)."""

MAX_OBSTACLES: Final = 1024
"""Answers kept to whether any call could pass certain tests."""

Named: TypeAlias = tuple[str, Rule]
"""A rule, and what it is called."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A level whose rules have their names. `allow`: None where the level above decides alone."""

    where: str
    allow: tuple[Named, ...] | None
    deny: tuple[Named, ...] = ()

    @classmethod
    def from_level(cls, level: Level) -> "Tier":
        """Rules are named after their level, their list and their place in it: `team:acme/data/deny/1`."""

        def named(word: str, rules: tuple[Rule, ...]) -> tuple[Named, ...]:
            return tuple((f"{level.where}/{word}/{index}", rule) for index, rule in enumerate(rules))

        return cls(level.where, None if level.allow is None else named("allow", level.allow), named("deny", level.deny))

    @classmethod
    def from_scopes(cls, issuer: str, scopes: Mapping[str, tuple[Rule, ...]], held: frozenset[str]) -> "Tier":
        """What a token's scopes allow, of those that its issuer maps: `scope:<issuer>/<scope>/0`."""
        where = f"scope:{issuer}"
        allow = [
            (f"{where}/{scope}/{index}", rule)
            for scope, rules in scopes.items()
            if scope in held
            for index, rule in enumerate(rules)
        ]
        return cls(where, tuple(allow))

    @property
    def nothing(self) -> str:
        """The rule that denies what no rule of the list allows."""
        return f"{self.where}/allow"

    def rules(self) -> Iterator[Rule]:
        """All of them."""
        for _, rule in (*(self.allow or ()), *self.deny):
            yield rule


@dataclass(frozen=True, slots=True)
class Choice:
    """A rule with conditions, and what they demand of arguments: to be allowed by it, or spared by it."""

    rule: str
    demands: tuple[tuple[Path, Domain], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call may not be made, while another could: the rule, and the argument (`filter.database`) it looks at."""

    rule: str
    argument: str


@dataclass(frozen=True, slots=True)
class Allowing:
    """A level at which only rules with conditions allow: one of them must."""

    choices: tuple[Choice, ...]
    nothing: str

    def judge(self, arguments: object) -> str | Refusal:
        """The rule that allows the call, or why none does."""
        refusal: Refusal | None = None
        for choice in self.choices:
            for path, domain in choice.demands:
                if not is_in(domain, arguments, path):
                    refusal = refusal or Refusal(choice.rule, ".".join(path))
                    break
            else:
                return choice.rule
        assert refusal is not None
        return refusal

    @property
    def rule(self) -> str:
        """What denies a tool that no call of which could pass."""
        return self.nothing

    def clause(self) -> Clause:
        """For `can_all_hold`."""
        return [_all_at_once(choice.demands) for choice in self.choices]


@dataclass(frozen=True, slots=True)
class Denying:
    """A deny rule with conditions: one of them must surely not hold."""

    choice: Choice

    def judge(self, arguments: object) -> str | Refusal:
        """ "" if the call is spared, or why it is not."""
        for path, domain in self.choice.demands:
            if is_in(domain, arguments, path):
                return ""
        return Refusal(self.choice.rule, ".".join(self.choice.demands[0][0]))

    @property
    def rule(self) -> str:
        """See `Allowing`."""
        return self.choice.rule

    def clause(self) -> Clause:
        """For `can_all_hold`."""
        return [{path: domain} for path, domain in self.choice.demands]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is known of an entry before a call.

    `is_possible`: whether some call could be permitted. `rule`: the one that denies, or else the one that allows, of
    the narrowest level that has a list. `is_unallowed`: denied only because nothing allows it. `tests`: what a call
    must still pass, in order.
    """

    is_possible: bool
    rule: str
    reason: str = ""
    is_unallowed: bool = False
    tests: tuple[Allowing | Denying, ...] = ()


def denied(rule: str, reason: str, *, is_unallowed: bool = False) -> Ruling:
    """No call could be permitted."""
    return Ruling(False, rule, reason, is_unallowed)


def rule_on(tiers: tuple[Tier, ...], kind: Kind, server: str, own: str, otherwise: str) -> Ruling:
    """What tiers, from the organization down, say of an entry. `otherwise`: the rule that permits if none of them has
    a list.
    """
    rule = otherwise
    tests: list[Allowing | Denying] = []
    for tier in tiers:
        for name, deny in _covering(tier.deny, kind, server, own):
            if not deny.when:
                return denied(name, "a rule denies it")
            tests.append(Denying(Choice(name, tuple((one.path, one.spared) for one in deny.when))))
        if tier.allow is None:
            continue
        allowing = list(_covering(tier.allow, kind, server, own))
        if not allowing:
            return denied(tier.nothing, "no rule of the list allows it", is_unallowed=True)
        free = next((name for name, allow in allowing if not allow.when), None)
        if free is None:
            choices = [Choice(name, tuple((one.path, one.allowed) for one in allow.when)) for name, allow in allowing]
            tests.append(Allowing(tuple(choices), tier.nothing))
        rule = free or allowing[0][0]
    return _if_possible(Ruling(True, rule, tests=tuple(tests)))


def rule_on_uri(tiers: tuple[Tier, ...], server: str, own: str, templates: Sequence[Ruling], otherwise: str) -> Ruling:
    """What tiers say of a URI that nobody lists. `templates`: the rulings on those that it could be an expansion of.

    It is readable iff no rule denies it, and it matches a visible template; or it matches none that a rule denies, and
    every level allows its full name, as it does for a link that a result handed out.
    """
    ruling = rule_on(tiers, Kind.RESOURCE, server, own, otherwise)
    if not ruling.is_possible and not ruling.is_unallowed:
        return ruling
    visible = (one for one in templates if one.is_possible)
    refused = (one for one in templates if not one.is_possible and not one.is_unallowed)
    return next(visible, None) or next(refused, ruling)


def judges_uris(tiers: tuple[Tier, ...], server: str) -> str | None:
    """The first place whose patterns judge URIs of a server, if any: there, a URI must have one spelling (SP-53)."""
    for tier in tiers:
        for rule in tier.rules():
            patterns = (*rule.names.get(Kind.RESOURCE, ()), *rule.names.get(Kind.TEMPLATE, ()))
            if any(pattern != EVERYTHING for pattern in patterns) and _speaks_of(rule, server):
                return tier.where
    return None


def reaches(tiers: tuple[Tier, ...], server: str) -> bool:
    """Whether tiers could let anything of a server through, whatever it serves: for servers that were never seen."""
    for tier in tiers:
        if any(not rule.names and not rule.when and _speaks_of(rule, server) for _, rule in tier.deny):
            return False
        if tier.allow is not None and not any(could_cover(rule, server) for _, rule in tier.allow):
            return False
    return True


def could_cover(rule: Rule, server: str) -> bool:
    """Whether a rule could cover any entry that a server may ever have."""
    if not _speaks_of(rule, server):
        return False
    return not rule.names or any(
        pattern.could_begin(full_name(kind, server, "")) for kind, those in rule.names.items() for pattern in those
    )


def _speaks_of(rule: Rule, server: str) -> bool:
    return rule.servers is None or any(pattern.matches(server) for pattern in rule.servers)


def _covering(rules: tuple[Named, ...], kind: Kind, server: str, own: str) -> Iterator[Named]:
    return ((name, rule) for name, rule in rules if rule.covers(kind, server, own))


def _if_possible(ruling: Ruling) -> Ruling:
    """The ruling, or the one that denies, if no arguments could pass all its tests."""
    obstacle = _obstacle(ruling.tests)
    if not obstacle:
        return ruling
    if obstacle == TOO_COMPLEX:
        return denied(TOO_COMPLEX, "its conditions are more than can be searched")
    return denied(obstacle, "no arguments could satisfy the conditions")


@lru_cache(maxsize=MAX_OBSTACLES)
def _obstacle(tests: tuple[Allowing | Denying, ...]) -> str:
    """The rule of the first test that, with all before it, no arguments could pass; "" if some pass all of them.

    Kept, since many tools meet the same tests, and nobody should wait for the same search a thousand times.
    """
    clauses = [test.clause() for test in tests]

    def is_too_much(end: int) -> bool:
        return not can_all_hold(clauses[:end])

    try:
        if can_all_hold(clauses):
            return ""
        # What is too much stays so with more: halving finds it in ten searches where one by one takes hundreds.
        return tests[bisect_left(range(1, len(tests)), True, key=is_too_much)].rule
    except TooComplex:
        return TOO_COMPLEX


def _all_at_once(demands: tuple[tuple[Path, Domain], ...]) -> Demands:
    found: dict[Path, Domain] = {}
    for path, domain in demands:
        found[path] = found[path] & domain if path in found else domain
    return found
