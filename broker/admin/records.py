"""The records of the audit, for an `admin`: what `mcp-broker audit` shows."""

from broker.admin.desk import Office, looking
from broker.admin.errors import NotAllowed
from broker.core.caller import Caller, Role
from broker.stores.errors import StoreUnavailable
from broker.usage.question import Line, Question, Seen
from broker.usage.searching import Archive


async def found(office: Office, actor: Caller, archive: Archive, question: Question, limit: int) -> list[Line]:
    """The newest records that fit, in the order of time. Raises: AdminError, StoreError, Unrecorded."""
    await _need_admin(office, actor, "audit.find")
    try:
        return await archive.find(question, limit)
    except OSError as error:
        raise _unreadable(error) from None


async def who_saw(office: Office, actor: Caller, archive: Archive, name: str, question: Question) -> list[Seen]:
    """To whom a full or public name was shown. Raises: AdminError, StoreError, Unrecorded."""
    await _need_admin(office, actor, "audit.who-saw")
    try:
        return await archive.who_saw(name, question)
    except OSError as error:
        raise _unreadable(error) from None


async def _need_admin(office: Office, actor: Caller, action: str) -> None:
    async with looking(office, actor, action, "audit:*") as desk:
        if not desk.authority.has(Role.ADMIN):
            raise NotAllowed("the audit is of all organizations: this needs the role admin")


def _unreadable(error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"the records cannot be read ({error.strerror})")
