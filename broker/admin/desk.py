"""How an action is done: one actor, one transaction, one judgement of what that actor may do, one record.

    async with acting(office, actor, "key.rotate", f"key:{id}") as desk:
        ...                                   # desk.need(...), then desk.change

What is read in it stays so until it ends, so that nobody can be moved, demoted or deleted between the judgement and the
change. A change is recorded before it is committed; a refusal is recorded after nothing was done.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Final

from broker.admin.authority import Authority, is_within
from broker.admin.errors import AdminError, FixedByFile, Invalid, NotAllowed, NotFound
from broker.admin.journal import Deed, Journal
from broker.admin.rules import faults_of
from broker.clock import Clock
from broker.config import Secret
from broker.config.checks import did_you_mean
from broker.core.caller import LOCAL, Caller, Role
from broker.core.directory import Directory, Membership, Organization, Team
from broker.core.grants import Level
from broker.core.quota import UNLIMITED
from broker.stores.errors import StoreError
from broker.stores.rows import KeyRow, MembershipRow, OrganizationRow, TeamRow, Terms, terms_of
from broker.stores.ruling import read_level

if TYPE_CHECKING:
    from broker.stores.directory import Change, DirectoryStore, Reading

_NO_LEVEL: Final = Level("")


@dataclass(frozen=True, slots=True)
class Office:
    """What every action works with. `file`: what the configuration defines now; `servers`: the keys of its servers.
    `key_secret`: made when first needed; raises NoKeySecret."""

    store: "DirectoryStore"
    file: Callable[[], Directory]
    servers: Callable[[], Sequence[str]]
    clock: Clock
    key_secret: Callable[[], Secret]
    journal: Journal


class Desk:
    """One action under way: what it may read, who acts, and what that one may do."""

    def __init__(self, office: Office, reading: "Reading", file: Directory, now: float) -> None:
        self.office = office
        self.reading = reading
        self.file = file
        self.now = now
        self.authority = Authority()

    # What there is.

    async def organization(self, name: str) -> OrganizationRow | Organization | None:
        """The organization, of either source; the file wins."""
        of_file = self.file.organizations.get(name)
        if of_file is not None and of_file.level is not None:
            return of_file
        return await self.reading.one(OrganizationRow, name=name)

    async def team(self, organization: str, name: str) -> TeamRow | Team | None:
        """The team, of either source."""
        home = self.file.organizations.get(organization)
        of_file = None if home is None else home.teams.get(name)
        if of_file is not None and of_file.level is not None:
            return of_file
        return await self.reading.one(TeamRow, organization=organization, name=name)

    async def is_place(self, organization: str, team: str) -> bool:
        """Whether an organization, and a team in it unless that is "", are there."""
        if await self.organization(organization) is None:
            return False
        return not team or await self.team(organization, team) is not None

    # What the actor may do.

    def need(self, role: Role, organization: str, team: str = "") -> None:
        """Raises: NotFound, if the actor may not even know of the place; NotAllowed, if its role there is too low."""
        found = self.authority.role_at(organization, team)
        if found is None:
            raise NotFound(
                f"there is no {named(organization, team)} that you may see", f"no role at {organization}/{team}"
            )
        if not self.authority.has(role, organization, team):
            raise NotAllowed(f"for {named(organization, team)} you are {found}; this needs {role}")

    async def need_place(self, role: Role, organization: str, team: str = "") -> None:
        """`need`, and that the place is there: somebody without a role does not learn whether it is."""
        self.need(role, organization, team)
        if await self.organization(organization) is None:
            raise NotFound(f"there is no {named(organization)}. {await self._near(organization, '')}".rstrip())
        if team and await self.team(organization, team) is None:
            raise NotFound(f"there is no {named(organization, team)}. {await self._near(organization, team)}".rstrip())

    def need_role_within(self, role: Role, organization: str, team: str) -> None:
        """Raises: NotAllowed, for a role above the actor's own: to give it, or to act on what has it."""
        if not self.authority.has(role, organization, team):
            found = self.authority.role_at(organization, team)
            raise NotAllowed(f"for {named(organization, team)} you are {found}, which is less than {role}")

    def need_within(self, level: Level = _NO_LEVEL) -> None:
        """Raises: NotAllowed, for a level that lets through what the actor's own key is not let; without one, for an
        actor whose own key is limited at all."""
        if self.authority.limit is not None and not is_within(level, self.authority.limit):
            raise NotAllowed("your own key is limited: what it makes or changes must have its rules and limits too")

    def need_ending(self, expires: float | None) -> None:
        """Raises: NotAllowed, for a key that would outlive the actor's own. `expires`: None for never."""
        if (inf if expires is None else expires) > self.authority.ends:
            raise NotAllowed("your own key expires: a key that it makes or changes must not be good for longer")

    # What rules and rows mean.

    def level_of(self, terms: Terms) -> Level:
        """What is stored. Raises: Invalid, if it cannot be read: then nobody is within it."""
        try:
            return read_level(_NO_LEVEL, terms)
        except ValueError as error:
            raise Invalid(f"its rules or limits cannot be read: {error}") from None

    def checked(self, terms: Terms) -> Level:
        """What somebody wants to set, judged as if it stood in the file. Raises: Invalid, with all that is wrong."""
        written = {name: value for name, value in asdict(terms).items() if value is not None}
        if found := faults_of(written, self.office.servers()):
            raise Invalid("\n".join(found))
        return self.level_of(terms)

    async def _near(self, organization: str, team: str) -> str:
        if not team:
            known = [*self.file.organizations, *(row.name for row in await self.reading.all(OrganizationRow))]
            return did_you_mean(organization, [name for name in known if self.authority.role_at(name) is not None])
        home = self.file.organizations.get(organization)
        known = [] if home is None else list(home.teams)
        known += [row.name for row in await self.reading.all(TeamRow, organization=organization)]
        seen = [name for name in known if self.authority.role_at(organization, name) is not None]
        near = did_you_mean(team, seen)
        return near.replace('"', f'"{organization}/', 1)

    async def judge(self, actor: Caller) -> None:
        """What the actor may do, by what is stored now: its credential was looked at a moment ago, and its key may have
        been revoked, moved or demoted since. Raises: NotAllowed."""
        if actor == LOCAL:
            self.authority = Authority.of(actor, ())
            return
        limit, ends = None, inf
        if actor.key:
            actor, limit, ends = await self._current(actor)
        rows = await self.reading.all(MembershipRow, principal=actor.principal)
        members = [Membership(row.principal, row.organization, row.team, row.role) for row in rows]
        members += [one for one in self.file.memberships if one.principal == actor.principal]
        present = [one for one in members if await self.is_place(one.organization, one.team)]
        if not await self.is_place(actor.organization, actor.team):
            actor = replace(actor, organization="", team="", role=Role.MEMBER)
        is_limited = limit is not None and not (limit.is_silent and limit.limits == UNLIMITED)
        self.authority = Authority.of(actor, present, limit if is_limited else None, ends)

    async def _current(self, actor: Caller) -> tuple[Caller, Level, float]:
        """The actor as its key is now, the level of that key, and when it expires."""
        for place in self.file.places():
            if place.caller.principal == actor.principal and not place.key.revoked and self.now < place.key.expires:
                return place.caller, place.key.level, place.key.expires
        row = await self.reading.one(KeyRow, id=actor.key)
        if (
            row is None
            or actor.principal != f"key:{row.id}"
            or row.revoked is not None
            or (row.expires is not None and self.now >= row.expires)
        ):
            raise NotAllowed("your key is not valid any more")
        now = replace(actor, organization=row.organization, team=row.team, role=row.role)
        return now, self.level_of(terms_of(row)), inf if row.expires is None else row.expires


class Changing(Desk):
    """A desk at which something may be changed."""

    def __init__(self, office: Office, change: "Change", file: Directory, now: float) -> None:
        super().__init__(office, change, file, now)
        self.change = change


@asynccontextmanager
async def acting(office: Office, actor: Caller, action: str, target: str) -> AsyncGenerator[Changing]:
    """Do something. Raises: AdminError, if it may not or cannot be done; StoreError; Unrecorded."""

    async def record(outcome: str, why: str = "") -> None:
        await office.journal.record(Deed(actor, action, target, "failed" if outcome == "failed" else "refused", why))

    try:
        async with office.store.changing() as change:
            desk = Changing(office, change, office.file(), office.clock.wall())
            await desk.judge(actor)
            yield desk
            await office.journal.record(Deed(actor, action, target, "done"))
    except AdminError as error:
        await record("refused", error.why)
        raise
    except StoreError as error:
        await record("failed", str(error))
        raise


@asynccontextmanager
async def looking(office: Office, actor: Caller, action: str, target: str) -> AsyncGenerator[Desk]:
    """Read something. Only a refusal is recorded. Raises: AdminError; StoreError; Unrecorded."""
    try:
        async with office.store.reading() as reading:
            desk = Desk(office, reading, office.file(), office.clock.wall())
            await desk.judge(actor)
            yield desk
    except AdminError as error:
        await office.journal.record(Deed(actor, action, target, "refused", error.why))
        raise


def named(organization: str, team: str = "") -> str:
    """`organization acme`, `team acme/data`."""
    return f"team {organization}/{team}" if team else f"organization {organization}"


def fixed(what: str) -> FixedByFile:
    """It stands in the file."""
    return FixedByFile(f"{what} is defined in the configuration file: change it there")
