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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from broker.config import Secret
from broker.core.caller import Caller
from broker.core.directory import Directory, Hashes, Key, Place, Source, hashes_in
from broker.core.roll import Roll

PREFIX: Final = "mcpb_"
ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
ENTROPY: Final = ID_BYTES + SECRET_BYTES
"""Random bytes that `mint` needs."""
_ID_LENGTH: Final = 12
_TEXT = re.compile(r"mcpb_[a-z2-7]{12}_[A-Za-z0-9_-]{43}")
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


def hash_of(text: str, key_secret: Secret) -> str:
    """What is stored of a key: 64 of 0-9a-f."""
    return hmac.new(key_secret.reveal().encode(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


class KeyTable:
    """Every key that is known, by hash. Immutable: a change makes a new table.

    Made anew at each change, with every request waiting: so each of hundreds of thousands is only put into a table, and
    becomes a holder when somebody presents it; and of the places whose keys are still those that the table `before`
    had, what that knew is taken as it is.
    """

    def __init__(self, key_secret: Secret, directory: Directory, before: "KeyTable | None" = None) -> None:
        """A hash that comes twice belongs to nobody: one of the two would get the rights of the other."""
        self.mark = object()
        """What stands for this table where the table itself would be kept too long."""
        self._key_secret = key_secret
        self._rolls = {(organization, team): roll for organization, team, roll in directory.rolls()}
        self._holders: dict[str, Holder] = {}
        """Those that were asked for."""
        followed = None if before is None else _followed(before, self._rolls)
        self._places, self._has_twice = (followed, False) if followed is not None else _placed(self._rolls)
        """Organization and team of each hash; whether any was left out."""

    def __len__(self) -> int:
        return len(self._places)

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
        found = (one for roll in self._rolls.values() for one in roll.derived(_by_principal).get(principal, ()))
        return any(holder is not None and self.is_in_force(holder, now) for holder in map(self._holder, found))

    def _holder(self, digest: str) -> Holder | None:
        found = self._holders.get(digest)
        if found is None and (place := self._places.get(digest)) is not None:
            key = self._rolls[place].derived(hashes_in).keys[digest]
            caller = Place(*place, key).caller
            ends = next(one.not_after for one in key.hashes if one.hex == digest)
            caller = replace(caller, expires=min(caller.expires, ends))
            found = self._holders[digest] = Holder(digest, caller, key.revoked, key.source)
        return found


_Where = tuple[str, str]
"""Organization and team."""


def _placed(rolls: Mapping[_Where, Roll[Key]]) -> tuple[dict[str, _Where], bool]:
    """The place of each hash that comes once; whether any comes twice."""
    places: dict[str, _Where] = {}
    twice: set[str] = set()
    for place, roll in rolls.items():
        found = roll.derived(hashes_in)
        twice |= found.twice
        twice |= places.keys() & found.keys.keys()
        places.update(dict.fromkeys(found.keys, place))
    for digest in twice:
        del places[digest]
    return places, bool(twice)


def _followed(before: KeyTable, rolls: Mapping[_Where, Roll[Key]]) -> dict[str, _Where] | None:
    """The same, by what is another than in the table before; None if a hash comes twice in one of them."""
    if before._has_twice:  # pyright: ignore[reportPrivateUsage]
        return None
    known = before._rolls  # pyright: ignore[reportPrivateUsage]
    places = before._places.copy()  # pyright: ignore[reportPrivateUsage]
    changed = [place for place in {**known, **rolls} if known.get(place) is not rolls.get(place)]
    sides = [(place, _hashes_at(known, place), _hashes_at(rolls, place)) for place in changed]
    # First what is gone: a key that was moved is gone at one place, and new at another.
    for _, old, new in sides:
        for digest in old.keys.keys() - new.keys.keys():
            del places[digest]
    for place, old, new in sides:
        come = new.keys.keys() - old.keys.keys()
        if new.twice or not places.keys().isdisjoint(come):
            return None
        places.update(dict.fromkeys(come, place))
    return places


def _hashes_at(rolls: Mapping[_Where, Roll[Key]], place: _Where) -> Hashes:
    return rolls[place].derived(hashes_in) if place in rolls else _NO_HASHES


def _by_principal(roll: Roll[Key]) -> dict[str, list[str]]:
    """For `Roll.derived`: hashes. Made when first asked for: that is when somebody's credential has ended."""
    found: dict[str, list[str]] = {}
    for key in roll.values():
        found.setdefault(key.principal, []).extend([one.hex for one in key.hashes])
    return found


_NO_HASHES: Final = Hashes({}, frozenset())
