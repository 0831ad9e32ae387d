"""The broker as a protected resource of OAuth: what it tells a caller without a good credential, and where.

All of it is made from the configured public URL, never from `Host` or a forwarded header, so that nobody can send a
caller to an issuer of his own (SP-74). Spec: RFC 9728; RFC 6750 3; 2026-07-28 basic/authorization.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.identity.admission import Forbidden, Refusal, Unauthorized

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_PATH: Final = re.compile(rf"{WELL_KNOWN}(?P<resource>/mcp(?:/[a-z][a-z0-9-]{{0,31}})?|/sse)?")
_DEFAULT: Final = "/mcp"


@dataclass(frozen=True, slots=True)
class Resource:
    """`issuers`: who makes tokens for us, in order; `scopes`: those that each of them must put in, if all agree."""

    public_url: str = ""
    issuers: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    name: str = "mcp-broker"

    @classmethod
    def of(cls, public_url: str | None, issuers: Sequence[tuple[str, tuple[str, ...]]], name: str) -> "Resource":
        """`issuers`: each with the scopes it must put into a token."""
        needed = {scopes for _, scopes in issuers}
        scopes = needed.pop() if len(needed) == 1 else ()
        return cls(public_url or "", tuple(issuer for issuer, _ in issuers), scopes, name)

    def document(self, path: str) -> dict[str, Any] | None:
        """The metadata at a path; None where there is none.

        A view that does not exist has some too: which ones exist is no business of the public.
        """
        match = _PATH.fullmatch(path)
        if match is None or not self.issuers:
            return None
        found: dict[str, Any] = {
            "resource": self.public_url + (match["resource"] or _DEFAULT),
            "authorization_servers": list(self.issuers),
            "bearer_methods_supported": ["header"],
            "resource_name": self.name,
        }
        return {**found, "scopes_supported": list(self.scopes)} if self.scopes else found

    def challenge(self, refusal: Refusal, path: str) -> str | None:
        """`WWW-Authenticate` for a refusal of a request to `path`; None for one that no credential would help."""
        scopes = self.scopes
        error = ""
        if isinstance(refusal, Forbidden):
            if not refusal.scopes:
                return None
            scopes, error = refusal.scopes, "insufficient_scope"
        elif not isinstance(refusal, Unauthorized):
            return None
        elif refusal.has_credential:
            error = "invalid_token"
        found = {"realm": "mcp-broker", "error": error, "scope": " ".join(scopes)}
        if self.issuers:
            resource = "/sse" if path == "/messages" else path
            found["resource_metadata"] = f"{self.public_url}{WELL_KNOWN}{resource}"
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in found.items() if value)
