"""Who may see and do what: one decision, for listing and for calling.

`view` is `decide` over every entry, so what is listed is what can be called. Only `decide` makes a `Permit`, and
only a `Permit` can be relayed; a test holds every other module to that.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.core.caller import Caller
from broker.core.catalog import Catalog, Entry
from broker.core.match import Rules, Verdict
from broker.core.request import Kind

_RULE_KIND: Final = {Kind.TEMPLATE: Kind.RESOURCE}
"""Templates are judged by the rules for resources."""

NO_RULES: Final = Rules()

_UNSAFE_URI = re.compile(
    r"(?i)(?:^|[:/\\])\.{1,2}(?:[/\\?#]|$)|[\x00-\x20\x7f\\]"
    # NUL, separators, and what needs no encoding (RFC 3986 2.3): `%73ecret` is `secret`, but not to a pattern.
    r"|%(?:00|2[def]|3[0-9]|4[1-9a-f]|5[0-9acf]|6[1-9a-f]|7[0-9ae])"
    # A scheme in capitals, and the other spellings of `file:///path`.
    r"|^(?-i:[^:/?#A-Z]*[A-Z])|^file:(?!///(?!/))|^file:///.*//"
)
"""Second spellings of a URI that a server may take for the first."""


@dataclass(frozen=True, slots=True)
class Permit:
    """This caller may reach this entry. `rule` names why."""

    caller: Caller
    entry: Entry
    rule: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The caller may not. `rule` is the audit field, the metric label and what `explain` prints.

    `is_hidden`: the caller must not be able to tell the entry from one that does not exist.
    """

    rule: str
    reason: str
    is_hidden: bool = True


Decision = Permit | Denied


@dataclass(frozen=True, slots=True)
class Policy:
    """Compiled rules. `rules` per server and kind; `views` are named sets of servers; both only narrow."""

    rules: Mapping[str, Mapping[Kind, Rules]] = field(default_factory=dict[str, Mapping[Kind, Rules]])
    views: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    @property
    def is_same_for_all(self) -> bool:
        """Whether no rule could make two callers see different lists."""
        return True

    def has_view(self, view: str) -> bool:
        """Whether a view of that name exists."""
        return view in self.views

    def shows(self, view: str, server: str) -> bool:
        """Whether a server is part of a view; "" is the view of everything."""
        return not view or server in self.views.get(view, frozenset())


def decide(policy: Policy, caller: Caller, view: str, entry: Entry | None) -> Decision:
    """Whether `caller`, asking through `view`, may list or use `entry`. First failure wins:

    1. the entry exists;
    2. the view shows its server;
    3. a URI that nobody lists has no dot segments, needless escapes or other second spellings, where patterns judge
       URIs: what the pattern saw must be what the server opens (SP-53);
    4. the server's deny list does not match the own name, nor the template that covers the URI;
    5. its allow list does.
    """
    if entry is None:
        return Denied("unknown", "no such entry")
    if not policy.shows(view, entry.server):
        return Denied(f"view:{view}", f"server {entry.server!r} is not part of view {view!r}")
    rule_kind = _RULE_KIND.get(entry.kind, entry.kind)
    rules = policy.rules.get(entry.server, {}).get(rule_kind, NO_RULES)
    where = f"server:{entry.server}/{rule_kind}"
    if entry.kind is Kind.RESOURCE and not entry.listed and rules != NO_RULES and _UNSAFE_URI.search(entry.own):
        return Denied(f"{where}/unsafe-uri", "the URI has dot segments, or is not spelled as it should be")
    verdict = _judge(rules, entry)
    if not verdict.allowed:
        return Denied(f"{where}/{verdict.rule}", "the server's rules leave it out")
    return Permit(caller, entry, f"{where}/{verdict.rule}")


def view_entries(policy: Policy, caller: Caller, view: str, catalog: Catalog, kind: Kind) -> Iterator[Entry]:
    """Every listed entry of a kind that the caller may use, in order."""
    for entry in catalog.entries(kind):
        if isinstance(decide(policy, caller, view, entry), Permit):
            yield entry


def _judge(rules: Rules, entry: Entry) -> Verdict:
    names = (entry.own,) if entry.template is None else (entry.own, entry.template)
    return rules.judge(*names)
