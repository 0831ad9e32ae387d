"""Waits for servers, all at once, and says what became of each: for `check --connect` and `catalog`."""

from typing import Any

import anyio

from broker.cli.local import Local, patience_of, settled
from broker.cli.screen import Screen
from broker.cli.words import line
from broker.core.request import LISTS, Kind

Row = dict[str, Any]


async def survey(local: Local, screen: Screen, wait: float | None) -> dict[str, Row]:
    """By server: `state`, `version`, `isolation`, `seconds` to connect, `reason` if it is not ready."""
    rows: dict[str, Row] = {}
    patience = patience_of(local, wait)
    with screen.progress() as progress:
        task = progress.add_task("connecting", total=len(local.upstreams))

        async def watch(key: str) -> None:
            rows[key] = await _row(local, key, patience)
            left = ", ".join(name for name in local.upstreams if name not in rows)
            progress.update(task, advance=1, description=line(f"connecting to {left}", 60) if left else "connected")

        names = ", ".join(local.upstreams)
        progress.update(task, description=line(f"connecting to {names}", 60))
        async with anyio.create_task_group() as tasks:
            for key in local.upstreams:
                tasks.start_soon(watch, key)
    return {key: rows[key] for key in local.upstreams}


async def _row(local: Local, key: str, patience: float) -> Row:
    upstream = local.upstreams[key]
    state = await settled(upstream, patience)
    listing = upstream.listing
    row: Row = {
        "state": state,
        "version": listing.version if listing is not None else None,
        "isolation": upstream.server.isolation,
    }
    if state == "ready":
        return {**row, "seconds": upstream.connect_seconds}
    reason = upstream.trouble or "it is connecting"
    return {**row, "reason": reason if state == "failed" else f"no answer within {patience:g} s"}


def dropped(local: Local, key: str) -> list[dict[str, str]]:
    """What a server has and callers do not get, with reasons."""
    shelf = local.generation.catalog.shelves.get(key)
    return [{"kind": str(one.kind), "name": one.own, "reason": one.reason} for one in (shelf.dropped if shelf else ())]


def cleaned(local: Local, key: str) -> list[dict[str, str]]:
    """What callers do not get as the server wrote it: texts with invisible characters, too long ones, icons."""
    shelf = local.generation.catalog.shelves.get(key)
    listing = shelf.listing if shelf else None
    return [{"kind": one.kind, "name": one.own, "what": one.what} for one in (listing.cleaned if listing else ())]


async def counted(local: Local, key: str) -> Row:
    """How much callers get of a server that is known: items by kind, tokens, and what is dropped."""
    items = {kind: await local.items(kind, view=key) for kind in Kind}
    everything = [item for found in items.values() for item in found]
    return {
        **{LISTS[kind].member: len(found) for kind, found in items.items()},
        "tokens": await local.tokens(everything, key),
        "dropped": dropped(local, key),
        "cleaned": cleaned(local, key),
        "unknown_costs": list(local.generation.unserved(key)),
    }


def isolated(local: Local, key: str) -> str:
    """Who gets a link of its own, in words; "" where all share one."""
    server = local.upstreams[key].server
    if server.isolation == "shared":
        return ""
    return f"isolation: a link for each {server.isolation}, {server.isolation_max} at most"
