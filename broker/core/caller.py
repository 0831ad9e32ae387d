"""Who asks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified identity. There is no empty one: a request without a caller is never dispatched.

    `principal` stays the same over refreshed tokens and rotated keys, so that sessions and cursors can be
    bound to it; it is text for logs and audit too, never a secret.
    """

    principal: str


LOCAL = Caller("local")
"""The user of this machine: who starts us on stdio, or reaches us over loopback while no credential source is set."""
