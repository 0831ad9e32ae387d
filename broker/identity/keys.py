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
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from broker.config import Secret
from broker.core.caller import Caller
from broker.core.directory import Directory, Key, Place, Source

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


class KeyTable:
    """Every key that is known, by hash. Immutable: a change makes a new table.

    Made anew at each change, with every request waiting: so each of hundreds of thousands is only put into a table, and
    becomes a holder when somebody presents it.
    """

    def __init__(self, key_secret: Secret, directory: Directory) -> None:
        """A hash that comes twice belongs to nobody: one of the two would get the rights of the other."""
        self.mark = object()
        """What stands for this table where the table itself would be kept too long."""
        self._key_secret = key_secret
        self._keys: dict[str, Key] = {}
        self._places: dict[str, tuple[str, str]] = {}
        """Organization and team."""
        self._holders: dict[str, Holder] = {}
        """Those that were asked for."""
        twice: set[str] = set()
        for organization, team, keys in directory.keys_by_place():
            place = (organization, team)
            for key in keys:
                for one in key.hashes:
                    if one.hex in self._keys:
                        twice.add(one.hex)
                    self._keys[one.hex] = key
                    self._places[one.hex] = place
        for digest in twice:
            del self._keys[digest]

    @cached_property
    def _by_principal(self) -> dict[str, list[str]]:
        """Hashes. Made when first asked for: that is when somebody's credential has ended."""
        found: dict[str, list[str]] = {}
        for digest, key in self._keys.items():
            found.setdefault(key.principal, []).append(digest)
        return found

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyTable({len(self)} hashes)"

    def verify(self, text: str, now: float) -> Holder:
        """Whose key this is. `now`: wall-clock seconds.

        Raises: BadKey, the same for a text that is no key, an unknown one, a revoked and an expired one.
        """
        if _TEXT.fullmatch(text) is None:
            raise BadKey("not a key")
        digest = hash_of(text, self._key_secret)
        holder = self._holder(digest) or _NOBODY
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
        found = self._holder(holder.digest)
        # The same object, as long as the table is the same: that is what a call meets.
        return (found is holder or found == holder) and not holder.is_revoked and now < holder.caller.expires

    def is_anyone(self, principal: str, now: float) -> bool:
        """Whether any text at all would bring this principal in: not that of a key that is revoked or has expired."""
        holders = map(self._holder, self._by_principal.get(principal, ()))
        return any(holder is not None and self.is_in_force(holder, now) for holder in holders)

    def _holder(self, digest: str) -> Holder | None:
        found = self._holders.get(digest)
        if found is None and digest in self._keys:
            key = self._keys[digest]
            caller = Place(*self._places[digest], key).caller
            ends = next(one.not_after for one in key.hashes if one.hex == digest)
            caller = replace(caller, expires=min(caller.expires, ends))
            found = self._holders[digest] = Holder(digest, caller, key.revoked, key.source)
        return found
