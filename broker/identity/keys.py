"""API keys: their form, their keyed hash, and the table that says whose a presented key is.

    mcpb_<id: 12 of a-z2-7>_<secret: 43 of base64url, which is 256 random bits>

The id is no secret: it is in lists, logs and the audit. Of the whole text only HMAC-SHA-256 under the key secret is
kept, so that whoever reads the database can neither use a key nor try guesses against it. All of this is pure: what is
random is an argument, and the key secret comes from `key_secret.py`.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from broker.config import Secret
from broker.core.caller import Caller
from broker.core.directory import Directory, Source

PREFIX: Final = "mcpb_"
ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
ENTROPY: Final = ID_BYTES + SECRET_BYTES
"""Random bytes that `mint` needs."""
_ID_LENGTH: Final = 12
_TEXT = re.compile(r"mcpb_([a-z2-7]{12})_[A-Za-z0-9_-]{43}")
HASH = re.compile(r"[0-9a-f]{64}")
"""The form of a stored hash."""


class BadKey(Exception):
    """The key is not good. `why` is for the log (never the caller, who gets one answer for all of them), and names
    the key only if the whole text of it was presented; no part of a wrong text is in it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key. `text` is shown once, to whoever asked for it."""

    id: str
    text: Secret


@dataclass(frozen=True, slots=True)
class Holder:
    """Who presents the text whose hash is `digest`. `caller.expires`: when that text stops being good, which is the end
    of the key, or of this text of it if the key was rotated since."""

    digest: str
    caller: Caller
    is_revoked: bool = False
    source: Source = Source.FILE


_NOBODY: Final = Holder("0" * 64, Caller("nobody"), is_revoked=True)
"""Compared with where nothing is known, so that a known and an unknown key take the same way."""


def mint(entropy: bytes, key_id: str | None = None) -> Minted:
    """A new key; with `key_id`, a new text for that key. `entropy`: `ENTROPY` random bytes, never used twice."""
    if len(entropy) != ENTROPY:
        raise ValueError(f"{ENTROPY} random bytes are needed")
    made = key_id or base64.b32encode(entropy[:ID_BYTES]).decode().lower()[:_ID_LENGTH]
    secret = base64.urlsafe_b64encode(entropy[ID_BYTES:]).decode().rstrip("=")
    return Minted(made, Secret(f"{PREFIX}{made}_{secret}"))


def id_in(text: str) -> str | None:
    """The id that a text claims to have, or None if it has not the form of a key."""
    found = _TEXT.fullmatch(text)
    return None if found is None else found[1]


def hash_of(text: str, key_secret: Secret) -> str:
    """What is stored of a key: 64 of 0-9a-f."""
    return hmac.new(key_secret.reveal().encode(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _holders(directory: Directory) -> Iterator[Holder]:
    for place in directory.places():
        caller = place.caller
        for one in place.key.hashes:
            ends = min(caller.expires, one.not_after)
            yield Holder(one.hex, replace(caller, expires=ends), place.key.revoked, place.key.source)


class KeyTable:
    """Every key that is known, by hash. Immutable: a change makes a new table."""

    def __init__(self, key_secret: Secret, holders: Iterable[Holder] = ()) -> None:
        """A hash that comes twice belongs to nobody: one of the two would get the rights of the other."""
        self._key_secret = key_secret
        self._holders: dict[str, Holder] = {}
        twice: set[str] = set()
        for holder in holders:
            if self._holders.setdefault(holder.digest, holder) is not holder:
                twice.add(holder.digest)
        for digest in twice:
            del self._holders[digest]

    @classmethod
    def of(cls, key_secret: Secret, directory: Directory) -> "KeyTable":
        """The keys of a directory."""
        return cls(key_secret, _holders(directory))

    def __len__(self) -> int:
        return len(self._holders)

    def __repr__(self) -> str:
        return f"KeyTable({len(self)} hashes)"

    def verify(self, text: str, now: float) -> Holder:
        """Whose key this is. `now`: wall-clock seconds.

        Raises: BadKey, the same for a text that is no key, an unknown one, a revoked and an expired one.
        """
        if _TEXT.fullmatch(text) is None:
            raise BadKey("not a key")
        digest = hash_of(text, self._key_secret)
        holder = self._holders.get(digest, _NOBODY)
        if not hmac.compare_digest(digest, holder.digest):
            raise BadKey("unknown key")
        if holder.is_revoked:
            raise BadKey(f"{holder.caller.principal} is revoked")
        if now >= holder.caller.expires:
            raise BadKey(f"{holder.caller.principal} has expired")
        return holder

    def is_in_force(self, holder: Holder, now: float) -> bool:
        """Whether what an earlier table verified is still so: same key, same place, same role, neither revoked nor
        expired. Cheap: for open streams, and for credentials that are remembered."""
        found = self._holders.get(holder.digest)
        # The same object, as long as the table is the same: that is what a call meets.
        return (found is holder or found == holder) and not holder.is_revoked and now < holder.caller.expires

    def is_anyone(self, principal: str, now: float) -> bool:
        """Whether any text at all would bring this principal in: not that of a key that is revoked or has expired."""
        return any(
            holder.caller.principal == principal and self.is_in_force(holder, now) for holder in self._holders.values()
        )
