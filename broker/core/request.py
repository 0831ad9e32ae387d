"""What is asked, free of transport."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from broker.core.era import Version


class Kind(StrEnum):
    """What an entry of the catalog is; the values are the words of the configuration."""

    TOOL = "tools"
    PROMPT = "prompts"
    RESOURCE = "resources"
    TEMPLATE = "templates"


@dataclass(frozen=True, slots=True)
class ListMethod:
    """How a kind is listed: its method, and the member of the result that holds the items."""

    method: str
    member: str
    name_key: str
    """The member of an item that names it."""


LISTS: Final[Mapping[Kind, ListMethod]] = {
    Kind.TOOL: ListMethod("tools/list", "tools", "name"),
    Kind.PROMPT: ListMethod("prompts/list", "prompts", "name"),
    Kind.RESOURCE: ListMethod("resources/list", "resources", "uri"),
    Kind.TEMPLATE: ListMethod("resources/templates/list", "resourceTemplates", "uriTemplate"),
}

KIND_OF_LIST: Final[Mapping[str, Kind]] = {listed.method: kind for kind, listed in LISTS.items()}

NAMED: Final[Mapping[str, tuple[Kind, str]]] = {
    "tools/call": (Kind.TOOL, "name"),
    "prompts/get": (Kind.PROMPT, "name"),
    "resources/read": (Kind.RESOURCE, "uri"),
}
"""Methods that ask one entry: its kind, and the parameter that carries its public name."""


@dataclass(slots=True)
class Request:
    """One question of a caller: method and parameters as judged, the version spoken, and the view it came by. Never
    changed (a frozen one takes three times as long to make).

    `view` is the name of a server or group, or "" for everything the caller may see.
    """

    method: str
    params: dict[str, Any]
    version: Version
    view: str = ""
