"""State that a caller carries for us, sealed: it can neither read it nor change it, nor use it anywhere else.

`Claims` say what a state is good for. Spec: 2026-07-28 basic/patterns/mrtr, "Server Requirements": the principal, a
short expiry and the originating request are inside the protected payload, and each is verified (SP-57..SP-59).
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_SIZE: Final = 12
_KEY_ID_SIZE: Final = 4
_PREFIX: Final = "b1."


class Unsealable(ValueError):
    """The state is not ours, or not for this. The text is for the log only: callers get one frozen answer."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a state is bound to, and what it carries.

    `digest` is that of the arguments as they were judged, `asked` that of those that the caller sent; `expires` is
    wall-clock seconds; `serial` makes each state good for one use.
    `inner` is the upstream's own state, byte-exact; `parked` the id of a call that waits here.
    """

    principal: str
    server: str
    method: str
    name: str
    digest: str
    asked: str
    expires: float
    serial: str
    inner: str | None = None
    parked: str | None = None

    def refuse_other_use(self, other: "Claims", now: float) -> None:
        """Raises: Unsealable, unless `other` (what the retry is) is what this state was made for."""
        if now >= self.expires:
            raise Unsealable("expired")
        for claim in ("principal", "server", "method", "name", "digest"):
            if getattr(self, claim) != getattr(other, claim):
                raise Unsealable(f"another {claim}")


def digest_of(arguments: Mapping[str, Any] | None) -> str:
    """A digest of arguments, the same for the same JSON value whatever the order of its keys."""
    # Not orjson: it knows no integer beyond 64 bits, and arguments may have one.
    return hashlib.sha256(json.dumps(arguments or {}, sort_keys=True).encode()).hexdigest()


class Sealer:
    """Authenticated encryption under a ring of keys (32 bytes each): the first seals, all unseal."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ring = {hashlib.sha256(b"key id" + key).digest()[:_KEY_ID_SIZE]: AESGCM(key) for key in keys}
        self._current = next(iter(self._ring))

    def seal(self, claims: Claims, nonce: bytes) -> str:
        """An opaque text. `nonce`: 12 random bytes, never used twice."""
        payload = orjson.dumps(asdict(claims))
        box = self._ring[self._current].encrypt(nonce, payload, _PREFIX.encode() + self._current)
        return _PREFIX + base64.urlsafe_b64encode(self._current + nonce + box).decode().rstrip("=")

    def unseal(self, text: object) -> Claims:
        """Raises: Unsealable, for anything that `seal` did not make."""
        if not isinstance(text, str) or not text.startswith(_PREFIX):
            raise Unsealable("not a state of ours")
        body = text[len(_PREFIX) :]
        try:
            raw = base64.b64decode(body.encode("ascii") + b"=" * (-len(body) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise Unsealable("not base64") from None
        # Decoders forgive spare bits, padding and the other alphabet; one state has one text.
        if base64.urlsafe_b64encode(raw).decode().rstrip("=") != body:
            raise Unsealable("not the text that was given out")
        key_id, nonce, box = (
            raw[:_KEY_ID_SIZE],
            raw[_KEY_ID_SIZE : _KEY_ID_SIZE + NONCE_SIZE],
            raw[_KEY_ID_SIZE + NONCE_SIZE :],
        )
        key = self._ring.get(key_id)
        if key is None:
            raise Unsealable("an unknown key")
        try:
            payload = key.decrypt(nonce, box, _PREFIX.encode() + key_id)
        except (InvalidTag, ValueError):
            raise Unsealable("tampered with") from None
        try:
            return Claims(**orjson.loads(payload))
        except (TypeError, ValueError):
            raise Unsealable("of another version") from None
