"""`Identity`: who asks, for every HTTP front. Each request is asked for itself; a connection says nothing (SP-27).

In order, first failure wins:

1. one in the query string: 400;
2. no credential source at all, on a listener that only this machine reaches: the caller is `local`;
3. more than one credential: 400; none, or what can be none: 401;
4. a credential that was verified before, under the hash of all of it, and is still in force: its caller;
5. too many bad ones from there: 429, unread;
6. the authenticators, in order: the first that says it is its own decides; none does: 401.

This is a boundary: whatever an authenticator raises that is no `Refusal` is logged, and answered 503. No error ever
becomes a caller.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from operator import attrgetter
from typing import Final, Protocol

from broker.clock import Clock
from broker.core.caller import LOCAL
from broker.identity.admission import Admission, Asking, Refusal, TooManyFailures, Unauthorized, Unverifiable
from broker.identity.credential import Credential, check_query, credential_of, mark_of
from broker.identity.failures import Failures
from broker.logs import fault_line

log = logging.getLogger(__name__)

VERIFY_TIMEOUT: Final = 15.0
"""Seconds that a verification may take: longer than one fetch of an issuer's keys, shorter than a caller's patience."""
MAX_VERIFIED: Final = 10_000
"""Credentials that are remembered as verified; the one that was used longest ago is verified anew."""


class Authenticator(Protocol):
    """One kind of credential."""

    @property
    def is_source(self) -> bool:
        """Whether anybody could be admitted by it."""
        ...

    async def admit(self, credential: Credential) -> tuple[Admission, float] | None:
        """Who it is, and for how many seconds that may be remembered; None: not mine, ask the next.

        Raises: Refusal, for one of its own that is not good.
        """
        ...

    def retire(self) -> None:
        """It is configured no more: whoever was admitted by it is not in force any more."""
        ...


class Identity:
    """See the module. `is_private`: whether only this machine reaches the listener."""

    def __init__(self, clock: Clock, authenticators: Sequence[Authenticator], *, is_private: bool) -> None:
        self._clock = clock
        self._authenticators = tuple(authenticators)
        self._is_private = is_private
        self._had_source = False
        self._local = Admission(LOCAL, lambda: not self.has_source)
        self._verified: OrderedDict[bytes, tuple[Admission, float]] = OrderedDict()
        self._failures = Failures(clock)

    @property
    def has_source(self) -> bool:
        """Whether there is a credential source, or was one since the start: the last key that goes opens no door."""
        if not self._had_source:
            self._had_source = not self._is_private or self.is_reachable
        return self._had_source

    @property
    def authenticators(self) -> tuple[Authenticator, ...]:
        """Those that are asked, in order."""
        return self._authenticators

    def adopt(self, authenticators: Sequence[Authenticator]) -> None:
        """Ask these from now on. What others have admitted ends; failed attempts stay counted."""
        for one in self._authenticators:
            if one not in authenticators:
                one.retire()
        self._authenticators = tuple(authenticators)

    @property
    def is_reachable(self) -> bool:
        """Whether anybody with a credential could be admitted: what a listener that others reach needs."""
        return any(map(attrgetter("is_source"), self._authenticators))

    def known(self, asking: Asking) -> Admission | None:
        """Who asks, if that is known without waiting; None: `admit` finds out. Raises: Refusal, and nothing else."""
        try:
            if not (self._had_source or self.has_source):
                # Whatever a host was told to send: there is nobody who could verify it.
                if asking.query:
                    check_query(asking.query)
                return self._local
            mark = asking.mark or mark_of(asking)
            if mark is None:
                raise Unauthorized(has_credential=False)
            found = self._verified.get(mark)
            if found is None:
                return None
            admission, until = found
            if (until != inf and self._clock.now() >= until) or not admission.is_in_force():
                del self._verified[mark]
                return None
            self._verified.move_to_end(mark)
            return admission
        except Refusal:
            raise
        except Exception as fault:
            raise self._unverifiable(fault) from None

    async def admit(self, asking: Asking, peer: str) -> Admission:
        """Who asks, from the address `peer`, "" if there is none. Raises: Refusal, and nothing else."""
        known = self.known(asking)
        if known is not None:
            return known
        mark, credential = mark_of(asking), credential_of(asking)
        assert mark is not None and credential is not None, "without one, it was known or refused"
        if wait := self._failures.wait(peer):
            raise TooManyFailures(wait)
        try:
            async with asyncio.timeout(VERIFY_TIMEOUT):
                admission, seconds = await self._verify(credential)
        except Refusal as refusal:
            if isinstance(refusal, Unauthorized) and refusal.is_guess:
                self._failures.note(peer)
            raise
        except Exception as fault:
            raise self._unverifiable(fault) from None
        self._remember(mark, admission, seconds)
        return admission

    async def _verify(self, credential: Credential) -> tuple[Admission, float]:
        for authenticator in self._authenticators:
            found = await authenticator.admit(credential)
            if found is not None:
                admission, seconds = found
                if not isinstance(admission, Admission) or not admission.is_in_force():  # pyright: ignore[reportUnnecessaryIsInstance]
                    raise Unauthorized(has_credential=True)
                return admission, seconds
        raise Unauthorized(has_credential=True)

    def _unverifiable(self, fault: Exception) -> Unverifiable:
        # Without the text of the fault: it may quote what it could not read.
        log.error("a credential could not be verified: %s", fault_line(fault, with_text=False))
        return Unverifiable()

    def _remember(self, mark: bytes, admission: Admission, seconds: float) -> None:
        self._verified[mark] = admission, self._clock.now() + seconds
        while len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)
