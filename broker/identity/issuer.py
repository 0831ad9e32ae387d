"""Callers of one issuer of tokens (OAuth 2, OpenID Connect): see `token.py` for what is checked, and in which order.

A token is verified again every minute, and whenever it is not remembered; an issuer's own revocation is not known here,
so tokens should be short-lived.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import ref as Ref

from broker.core.caller import Caller
from broker.core.directory import Directory
from broker.errors import printable
from broker.identity.admission import Admission, Forbidden, Unauthorized, Unverifiable
from broker.identity.credential import Credential
from broker.identity.key_sets import Keys
from broker.identity.placing import ClaimRules, place
from broker.identity.supplies import Supplies
from broker.identity.token import BadToken, Expired, check_claims, check_signature, read, scopes_of

log = logging.getLogger(__name__)

REMEMBERED: Final = 60.0
"""Seconds for which a verified token is not verified again: so long is it good after its key was withdrawn here."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What an issuer is trusted with."""

    rules: ClaimRules
    audiences: frozenset[str]
    required_scopes: tuple[str, ...] = ()


class TokenAuthenticator:
    """See the module."""

    def __init__(self, trust: Trust, keys: Keys, supplies: Supplies) -> None:
        self._trust = trust
        self._issuer = trust.rules.issuer
        self._keys = keys
        self._in_force = supplies.in_force
        self._silence = supplies.silence
        self._clock = supplies.clock
        self._is_retired = False

    @property
    def is_source(self) -> bool:
        """See `Authenticator`."""
        return True

    async def admit(self, credential: Credential) -> tuple[Admission, float] | None:
        """See `Authenticator`: a bearer token whose `iss` is ours is ours, good or bad."""
        if not credential.is_bearer:
            return None
        try:
            claims = await self._verified(credential.text)
        except BadToken as error:
            log.info("a token of %s is refused: %s", self._issuer, error)
            raise Unauthorized(has_credential=True, is_guess=not isinstance(error, Expired)) from None
        if claims is None:
            return None
        directory = self._in_force.served.policy.directory
        caller = place(claims, self._trust.rules, directory)
        if caller is None:
            if self._silence() > 0:
                raise Unverifiable  # the store may know the place (F-94)
            log.info("%s has no place here: %s", self._issuer, printable(str(claims["sub"]), 100))
            raise Forbidden("this user has no place here")
        if not scopes_of(claims).issuperset(self._trust.required_scopes):
            raise Forbidden("the token lacks a scope", self._trust.required_scopes)
        seconds = min(REMEMBERED, caller.expires - self._clock.wall())
        return Admission(caller, self._watched(claims, caller, directory)), seconds

    def retire(self) -> None:
        """See `Authenticator`."""
        self._is_retired = True

    def _watched(self, claims: Mapping[str, Any], caller: Caller, directory: Directory) -> Callable[[], bool]:
        """Whether who was admitted with a token still would be. Asked for every request: where its user stands is
        looked at again when the directory has changed. An admission that nobody asks about again keeps no directory.
        """
        seen_in = Ref(directory)

        def is_in_force() -> bool:
            nonlocal seen_in
            if self._is_retired or self._clock.wall() >= caller.expires:
                return False
            now = self._in_force.served.policy.directory
            if now is not seen_in():
                if place(claims, self._trust.rules, now) != caller:
                    return False
                seen_in = Ref(now)
            return True

        return is_in_force

    async def _verified(self, text: str) -> Mapping[str, Any] | None:
        """Its claims; None if it is not of this issuer. Raises: BadToken, Unverifiable."""
        token = read(text)
        if token is None or token.issuer != self._issuer:
            return None
        key = await self._keys.find(token.key_id, token.algorithm)
        if key is None:
            raise BadToken("no such key")
        check_signature(token, key)
        check_claims(token.claims, self._issuer, self._trust.audiences, self._clock.wall())
        return token.claims
