"""Open sessions: seen and ended by who administers their caller's place, and by that caller."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from broker.admin.desk import Desk, Office, acting, looking
from broker.admin.errors import NotFound
from broker.core.caller import LOCAL, Caller, Role
from broker.downstream.crew import Crew
from broker.downstream.session import LegacySession


class Front(Protocol):
    """Where sessions are."""

    def sessions(self) -> Iterable[LegacySession]:
        """All that are open."""
        ...

    @property
    def crew(self) -> Crew:
        """The workers, of which this is the front of one."""
        ...

    def end(self, session: LegacySession) -> None:
        """With all that is in flight in it."""
        ...


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session. `id` stands for the one that its caller uses, which is nobody else's business."""

    id: str
    principal: str
    organization: str
    team: str
    view: str
    version: str
    is_busy: bool
    worker: int = 1
    """Where it is, of `serve --workers`."""


async def listed(office: Office, actor: Caller, front: Front) -> list[SessionView]:
    """Those that the actor administers, and its own. Raises: AdminError, StoreError, Unrecorded."""
    async with looking(office, actor, "session.list", "session:*") as desk:
        return [_view(one) for one in front.sessions() if _may_end(desk, actor, one.caller)]


async def end(office: Office, actor: Caller, front: Front, reference: str) -> SessionView:
    """Raises: AdminError, StoreError, Unrecorded."""
    async with acting(office, actor, "session.end", f"session:{reference}") as desk:
        found = next((one for one in front.sessions() if one.reference == reference), None)
        if found is None or not _may_end(desk, actor, found.caller):
            raise NotFound("there is no such session that you may see")
        view = _view(found)
    front.end(found)
    return view


def _may_end(desk: Desk, actor: Caller, caller: Caller) -> bool:
    if actor.principal == caller.principal:
        return True
    if caller.principal == LOCAL.principal:
        return desk.authority.has(Role.ADMIN)
    role = Role.TEAM_ADMIN if caller.team else Role.ORG_ADMIN
    place = caller.organization, caller.team
    return desk.authority.has(role, *place) and desk.authority.has(caller.role, *place)


def _view(session: LegacySession) -> SessionView:
    caller = session.caller
    return SessionView(
        session.reference,
        caller.principal,
        caller.organization,
        caller.team,
        session.view,
        session.version,
        session.is_busy,
    )
