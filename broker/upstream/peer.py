"""What an upstream said of itself when the connection opened."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker import __version__
from broker.core.era import Version
from broker.core.shape import is_object

BROKER_INFO: Final[Mapping[str, Any]] = {"name": "mcp-broker", "title": "MCP Broker", "version": __version__}
"""What the broker calls itself towards upstreams."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The agreed version, and the upstream's word on itself (never used for naming or for a decision: SP-31)."""

    version: Version
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    capabilities: Mapping[str, Any] = field(default_factory=dict[str, Any])
    instructions: str | None = None

    def has(self, capability: str) -> bool:
        """Whether it declared `capability`."""
        return is_object(self.capabilities.get(capability))

    def announces(self, capability: str) -> bool:
        """Whether it declared to announce changes of that list."""
        declared = self.capabilities.get(capability)
        return is_object(declared) and declared.get("listChanged") is True
