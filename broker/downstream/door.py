"""The one door of the HTTP fronts: who comes in, ahead of the body and of everything else (SP-79, I-20, I-21).

Host, then Origin, then who asks. A route is public, or behind this door; there is no third kind.
"""

import math

from broker.downstream.asgi import Http, HttpError
from broker.downstream.guard import Guard
from broker.errors import InvalidRequest, printable
from broker.identity.admission import Admission, Refusal
from broker.identity.identity import Identity


class Door:
    """See the module."""

    def __init__(self, guard: Guard, identity: Identity) -> None:
        self._guard = guard
        self._identity = identity

    def check_site(self, http: Http) -> None:
        """Where a request was sent to, and which page sent it. Raises: HttpError."""
        if "host" in http.headers.duplicated or not self._guard.allows_host(http.headers.get("host")):
            host = printable(http.headers.get("host") or "", 100)
            raise HttpError(421, InvalidRequest(f"Host {host!r} is not served here: see server.allowed_hosts"))
        if "origin" in http.headers.duplicated or not self._guard.allows_origin(http.headers.get("origin")):
            raise HttpError(403, InvalidRequest("this Origin is not allowed: see server.allowed_origins"))

    async def admit(self, http: Http, path: str) -> Admission:
        """Who asks. Raises: HttpError."""
        self.check_site(http)
        try:
            return self._identity.known(http) or await self._identity.admit(http)
        except Refusal as refusal:
            raise _answer(refusal) from None


def _answer(refusal: Refusal) -> HttpError:
    headers: list[tuple[bytes, bytes]] = []
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(math.ceil(refusal.retry_after)).encode()))
    return HttpError(refusal.status, InvalidRequest(refusal.message), headers)
