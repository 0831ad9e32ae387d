"""Entries of names that the catalog does not have: of a server that was never seen, and of a page of MCP Apps."""

from collections.abc import Callable

from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.policy import Permit, decide
from broker.core.request import Kind
from broker.relay.served import Served


async def late_entry(served: Callable[[], Served], kind: Kind, public: str, view: str, caller: Caller) -> Entry | None:
    """The entry of a name that looks like that of a server which was never seen: it is waited for, like a list.

    While it is still unseen the entry is a guess, good enough to decide on and to say whom the caller waits for. A
    server of which the caller cannot see anything is not waited for: its names are unknown at once.
    """
    if kind not in (Kind.TOOL, Kind.PROMPT):
        return None
    while True:
        now = served()
        owner = now.naming.owner_of_name(public)
        if owner is None or owner[0].key not in now.shown(view, caller):
            return None
        key, own = owner[0].key, owner[1]
        if now.pool.upstreams[key].listing is not None:
            return now.catalog.lookup(kind, public)
        await now.pool.seen([key], now.first_wait)
        if now is served():  # else a reload came meanwhile: what is in force now was not waited for
            return now.catalog.lookup(kind, public) or _guess(now, kind, public, key, own)


def _guess(now: Served, kind: Kind, public: str, key: str, own: str) -> Entry | None:
    return Entry(kind, public, key, own) if now.pool.upstreams[key].listing is None else None


def app_tool(now: Served, own: str, view: str, caller: Caller) -> Entry | None:
    """The one visible tool with a page of MCP Apps that has this own name: its page knows no other name for it."""
    found = [one for one in now.catalog.app_tools(own) if isinstance(decide(now.policy, caller, view, one), Permit)]
    return found[0] if len(found) == 1 else None
