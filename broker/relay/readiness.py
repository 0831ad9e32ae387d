"""What is there of the servers that a caller sees: whom a list waits for, what is missing in it, how long it holds."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from broker.core.caller import Caller
from broker.core.catalog import failed_list
from broker.core.request import Kind
from broker.relay.listing import MAX_TTL, NothingKnown
from broker.relay.served import Served


async def all_seen(served: Callable[[], Served], view: str, caller: Caller) -> Served:
    """What is in force once all that the caller sees in it was waited for, a reload in between or not."""
    while True:
        now = served()
        await now.pool.seen(now.shown(view, caller), now.first_wait)
        if now is served():
            return now


def missing(now: Served, shown: Iterable[str], kind: Kind | None = None) -> dict[str, Any]:
    """What is not ready, or could not give its list of `kind`, and why; without secrets: `trouble` has none."""
    found: dict[str, Any] = {}
    for key in shown:
        upstream = now.pool.upstreams[key]
        listing = upstream.listing
        if upstream.is_down or listing is None:
            reason = trouble(now, key)
        elif (failure := failed_list(listing, kind)) is not None:
            reason = failure
        else:
            continue
        found[key] = {"state": upstream.state.phase, "known": listing is not None, "reason": reason}
    return found


def trouble(now: Served, key: str) -> str:
    """Why a server is not ready."""
    return now.pool.upstreams[key].trouble or "it is connecting"


def refuse_if_nothing_is_known(now: Served, shown: tuple[str, ...], missing: Mapping[str, Any]) -> None:
    """Raises: NothingKnown, if no server shown was ever seen."""
    if shown and all(now.pool.upstreams[key].listing is None for key in shown):
        raise NothingKnown(missing)


def ttl(now: Served, shown: Iterable[str], kind: Kind) -> float:
    """Seconds: the least that remains of any server shown."""
    left = (now.pool.upstreams[key].remaining(kind) for key in shown)
    return min(left, default=MAX_TTL)
