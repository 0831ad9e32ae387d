"""What is in the store, as it is there. Rules are JSON in the words of the file; times are seconds since 1970."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.core.caller import Role

RulesJson = Sequence[Mapping[str, Any]]
LimitsJson = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Terms:
    """What is stored of a level: the columns that organizations, teams and keys have in common."""

    allow: RulesJson | None = None
    deny: RulesJson | None = None
    limits: LimitsJson | None = None


@dataclass(frozen=True, slots=True)
class OrganizationRow:
    """An organization of the database."""

    name: str
    allow: RulesJson | None
    deny: RulesJson | None
    created: float
    limits: LimitsJson | None = None


@dataclass(frozen=True, slots=True)
class TeamRow:
    """A team of the database. Its organization may be one of the file."""

    organization: str
    name: str
    allow: RulesJson | None
    deny: RulesJson | None
    created: float
    limits: LimitsJson | None = None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key of the database. Its team and organization may be of the file; `team` is "" outside of any."""

    id: str
    organization: str
    team: str
    name: str
    role: Role
    allow: RulesJson | None
    deny: RulesJson | None
    created: float
    expires: float | None = None
    rotated: float | None = None
    revoked: float | None = None
    limits: LimitsJson | None = None


@dataclass(frozen=True, slots=True)
class HashRow:
    """One hash of a key; `not_after` if the key was rotated since."""

    hash: str
    key_id: str
    not_after: float | None = None


@dataclass(frozen=True, slots=True)
class MembershipRow:
    """The role of a principal in an organization (`team` is "") or a team."""

    principal: str
    organization: str
    team: str
    role: Role
    created: float


def terms_of(row: OrganizationRow | TeamRow | KeyRow) -> Terms:
    """Of a row."""
    return Terms(row.allow, row.deny, row.limits)
