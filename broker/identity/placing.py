"""Where a user of an issuer stands: from the claims of a token, and who is in the directory, to a `Caller`.

The organization is the one that the configuration names, or the claim. The team is the first of that organization, in
the order of the directory, that the claim names. Where a claim of teams is configured, or a membership places the user,
somebody without a place is refused: to stand outside of all teams would be more than any team has.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker.core.caller import Caller, Role
from broker.core.directory import Directory, Membership
from broker.identity.token import expiry, scopes_of, texts

_RANK: Final = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """How the claims of an issuer are read; see `identity.jwt` in the configuration."""

    issuer: str
    organization: str = ""
    organization_claim: str = ""
    team_claim: str = ""
    role_claim: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict[str, Role])


def place(claims: Mapping[str, Any], how: ClaimRules, directory: Directory) -> Caller | None:
    """Who a token with these (checked) claims stands for; None if that is nobody here."""
    principal = f"jwt:{how.issuer} {claims['sub']}"
    organization = _organization(claims, how, directory)
    if organization is None:
        return None
    members = [one for one in directory.memberships if one.principal == principal and one.organization == organization]
    team = _team(claims, how, directory, organization, members)
    if team is None:
        return None
    roles = [how.roles[value] for value in texts(claims, how.role_claim) if value in how.roles]
    roles += [one.role for one in members if one.team in ("", team)]
    return Caller(principal, organization, team, "", _highest(roles), scopes_of(claims), expiry(claims))


def _organization(claims: Mapping[str, Any], how: ClaimRules, directory: Directory) -> str | None:
    if how.organization:
        return how.organization
    named = texts(claims, how.organization_claim)
    # More than one is a doubt.
    return named[0] if len(named) == 1 and named[0] in directory.organizations else None


def _team(
    claims: Mapping[str, Any], how: ClaimRules, directory: Directory, organization: str, members: list[Membership]
) -> str | None:
    """A team, "" for none, None for no place."""
    found = directory.organizations.get(organization)
    teams = tuple(found.teams) if found is not None else ()
    named = frozenset(texts(claims, how.team_claim)) if how.team_claim else frozenset[str]()
    joined = {one.team for one in members}
    first = next((team for team in teams if team in named), None) or next(
        (team for team in teams if team in joined), None
    )
    if first is not None:
        return first
    if "" in joined or not (how.team_claim or joined):
        return ""
    return None


def _highest(roles: Iterable[Role]) -> Role:
    return max(roles, key=_RANK.__getitem__, default=Role.MEMBER)
