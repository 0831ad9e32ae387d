"""Who may see and do what: one decision, for listing and for calling.

`view` is `decide` over every entry, so what is listed is what can be called. Only `decide` makes a `Permit`, and
only a `Permit` can be relayed; a test holds every other module to that.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Final

from broker.core.caller import Caller
from broker.core.catalog import Catalog, Entry
from broker.core.directory import Directory
from broker.core.match import Rules
from broker.core.request import Kind
from broker.core.ruling import Allowing, Refusal, Ruling, denied, judges_uris, reaches, rule_on, rule_on_uri
from broker.core.standing import Standing, Standings

_RULE_KIND: Final = {Kind.TEMPLATE: Kind.RESOURCE}
"""Templates are judged by a server's own rules for resources."""

NO_RULES: Final = Rules()

_UNSAFE_URI = re.compile(
    r"(?i)(?:^|[:/\\])\.{1,2}(?:[/\\?#]|$)|[\x00-\x20\x7f\\]"
    # NUL, separators, and what needs no encoding (RFC 3986 2.3): `%73ecret` is `secret`, but not to a pattern.
    r"|%(?:00|2[def]|3[0-9]|4[1-9a-f]|5[0-9acf]|6[1-9a-f]|7[0-9ae])"
    # A scheme in capitals, and the other spellings of `file:///path`.
    r"|^(?-i:[^:/?#A-Z]*[A-Z])|^file:(?!///(?!/))|^file:///.*//"
)
"""Second spellings of a URI that a server may take for the first."""

MAX_RULINGS: Final = 100_000
"""Rulings kept, of all places together; then all are made anew. Without a bound, URIs that callers make up would fill
the memory."""
MAX_KEPT_URI: Final = 512
"""Characters of an unlisted URI whose ruling is kept; a longer one is judged each time."""


@dataclass(slots=True, unsafe_hash=True)
class Permit:
    """This caller may reach this entry. `rule` names why. Never changed (a frozen one takes five times as long to make,
    and each call makes one).
    """

    caller: Caller
    entry: Entry
    rule: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The caller may not. `rule` is the audit field, the metric label and what `explain` prints.

    `is_hidden`: the caller must not be able to tell the entry from one that does not exist. It is not, if another call
    of it would be permitted: then `argument` (`filter.database`) is what the rule refuses.
    """

    rule: str
    reason: str
    is_hidden: bool = True
    argument: str = ""


Decision = Permit | Denied


class AnyArguments:
    """Stands for all arguments at once: could some call be permitted?"""


ANY: Final = AnyArguments()


@dataclass(frozen=True, slots=True)
class Policy:
    """Compiled rules; all only narrow.

    `rules` are a server's own, per kind; `views` are named sets of servers; `directory` has the levels of callers.
    """

    rules: Mapping[str, Mapping[Kind, Rules]] = field(default_factory=dict[str, Mapping[Kind, Rules]])
    views: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    directory: Directory = field(default_factory=Directory)
    before: InitVar["Policy | None"] = None
    """The policy that this one replaces, if it has the same rules: what was computed below it stays good."""
    standings: Standings = field(init=False, repr=False, compare=False)
    """Where each caller stands."""
    _kept: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self, before: "Policy | None") -> None:
        standings = None if before is None else before.standings
        object.__setattr__(self, "standings", Standings(self.directory, standings))
        object.__setattr__(self, "_kept", [0] if before is None else before._kept)

    def with_directory(self, directory: Directory) -> "Policy":
        """The same rules and views below another directory."""
        return Policy(self.rules, self.views, directory, self)

    @property
    def is_same_for_all(self) -> bool:
        """Whether no rule could make two callers see different lists: whether there are no levels."""
        return not self.directory.organizations and not self.directory.scopes

    def has_view(self, view: str) -> bool:
        """Whether a view of that name exists."""
        return view in self.views

    def shows(self, view: str, server: str) -> bool:
        """Whether a server is part of a view; "" is the view of everything."""
        return not view or server in self.views.get(view, frozenset())

    def standing(self, caller: Caller) -> Standing:
        """Where a caller stands: what two callers with one standing see is the same."""
        return self.standings.of(caller)

    def has_levels(self, caller: Caller) -> bool:
        """Whether anything stands above the caller: not above the local user, whose own configuration this is."""
        standing = self.standing(caller)
        return bool(standing.tiers) or standing.refusal is not None

    def reaches(self, caller: Caller, server: str) -> bool:
        """Whether the caller's place could let it see anything of a server, whatever that serves."""
        standing = self.standing(caller)
        return standing.refusal is None and reaches(standing.tiers, server)

    def ruling(self, standing: Standing, entry: Entry) -> Ruling:
        """What the server's rules and the levels of a standing say of an entry. Made once, and kept: a call costs the
        same behind any number of rules.
        """
        return standing.refusal or standing.rulings.get(entry.judged_by) or self._rule(standing, entry)

    def _rule(self, standing: Standing, entry: Entry) -> Ruling:
        ruling = _rule(self, standing, entry)
        if entry.definition or len(entry.own) <= MAX_KEPT_URI:
            self._keep(standing, entry.judged_by, ruling)
        return ruling

    def _keep(self, standing: Standing, key: object, ruling: Ruling) -> None:
        self._kept[0] += 1
        if self._kept[0] > MAX_RULINGS:
            self._kept[0] = 1
            self.standings.forget_rulings()
        standing.rulings[key] = ruling


def decide(policy: Policy, caller: Caller, view: str, entry: Entry | None, arguments: object = ANY) -> Decision:
    """Whether `caller`, asking through `view`, may list or use `entry`; with `arguments`, whether it may make this
    call; without, whether some call of it could be permitted. First failure wins:

    1. the entry exists;
    2. the view shows its server;
    3. the caller's place is known: its organization, team and key;
    4. a URI that nobody lists has no dot segments, needless escapes or other second spellings, where patterns judge
       URIs: what the pattern saw must be what the server opens (SP-53);
    5. the server's deny list does not match the own name, nor the template that covers the URI; its allow list does;
    6. from the organization down to the key and the scopes of the token: no rule of the level denies it, and one allows
       it, unless its allow list was left out (`ruling.rule_on`; for a URI that nobody lists `ruling.rule_on_uri`);
    7. some arguments could pass the conditions of all these rules;
    8. the arguments of this call do. Whoever fails here could make another call: the entry is not hidden.
    """
    if entry is None:
        return Denied("unknown", "no such entry")
    if view and not policy.shows(view, entry.server):
        return Denied(f"view:{view}", f"server {entry.server!r} is not part of view {view!r}")
    standing = policy.standings.of(caller)
    ruling = standing.rulings.get(entry.judged_by) or policy.ruling(standing, entry)
    if not ruling.is_possible:
        return Denied(ruling.rule, ruling.reason)
    rule = ruling.rule
    for test in ruling.tests if arguments is not ANY else ():
        verdict = test.judge(arguments)
        if isinstance(verdict, Refusal):
            reason = f"its argument {verdict.argument!r} is not one that the rule lets through"
            return Denied(verdict.rule, reason, is_hidden=False, argument=verdict.argument)
        if isinstance(test, Allowing) and rule == test.choices[0].rule:
            rule = verdict  # of its choices, not the first one allows this call
    return Permit(caller, entry, rule)


def view_entries(policy: Policy, caller: Caller, view: str, catalog: Catalog, kind: Kind) -> Iterator[Entry]:
    """Every listed entry of a kind that the caller may use, in order."""
    for entry in catalog.entries(kind):
        if isinstance(decide(policy, caller, view, entry), Permit):
            yield entry


def _rule(policy: Policy, standing: Standing, entry: Entry) -> Ruling:
    """Rungs 4 to 7."""
    rule_kind = _RULE_KIND.get(entry.kind, entry.kind)
    rules = policy.rules.get(entry.server, {}).get(rule_kind, NO_RULES)
    where = f"server:{entry.server}/{rule_kind}"
    tiers = standing.tiers
    is_unlisted_uri = entry.kind is Kind.RESOURCE and not entry.listed
    if is_unlisted_uri:
        judge = where if rules != NO_RULES else judges_uris(tiers, entry.server)
        if judge is not None and _UNSAFE_URI.search(entry.own):
            return denied(f"{judge}/unsafe-uri", "the URI has dot segments, or is not spelled as it should be")
    verdict = rules.judge(*((entry.own,) if entry.template is None else (entry.own, entry.template)))
    if not verdict.allowed:
        return denied(f"{where}/{verdict.rule}", "the server's rules leave it out")
    allowed = f"{where}/{verdict.rule}"
    if not is_unlisted_uri or not tiers:
        return rule_on(tiers, entry.kind, entry.server, entry.own, allowed)
    served = [template for template in entry.templates if rules.judge(template).allowed]
    templates = [rule_on(tiers, Kind.TEMPLATE, entry.server, template, allowed) for template in served]
    return rule_on_uri(tiers, entry.server, entry.own, templates, allowed)
