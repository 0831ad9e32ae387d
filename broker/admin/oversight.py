"""What an administrator may find out of others: their views, the rules that concern them, and how upstreams are.

Somebody who administers a place sees what is served there. What is denied from above it stays unknown to them as it is
to the place: else `explain` would list a catalog that was never granted.
"""

from dataclasses import dataclass, replace

from broker.admin.desk import Desk, Office, looking
from broker.admin.errors import NotFound
from broker.admin.insight import Explained, Seen, caller_at, explained, seen
from broker.core.caller import Caller, Role
from broker.core.explain import Step
from broker.core.request import Kind
from broker.relay.served import Served

_UNKNOWN = Step("unknown", False, "no such entry")


@dataclass(frozen=True, slots=True)
class UpstreamView:
    """A server.

    `is_known`: whether its lists are, from now or from before; `reason`: why it is not ready; `since`, `last_error_at`:
    when it came into its state, and failed, in seconds since 1970; `opened`: connections since the broker has it;
    `calls`: those that need it now; `stderr`: what its process has logged last, for an `admin` alone.
    """

    server: str
    state: str
    version: str | None
    isolation: str
    is_known: bool
    reason: str
    since: float
    opened: int
    calls: int
    last_error: str
    last_error_at: float | None
    stderr: tuple[str, ...]
    worker: int = 1
    """Whose link it is, of `serve --workers`."""


async def view(office: Office, actor: Caller, now: Served, who: str, name: str) -> tuple[Caller, Seen]:
    """The exact view of a key or a place. Raises: AdminError, StoreError, Unrecorded."""
    async with looking(office, actor, "view.show", f"view:{who}") as desk:
        caller = _subject(desk, actor, now, who)
        if name and not now.shown(name, caller):
            raise NotFound("there is no such view")
    return caller, await seen(now, caller, name)


async def explain(
    office: Office, actor: Caller, now: Served, who: str, name: str, *, kind: Kind | None, view: str, arguments: object
) -> tuple[Caller, Explained]:
    """Why a key or a place may or may not use something. Raises: AdminError, StoreError, Unrecorded."""
    async with looking(office, actor, "explain", f"explain:{who}") as desk:
        caller = _subject(desk, actor, now, who)
        found = explained(now, caller, name, kind=kind, view=view, arguments=arguments, at=desk.now)
        return caller, found if _may_know(desk, found) else _as_unknown(found)


async def upstreams(office: Office, actor: Caller, now: Served) -> list[UpstreamView]:
    """All, for an `admin`; for anybody else those of which it sees something. Raises: AdminError, StoreError."""
    async with looking(office, actor, "upstream.list", "upstream:*") as desk:
        is_admin = desk.authority.has(Role.ADMIN)
        shown = tuple(now.pool.upstreams) if is_admin else now.shown("", actor)
        return [_upstream(now, key, is_admin=is_admin) for key in shown]


async def upstream(office: Office, actor: Caller, now: Served, key: str) -> UpstreamView:
    """Raises: AdminError, StoreError."""
    found = next((one for one in await upstreams(office, actor, now) if one.server == key), None)
    if found is None:
        raise NotFound("there is no such server that you may see")
    return found


def _subject(desk: Desk, actor: Caller, now: Served, who: str) -> Caller:
    """Who is meant, if the actor administers its place, or is it. Raises: NotFound, for everything else alike."""
    caller = caller_at(now.policy.directory, who)
    if caller is not None:
        role = Role.TEAM_ADMIN if caller.team else Role.ORG_ADMIN
        if caller.principal == actor.principal or desk.authority.has(role, caller.organization, caller.team):
            return caller
    raise NotFound("there is no key and no place of that name that you may see", f"{who!r} is not theirs")


def _may_know(desk: Desk, found: Explained) -> bool:
    """Whether the actor administers the level above the one that hides the entry, and so may know that it is there."""
    if not found.is_hidden or desk.authority.has(Role.ADMIN):
        return True
    level, _, rest = found.rule.partition(":")
    place = rest.split("/")
    if level == "team":
        return desk.authority.has(Role.ORG_ADMIN, place[0])
    if level == "key":
        return desk.authority.has(Role.TEAM_ADMIN, place[0], place[1])
    return False


def _as_unknown(found: Explained) -> Explained:
    return replace(found, kind=None, rule=_UNKNOWN.rule, reason=_UNKNOWN.reason, steps=(_UNKNOWN,))


def _upstream(now: Served, key: str, *, is_admin: bool) -> UpstreamView:
    one = now.pool.upstreams[key]
    listing = one.listing
    return UpstreamView(
        key,
        one.state.phase,
        None if listing is None else listing.version,
        one.server.isolation,
        listing is not None,
        "" if one.is_ready else one.trouble or "it is connecting",
        one.history.since,
        one.history.opened,
        one.in_use.count,
        one.history.last_error,
        one.history.last_error_at,
        (one.last_words() or one.history.last_words) if is_admin else (),
    )
