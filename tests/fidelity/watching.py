"""Resources that are watched: `resources/subscribe` of the legacy eras, `subscriptions/listen` of the modern one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.fidelity.caller import Asked
from tests.fidelity.content import BLOB, README
from tests.fidelity.names import Json, Names

UPDATED, ACKNOWLEDGED = "notifications/resources/updated", "notifications/subscriptions/acknowledged"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
NOWHERE = "probe://nowhere"


async def subscribe(caller: Asked, names: Names) -> Json:
    """Two resources, then one, then none: each change is told to who watches it, as soon as that is answered."""
    steps: list[Json] = []

    async def ask(what: str, uri: str) -> None:
        steps.append(await caller.whole(f"resources/{what}", {"uri": names.uri(uri)}))
        del steps[-1]["notices"]  # of earlier changes

    first = len(caller.notices)
    async with caller.hearing():
        await ask("subscribe", README)
        await ask("subscribe", BLOB)
        await _touch(caller, names, README)
        await _heard(caller, first, 1)
        await ask("unsubscribe", README)
        await _touch(caller, names, README, BLOB)
        await _heard(caller, first, 2)
        await ask("unsubscribe", BLOB)
    return {"steps": steps, "told": [_own(one, names) for one in _told(caller, first)]}


async def listen(caller: Asked, names: Names) -> Json:
    """Likewise: a stream of two resources, and of one that is not there; then one of one resource."""
    told: list[Json] = []
    for watched, touched in (((README, NOWHERE, BLOB), (README,)), ((BLOB,), (README, BLOB))):
        first = len(caller.notices)
        async with _listening(caller, [names.uri(uri) for uri in watched]) as ident:
            await _touch(caller, names, *touched)
            await _heard(caller, first, 1)
        found = [_own(one, names) for one in _told(caller, first)]
        assert all(one["params"]["_meta"].pop(SUBSCRIPTION) == ident for one in found), found
        told += found
    return {"told": told}


@asynccontextmanager
async def _listening(caller: Asked, uris: list[str]) -> AsyncGenerator[Any, None]:
    """A stream that has been acknowledged; its id."""
    ident, acknowledged = caller.next_id(), caller.count(ACKNOWLEDGED)
    params = {"notifications": {"resourceSubscriptions": uris}}
    request = asyncio.create_task(caller.exchange("subscriptions/listen", params, ident=ident))
    try:
        await caller.heard(ACKNOWLEDGED, acknowledged + 1)
        yield ident
    finally:
        await caller.cancel(ident, request)
        request.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await request


async def _touch(caller: Asked, names: Names, *uris: str) -> None:
    result = await caller.call(names.name("touch"), {"uris": list(uris)})
    assert not result["content"], result


async def _heard(caller: Asked, first: int, count: int) -> None:
    before = sum(one["method"] == UPDATED for one in caller.notices[:first])
    await caller.heard(UPDATED, before + count)


def _told(caller: Asked, first: int) -> list[Json]:
    return [one for one in caller.notices[first:] if one["method"] in (UPDATED, ACKNOWLEDGED)]


def _own(notice: Json, names: Names) -> Json:
    """A notification with the upstream's own URIs, where they are public as they must be."""
    back = {names.uri(own): own for own in (README, BLOB)}
    params = dict(notice["params"])
    if "uri" in params:
        params["uri"] = back.get(params["uri"], f"NOT PUBLIC {params['uri']}")
    if "notifications" in params:
        watched = params["notifications"].get("resourceSubscriptions", [])
        params["notifications"] = {"resourceSubscriptions": [back.get(uri, f"NOT PUBLIC {uri}") for uri in watched]}
    return {"method": notice["method"], "params": params}
