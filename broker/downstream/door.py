"""The one door of the HTTP fronts: who comes in, ahead of the body and of everything else (SP-79, I-20, I-21).

Host, then Origin, then who asks. A route is public, or behind this door; there is no third kind.
"""

import math

from broker.core import wire
from broker.downstream.entrance import RETRY_AFTER
from broker.downstream.guard import Guard
from broker.downstream.web import JSON_HEADERS, Http, HttpError
from broker.errors import InvalidRequest, printable
from broker.identity.admission import Admission, Crowded, Refusal, Unauthorized
from broker.identity.identity import Identity
from broker.identity.resource import Resource
from broker.usage.audit import NO_AUDIT, Audit


class Door:
    """See the module. `resource`: what is told to those who have no good credential."""

    def __init__(self, guard: Guard, identity: Identity, resource: Resource, audit: Audit = NO_AUDIT) -> None:
        self._guard = guard
        self._identity = identity
        self._resource = resource
        self._audit = audit

    def adopt(self, guard: Guard, resource: Resource) -> None:
        """Other sites may ask, and something else is told to who has no good credential, from now on."""
        self._guard, self._resource = guard, resource

    @property
    def has_source(self) -> bool:
        """Whether callers must bring a credential."""
        return self._identity.has_source

    def check_site(self, http: Http) -> None:
        """Where a request was sent to, and which page sent it. Raises: HttpError."""
        if "host" in http.headers.duplicated or not self._guard.allows_host(http.headers.get("host")):
            host = printable(http.headers.get("host") or "", 100)
            raise HttpError(421, InvalidRequest(f"Host {host!r} is not served here: see server.allowed_hosts"))
        if "origin" in http.headers.duplicated or not self._guard.allows_origin(http.headers.get("origin")):
            raise HttpError(403, InvalidRequest("this Origin is not allowed: see server.allowed_origins"))
        http.head.site = self._guard

    def known(self, http: Http, path: str) -> Admission | None:
        """Who asks, if that is known without waiting; None: `admit` finds out. Raises: HttpError."""
        if http.head.site is not self._guard:
            self.check_site(http)
        try:
            admission = self._identity.known(http.head)
            if admission is None:
                return None
            principal = admission.caller.principal
            if http.wire.place.principal == principal or http.settle(principal):
                return admission
            raise Crowded(RETRY_AFTER)
        except Refusal as refusal:
            raise self._refused(refusal, http, path) from None

    async def admit(self, http: Http, path: str) -> Admission:
        """Who asks. Raises: HttpError."""
        self.check_site(http)
        try:
            admission = await self._identity.admit(http.head, http.peer)
            if http.settle(admission.caller.principal):
                return admission
            raise Crowded(RETRY_AFTER)
        except Refusal as refusal:
            raise self._refused(refusal, http, path) from None

    def _refused(self, refusal: Refusal, http: Http, path: str) -> HttpError:
        self._audit.admitted_not(http.peer, refusal.status, type(refusal).__name__)
        return self._answer(refusal, path)

    def expired(self, path: str) -> HttpError:
        """The answer to somebody who was admitted, and is not any more."""
        return self._answer(Unauthorized(has_credential=True), path)

    async def describe(self, http: Http, path: str) -> None:
        """The public metadata of the broker as a protected resource. Raises: HttpError, also if there is none."""
        document = self._resource.document(path)
        if document is None:
            raise HttpError(404)
        self.check_site(http)
        if http.method not in ("GET", "HEAD"):
            raise HttpError.not_allowed("GET")
        http.respond(200, wire.encode(document), JSON_HEADERS)

    def _answer(self, refusal: Refusal, path: str) -> HttpError:
        headers: list[tuple[bytes, bytes]] = []
        if refusal.retry_after is not None:
            headers.append((b"retry-after", str(math.ceil(refusal.retry_after)).encode()))
        challenge = self._resource.challenge(refusal, path)
        if challenge is not None:
            headers.append((b"www-authenticate", challenge.encode()))
        return HttpError(refusal.status, InvalidRequest(refusal.message), headers)
