"""Who has something open, looked at again and again: what was admitted ends with the credential (I-08).

A request is admitted once. A stream, or a call that takes long, outlives that moment; so whoever holds one is asked
every `RECHECK` seconds whether he would still be admitted.
"""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from broker.identity.admission import Admission

log = logging.getLogger(__name__)

RECHECK: Final = 10.0
"""Seconds between two looks: streams of a revoked key must end within 30, and two looks may be late."""


def is_in_force(admission: Admission) -> bool:
    """Whether it is; what cannot be found out is not."""
    try:
        return admission.is_in_force()
    except Exception as fault:
        log.warning("whether %s may go on cannot be found out: %s", admission.caller.principal, type(fault).__name__)
        return False


def may_return(admission: Admission) -> bool:
    """Whether its caller could come back with another credential; what cannot be found out may be."""
    try:
        return admission.may_return()
    except Exception:
        return True


def is_gone(admission: Admission) -> bool:
    """Whether its caller is not admitted any more, whatever credential it brings."""
    return not is_in_force(admission) and not may_return(admission)


class Held(Protocol):
    """One thing that is open."""

    admission: Admission
    """As it was admitted."""
    only_waits: bool
    """Whether it waits for news, and does no work for its caller."""

    def end(self) -> None:
        """Its caller is not admitted any more, or there is no room: it ends."""
        ...


class _Stream:
    """A stream that is open while it is entered."""

    def __init__(
        self, held: dict[Held, None], admission: Admission, end: Callable[[], None], *, only_waits: bool
    ) -> None:
        self._held = held
        self.admission = admission
        self.end = end
        self.only_waits = only_waits

    def __enter__(self) -> None:
        self._held[self] = None

    def __exit__(self, *_: object) -> None:
        self._held.pop(self, None)


class Vigil:
    """See the module."""

    def __init__(self) -> None:
        self.held: dict[Held, None] = {}
        """What is open, in the order in which it was opened. Who opens something puts it in and takes it out, which
        every call does: from now on it ends as soon as the credential is not in force any more; and where it
        `only_waits`, when there is no room for that either.
        """

    def __len__(self) -> int:
        return len(self.held)

    def over(self, admission: Admission, end: Callable[[], None], *, only_waits: bool = False) -> _Stream:
        """While this is entered, `end` stands for something that is held."""
        return _Stream(self.held, admission, end, only_waits=only_waits)

    def look(self) -> int:
        """Look at everybody once; how many have been ended."""
        over = [held for held in self.held if not is_in_force(held.admission)]
        for held in over:
            log.info("%s is not admitted any more: what it had open ends", held.admission.caller.principal)
            self._end(held)
        return len(over)

    def make_room(self) -> int:
        """End the older half of what only waits; how many that were. Their callers may come again (F-98)."""
        waiting = [held for held in self.held if held.only_waits]
        for held in waiting[: (len(waiting) + 1) // 2]:
            self._end(held)
        return (len(waiting) + 1) // 2

    def _end(self, held: Held) -> None:
        del self.held[held]
        held.end()
