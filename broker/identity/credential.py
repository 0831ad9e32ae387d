"""The one credential of a request, as it was sent.

It stands in `Authorization: Bearer` or in `X-API-Key`; nothing else of a request says who asks: no path, no parameter,
no `X-User`, no `X-Forwarded-User` (I-14).
"""

import hashlib
import re
from typing import Final
from urllib.parse import parse_qsl

from broker.identity.admission import Ambiguous, Asking, Unauthorized

MAX_SIZE: Final = 16 * 1024
"""Characters. Tokens with many groups have eight thousand; more would be parsed for nothing."""
HEADERS: Final = ("authorization", "x-api-key")

_BEARER: Final = re.compile(r"(?i:bearer) ([A-Za-z0-9._~+/-]+=*)")  # RFC 6750 2.1
_KEY: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_PARAMETERS: Final = frozenset(
    {"accesstoken", "apikey", "xapikey", "authorization", "bearer", "bearertoken", "idtoken", "jwt", "key", "token"}
)
"""Names of parameters, less their case, `-` and `_`, in which people put credentials."""
_MAX_PARAMETERS: Final = 100


class Credential:
    """A text that is to be verified; it is neither printed nor kept."""

    __slots__ = ("is_bearer", "text")

    def __init__(self, text: str, *, is_bearer: bool) -> None:
        self.text = text
        self.is_bearer = is_bearer
        """Whether it came as a bearer token; tokens of an issuer come in no other way."""


def mark_of(asking: Asking) -> bytes | None:
    """SHA-256 of the whole field that has the credential, and of which field it is: what anything that is remembered of
    a credential stands under (I-04). It is not read for that: every request is asked for it. None: there is none.

    Raises: Ambiguous, for more than one, or for one in the query string.
    """
    if asking.mark is not None:
        return asking.mark
    found = _field_of(asking)
    if found is None:
        return None
    value, is_bearer = found
    # No field has a line break in it: what came in one is never what came in the other.
    asking.mark = hashlib.sha256((value if is_bearer else f"\n{value}").encode("latin-1", "replace")).digest()
    return asking.mark


def credential_of(asking: Asking) -> Credential | None:
    """The credential of a request; None if it has none.

    Raises: Ambiguous, for more than one, or for one in the query string; Unauthorized, for what can be none.
    """
    found = _field_of(asking)
    if found is None:
        return None
    value, is_bearer = found
    match = (_BEARER if is_bearer else _KEY).fullmatch(value)
    if match is None or len(match.string) > MAX_SIZE:
        raise Unauthorized(has_credential=True)
    return Credential(match[match.lastindex or 0], is_bearer=is_bearer)


def _field_of(asking: Asking) -> tuple[str, bool] | None:
    """The value of the one field that may have a credential, and whether it is `Authorization`. Raises: Ambiguous."""
    if asking.query:
        check_query(asking.query)
    headers = asking.headers
    authorization, key = headers.get("authorization"), headers.get("x-api-key")
    if authorization is None and key is None:
        return None
    if (authorization is not None and key is not None) or (
        headers.duplicated and any(name in headers.duplicated for name in HEADERS)
    ):
        raise Ambiguous("more than one credential: send Authorization or X-API-Key, once")
    return (authorization, True) if authorization is not None else (key or "", False)


def check_query(query: bytes) -> None:
    """Raises: Ambiguous, for a credential in the query string (SP-75)."""
    # Those who put a credential into a URL have it in the logs of every proxy: they should hear of it at once.
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise Ambiguous("too many parameters in the query string") from None
    for name, value in pairs:
        if name.lower().replace("-", "").replace("_", "") in _PARAMETERS or value.startswith("mcpb_"):
            raise Ambiguous("a credential in the query string is refused: send it in the Authorization header")
