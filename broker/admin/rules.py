"""What `grant` sets: rules and limits that are left as they are, taken away, or given; and what is wrong with those."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from broker.config import Config
from broker.config.document import Finding, dotted
from broker.config.grants import grant_conflicts
from broker.config.translate import findings
from broker.core import wire
from broker.core.shape import is_array, is_object
from broker.stores.rows import LimitsJson, RulesJson, Terms

MAX_RULES: Final = 100
"""Rules of one list. Whoever administers a team is not the operator: rules without end would hold the broker while they
are checked, and at each look at a catalog."""
MAX_PATTERNS: Final = 300
"""Patterns of one level, likewise: each is compared with each of the other list."""
MAX_SIZE: Final = 32 * 1024
"""Bytes of the rules of one level as JSON: every broker holds those of every key in memory."""


class _Kept:
    def __repr__(self) -> str:
        return "KEPT"


KEPT: Final = _Kept()
"""Leave it as it is."""
NONE: Final = Terms()
"""Of a level that is new."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`allow`, `deny` and `limits` in the words of the file, None to take one away, or `KEPT`."""

    allow: RulesJson | _Kept | None = KEPT
    deny: RulesJson | _Kept | None = KEPT
    limits: LimitsJson | _Kept | None = KEPT

    def over(self, before: Terms = NONE) -> Terms:
        """What a level has afterwards. No denial is no list."""
        return Terms(
            before.allow if isinstance(self.allow, _Kept) else self.allow,
            (before.deny if isinstance(self.deny, _Kept) else self.deny) or None,
            before.limits if isinstance(self.limits, _Kept) else self.limits,
        )


def faults_of(level: Mapping[str, object], servers: Sequence[str]) -> list[str]:
    """Everything that `check` would say of these rules if they stood in the file. `servers`: all keys."""
    if excess := _excess(level):
        return [excess]
    organizations = {"here": dict(level)}
    try:
        Config.model_validate({"organizations": organizations})
    except ValidationError as error:
        # What has no path is what the model says of servers, of which it knows none here.
        malformed = [finding for finding in findings(error, {}) if finding.path]
        if malformed:
            return [_sentence(finding) for finding in malformed]
    return [_sentence(finding) for finding in grant_conflicts(organizations, servers)]


def _excess(level: Mapping[str, object]) -> str:
    """What of a level is too much to be looked at any closer; "" for none of it."""
    lists = [rules for rules in level.values() if is_array(rules)]
    if any(len(rules) > MAX_RULES for rules in lists):
        return f"there are more than {MAX_RULES} rules in one list: join those that say the same of several names"
    if len(wire.encode(level)) > MAX_SIZE:
        return f"the rules are longer than {MAX_SIZE} bytes: use fewer or shorter ones"
    named = [value for rules in lists for rule in rules if is_object(rule) for value in rule.values()]
    if sum(len(value) for value in named if is_array(value)) > MAX_PATTERNS:
        return f"there are more than {MAX_PATTERNS} patterns: use * for what several names have in common"
    return ""


def _sentence(finding: Finding) -> str:
    place = dotted(finding.path[2:] if finding.path[0] == "organizations" else finding.path)
    return f"{place}: {finding.message}. {finding.remedy}".rstrip()
