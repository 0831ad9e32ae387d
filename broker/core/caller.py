"""Who asks."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf


class Role(StrEnum):
    """What a caller may administer, not what it may call: grants alone say that."""

    MEMBER = "member"
    TEAM_ADMIN = "team-admin"
    ORG_ADMIN = "org-admin"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified identity. There is no empty one: a request without a caller is never dispatched.

    It names its place (organization, team, key). What the place may do is looked up in the current `Policy` at each
    decision, so that a new policy is in force at once, also for open sessions and streams.
    """

    principal: str
    """`local`, `key:<id>` (a key of the file: `key:<organization>/<team>/<name>`) or `jwt:<issuer> <subject>`.

    It stays the same over refreshed tokens and rotated keys, so that sessions and cursors can be bound to it; it is
    text for logs and audit too, never a secret.
    """
    organization: str = ""
    """"" only for `LOCAL`: anybody else without one is denied."""
    team: str = ""
    """"" for who stands directly in the organization."""
    key: str = ""
    """The key's id (a key of the file: its name); "" for users."""
    role: Role = Role.MEMBER
    scopes: frozenset[str] = frozenset()
    """Of a token."""
    expires: float = inf
    """Seconds since 1970, when the credential ends, and open streams with it."""


LOCAL = Caller("local", role=Role.ADMIN)
"""The user of this machine: who starts us on stdio, or reaches us over loopback while no credential source is set."""
