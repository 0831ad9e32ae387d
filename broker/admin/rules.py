"""What `grant` sets: rules and limits that are left as they are, taken away, or given; and what is wrong with those."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from broker.config import Config
from broker.config.document import Finding, dotted
from broker.config.grants import grant_conflicts
from broker.config.translate import findings
from broker.stores.rows import LimitsJson, RulesJson, Terms


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
