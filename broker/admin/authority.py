"""What an actor may administer: pure, from its roles and the level of its own key.

A role belongs to a place: `admin` to all, `org-admin` to an organization with all its teams, `team-admin` and `member`
to one team. Who has none at a place cannot tell whether it exists.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Final

from broker.core.caller import Caller, Role
from broker.core.directory import Membership
from broker.core.grants import Level, Rule
from broker.core.match import Pattern
from broker.core.quota import is_as_tight

_RANK: Final = {role: rank for rank, role in enumerate((Role.MEMBER, Role.TEAM_ADMIN, Role.ORG_ADMIN, Role.ADMIN))}

Place = tuple[str, str]
"""Organization and team; the team is "" for the organization itself, and both are "" for everything."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The roles of an actor by place; `limit`, the level of its own key, and `ends`, when that key expires, in seconds
    since 1970: keys that it makes or takes over must be within both.
    """

    roles: dict[Place, Role] = field(default_factory=dict[Place, Role])
    limit: Level | None = None
    ends: float = inf

    @classmethod
    def of(
        cls, actor: Caller, memberships: Iterable[Membership], limit: Level | None = None, ends: float = inf
    ) -> "Authority":
        """The roles that its credential and its memberships give."""
        roles: dict[Place, Role] = {}
        granted = [(actor.organization, actor.team, actor.role)]
        granted += [
            (one.organization, one.team, min(one.role, Role.ORG_ADMIN, key=_RANK.__getitem__)) for one in memberships
        ]
        for organization, team, role in granted:
            for place, given in _placed(organization, team, role):
                if place not in roles or _RANK[given] > _RANK[roles[place]]:
                    roles[place] = given
        return cls(roles, limit, ends)

    def role_at(self, organization: str, team: str = "") -> Role | None:
        """The highest role that counts there; None if it may not even see the place."""
        places = [("", ""), (organization, ""), (organization, team)]
        found = [self.roles[place] for place in places if place in self.roles]
        # Somebody of a team can see the organization around it.
        if not team and any(place[0] == organization for place in self.roles):
            found.append(Role.MEMBER)
        return max(found, key=_RANK.__getitem__, default=None)

    def has(self, role: Role, organization: str = "", team: str = "") -> bool:
        """Whether it has that role, or a higher one, at a place."""
        found = self.role_at(organization, team)
        return found is not None and _RANK[found] >= _RANK[role]


def _placed(organization: str, team: str, role: Role) -> list[tuple[Place, Role]]:
    """Where a role counts that was given at a place. A role for less than its place is only membership there."""
    if role is Role.ADMIN:
        return [(("", ""), role)]
    if not organization:
        return []
    if role is Role.ORG_ADMIN:
        return [((organization, ""), role)]
    return [((organization, team), role if team else Role.MEMBER)]


def is_role_for(role: Role, organization: str, team: str) -> bool:
    """Whether a role means something at a place: a team-admin needs a team."""
    return bool(organization) and (role is not Role.TEAM_ADMIN or bool(team))


def is_within(level: Level, limit: Level) -> bool:
    """Whether everything that `level` lets through is also let through by `limit`, and no more often. In doubt it is
    not: rules are compared one by one, and what two of them do only together is not seen."""
    if not is_as_tight(level.limits, limit.limits):
        return False
    if limit.allow is not None:
        if level.allow is None:
            return False
        if not all(any(_is_part(rule, outer) for outer in limit.allow) for rule in level.allow):
            return False
    return all(any(_is_part(denied, rule) for rule in level.deny) for denied in limit.deny)


def _is_part(rule: Rule, outer: Rule) -> bool:
    """Whether `outer` speaks of all that `rule` speaks of."""
    # By their texts: Python takes true for 1.
    if not {repr(one) for one in outer.when} <= {repr(one) for one in rule.when}:
        return False
    if outer.servers is not None and not _are_part(rule.servers, outer.servers):
        return False
    if not outer.names:
        return outer.servers is not None
    kinds = rule.names.items()
    return bool(kinds) and all(_are_part(patterns, outer.names.get(kind, ())) for kind, patterns in kinds)


def _are_part(patterns: tuple[Pattern, ...] | None, outer: tuple[Pattern, ...]) -> bool:
    # The `*` of an inner pattern is a character like any other here: only a `*` of the outer one can take it in.
    return patterns is not None and all(any(wide.matches(one.text) for wide in outer) for one in patterns)
