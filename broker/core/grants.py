"""What may be used: rules, and the levels that hold them.

A level (an organization, a team, a key, the scopes of a token) only narrows what is above it: every level must allow,
none may deny. Rules match full names, `<key>__<own name>` and `<key>+<own URI>`, before prefix, replacement and
shortening, so that no published form of a name can dodge a rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.core.conditions import Condition
from broker.core.match import Pattern
from broker.core.names import SEPARATOR
from broker.core.quota import UNLIMITED, LevelLimits
from broker.core.request import Kind

URI_SEPARATOR: Final = "+"
"""Between a server's key and the own URI of a resource or template."""


def full_name(kind: Kind, server: str, own: str) -> str:
    """What rules match: the key of the server and the name that the server itself uses."""
    return f"{server}{URI_SEPARATOR if kind in (Kind.RESOURCE, Kind.TEMPLATE) else SEPARATOR}{own}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an allow or deny list. All that is given must hold.

    `servers`: patterns over server keys, None for any server. `names`: patterns over full names, per kind; empty: all
    kinds; a kind that is not in it, while others are, is not covered. `when`: conditions on the arguments of tools, all
    of which must hold; a rule that has some covers tools only. A rule with neither servers nor names covers nothing:
    `config/` and the directory store refuse it.
    """

    servers: tuple[Pattern, ...] | None = None
    names: Mapping[Kind, tuple[Pattern, ...]] = field(default_factory=dict[Kind, tuple[Pattern, ...]])
    when: tuple[Condition, ...] = ()

    def covers(self, kind: Kind, server: str, own: str) -> bool:
        """Whether the rule speaks of this entry; its conditions are another question."""
        if self.servers is None and not self.names:
            return False
        if self.when and kind is not Kind.TOOL:
            return False
        if self.servers is not None and not any(pattern.matches(server) for pattern in self.servers):
            return False
        if not self.names:
            return True
        name = full_name(kind, server, own)
        return any(pattern.matches(name) for pattern in self.names.get(kind, ()))


@dataclass(frozen=True, slots=True)
class Level:
    """The rules of one place. Deny wins; what no rule of `allow` covers is denied.

    `where`: `org:acme`, `team:acme/data`, `key:acme/data/ci`; its rules are named after it: `team:acme/data/deny/1`,
    and `team:acme/data/allow` when nothing in the list matched. `allow`: None for what was left out, which is all that
    the level above allows (an organization has none above it: there it is nothing); () for nothing.
    """

    where: str
    allow: tuple[Rule, ...] | None = None
    deny: tuple[Rule, ...] = ()
    limits: LevelLimits = UNLIMITED
    """How much, of what is allowed; that is no part of the decision (`core/limits.py`)."""

    @property
    def is_silent(self) -> bool:
        """Whether it neither allows nor denies anything of its own."""
        return self.allow is None and not self.deny


def organization_level(
    organization: str,
    allow: tuple[Rule, ...] | None = None,
    deny: tuple[Rule, ...] = (),
    limits: LevelLimits = UNLIMITED,
) -> Level:
    """The level of an organization. `allow` left out is nothing."""
    return Level(f"org:{organization}", () if allow is None else allow, deny, limits)


def team_level(
    organization: str,
    team: str,
    allow: tuple[Rule, ...] | None = None,
    deny: tuple[Rule, ...] = (),
    limits: LevelLimits = UNLIMITED,
) -> Level:
    """The level of a team."""
    return Level(f"team:{organization}/{team}", allow, deny, limits)


def key_level(
    organization: str,
    team: str,
    key: str,
    allow: tuple[Rule, ...] | None = None,
    deny: tuple[Rule, ...] = (),
    limits: LevelLimits = UNLIMITED,
) -> Level:
    """The level of a key; `team` is "" for one that stands directly in its organization."""
    return Level(f"key:{organization}/{team}/{key}" if team else f"key:{organization}/{key}", allow, deny, limits)
