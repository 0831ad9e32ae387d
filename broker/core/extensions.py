"""What two sides may agree on beyond the core: extensions, experimental features, and tasks; and what a view offers.

A server's and a caller's word meet here. Nothing is understood: an extension is a name that both declared.
Spec: 2026-07-28 basic/versioning, "Extension Negotiation".
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from broker.core import wire
from broker.core.catalog import Listing
from broker.core.era import NEGOTIATED, TASKS, is_modern, knows_tasks
from broker.core.shape import is_object

MAX_NAMES: Final = 64
"""Names of one server in one member: what a server declares is said to every caller, in every greeting."""
MAX_SETTINGS: Final = 16 * 1024
"""Bytes of the settings of one of them, likewise."""
MAX_NAME: Final = 256
"""Characters of one name, likewise."""

_LISTS: Final = ("tools", "prompts", "resources")
_FLAGS: Final = ("completions", "logging")

_CORE_REQUESTS: Final = frozenset(
    {
        *("initialize", "ping", "server/discover", "subscriptions/listen", "completion/complete", "logging/setLevel"),
        *("tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/templates/list"),
        *("resources/read", "resources/subscribe", "resources/unsubscribe"),
        *("sampling/createMessage", "elicitation/create", "roots/list"),
    }
)
_CORE_NOTIFICATIONS: Final = frozenset(
    f"notifications/{name}"
    for name in (
        *("initialized", "cancelled", "progress", "message", "roots/list_changed", "elicitation/complete"),
        *("tools/list_changed", "prompts/list_changed", "resources/list_changed", "resources/updated"),
        *("subscriptions/acknowledged", "tasks", "tasks/status"),
    )
)

Offer = tuple[str, str]
"""Member of the capabilities ("extensions" or "experimental"), and a name in it."""


def is_foreign(method: str) -> bool:
    """Whether no version of the core knows a method, nor the tasks: then it may be an extension's."""
    return method not in _CORE_REQUESTS and method not in _CORE_NOTIFICATIONS and not method.startswith("tasks/")


def offers(capabilities: Mapping[str, Any], version: str) -> dict[Offer, dict[str, Any]]:
    """What a side that speaks `version` declares beyond the core, and its settings.

    The tasks extension is defined for the modern era alone. What is too large to be said to everybody is left out.
    """
    found: dict[Offer, dict[str, Any]] = {}
    for member in NEGOTIATED:
        declared = capabilities.get(member)
        names = list(declared.items())[:MAX_NAMES] if is_object(declared) else []
        for name, settings in names:
            if name == TASKS and not is_modern(version):
                continue
            if is_object(settings) and len(name) <= MAX_NAME and len(wire.encode(settings)) <= MAX_SETTINGS:
                found[member, name] = settings
    return found


def share(server: Listing, capabilities: Mapping[str, Any], version: str) -> bool:
    """Whether a server and a caller with these capabilities declare the same extension, or experimental feature."""
    return not offers(server.capabilities, server.version).keys().isdisjoint(offers(capabilities, version))


def has_tasks(listing: Listing, *parts: str) -> bool:
    """Whether a server declares the tasks of 2025-11-25, or a part of them: `has_tasks(one, "requests", "tools")`."""
    declared: object = listing.capabilities.get("tasks") if knows_tasks(listing.version) else None
    for part in parts:
        declared = declared.get(part) if is_object(declared) else None
    return is_object(declared)


def view_capabilities(
    visible: Iterable[Listing], empty: Iterable[Listing], *, caller: str, is_open: bool
) -> dict[str, Any]:
    """The server capabilities that a caller of version `caller` is told.

    `visible` are the listings of the servers of which it sees something, in configuration order; `empty` those that
    list nothing at all (there is nothing to hide, and there may be something tomorrow); `is_open`: a server is still
    unseen, so all lists are declared.
    """
    visible = tuple(visible)
    declared = {name for listing in visible for name in listing.capabilities}
    listed = declared | {name for listing in empty for name in listing.capabilities}
    served: dict[str, Any] = {name: {"listChanged": True} for name in _LISTS if is_open or name in listed}
    if any(_subscribes(listing) for listing in visible):
        served["resources"]["subscribe"] = True
    served |= {name: {} for name in _FLAGS if name in declared}
    if knows_tasks(caller) and (tasks := _tasks_of(visible)):
        served["tasks"] = tasks
    return served | _union(visible, caller)


def _union(visible: tuple[Listing, ...], caller: str) -> dict[str, Any]:
    """`extensions` and `experimental` of all.

    Settings that differ: those of the first server in configuration order stand. To drop the name would take the
    extension from every caller for one server's sake, and settings mixed of two would be nobody's word.
    """
    served: dict[str, Any] = {}
    for listing in visible:
        for (member, name), settings in offers(listing.capabilities, listing.version).items():
            if name != TASKS or is_modern(caller):
                served.setdefault(member, {}).setdefault(name, settings)
    return served


def _tasks_of(visible: tuple[Listing, ...]) -> dict[str, Any]:
    """The `tasks` of the legacy servers, as far as the broker carries them: tool calls, listing, cancelling."""
    if not any(has_tasks(listing, "requests", "tools", "call") for listing in visible):
        return {}
    parts: dict[str, Any] = {
        name: {} for name in ("list", "cancel") if any(has_tasks(listing, name) for listing in visible)
    }
    return {**parts, "requests": {"tools": {"call": {}}}}


def _subscribes(listing: Listing) -> bool:
    resources = listing.capabilities.get("resources")
    return is_object(resources) and resources.get("subscribe") is True
