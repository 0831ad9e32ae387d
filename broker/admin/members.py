"""Memberships: the role of a user, or of a key, in an organization or a team besides the one of its credential."""

from typing import Final

from broker.admin.authority import is_role_for
from broker.admin.desk import Desk, Office, acting, fixed, looking, named
from broker.admin.errors import Invalid, NotAllowed, NotFound
from broker.admin.names import good_principal
from broker.admin.views import MembershipView, membership_view
from broker.core.caller import Caller, Role
from broker.stores.rows import MembershipRow

MAX_MEMBERS: Final = 10_000
"""Members of one place: a script that adds them in a loop would fill the memory of every broker."""


async def grant(
    office: Office, actor: Caller, principal: str, organization: str, team: str, role: Role
) -> MembershipView:
    """Give a role, or change it. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "member.grant", _target(principal, organization, team)) as desk:
        await desk.need_place(_role_to_administer(team), organization, team)
        good_principal(principal)
        if role is Role.ADMIN or not is_role_for(role, organization, team):
            raise Invalid(f"{role} is no role in {named(organization, team)}")
        desk.need_role_within(role, organization, team)
        desk.need_within()  # a member has what the place has: no limits of the actor's own key go with a role
        before = await _stored(desk, principal, organization, team)
        if before is not None:
            desk.need_role_within(before.role, organization, team)
            await desk.change.remove(MembershipRow, principal=principal, organization=organization, team=team)
        else:
            await _need_other_places(desk, principal, organization, team)
        if (
            before is None
            and await desk.reading.count_of(MembershipRow, organization=organization, team=team) >= MAX_MEMBERS
        ):
            raise Invalid(f"{named(organization, team)} has {MAX_MEMBERS} members: remove those who are gone")
        row = MembershipRow(principal, organization, team, role, desk.now)
        await desk.change.add(row)
        return membership_view(row)


async def listed(office: Office, actor: Caller, organization: str, team: str = "") -> list[MembershipView]:
    """Of an organization (with its teams, as far as the actor administers them), or of one team.

    Raises: AdminError, StoreError, Unrecorded.
    """
    async with looking(office, actor, "member.list", f"team:{organization}/{team or '*'}") as desk:
        await desk.need_place(Role.TEAM_ADMIN if team else Role.MEMBER, organization, team)
        views = [membership_view(one) for one in desk.file.memberships]
        in_file = {(one.principal, one.organization, one.team) for one in desk.file.memberships}
        views += [
            membership_view(row)
            for row in await desk.reading.all(MembershipRow, organization=organization)
            if (row.principal, row.organization, row.team) not in in_file
        ]
        return [
            view
            for view in views
            if view.organization == organization
            and team in ("", view.team)
            and desk.authority.has(_role_to_administer(view.team), organization, view.team)
        ]


async def remove(office: Office, actor: Caller, principal: str, organization: str, team: str) -> None:
    """Take a role away. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "member.remove", _target(principal, organization, team)) as desk:
        await desk.need_place(_role_to_administer(team), organization, team)
        found = await _stored(desk, principal, organization, team)
        if found is None:
            raise NotFound(f"{principal} has no role of its own in {named(organization, team)}")
        desk.need_role_within(found.role, organization, team)
        await desk.change.remove(MembershipRow, principal=principal, organization=organization, team=team)


async def _stored(desk: Desk, principal: str, organization: str, team: str) -> MembershipRow | None:
    """Raises: FixedByFile."""
    place = (principal, organization, team)
    if any((one.principal, one.organization, one.team) == place for one in desk.file.memberships):
        raise fixed(f"the role of {principal} in {named(organization, team)}")
    return await desk.reading.one(MembershipRow, principal=principal, organization=organization, team=team)


async def _need_other_places(desk: Desk, principal: str, organization: str, team: str) -> None:
    """A membership more can change where a user stands: like a key that is moved, that needs the role in both places.

    Raises: NotAllowed.
    """
    if principal.startswith("key:"):
        return  # a key stands in its team, whatever else it is a member of
    stored = await desk.reading.all(MembershipRow, principal=principal, organization=organization)
    given = [one for one in desk.file.memberships if (one.principal, one.organization) == (principal, organization)]
    for other in {one.team for one in (*stored, *given)} - {team}:
        if not desk.authority.has(_role_to_administer(other), organization, other):
            raise NotAllowed(f"{principal} has a place of its own elsewhere in {organization}: who moves it needs both")


def _role_to_administer(team: str) -> Role:
    return Role.TEAM_ADMIN if team else Role.ORG_ADMIN


def _target(principal: str, organization: str, team: str) -> str:
    return f"member:{principal} in {named(organization, team)}"
