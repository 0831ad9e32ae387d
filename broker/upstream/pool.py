"""All upstreams of one configuration, and the link that carries what a caller asks. `fleet.py` has their tasks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio

from broker.upstream.isolated import Isolated
from broker.upstream.lease import Asker, Lease
from broker.upstream.listening import Topic
from broker.upstream.supervise import Upstream


class Pool:
    """The upstreams by key, in configuration order; `isolated` has the links of those whose callers share none."""

    def __init__(self, upstreams: Iterable[Upstream], isolated: Mapping[str, Isolated]) -> None:
        self.upstreams: Mapping[str, Upstream] = {upstream.key: upstream for upstream in upstreams}
        self.isolated = isolated
        self._patience: float | None = None

    def __repr__(self) -> str:
        return f"<Pool {', '.join(f'{key}: {one.state.phase}' for key, one in self.upstreams.items())}>"

    async def seen(self, keys: Iterable[str], timeout: float) -> None:
        """Wait until each of `keys` has been seen once or has failed once.

        At most until `timeout` seconds after anybody first had to wait: a server that hangs costs its broker one wait
        in all, not one for every list.
        """
        unseen = [self.upstreams[key] for key in keys if self.upstreams[key].listing is None]
        if not unseen:
            return
        for upstream in unseen:
            upstream.demand.want()
        self._patience = self._patience or anyio.current_time() + timeout
        with anyio.CancelScope(deadline=self._patience):
            for upstream in unseen:
                await upstream.first_try.wait()

    # -- which link carries what --------------------------------------------------------------------------------------

    async def lease(self, key: str, asker: Asker, patience: float) -> Lease:
        """The link for a call of `asker`: its own, or the one that all share (`Upstream.first_link`).

        Raises: UpstreamUnavailable.
        """
        isolated = self.isolated.get(key)
        if isolated is None:
            return Lease(await self.upstreams[key].first_link(patience))
        return await isolated.lease(asker)

    def want_logs(self, key: str, asker: Asker, level: str) -> None:
        """The asker wants to read what the upstream logs from `level` on."""
        isolated = self.isolated.get(key)
        if isolated is None:
            self.upstreams[key].wishes.want_logs(level)
        else:
            isolated.want_logs(asker, level)

    def pass_on(self, key: str, asker: Asker, method: str, params: dict[str, Any]) -> None:
        """A notification of the asker in the words of an extension."""
        isolated = self.isolated.get(key)
        if isolated is None:
            self.upstreams[key].wishes.pass_on(method, params)
        else:
            isolated.pass_on(asker, method, params)

    def roots_changed(self, key: str, asker: Asker) -> None:
        """The asker's roots have changed: who was told of roots may ask again."""
        isolated, upstream = self.isolated.get(key), self.upstreams[key]
        if not upstream.server.roots:
            return
        if isolated is None:
            upstream.wishes.tell(ROOTS_CHANGED)
        else:
            isolated.tell(asker, ROOTS_CHANGED)

    def watching(self, key: str, asker: Asker) -> "Watching":
        """Where the asker hears of what it watches at this upstream."""
        isolated = self.isolated.get(key)
        return Watching(key, asker, self.upstreams[key] if isolated is None else isolated)

    def end_session(self, session: str) -> None:
        """A session has ended, and its own links with it."""
        for isolated in self.isolated.values():
            isolated.end(session)


Upstreams = tuple[tuple[Upstream, Isolated | None], ...]
"""Each with the links of its single callers, if it has such."""


@dataclass(frozen=True, slots=True)
class Swap:
    """What one pool has that the other has not."""

    started: Upstreams
    left: Upstreams

    @classmethod
    def of(cls, before: Pool, after: Pool) -> "Swap":
        """From one to the next."""
        return cls(_only_in(after, before), _only_in(before, after))

    def pass_wishes(self) -> None:
        """What callers want to hear of a server that is reached in another way, they go on to hear of."""
        heirs = {upstream.key: (upstream, isolated) for upstream, isolated in self.started}
        for upstream, isolated in self.left:
            heir, isolated_heir = heirs.get(upstream.key, (None, None))
            if heir is None or heir.server.isolation != upstream.server.isolation:
                continue
            upstream.wishes.pass_to(heir.wishes)
            if isolated is not None and isolated_heir is not None:
                isolated.pass_to(isolated_heir)

    @classmethod
    def first(cls, pool: Pool) -> "Swap":
        """All of it is new."""
        return cls(_only_in(pool, Pool((), {})), ())


def _only_in(one: Pool, other: Pool) -> Upstreams:
    return tuple(
        (upstream, one.isolated.get(key))
        for key, upstream in one.upstreams.items()
        if other.upstreams.get(key) is not upstream
    )


ROOTS_CHANGED: Final = "notifications/roots/list_changed"


@dataclass(frozen=True, slots=True)
class Watching:
    """What one asker hears of at one upstream: on its own link, or on the one that all share."""

    key: str
    asker: Asker
    place: Isolated | Upstream

    async def watch(self, topic: Topic) -> None:
        """Hear of something. Raises: BrokerError."""
        await (self.place.watch(self.asker, topic) if isinstance(self.place, Isolated) else self.place.watch(topic))

    @property
    def is_lost(self) -> bool:
        """Whether nobody asks for it any more: its server was taken out."""
        if not self.place.is_retired:
            return False
        place = self.place
        return not (place.has_heir(self.asker) if isinstance(place, Isolated) else place.wishes.has_heir)

    def unwatch(self, topic: Topic) -> None:
        """Hear of it no more."""
        if isinstance(self.place, Isolated):
            self.place.unwatch(self.asker, topic)
        else:
            self.place.unwatch(topic)
