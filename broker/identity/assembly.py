"""From the configuration to the one `Identity` of a broker, and to what it says of itself."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from broker.config import IdentitySettings, JwtIssuer
from broker.identity.identity import Authenticator, Identity
from broker.identity.key_holders import KeyAuthenticator
from broker.identity.resource import Resource
from broker.identity.supplies import Supplies


def identity_of(settings: IdentitySettings, supplies: Supplies, *, is_private: bool) -> Identity:
    """Keys first, then the issuers. `is_private`: whether only this machine reaches the listener."""
    keys = KeyAuthenticator(supplies, settings.store_grace)
    return Identity(supplies.clock, [keys, *_issuers(settings, supplies)], is_private=is_private)


def change_of(
    identity: Identity, before: IdentitySettings, after: IdentitySettings, supplies: Supplies
) -> Callable[[], None]:
    """Everything ready to put other settings in force; what is returned does it, at once, and does not fail.

    Whoever was admitted by keys, or by an issuer, of which nothing has changed goes on. `supplies`: for what is new.
    """
    known, *issuers = identity.authenticators
    assert isinstance(known, KeyAuthenticator)
    keys = known if before.key_secret == after.key_secret else KeyAuthenticator(supplies, after.store_grace)
    kept = list(zip(before.jwt, issuers, strict=True))
    made = [_kept(one, kept) or _issuers(after.model_copy(update={"jwt": (one,)}), supplies)[0] for one in after.jwt]

    def commit() -> None:
        keys.grace = after.store_grace
        identity.adopt([keys, *made])

    return commit


def _kept(issuer: JwtIssuer, known: Sequence[tuple[JwtIssuer, Authenticator]]) -> Authenticator | None:
    return next((authenticator for settings, authenticator in known if settings == issuer), None)


def resource_of(settings: IdentitySettings, name: str) -> Resource:
    """What callers are told. `name`: what the broker calls itself."""
    return Resource.of(settings.public_url, [(one.issuer, one.required_scopes) for one in settings.jwt], name)


def _issuers(settings: IdentitySettings, supplies: Supplies) -> list[Authenticator]:
    if not settings.jwt:
        return []
    # An HTTP client and a library for tokens, half a second to load: for those who have an issuer only.
    issuers: Any = importlib.import_module("broker.identity.issuers")
    return issuers.authenticators(settings.jwt, supplies)
