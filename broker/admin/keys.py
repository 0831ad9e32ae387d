"""Keys: made, rotated, re-scoped, moved or revoked only by who holds a sufficient role in the key's team.

Nobody acts on a key with a higher role than their own: a rotated key is a key in the hands of who rotated it. An actor
whose own key is limited by rules of its own hands them on: what it makes or takes over is within them.
"""

from dataclasses import asdict, replace
from math import inf
from typing import Final

from broker.admin.authority import is_role_for
from broker.admin.desk import Changing, Desk, Office, acting, fixed, looking, named
from broker.admin.errors import Exists, Invalid, NotFound
from broker.admin.names import good_name
from broker.admin.rules import KEPT, Rules
from broker.admin.views import KeyView, MadeKey, file_key_view, key_view
from broker.admin.words import limits_json, rules_json
from broker.core.caller import Caller, Role
from broker.core.directory import Place
from broker.identity.keys import ENTROPY, Minted, hash_of, mint
from broker.stores.rows import HashRow, KeyRow, Terms, terms_of

OVERLAP: Final = 86_400.0
"""Seconds that the text from before a rotation stays good, unless told otherwise: a day to hand out the new one."""
MAX_OVERLAP: Final = 90 * 86_400.0
"""A longer one would be a second key that nobody counts."""
MAX_HASHES: Final = 8
"""Texts of one key that are good at a time: a script that rotates in a loop would fill the table."""
MAX_KEYS: Final = 10_000
"""Keys of one team: a script that makes them in a loop would fill the memory of every broker."""


async def create(
    office: Office,
    actor: Caller,
    organization: str,
    team: str,
    name: str,
    *,
    role: Role = Role.MEMBER,
    expires: float | None = None,
    rules: Rules | None = None,
) -> MadeKey:
    """Make a key. `team` is "" for one that stands directly in its organization; `expires` is wall-clock seconds; None:
    never, or when the actor's own key does.

    Raises: AdminError, StoreError, Unrecorded, NoKeySecret.
    """
    async with acting(office, actor, "key.create", f"key:{_path(organization, team, name)}") as desk:
        await desk.need_place(_role_for_keys(team), organization, team)
        good_name("key", name)
        _check_role(desk, role, organization, team)
        expires = desk.authority.ends if expires is None and desk.authority.ends < inf else expires
        _check_expiry(desk, expires)
        await _check_free(desk, organization, team, name)
        terms = _handed_on(desk, (rules or Rules()).over(), is_allow_given=_gives_allow(rules))
        desk.need_within(desk.checked(terms))
        made = mint(office.clock.random_bytes(ENTROPY))
        row = KeyRow(made.id, organization, team, name, role, created=desk.now, expires=expires, **asdict(terms))
        await desk.change.add(row)
        return await _stored(desk, row, made)


async def listed(office: Office, actor: Caller, organization: str = "", team: str = "") -> list[KeyView]:
    """Those that the actor administers, and its own; of all, of an organization or of a team.

    Raises: AdminError, StoreError, Unrecorded.
    """
    async with looking(office, actor, "key.list", f"key:{organization or '*'}/{team or '*'}/*") as desk:
        asked = {name: value for name, value in (("organization", organization), ("team", team)) if value}
        if organization:
            await desk.need_place(Role.MEMBER, organization, team)
        views = [
            file_key_view(place.organization, place.team, place.key, desk.now)
            for place in desk.file.places()
            if organization in ("", place.organization) and team in ("", place.team)
        ]
        views += await _stored_views(desk, actor, asked)
        places = _Places(desk)
        return [await places.told(view) for view in views if _may_see(desk, actor, view)]


async def show(office: Office, actor: Caller, reference: str) -> KeyView:
    """Raises: AdminError, StoreError, Unrecorded."""
    async with looking(office, actor, "key.show", f"key:{reference}") as desk:
        found = await _find(desk, reference)
        if isinstance(found, KeyRow):
            view = key_view(found, await desk.reading.all(HashRow, key_id=found.id), desk.now)
        else:
            view = file_key_view(found.organization, found.team, found.key, desk.now)
        if not _may_see(desk, actor, view):
            desk.need(_role_for_keys(view.team), view.organization, view.team)
        return await _Places(desk).told(view)


async def grant(
    office: Office,
    actor: Caller,
    reference: str,
    rules: Rules,
    *,
    role: Role | None = None,
    expires: float | None = None,
) -> KeyView:
    """Set its rules, its role, its end; what is None or kept stays. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "key.grant", f"key:{reference}") as desk:
        row = await _take(desk, reference)
        terms = rules.over(terms_of(row))
        desk.need_within(desk.checked(terms))
        new = replace(row, role=role or row.role, expires=expires or row.expires, **asdict(terms))
        _check_role(desk, new.role, row.organization, row.team)
        if expires is not None:
            _check_expiry(desk, expires)
        values = {**asdict(terms), "role": new.role, "expires": new.expires}
        await desk.change.set(KeyRow, values, id=row.id)
        return key_view(new, await desk.reading.all(HashRow, key_id=row.id), desk.now)


async def rotate(office: Office, actor: Caller, reference: str, *, overlap: float = OVERLAP) -> MadeKey:
    """A new text for the key; the old one is good for `overlap` seconds more, and with 0 all old ones end now.

    Raises: AdminError, StoreError, Unrecorded, NoKeySecret.
    """
    async with acting(office, actor, "key.rotate", f"key:{reference}") as desk:
        row = await _take(desk, reference)
        if row.revoked is not None or (row.expires is not None and desk.now >= row.expires):
            raise Invalid("this key has ended: a new text would not be good either. Make another key.")
        if not 0 <= overlap <= MAX_OVERLAP:
            raise Invalid(f"the overlap must be 0 to {MAX_OVERLAP / 86_400:g} days")
        await _retire(desk, row, desk.now + overlap)
        await desk.change.set(KeyRow, {"rotated": desk.now}, id=row.id)
        return await _stored(desk, replace(row, rotated=desk.now), mint(office.clock.random_bytes(ENTROPY), row.id))


async def revoke(office: Office, actor: Caller, reference: str) -> KeyView:
    """End it, for good; it stays in lists. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "key.revoke", f"key:{reference}") as desk:
        row = await _take(desk, reference, is_taken_over=False)
        revoked = row.revoked or desk.now
        await desk.change.set(KeyRow, {"revoked": revoked}, id=row.id)
        return key_view(replace(row, revoked=revoked), [], desk.now)


async def move(office: Office, actor: Caller, reference: str, organization: str, team: str) -> KeyView:
    """To another place: that needs the role in both. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "key.move", f"key:{reference} to {organization}/{team}") as desk:
        row = await _take(desk, reference)
        await desk.need_place(_role_for_keys(team), organization, team)
        _check_role(desk, row.role, organization, team)
        if (organization, team) != (row.organization, row.team):
            await _check_free(desk, organization, team, row.name)
            await desk.change.set(KeyRow, {"organization": organization, "team": team}, id=row.id)
        moved = replace(row, organization=organization, team=team)
        return key_view(moved, await desk.reading.all(HashRow, key_id=row.id), desk.now)


async def delete(office: Office, actor: Caller, reference: str) -> KeyView:
    """End it, and forget it: its name is free again. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "key.delete", f"key:{reference}") as desk:
        row = await _take(desk, reference, is_taken_over=False)
        await desk.change.remove(KeyRow, id=row.id)
        return key_view(replace(row, revoked=row.revoked or desk.now), [], desk.now)


async def _take(desk: Changing, reference: str, *, is_taken_over: bool = True) -> KeyRow:
    """The key, if the actor may act on it. `is_taken_over`: afterwards the actor could use it, or what it may use."""
    found = await _find(desk, reference)
    if isinstance(found, Place):
        desk.need(_role_for_keys(found.team), found.organization, found.team)
        raise fixed(f"key {_path(found.organization, found.team, found.key.name)}")
    desk.need(_role_for_keys(found.team), found.organization, found.team)
    desk.need_role_within(found.role, found.organization, found.team)
    if is_taken_over:
        desk.need_within(desk.level_of(terms_of(found)))
        desk.need_ending(found.expires)
    return found


async def _find(desk: Desk, reference: str) -> KeyRow | Place:
    """By id, or by place: `acme/data/ci`, `acme/ci`. What the actor may not know of is not found, in the same words."""
    unknown = NotFound(
        f"there is no key {reference!r} that you may see", f"no key {reference!r}, or no role at its place"
    )
    parts = reference.split("/")
    row: KeyRow | None = None
    if len(parts) == 1:
        row = await desk.reading.one(KeyRow, id=reference)
    elif len(parts) in (2, 3):
        organization, team, name = parts[0], "" if len(parts) == 2 else parts[1], parts[-1]
        for place in desk.file.places():
            if (place.organization, place.team, place.key.name) == (organization, team, name):
                if desk.authority.role_at(organization, team) is None:
                    raise unknown
                return place
        row = await desk.reading.one(KeyRow, organization=organization, team=team, name=name)
    if row is None or desk.authority.role_at(row.organization, row.team) is None:
        raise unknown
    return row


async def _stored_views(desk: Desk, actor: Caller, asked: dict[str, str]) -> list[KeyView]:
    """The keys of the database that the actor may see, by id. No others are read: there may be tens of thousands, and
    anybody may ask for their own."""
    rows: dict[str, KeyRow] = {}
    hashes: dict[str, list[HashRow]] = {}
    for where in (*_administered(desk, asked), {**asked, "id": actor.key}):
        known = set(rows)
        rows |= {row.id: row for row in await desk.reading.all(KeyRow, **where)}
        for one in await desk.reading.hashes_of(**where):
            if one.key_id not in known:
                hashes.setdefault(one.key_id, []).append(one)
    return [key_view(row, hashes.get(key_id, []), desk.now) for key_id, row in sorted(rows.items())]


def _administered(desk: Desk, asked: dict[str, str]) -> list[dict[str, str]]:
    """What columns the keys of each place that the actor administers have, of those that were asked for."""
    if desk.authority.has(Role.ADMIN):
        return [asked]
    found: list[dict[str, str]] = []
    for organization, team in desk.authority.roles:
        place = {"organization": organization, **({"team": team} if team else {})}
        both = {**asked, **place}
        if desk.authority.has(_role_for_keys(team), organization, team) and both == {**place, **asked}:
            found.append(both)
    return found


class _Places:
    """Which places are there, each looked up once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._known: dict[tuple[str, str], bool] = {}

    async def told(self, view: KeyView) -> KeyView:
        """The view, which says so if its place is gone."""
        place = view.organization, view.team
        if place not in self._known:
            self._known[place] = await self._desk.is_place(*place)
        is_stranded = view.state == "active" and not self._known[place]
        return replace(view, state="stranded") if is_stranded else view


def _may_see(desk: Desk, actor: Caller, view: KeyView) -> bool:
    is_own = actor.key == view.id and (actor.organization, actor.team) == (view.organization, view.team)
    return is_own or desk.authority.has(_role_for_keys(view.team), view.organization, view.team)


def _role_for_keys(team: str) -> Role:
    return Role.TEAM_ADMIN if team else Role.ORG_ADMIN


def _check_role(desk: Desk, role: Role, organization: str, team: str) -> None:
    desk.need_role_within(role, organization, team)
    if not is_role_for(role, organization, team):
        raise Invalid(f"{role} is no role in {named(organization, team)}: name a team")


def _check_expiry(desk: Desk, expires: float | None) -> None:
    if expires is not None and expires <= desk.now:
        raise Invalid("that is in the past: a key needs an end that is still to come")
    desk.need_ending(expires)


async def _check_free(desk: Desk, organization: str, team: str, name: str) -> None:
    what = f"key {_path(organization, team, name)}"
    if any((one.organization, one.team, one.key.name) == (organization, team, name) for one in desk.file.places()):
        raise Exists(f"there is a {what} in the configuration file")
    if await desk.reading.one(KeyRow, organization=organization, team=team, name=name) is not None:
        raise Exists(f"there is a {what} already. Rotate it, or delete it first.")
    if await desk.reading.count_of(KeyRow, organization=organization, team=team) >= MAX_KEYS:
        raise Invalid(f"{named(organization, team)} has {MAX_KEYS} keys: delete those that are not used")


def _gives_allow(rules: Rules | None) -> bool:
    return rules is not None and rules.allow is not KEPT


def _handed_on(desk: Desk, terms: Terms, *, is_allow_given: bool) -> Terms:
    """With the rules, and the limits, of the actor's own key, where none were given."""
    limit = desk.authority.limit
    if limit is None:
        return terms
    denied = [*(terms.deny or ()), *(rules_json(limit.deny) or ())]
    return Terms(
        terms.allow if is_allow_given else rules_json(limit.allow),
        denied or None,
        limits_json(limit.limits) if terms.limits is None else terms.limits,
    )


async def _retire(desk: Changing, row: KeyRow, until: float) -> None:
    """The current text ends at `until`; older ones at their own end, or then too if that is sooner."""
    for one in await desk.reading.all(HashRow, key_id=row.id):
        end = until if one.not_after is None else min(one.not_after, until)
        if end <= desk.now:
            await desk.change.remove(HashRow, hash=one.hash)
        else:
            await desk.change.set(HashRow, {"not_after": end}, hash=one.hash)
    if len(await desk.reading.all(HashRow, key_id=row.id)) >= MAX_HASHES:
        raise Invalid(f"this key has {MAX_HASHES} texts that are still good: wait, or rotate with an overlap of 0")


async def _stored(desk: Changing, row: KeyRow, made: Minted) -> MadeKey:
    """The key with a new text."""
    await desk.change.add(HashRow(hash_of(made.text.reveal(), desk.office.key_secret()), row.id))
    return MadeKey(key_view(row, await desk.reading.all(HashRow, key_id=row.id), desk.now), made.text)


def _path(organization: str, team: str, name: str) -> str:
    return "/".join(part for part in (organization, team, name) if part)
