"""Where the keys of an issuer come from: the configuration, or its own site, kept for a while.

A set that was fetched is used for `REFRESH` seconds, then fetched again while it is still used. A token that names a
key which is not in it has it fetched at once, but at most every `PAUSE` seconds: whoever makes up names of keys must
not make us ask for each. All who wait, wait for the same fetch. While the site is down, what is known stays good for
`MAX_STALE` seconds; after that nobody can be verified, which is 503, never a caller.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Final, Protocol
from urllib.parse import urlsplit

from broker.clock import Clock
from broker.identity.admission import Unverifiable
from broker.identity.jwk import KeySet, PublicKey
from broker.outbound.fetch import FetchFailed, Outbound

log = logging.getLogger(__name__)

REFRESH: Final = 300.0
"""Seconds after which a set is fetched again: so long is a key good that its issuer has withdrawn."""
PAUSE: Final = 30.0
"""Seconds between two fetches."""
RETRY: Final = 5.0
"""Seconds to the next try after one that failed."""
FETCH_TIMEOUT: Final = 12.0
"""Seconds for metadata and keys together: less than anybody waits for the verification of a credential."""
MAX_STALE: Final = 3600.0
"""Seconds for which keys stay good while their issuer cannot be reached. Tokens rarely live longer."""


class Keys(Protocol):
    """The keys of one issuer."""

    async def find(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """The key for such a token; None if the issuer has none. Raises: Unverifiable, if that is not known."""
        ...


class StaticKeys:
    """Keys that stand in the configuration."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def find(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """See `Keys`."""
        return self._keys.find(key_id, algorithm)


class FetchedKeys:
    """Keys of an issuer's site. `jwks_url`: where, "" to find it in the metadata of the issuer."""

    def __init__(
        self,
        outbound: Outbound,
        clock: Clock,
        issuer: str,
        jwks_url: str,
        algorithms: Collection[str],
        *,
        allow_private: bool,
    ) -> None:
        self._outbound = outbound
        self._clock = clock
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._algorithms = frozenset(algorithms)
        self._allow_private = allow_private
        self._known: KeySet | None = None
        self._fetched = 0.0
        self._next_try = float("-inf")
        self._is_down = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """See `Keys`."""
        known = self._usable()
        if known is not None:
            found = known.find(key_id, algorithm)
            if found is not None:
                if self._clock.now() - self._fetched > REFRESH:
                    self._begin()
                return found
            if known.knows(key_id):
                return None  # the key is there, and not for this algorithm
        await self._renewed()
        known = self._usable()
        if known is None:
            raise Unverifiable(RETRY)
        found = known.find(key_id, algorithm)
        if found is None and self._is_down:
            raise Unverifiable(RETRY)  # the issuer may have made this key since
        return found

    def _usable(self) -> KeySet | None:
        return self._known if self._clock.now() - self._fetched <= MAX_STALE else None

    def _begin(self) -> "asyncio.Task[None] | None":
        """The fetch that is going on, or a new one if it is time."""
        if self._fetching is None and self._clock.now() >= self._next_try:
            self._next_try = self._clock.now() + PAUSE
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._ended)
        return self._fetching

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._fetching = None
        if not task.cancelled() and task.exception() is not None:
            self._is_down = True
            log.error("keys of %s: %s", self._issuer, type(task.exception()).__name__)

    async def _renewed(self) -> None:
        """Wait for the keys to be fetched, if it is time for that. Who is cancelled meanwhile cancels only itself."""
        task = self._begin()
        if task is not None:
            await asyncio.wait([task])

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                url = self._jwks_url or await self._discovered()
                document = await self._outbound.get_json(url, allow_private=self._allow_private)
            self._known = KeySet.of(document, self._algorithms)
        except (FetchFailed, TimeoutError, ValueError) as error:
            self._is_down = True
            self._next_try = self._clock.now() + RETRY
            log.warning("the keys of %s cannot be fetched: %s", self._issuer, error or "it takes too long")
            return
        self._fetched = self._clock.now()
        if self._is_down or not self._known.keys:
            log.info("the keys of %s were fetched: %d can be used", self._issuer, len(self._known.keys))
        self._is_down = False

    async def _discovered(self) -> str:
        """`jwks_uri` of the metadata. Raises: FetchFailed."""
        failure: FetchFailed | None = None
        for url in metadata_urls(self._issuer):
            try:
                document = await self._outbound.get_json(url, allow_private=self._allow_private)
            except FetchFailed as error:
                failure = failure or error
                continue
            # RFC 8414 3.3: metadata that speaks of another issuer MUST NOT be used (SP-86).
            if document.get("issuer") != self._issuer:
                raise FetchFailed("its metadata names another issuer")
            found = document.get("jwks_uri")
            if not isinstance(found, str):
                raise FetchFailed("its metadata has no jwks_uri")
            return found
        raise failure or FetchFailed("it has no metadata")


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where the metadata of an issuer may be, in the order of 2026-07-28 basic/authorization/
    authorization-server-discovery.
    """
    parts = urlsplit(issuer)
    site, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    oauth, openid = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
    if not path:
        return f"{site}{oauth}", f"{site}{openid}"
    return f"{site}{oauth}{path}", f"{site}{openid}{path}", f"{site}{path}{openid}"
