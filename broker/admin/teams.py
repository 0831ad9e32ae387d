"""Teams: who administers the organization around a team says what the team may use, not the team itself."""

from dataclasses import asdict, replace
from typing import Final

from broker.admin.desk import Office, acting, fixed, looking, named
from broker.admin.errors import Exists, Invalid
from broker.admin.names import good_name
from broker.admin.rules import Rules
from broker.admin.views import TeamView, team_view
from broker.core.caller import Caller, Role
from broker.stores.rows import KeyRow, MembershipRow, TeamRow, terms_of

MAX_TEAMS: Final = 1000
"""Teams of one organization: a script that makes them in a loop would fill the memory of every broker."""


async def create(office: Office, actor: Caller, organization: str, name: str, rules: Rules) -> TeamView:
    """Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "team.create", f"team:{organization}/{name}") as desk:
        await desk.need_place(Role.ORG_ADMIN, organization)
        good_name("team", name)
        if await desk.team(organization, name) is not None:
            raise Exists(f"there is a {named(organization, name)} already")
        if await desk.reading.count_of(TeamRow, organization=organization) >= MAX_TEAMS:
            raise Invalid(f"{named(organization)} has {MAX_TEAMS} teams: delete those that are not used")
        terms = rules.over()
        desk.need_within(desk.checked(terms))
        row = TeamRow(organization, name, created=desk.now, **asdict(terms))
        # What an earlier team of the file left behind belongs to nobody: it must not become this team's.
        await desk.change.remove(KeyRow, organization=organization, team=name)
        await desk.change.remove(MembershipRow, organization=organization, team=name)
        await desk.change.add(row)
        return team_view(organization, row)


async def listed(office: Office, actor: Caller, organization: str | None = None) -> list[TeamView]:
    """Those that the actor may see, of one organization or of all. Raises: AdminError, StoreError, Unrecorded."""
    async with looking(office, actor, "team.list", f"org:{organization or '*'}") as desk:
        if organization is not None:
            await desk.need_place(Role.MEMBER, organization)
        found = [
            (home.name, team)
            for home in desk.file.organizations.values()
            for team in home.teams.values()
            if team.level is not None
        ]
        of_file = {(home, team.name) for home, team in found}
        views = [team_view(home, team) for home, team in found]
        views += [
            team_view(row.organization, row)
            for row in await desk.reading.all(TeamRow)
            if (row.organization, row.name) not in of_file
        ]
        return [
            view
            for view in views
            if organization in (None, view.organization)
            and desk.authority.role_at(view.organization, view.name) is not None
        ]


async def show(office: Office, actor: Caller, organization: str, name: str) -> TeamView:
    """Raises: AdminError, StoreError, Unrecorded."""
    async with looking(office, actor, "team.show", f"team:{organization}/{name}") as desk:
        await desk.need_place(Role.MEMBER, organization, name)
        found = await desk.team(organization, name)
        assert found is not None, "need_place has looked"
        return team_view(organization, found)


async def grant(office: Office, actor: Caller, organization: str, name: str, rules: Rules) -> TeamView:
    """Set what it may use. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "team.grant", f"team:{organization}/{name}") as desk:
        await desk.need_place(Role.MEMBER, organization, name)
        desk.need(Role.ORG_ADMIN, organization, name)
        found = await desk.team(organization, name)
        if not isinstance(found, TeamRow):
            raise fixed(named(organization, name))
        terms = rules.over(terms_of(found))
        desk.need_within(desk.checked(terms))
        await desk.change.set(TeamRow, asdict(terms), organization=organization, name=name)
        return team_view(organization, replace(found, **asdict(terms)))


async def delete(office: Office, actor: Caller, organization: str, name: str) -> int:
    """With its keys and memberships: how many keys went too. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "team.delete", f"team:{organization}/{name}") as desk:
        await desk.need_place(Role.MEMBER, organization, name)
        desk.need(Role.ORG_ADMIN, organization, name)
        if not isinstance(await desk.team(organization, name), TeamRow):
            raise fixed(named(organization, name))
        keys = await desk.change.remove(KeyRow, organization=organization, team=name)
        await desk.change.remove(MembershipRow, organization=organization, team=name)
        await desk.change.remove(TeamRow, organization=organization, name=name)
        return keys
