"""What was used: counts of calls by who made them, and of what. Values, and how they add up."""

from dataclasses import dataclass
from typing import NamedTuple

from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.request import Kind

MAX_NAME = 256
"""Characters of a name that are kept."""


class Use(NamedTuple):
    """Whose, and of what. `name`: its own name, of a tool or a prompt; resources of a server are counted together, for
    there is no end of URIs. A tuple, for one is made of every call.
    """

    organization: str
    team: str
    principal: str
    server: str
    kind: str
    name: str

    @classmethod
    def of(cls, caller: Caller, entry: Entry) -> "Use":
        """A caller's use of an entry."""
        name = entry.own[:MAX_NAME] if entry.kind in (Kind.TOOL, Kind.PROMPT) else ""
        return cls(caller.organization, caller.team, caller.principal, entry.server, entry.kind.value, name)


@dataclass(slots=True)
class Sums:
    """Calls, those of them that failed or gave no result, and those that a budget refused, which are no calls; their
    cost in micro-units, and their durations in microseconds."""

    calls: int = 0
    failed: int = 0
    refused: int = 0
    cost: int = 0
    micros: int = 0
    slowest: int = 0

    def add(self, other: "Sums") -> None:
        """Both together."""
        self.calls += other.calls
        self.failed += other.failed
        self.refused += other.refused
        self.cost += other.cost
        self.micros += other.micros
        self.slowest = max(self.slowest, other.slowest)
