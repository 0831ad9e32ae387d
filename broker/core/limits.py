"""Which limits apply to a call. Every one of them must hold: no level can loosen what another has set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from broker.core.budget import Limit
from broker.core.caller import Caller
from broker.core.directory import Directory, Key
from broker.core.grants import Level
from broker.core.quota import UNLIMITED, Limits, ServerLimits
from broker.core.roll import Roll


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
            level.limits is not UNLIMITED and not level.limits.is_none for level in _all_levels(self.directory)
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


def budgets_of(directory: Directory, caller: Caller) -> tuple[Limit, ...]:
    """The budgets of which a call of the caller is paid: all of them, from the organization down."""
    return tuple(one for level in _levels(directory, caller) for one in _budgets(level))


def all_budgets(directory: Directory) -> tuple[tuple[str, str, Limit], ...]:
    """Every budget, after the organization and the team that it belongs to."""
    return tuple((*place, one) for place, level in _placed(directory) for one in _budgets(level))


def _budgets(level: Level) -> Iterator[Limit]:
    return (Limit(level.where, period, amount) for period, amount in level.limits.budget.items())


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
    return (level for _, level in _placed(directory))


def _placed(directory: Directory) -> Iterator[tuple[tuple[str, str], Level]]:
    """Every level that may have limits, with the organization and the team that it belongs to."""
    for organization in directory.organizations.values():
        if organization.level is not None:
            yield (organization.name, ""), organization.level
        for team in organization.teams.values():
            if team.level is not None:
                yield (organization.name, team.name), team.level
    for organization, team, roll in directory.rolls():
        yield from (((organization, team), level) for level in roll.derived(_limited_in))


def _limited_in(roll: Roll[Key]) -> tuple[Level, ...]:
    """For `Roll.derived`: the levels of those keys that may have limits, of which there are few."""
    return tuple([key.level for key in roll.values() if key.level.limits is not UNLIMITED])
