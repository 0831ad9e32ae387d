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
    """A text that is to be verified; it is neither printed nor kept: what is kept is its `digest`.

    Slots and no dataclass: every request makes one.
    """

    __slots__ = ("digest", "is_bearer", "text")

    def __init__(self, text: str, *, is_bearer: bool) -> None:
        self.text = text
        self.is_bearer = is_bearer
        """Whether it came as a bearer token; tokens of an issuer come in no other way."""
        self.digest = hashlib.sha256(text.encode("ascii")).digest()
        """SHA-256 of the whole text: what anything that is remembered of it stands under (I-04)."""


def check_query(asking: Asking) -> None:
    """Raises: Ambiguous, for a credential in the query string (SP-75)."""
    if asking.query:
        _refuse_parameters(asking.query)


def credential_of(asking: Asking) -> Credential | None:
    """The credential of a request; None if it has none.

    Raises: Ambiguous, for more than one, or for one in the query string; Unauthorized, for what can be none.
    """
    check_query(asking)
    headers = asking.headers
    authorization, key = headers.get("authorization"), headers.get("x-api-key")
    if authorization is None and key is None:
        return None
    if (authorization is not None and key is not None) or (
        headers.duplicated and any(name in headers.duplicated for name in HEADERS)
    ):
        raise Ambiguous("more than one credential: send Authorization or X-API-Key, once")
    match = _KEY.fullmatch(key) if key is not None else _BEARER.fullmatch(authorization or "")
    if match is None or len(match.string) > MAX_SIZE:
        raise Unauthorized(has_credential=True)
    return Credential(match[match.lastindex or 0], is_bearer=key is None)


def _refuse_parameters(query: bytes) -> None:
    # Those who put a credential into a URL have it in the logs of every proxy: they should hear of it at once.
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise Ambiguous("too many parameters in the query string") from None
    for name, value in pairs:
        if name.lower().replace("-", "").replace("_", "") in _PARAMETERS or value.startswith("mcpb_"):
            raise Ambiguous("a credential in the query string is refused: send it in the Authorization header")
