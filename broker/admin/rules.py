"""What `grant` sets: rules that are left as they are, taken away, or given; and what is wrong with those."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from broker.config import Config
from broker.config.document import Finding, dotted
from broker.config.grants import grant_conflicts
from broker.config.translate import findings
from broker.stores.rows import RulesJson


class _Kept:
    def __repr__(self) -> str:
        return "KEPT"


KEPT: Final = _Kept()
"""Leave it as it is."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`allow` and `deny`: lists in the words of the file, None to take the list away, or `KEPT`."""

    allow: RulesJson | _Kept | None = KEPT
    deny: RulesJson | _Kept | None = KEPT

    def over(self, allow: RulesJson | None, deny: RulesJson | None) -> tuple[RulesJson | None, RulesJson | None]:
        """What the two lists are afterwards. No denial is no list."""
        new_allow = allow if isinstance(self.allow, _Kept) else self.allow
        new_deny = deny if isinstance(self.deny, _Kept) else self.deny
        return new_allow, new_deny or None


def faults_of(level: Mapping[str, object], servers: Sequence[str]) -> list[str]:
    """Everything that `check` would say of these rules if they stood in the file. `servers`: all keys."""
    organizations = {"here": dict(level)}
    try:
        Config.model_validate({"organizations": organizations})
    except ValidationError as error:
        # What has no path is what the model says of servers, of which it knows none here.
        malformed = [finding for finding in findings(error, {}) if finding.path]
        if malformed:
            return [_sentence(finding) for finding in malformed]
    return [_sentence(finding) for finding in grant_conflicts(organizations, servers)]


def _sentence(finding: Finding) -> str:
    place = dotted(finding.path[2:] if finding.path[0] == "organizations" else finding.path)
    return f"{place}: {finding.message}. {finding.remedy}".rstrip()
