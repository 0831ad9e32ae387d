"""The public keys of an issuer, as a value: a JWK set (RFC 7517), less what must not be trusted.

Only asymmetric keys count. A symmetric key in a public set, or a private one, is no secret any more; a key is used with
the algorithms of its type only, so that a public key is never taken for the secret of an HMAC (RFC 8725 3.1).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from broker.core.shape import is_array, is_object

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_TYPE: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""`kty` and `crv` of a key -> the algorithms it is for."""
MAX_KEYS: Final = 100
"""Keys of a set that are looked at. Issuers have two or three."""
MAX_ID: Final = 256
"""Characters of a `kid`. It is compared, never used as a path or a URL."""
RSA_BITS: Final = range(2048, 8193)
"""Shorter ones can be broken; longer ones make each check of a signature expensive."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key, and the algorithms it may be used with."""

    id: str | None
    algorithms: frozenset[str]
    key: Any
    """As `cryptography` has it."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer."""

    keys: tuple[PublicKey, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any], allowed: Collection[str]) -> "KeySet":
        """The usable keys of `{"keys": [...]}`; a key that is not one is left out. Raises: ValueError, for no set."""
        items = document.get("keys")
        if not is_array(items):
            raise ValueError("no member keys")
        found = (_key(item, allowed) for item in items[:MAX_KEYS] if is_object(item))
        return cls(tuple(key for key in found if key is not None))

    def find(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """The key for a token with this header. Without a `kid` the choice must be no choice (OpenID Connect 10.1)."""
        fitting = [key for key in self.keys if algorithm in key.algorithms and (key_id is None or key.id == key_id)]
        return fitting[0] if len(fitting) == 1 else None

    def knows(self, key_id: str | None) -> bool:
        """Whether there is any point in fetching the set again for a token that names this key: not if it is here."""
        return key_id is not None and any(key.id == key_id for key in self.keys)


def _key(item: Mapping[str, Any], allowed: Collection[str]) -> PublicKey | None:
    key_id, kind, curve, algorithm = (_text(item.get(name)) for name in ("kid", "kty", "crv", "alg"))
    uses, operations = item.get("use"), item.get("key_ops")
    if len(key_id) > MAX_ID or "d" in item or "k" in item or uses not in (None, "sig"):
        return None
    if operations is not None and not (is_array(operations) and "verify" in operations):
        return None
    algorithms = _BY_TYPE.get((kind, "" if kind == "RSA" else curve), frozenset()).intersection(allowed)
    if "alg" in item:
        algorithms = algorithms & {algorithm}
    if not algorithms:
        return None
    try:
        key: Any = jwt.PyJWK(cast(dict[str, Any], item), min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size not in RSA_BITS:
        return None
    return PublicKey(key_id if "kid" in item else None, algorithms, key)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
