"""Where a caller stands: the levels above it, or the rule that denies it everything."""

import hashlib
from dataclasses import dataclass, field

from broker.core.caller import LOCAL, Caller
from broker.core.directory import Directory
from broker.core.grants import Level, key_level, organization_level, team_level
from broker.core.ruling import Ruling, Tier, denied

_JWT = "jwt:"


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """The levels of a place, from the organization down. Callers at one place, and at places below it that say nothing
    of their own, share one: it is the key under which views and rulings are kept.
    """

    tiers: tuple[Tier, ...] = ()
    refusal: Ruling | None = None
    """Why everything is denied, at a place that the directory does not (any more) know."""
    mark: str = ""
    """A digest of the levels: it changes when they do. Cursors are bound to it."""
    rulings: dict[object, Ruling] = field(default_factory=dict[object, Ruling], repr=False)
    """Kept by `Policy`."""


_Scopes = tuple[str, frozenset[str]]


class Standings:
    """The standings over one directory. `before`: those over the one that it replaces; where the levels are the same
    the standing is too, with all that was computed for it: most changes concern one key.
    """

    def __init__(self, directory: Directory, before: "Standings | None" = None) -> None:
        self._directory = directory
        self._local = Standing() if before is None else before._local
        self._of_place: dict[object, Standing] = {}
        self._by_mark: dict[str, Standing] = {}
        self._before: dict[str, Standing] = {} if before is None else before._by_mark

    def of(self, caller: Caller) -> Standing:
        """The standing of a caller, the same object each time. LOCAL has no levels; nobody else is without a place."""
        if not caller.organization:
            return self._local if caller.principal == LOCAL.principal else _UNPLACED
        scopes = self._scopes(caller) if self._directory.scopes else None
        place = (caller.organization, caller.team, caller.key, scopes)
        found = self._of_place.get(place)
        if found is None:
            found = self._stand(caller, scopes)
            if found.refusal is None:  # tokens may name any number of places that do not exist
                self._of_place[place] = found
        return found

    def forget_rulings(self) -> None:
        """Let all rulings be made anew."""
        for standing in (self._local, *self._by_mark.values()):
            standing.rulings.clear()

    def _scopes(self, caller: Caller) -> _Scopes | None:
        """The issuer of a token, and those of its scopes that the issuer maps; None if it maps none."""
        if not caller.principal.startswith(_JWT):
            return None
        issuer = caller.principal.removeprefix(_JWT).partition(" ")[0]
        known = self._directory.scopes.get(issuer)
        return None if known is None else (issuer, caller.scopes.intersection(known))

    def _stand(self, caller: Caller, scopes: _Scopes | None) -> Standing:
        levels = self._levels(caller)
        if isinstance(levels, Ruling):
            return Standing(refusal=levels)
        tiers = [Tier.from_level(level) for level in levels if not level.is_silent]
        if scopes is not None:
            tiers.append(Tier.from_scopes(scopes[0], self._directory.scopes[scopes[0]], scopes[1]))
        mark = hashlib.blake2b(repr(tiers).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
        found = self._by_mark.get(mark) or self._before.get(mark) or Standing(tuple(tiers), mark=mark)
        return self._by_mark.setdefault(mark, found)

    def _levels(self, caller: Caller) -> list[Level] | Ruling:
        """The levels of the caller's place, from the organization down, or why there is none."""
        organization = self._directory.organizations.get(caller.organization)
        if organization is None or organization.level is None:
            return _refused(organization_level(caller.organization), "unknown", "there is no such organization")
        levels, keys = [organization.level], organization.keys
        if caller.team:
            team = organization.teams.get(caller.team)
            if team is None or team.level is None:
                where = team_level(caller.organization, caller.team)
                return _refused(where, "unknown", "there is no such team in the organization")
            levels, keys = [*levels, team.level], team.keys
        if caller.key:
            key = keys.get(caller.key)
            if key is None:
                where = key_level(caller.organization, caller.team, caller.key)
                return _refused(where, "unknown", "there is no such key at this place")
            if key.revoked:
                return _refused(key.level, "revoked", "the key was revoked")
            levels = [*levels, key.level]
        return levels


def _refused(level: Level, word: str, reason: str) -> Ruling:
    return denied(f"{level.where}/{word}", reason)


_UNPLACED = Standing(refusal=denied("unplaced", "the caller belongs to no organization"))
