"""What an action answers: frozen, and JSON all through (`dataclasses.asdict`). Times are seconds since 1970."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from broker.admin.words import limits_json, rules_json
from broker.config import Secret
from broker.core.directory import Key, Membership, Organization, Source, Team
from broker.core.grants import Level
from broker.stores.rows import HashRow, KeyRow, MembershipRow, OrganizationRow, RulesJson, TeamRow

Written = list[dict[str, Any]] | None
Limits = dict[str, Any] | None
State = Literal["active", "expired", "revoked", "stranded"]


@dataclass(frozen=True, slots=True)
class OrganizationView:
    """An organization. `allow`: None is nothing."""

    name: str
    source: Source
    allow: Written
    deny: Written
    limits: Limits
    created: float | None = None


@dataclass(frozen=True, slots=True)
class TeamView:
    """A team. `allow`: None is all that its organization allows."""

    organization: str
    name: str
    source: Source
    allow: Written
    deny: Written
    limits: Limits
    created: float | None = None


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key: never its text, nor its hash. `id` of a key of the file is its name.

    `overlap_ends`: when the text from before the last rotation stops being good, if it has not yet. `stranded`: its
    team was taken out of the file, so that it is denied everything.
    """

    id: str
    name: str
    organization: str
    team: str
    role: str
    state: State
    source: Source
    created: float | None
    expires: float | None
    rotated: float | None
    overlap_ends: float | None
    allow: Written
    deny: Written
    limits: Limits


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key and its text, which is known here and now only."""

    view: KeyView
    text: Secret


@dataclass(frozen=True, slots=True)
class MembershipView:
    """A role of a user or a key, besides that of its credential."""

    principal: str
    organization: str
    team: str
    role: str
    source: Source
    created: float | None = None


def organization_view(one: OrganizationRow | Organization) -> OrganizationView:
    """Of either source."""
    if isinstance(one, OrganizationRow):
        return OrganizationView(one.name, Source.DATABASE, *_stored(one), one.created)
    return OrganizationView(one.name, Source.FILE, *_rules(one.level))


def team_view(organization: str, one: TeamRow | Team) -> TeamView:
    """Of either source."""
    if isinstance(one, TeamRow):
        return TeamView(organization, one.name, Source.DATABASE, *_stored(one), one.created)
    return TeamView(organization, one.name, Source.FILE, *_rules(one.level))


def key_view(row: KeyRow, hashes: Sequence[HashRow], now: float) -> KeyView:
    """Of a key of the database."""
    ends = [one.not_after for one in hashes if one.not_after is not None and one.not_after > now]
    return KeyView(
        row.id,
        row.name,
        row.organization,
        row.team,
        row.role,
        _state(row.revoked is not None, row.expires, now),
        Source.DATABASE,
        row.created,
        row.expires,
        row.rotated,
        max(ends, default=None),
        *_stored(row),
    )


def file_key_view(organization: str, team: str, key: Key, now: float) -> KeyView:
    """Of a key of the file."""
    expires = None if key.expires == inf else key.expires
    state = _state(key.revoked, expires, now)
    rules = _rules(key.level)
    return KeyView(
        key.id, key.name, organization, team, key.role, state, Source.FILE, None, expires, None, None, *rules
    )


def membership_view(one: MembershipRow | Membership) -> MembershipView:
    """Of either source."""
    if isinstance(one, MembershipRow):
        return MembershipView(one.principal, one.organization, one.team, one.role, Source.DATABASE, one.created)
    return MembershipView(one.principal, one.organization, one.team, one.role, Source.FILE)


def _state(is_revoked: bool, expires: float | None, now: float) -> State:
    if is_revoked:
        return "revoked"
    return "expired" if expires is not None and now >= expires else "active"


def _rules(level: Level | None) -> tuple[Written, Written, Limits]:
    if level is None:
        return None, None, None
    return rules_json(level.allow), rules_json(level.deny) or None, limits_json(level.limits)


def _stored(row: OrganizationRow | TeamRow | KeyRow) -> tuple[Written, Written, Limits]:
    return _list(row.allow), _list(row.deny), None if row.limits is None else dict(row.limits)


def _list(rules: RulesJson | None) -> Written:
    return None if rules is None else [dict(rule) for rule in rules]
