"""What somebody sees, and why: the exact view of a key or a place, and the rule behind a decision.

For the command line and the API. It is read from what is in force, by the functions that serve the caller itself; no
server is asked, and nothing counts as a discovery or a call of that caller.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.core import wire
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.directory import Directory, Place, Source
from broker.core.era import LATEST_MODERN, Version
from broker.core.explain import Step, explain
from broker.core.policy import ANY, Denied, decide
from broker.core.request import LISTS, Kind, Request
from broker.relay.greeting import greeting
from broker.relay.listing import Scope
from broker.relay.served import Served

NOT_SEEN: Final = (
    "there is no key and no place {reference!r}: name a key id, ORGANIZATION/TEAM, or ORGANIZATION/TEAM/KEY"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A view: the definitions in it, as their caller gets them, and its instructions."""

    items: Mapping[Kind, list[dict[str, Any]]]
    instructions: str | None


@dataclass(frozen=True, slots=True)
class Explained:
    """A decision: the rule that made it, and the rungs it passed, the last of which is the decision itself.

    `is_hidden`: to the caller it sounds like a name that does not exist. `argument`: what the rule refuses, where
    another call would be permitted.
    """

    name: str
    kind: Kind | None
    is_permitted: bool
    is_hidden: bool
    rule: str
    reason: str
    argument: str
    steps: tuple[Step, ...]


def caller_at(directory: Directory, reference: str) -> Caller | None:
    """Who a reference means: the id of a key, `acme/data/ci`, `acme/ci`; or anybody without a key who stands at
    `acme/data` or `acme`. A team comes before a key of the same name.
    """
    organization, _, rest = reference.partition("/")
    team, _, name = rest.partition("/")
    home = directory.organizations.get(organization)
    if home is not None and (not rest or (not name and team in home.teams)):
        return Caller(f"place:{reference}", organization, team)
    found = (place for place in directory.places() if _is_meant(place, reference))
    return next((place.caller for place in found), None)


def _is_meant(place: Place, reference: str) -> bool:
    path = "/".join(part for part in (place.organization, place.team, place.key.name) if part)
    return reference == path or (place.key.source is Source.DATABASE and reference == place.key.id)


async def seen(now: Served, caller: Caller, view: str = "", version: Version = LATEST_MODERN) -> Seen:
    """The view of a caller: all pages of all lists, and its instructions. Servers that were never seen are waited for,
    as for the caller itself."""
    await now.pool.seen(now.shown(view, caller), now.first_wait)
    greeted = greeting(now, view, caller, version)
    return Seen({kind: _items(now, caller, view, kind, version) for kind in Kind}, greeted.get("instructions"))


def _items(now: Served, caller: Caller, view: str, kind: Kind, version: Version) -> list[dict[str, Any]]:
    listed, found, params = LISTS[kind], list[dict[str, Any]](), dict[str, Any]()
    scope = Scope(caller, view, now.hidden())
    while True:
        # As bytes and back: a page is kept encoded.
        page = json.loads(
            wire.encode(now.views.page(now.catalog, scope, kind, Request(listed.method, params, version, view)))
        )
        found += page[listed.member]
        if "nextCursor" not in page:
            return found
        params = {"cursor": page["nextCursor"]}


def explained(
    now: Served, caller: Caller, name: str, *, kind: Kind | None, view: str, arguments: object, at: float
) -> Explained:
    """Why a caller may or may not use a public name. `kind`: None for whatever has that name; `arguments`: of the call
    of a tool, or `ANY`; `at`: wall-clock seconds, by which a key may have expired.
    """
    entry = _entry(now, name, kind)
    if entry is not None and entry.kind is not Kind.TOOL:
        arguments = ANY
    if at >= caller.expires:
        step = Step(f"{caller.principal}/expired", False, "the key has expired: no request with it is admitted")
        return Explained(name, entry and entry.kind, False, True, step.rule, step.reason, "", (step,))
    decision = decide(now.policy, caller, view, entry, arguments)
    steps = explain(now.policy, caller, view, entry, arguments)
    denied = decision if isinstance(decision, Denied) else None
    return Explained(
        name,
        entry and entry.kind,
        denied is None,
        denied is not None and denied.is_hidden,
        decision.rule,
        steps[-1].reason,
        denied.argument if denied is not None else "",
        steps,
    )


def _entry(now: Served, name: str, kind: Kind | None) -> Entry | None:
    """The entry of a public name, as a request would find it. A server without a prefix owns every URI: so what is no
    URI is looked up as one only if that is asked."""
    is_uri = kind is Kind.RESOURCE or (kind is None and ":" in name)
    kinds = [one for one in Kind if kind in (None, one) and (one is not Kind.RESOURCE or is_uri)]
    # Templates before resources: the form of a template is that of some URI too.
    for one in sorted(kinds, key=lambda one: one is Kind.RESOURCE):
        entry = now.catalog.lookup(one, name)
        if entry is not None and entry.server in now.pool.upstreams:
            return entry
    owner = now.naming.owner_of_name(name)
    if owner is None or is_uri or kind is Kind.TEMPLATE:
        return None
    upstream = now.pool.upstreams.get(owner[0].key)
    is_unseen = upstream is not None and upstream.listing is None
    return Entry(kind or Kind.TOOL, name, owner[0].key, owner[1]) if is_unseen else None
