"""An issuer of tokens for tests: its keys, and, where a test wants one, its site (tests/outbound/site.py)."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.outbound.site import Page, Site

NOW = 1_800_000_000.0
"""Where the tests' clocks begin: a time that no real clock has."""
AUDIENCE = "https://broker.example/mcp"
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def new_key(algorithm: str, bits: int = 2048) -> Any:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm]())
    return rsa.generate_private_key(65537, bits)


def jwk_of(key: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    """The public half, as it stands in a set."""
    kind = jwt.get_algorithm_by_name(algorithm)
    return {**json.loads(kind.to_jwk(key.public_key())), **more}


def pem_of(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def segment(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass
class Issuer:
    """See the module. `keys` are its signing keys by kid, with their algorithms."""

    url: str
    keys: dict[str, tuple[Any, str]] = field(default_factory=dict[str, tuple[Any, str]])

    @classmethod
    def new(cls, url: str = "https://login.example", algorithm: str = "ES256") -> "Issuer":
        return cls(url, {"one": (new_key(algorithm), algorithm)})

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [jwk_of(key, algorithm, kid=kid, use="sig") for kid, (key, algorithm) in self.keys.items()]}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good ones; a change of None takes a claim out."""
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": NOW - 5, "exp": NOW + 600}
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def sign(self, claims: dict[str, Any], kid: str = "one", **headers: Any) -> str:
        key, algorithm = self.keys[kid]
        header = {"kid": kid, "typ": "at+jwt", **headers}
        return jwt.encode(claims, key, algorithm, {name: value for name, value in header.items() if value is not None})

    def token(self, **changes: Any) -> str:
        return self.sign(self.claims(**changes))

    def publish(self, site: Site, path: str = "/.well-known/openid-configuration") -> None:
        """Put metadata and keys on a site."""
        site.pages[path] = Page.json({"issuer": self.url, "jwks_uri": f"{site.url}/keys"})
        site.pages["/keys"] = Page.json(self.jwks)
