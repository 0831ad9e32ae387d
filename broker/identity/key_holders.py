"""Callers with an API key: looked up in the keys of the current directory, so that what changes there is in force at
the next request. Nothing of a key is remembered that outlives its row.

While the store is down, nobody can say that a key which is not known does not exist: that is 503 then, never 401; and a
key of the store stays good for `grace` seconds only, since it may have been revoked meanwhile (F-94).
"""

import logging
from collections.abc import Callable
from math import inf

from broker.config import Secret
from broker.core.directory import Directory, Source
from broker.identity.admission import Admission, Unauthorized, Unverifiable
from broker.identity.credential import Credential
from broker.identity.keys import PREFIX, BadKey, Holder, KeyTable
from broker.identity.supplies import Supplies

log = logging.getLogger(__name__)


class KeyAuthenticator:
    """See the module. The key secret is asked for until there is one: the first key is made beside a running broker."""

    def __init__(self, supplies: Supplies, grace: float) -> None:
        self._in_force = supplies.in_force
        self._key_secret = supplies.key_secret
        self._clock = supplies.clock
        self._silence = supplies.silence
        self.grace = grace
        """Seconds for which a key of the store stays good while the store is down."""
        self._is_retired = False
        self._secret: Secret | None = None
        self._compiled: tuple[Directory, KeyTable] | None = None

    @property
    def is_source(self) -> bool:
        """Where there are organizations, nobody is merely local, not even while they have no key; nor while a store
        that may have some cannot be read."""
        return bool(self._in_force.served.policy.directory.organizations) or self._silence() > 0

    async def admit(self, credential: Credential) -> tuple[Admission, float] | None:
        """See `Authenticator`: whatever begins like a key is one, good or bad; so is whatever stands in X-API-Key."""
        if not credential.text.startswith(PREFIX):
            if credential.is_bearer:
                return None
            raise Unauthorized(has_credential=True)
        try:
            holder = self._table().verify(credential.text, self._clock.wall())
        except BadKey as error:
            if self._silence() > 0:
                raise Unverifiable from None
            log.info("a key is refused: %s", error.why)
            raise Unauthorized(has_credential=True) from None
        if holder.source is not Source.FILE and self._silence() > self.grace:
            raise Unverifiable
        return Admission(holder.caller, self._watched(holder), lambda: self._may_return(holder)), inf

    def retire(self) -> None:
        """See `Authenticator`."""
        self._is_retired = True

    def _watched(self, holder: Holder) -> Callable[[], bool]:
        """Whether whoever was admitted with a key still would be. Asked for every request: a table never changes, so
        one is looked into once. Its mark is kept and not the table: an admission that nobody asks about again keeps no
        directory.
        """
        expires, is_of_store, seen_in = holder.caller.expires, holder.source is not Source.FILE, None

        def is_in_force() -> bool:
            nonlocal seen_in
            if self._is_retired or (expires != inf and self._clock.wall() >= expires):
                return False
            compiled, directory = self._compiled, self._in_force.served.policy.directory
            if compiled is None or compiled[0] is not directory or compiled[1].mark is not seen_in:
                table = self._table()
                if not table.is_in_force(holder, self._clock.wall()):
                    return False
                seen_in = table.mark
            return not is_of_store or self._silence() <= self.grace

        return is_in_force

    def _may_return(self, holder: Holder) -> bool:
        return self._table().is_anyone(holder.caller.principal, self._clock.wall())

    def _table(self) -> KeyTable:
        """The keys of the current directory. Raises: Unverifiable, if there is nothing to verify them with."""
        directory = self._in_force.served.policy.directory
        if self._compiled is None or self._compiled[0] is not directory:
            self._secret = self._secret or self._key_secret()
            if self._secret is None:
                log.error("there is no key secret: no API key can be verified")
                raise Unverifiable
            before = None if self._compiled is None else self._compiled[1]
            self._compiled = directory, KeyTable(self._secret, directory, before)
        return self._compiled[1]
