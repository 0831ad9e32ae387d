"""What is asked of usage and budgets in the database, and what comes out: plain values, which load no driver."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from broker.core.tally import Sums

Group = Literal["organization", "team", "key", "tool", "server"]


@dataclass(frozen=True, slots=True)
class Seen:
    """Whose usage may be read: of these places (the team is "" for a whole organization), and of this principal.
    `everything`: of everybody."""

    places: Collection[tuple[str, str]] = ()
    principal: str = ""
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """`of`: the columns of the group, and their values. `at`: when its time began."""

    of: Mapping[str, str]
    at: int
    sums: Sums


@dataclass(frozen=True, slots=True)
class Held:
    """Of an account: what is spent, as far as brokers have told, and what they may spend beside that."""

    spent: int = 0
    leased: int = 0
