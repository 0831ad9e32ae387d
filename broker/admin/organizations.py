"""Organizations: `admin` only, since what an organization may use is granted from above it."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from broker.admin.desk import Office, acting, fixed, looking, named
from broker.admin.errors import Exists
from broker.admin.names import good_name
from broker.admin.rules import Rules
from broker.admin.views import OrganizationView, organization_view
from broker.core.caller import Caller, Role
from broker.stores.rows import KeyRow, MembershipRow, OrganizationRow, TeamRow, terms_of

if TYPE_CHECKING:
    from broker.stores.directory import Change


async def create(office: Office, actor: Caller, name: str, rules: Rules) -> OrganizationView:
    """Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "org.create", f"org:{name}") as desk:
        desk.need(Role.ADMIN, name)
        good_name("organization", name)
        if await desk.organization(name) is not None:
            raise Exists(f"there is an {named(name)} already")
        terms = rules.over()
        desk.need_within(desk.checked(terms))
        row = OrganizationRow(name, created=desk.now, **asdict(terms))
        await _clear(desk.change, name)
        await desk.change.add(row)
        return organization_view(row)


async def listed(office: Office, actor: Caller) -> list[OrganizationView]:
    """Those that the actor may see. Raises: AdminError, StoreError, Unrecorded."""
    async with looking(office, actor, "org.list", "org:*") as desk:
        of_file = [one for one in desk.file.organizations.values() if one.level is not None]
        names = {one.name for one in of_file}
        stored = [row for row in await desk.reading.all(OrganizationRow) if row.name not in names]
        return [organization_view(one) for one in (*of_file, *stored) if desk.authority.role_at(one.name) is not None]


async def show(office: Office, actor: Caller, name: str) -> OrganizationView:
    """Raises: AdminError, StoreError, Unrecorded."""
    async with looking(office, actor, "org.show", f"org:{name}") as desk:
        await desk.need_place(Role.MEMBER, name)
        found = await desk.organization(name)
        assert found is not None, "need_place has looked"
        return organization_view(found)


async def grant(office: Office, actor: Caller, name: str, rules: Rules) -> OrganizationView:
    """Set what it may use. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "org.grant", f"org:{name}") as desk:
        await desk.need_place(Role.ADMIN, name)
        found = await desk.organization(name)
        if not isinstance(found, OrganizationRow):
            raise fixed(named(name))
        terms = rules.over(terms_of(found))
        desk.need_within(desk.checked(terms))
        await desk.change.set(OrganizationRow, asdict(terms), name=name)
        return organization_view(replace(found, **asdict(terms)))


async def delete(office: Office, actor: Caller, name: str) -> tuple[int, int]:
    """With all that is in it: how many teams and keys went too. Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "org.delete", f"org:{name}") as desk:
        await desk.need_place(Role.ADMIN, name)
        if not isinstance(await desk.organization(name), OrganizationRow):
            raise fixed(named(name))
        gone = await _clear(desk.change, name)
        await desk.change.remove(OrganizationRow, name=name)
        return gone


async def _clear(change: "Change", name: str) -> tuple[int, int]:
    """Remove what is stored below an organization: it must not come alive again with another one of that name. How many
    teams and keys it were."""
    teams = await change.remove(TeamRow, organization=name)
    keys = await change.remove(KeyRow, organization=name)
    await change.remove(MembershipRow, organization=name)
    return teams, keys
