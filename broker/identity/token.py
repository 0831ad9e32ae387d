"""A JWT of an issuer: read strictly, its signature checked under one key, its claims against what is expected.

Nothing of a token is believed before its signature holds, its `iss` aside, which says whose keys to try. Headers that
bring a key or a URL (`jwk`, `jku`, `x5u`, `x5c`) are never looked at.
"""

import base64
import binascii
import re
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from broker.core import wire
from broker.core.shape import is_array, is_object
from broker.identity.credential import MAX_SIZE
from broker.identity.jwk import MAX_ID, PublicKey

LEEWAY: Final = 60.0
"""Seconds by which the clock of an issuer may be ahead of ours: a fresh token must not come from the future. Nothing is
added to `exp`: a token that has expired is at most refreshed a little early (I-08)."""
MAX_SUBJECT: Final = 256
"""Characters of a `sub`."""
_LIMITS: Final = wire.Limits(size=MAX_SIZE, depth=16, nodes=5_000)
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
"""Values of `typ` that an access token has. A logout token, an event or a DPoP proof of the same issuer is none."""
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_JWS: Final = jwt.PyJWS()


class BadToken(Exception):
    """The token is not good. The text is for the log; nobody else hears it."""


class Expired(BadToken):
    """It was good once: nobody has guessed anything."""


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token that has the form of one."""

    text: str
    algorithm: str
    key_id: str | None
    issuer: str
    claims: Mapping[str, Any]


def read(text: str) -> Unverified | None:
    """A token in its three parts; None for a text that is none at all. Raises: BadToken, for a malformed one."""
    parts = text.split(".")
    if len(parts) != 3 or not all(_SEGMENT.fullmatch(part) for part in parts):
        return None
    header, claims = (_object(part) for part in parts[:2])
    algorithm, key_id, kind, issuer = header.get("alg"), header.get("kid"), header.get("typ"), claims.get("iss")
    if not isinstance(algorithm, str) or not isinstance(issuer, str):
        raise BadToken("no alg, or no iss")
    if "crit" in header or "b64" in header:
        raise BadToken("an extension that is not understood")
    if kind is not None and not (isinstance(kind, str) and kind.lower() in _TYPES):
        raise BadToken("typ is not that of an access token")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= MAX_ID):
        raise BadToken("kid is not a text")
    return Unverified(text, algorithm, key_id, issuer, claims)


def _object(part: str) -> dict[str, Any]:
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        return wire.decode_object(raw, _LIMITS)
    except (binascii.Error, ValueError):
        raise BadToken("not base64url of strict JSON") from None


def check_signature(token: Unverified, key: PublicKey) -> None:
    """Raises: BadToken."""
    if token.algorithm not in key.algorithms:
        raise BadToken("the key is not for this algorithm")
    options: Any = {"verify_signature": True, "enforce_minimum_key_length": True}
    try:
        _JWS.decode_complete(token.text, key.key, [token.algorithm], options)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise BadToken("the signature does not hold") from None


def check_claims(claims: Mapping[str, Any], issuer: str, audiences: Container[str], now: float) -> None:
    """Whether the token was made by this issuer, for us, for now. `now`: seconds since 1970.

    Raises: BadToken; Expired, if nothing else is wrong with it.
    """
    if claims.get("iss") != issuer:
        raise BadToken("another issuer")
    audience = claims.get("aud")
    given = audience if is_array(audience) else [audience]
    if not any(isinstance(one, str) and one in audiences for one in given):
        raise BadToken("made for another audience")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise BadToken("no sub")
    for name in ("nbf", "iat"):
        if name in claims and _seconds(claims, name) > now + LEEWAY:
            raise BadToken(f"{name} lies in the future")
    if now >= _seconds(claims, "exp"):
        raise Expired("expired")


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise BadToken(f"{name} is no time")
    return value


def expiry(claims: Mapping[str, Any]) -> float:
    """`exp` of claims that were checked."""
    return _seconds(claims, "exp")


def texts(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """What a claim says: a text, or a list of texts; () for anything else. `path`: its name, or, if there is none of
    that name, the way to it through objects, with dots.
    """
    value: object = claims.get(path)
    if path not in claims:
        value = claims
        for step in path.split("."):
            value = value.get(step) if is_object(value) else None
    if isinstance(value, str):
        return (value,)
    return tuple(one for one in value if isinstance(one, str)) if is_array(value) else ()


def scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes of a token: `scope`, texts separated by spaces, or `scp`, the same or a list."""
    found: Collection[str] = (*texts(claims, "scope"), *texts(claims, "scp"))
    return frozenset(scope for text in found for scope in text.split())
