"""The issuers of a configuration, each as an authenticator. Loaded only where there is one (`assembly.py`)."""

from collections.abc import Sequence

from broker.config import JwtIssuer
from broker.core.caller import Role
from broker.identity.identity import Authenticator
from broker.identity.issuer import TokenAuthenticator, Trust
from broker.identity.jwk import KeySet
from broker.identity.key_sets import FetchedKeys, Keys, StaticKeys
from broker.identity.placing import ClaimRules
from broker.identity.supplies import Supplies
from broker.outbound.fetch import Outbound


def authenticators(issuers: Sequence[JwtIssuer], supplies: Supplies) -> list[Authenticator]:
    """In the order of the configuration; all fetch their keys by the same way out."""
    outbound = Outbound()
    return [_authenticator(issuer, supplies, outbound) for issuer in issuers]


def _authenticator(issuer: JwtIssuer, supplies: Supplies, outbound: Outbound) -> Authenticator:
    rules = ClaimRules(
        issuer.issuer,
        issuer.organization or "",
        issuer.organization_claim or "",
        issuer.team_claim or "",
        issuer.role_claim or "",
        {value: Role(role) for value, role in issuer.roles.items()},
    )
    trust = Trust(rules, frozenset(issuer.audience), issuer.required_scopes)
    return TokenAuthenticator(trust, _keys(issuer, supplies, outbound), supplies)


def _keys(issuer: JwtIssuer, supplies: Supplies, outbound: Outbound) -> Keys:
    if issuer.keys:
        return StaticKeys(KeySet.of({"keys": [dict(key) for key in issuer.keys]}, issuer.algorithms))
    return FetchedKeys(
        outbound,
        supplies.clock,
        issuer.issuer,
        issuer.jwks_url or "",
        issuer.algorithms,
        allow_private=issuer.allow_private,
    )
