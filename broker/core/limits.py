"""Which limits apply to a call. Every one of them must hold: no level can loosen what another has set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from broker.core.caller import Caller
from broker.core.directory import Directory
from broker.core.grants import Level
from broker.core.quota import Limits, ServerLimits


@dataclass(frozen=True, slots=True)
class Applied:
    """One limit on a call. `level`: whose it is: `team:acme/data`, or `team:acme/data/servers/sql` (of the team, at one
    server); `server:sql`, or `server:sql/per_caller`, of which each caller has its own.
    """

    level: str
    limits: Limits
    is_per_caller: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class LimitRules:
    """All limits of a configuration. Two of them are the same only if they are one object."""

    directory: Directory = field(default_factory=Directory)
    servers: Mapping[str, ServerLimits] = field(default_factory=dict[str, ServerLimits])
    is_empty: bool = field(init=False)
    """Whether nobody has any: then nobody needs to look."""

    def __post_init__(self) -> None:
        is_empty = all(one.is_none for one in self.servers.values()) and not any(
            not level.limits.is_none for level in _all_levels(self.directory)
        )
        object.__setattr__(self, "is_empty", is_empty)

    def applying(self, caller: Caller, server: str) -> tuple[Applied, ...]:
        """Those on calls of a caller at a server, from the organization down."""
        found: list[Applied] = []
        for level in _levels(self.directory, caller):
            found.append(Applied(level.where, level.limits.in_all))
            if server in level.limits.servers:
                found.append(Applied(f"{level.where}/servers/{server}", level.limits.servers[server]))
        if server in self.servers:
            found.append(Applied(f"server:{server}", self.servers[server].in_all))
            found.append(Applied(f"server:{server}/per_caller", self.servers[server].per_caller, is_per_caller=True))
        return tuple(one for one in found if not one.limits.is_none)


def _levels(directory: Directory, caller: Caller) -> Iterator[Level]:
    """The levels of the caller's place. One that is not there (any more) has none: nothing of it is permitted."""
    organization = directory.organizations.get(caller.organization)
    if organization is None:
        return
    team = organization.teams.get(caller.team)
    key = (organization.keys if team is None else team.keys).get(caller.key)
    places = (organization.level, None if team is None else team.level, None if key is None else key.level)
    yield from (level for level in places if level is not None)


def _all_levels(directory: Directory) -> Iterator[Level]:
    for organization in directory.organizations.values():
        yield from (one.level for one in (organization, *organization.teams.values()) if one.level is not None)
    yield from (place.key.level for place in directory.places())
