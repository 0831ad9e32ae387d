"""What a front asks, and what it gets: an `Admission`, or a `Refusal`. There is no third (I-03)."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.core.caller import Caller


class Fields(Protocol):
    """The header fields of a request, by lower-case name."""

    @property
    def duplicated(self) -> Container[str]:
        """Names that came more than once."""
        ...

    def get(self, name: str, /) -> str | None:
        """The first value."""
        ...


class Asking(Protocol):
    """What identity reads of a request, which is of its head: never its path or its `Host`."""

    @property
    def headers(self) -> Fields:
        """See `Fields`."""
        ...

    @property
    def query(self) -> bytes:
        """Without its `?`, as it was sent."""
        ...

    mark: bytes | None
    """What `credential.mark_of` has made of these same fields before; None: not yet."""


def always() -> bool:
    """Nothing ends it."""
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """A caller, and what is asked while something of it is open. Both questions are cheap, and wait for nothing.

    `is_in_force`: whether the credential that it came with would still be admitted. `may_return`: whether the same
    caller could come with another one, as with a token that was renewed; if not, its sessions end too.
    """

    caller: Caller
    is_in_force: Callable[[], bool]
    may_return: Callable[[], bool] = always


class Refusal(Exception):
    """Nobody is admitted. The message is for whoever asks: it never says which of several reasons it was."""

    status: int

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        """Seconds."""


class Ambiguous(Refusal):
    """More than one credential, or one at a place where none may be."""

    status = 400


class Unauthorized(Refusal):
    """No credential, or a bad one: unknown, expired, revoked and forged are one and the same answer."""

    status = 401

    def __init__(self, *, has_credential: bool, is_guess: bool = True) -> None:
        super().__init__("Unauthorized: a valid credential is needed")
        self.has_credential = has_credential
        self.is_guess = is_guess
        """Whether it counts as a failed attempt: a token that was good once does not."""


class Forbidden(Refusal):
    """A good credential of somebody who has no place here, or without a scope: `scopes` are all that are needed."""

    status = 403

    def __init__(self, message: str, scopes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.scopes = tuple(scopes)


class TooManyFailures(Refusal):
    """Too many bad credentials came from there, or in all."""

    status = 429

    def __init__(self, retry_after: float) -> None:
        super().__init__("Too many failed attempts: try again later", retry_after=retry_after)


class Crowded(Refusal):
    """A good credential of a caller that has as many connections as one may have."""

    status = 503

    def __init__(self, retry_after: float) -> None:
        super().__init__("Too many connections of this caller are open: try again later", retry_after=retry_after)


class Unverifiable(Refusal):
    """Whether the credential is good cannot be found out now: an issuer or a store is down, or we are at fault."""

    status = 503

    def __init__(self, retry_after: float = 5) -> None:
        super().__init__("The credential cannot be verified now: try again later", retry_after=retry_after)
