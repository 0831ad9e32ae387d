"""From the configuration to the one `Identity` of a broker, and to what it says of itself."""

import importlib
from typing import Any

from broker.config import IdentitySettings
from broker.identity.identity import Authenticator, Identity
from broker.identity.key_holders import KeyAuthenticator
from broker.identity.resource import Resource
from broker.identity.supplies import Supplies


def identity_of(settings: IdentitySettings, supplies: Supplies, *, is_private: bool) -> Identity:
    """Keys first, then the issuers. `is_private`: whether only this machine reaches the listener."""
    keys = KeyAuthenticator(supplies, settings.store_grace)
    return Identity(supplies.clock, [keys, *_issuers(settings, supplies)], is_private=is_private)


def resource_of(settings: IdentitySettings, name: str) -> Resource:
    """What callers are told. `name`: what the broker calls itself."""
    return Resource.of(settings.public_url, [(one.issuer, one.required_scopes) for one in settings.jwt], name)


def _issuers(settings: IdentitySettings, supplies: Supplies) -> list[Authenticator]:
    if not settings.jwt:
        return []
    # An HTTP client and a library for tokens, half a second to load: for those who have an issuer only.
    issuers: Any = importlib.import_module("broker.identity.issuers")
    return issuers.authenticators(settings.jwt, supplies)
