"""Every change and every refusal is recorded, through this seam."""

import logging
from dataclasses import dataclass
from typing import Literal, Protocol

from broker.core.caller import Caller
from broker.errors import Unrecorded as NotWritten
from broker.errors import printable
from broker.usage.audit import Audit

log = logging.getLogger(__name__)

Outcome = Literal["done", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Deed:
    """What somebody did, or tried to. `action`: such as `key.rotate`; `target`: such as `team:acme/data`, `key:<id>`.
    `why`: the reason of a refusal or failure; it may know more than the actor was told."""

    actor: Caller
    action: str
    target: str
    outcome: Outcome
    why: str = ""


class Unrecorded(Exception):
    """The journal cannot record, and what cannot be recorded is not done."""


class Journal(Protocol):
    """Where deeds are recorded."""

    async def record(self, deed: Deed) -> None:
        """A change is recorded before it is committed. Bounded in time. Raises: Unrecorded."""
        ...


class LogJournal:
    """The log, while nothing better is configured."""

    async def record(self, deed: Deed) -> None:
        """See `Journal`."""
        level = logging.INFO if deed.outcome == "done" else logging.WARNING
        who, target, why = (printable(text) for text in (deed.actor.principal, deed.target, deed.why))
        log.log(level, "%s %s by %s: %s%s", deed.action, target, who, deed.outcome, f" ({why})" if why else "")


class AuditJournal:
    """The audit, and the log too: changes of who may do what are rare, and somebody should see them."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._log = LogJournal()

    async def record(self, deed: Deed) -> None:
        """See `Journal`."""
        try:
            await self._audit.did(deed.actor, deed.action, deed.target, deed.outcome, deed.why)
        except NotWritten as error:
            raise Unrecorded(error.message) from None
        await self._log.record(deed)
