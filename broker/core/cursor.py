"""Cursors of merged lists: opaque, and good only for the caller, view and list they were made for (SP-45).

A cursor names the last entry of a page, not a position, so that an upstream that comes or goes between two pages
neither repeats nor skips what the others serve.
"""

import base64
import binascii
import hashlib
import hmac

_MAC_LENGTH = 16


def seal(key: bytes, scope: str, last: str) -> str:
    """A cursor behind the entry `last`. `scope` is all that it must be bound to, as text."""
    payload = last.encode()
    return _text(_mac(key, scope, payload) + payload)


def unseal(key: bytes, scope: str, cursor: object) -> str | None:
    """The entry that a page begins behind, or None for anything that `seal` did not make for this scope."""
    if not isinstance(cursor, str):
        return None
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    mac, payload = raw[:_MAC_LENGTH], raw[_MAC_LENGTH:]
    # Several texts decode to the same bytes: only the one that `seal` makes is a cursor.
    if not hmac.compare_digest(mac, _mac(key, scope, payload)) or _text(raw) != cursor:
        return None
    return payload.decode()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _mac(key: bytes, scope: str, payload: bytes) -> bytes:
    text = scope.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(len(text).to_bytes(4, "big") + text + payload, key=key, digest_size=_MAC_LENGTH).digest()
