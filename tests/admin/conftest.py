"""An office over a real store, a file that defines a team, and actors of every role."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from broker.admin import keys, organizations, teams
from broker.admin.desk import Office
from broker.admin.journal import Deed
from broker.admin.rules import Rules
from broker.clock import FakeClock
from broker.config import Secret
from broker.core.caller import LOCAL, Caller, Role
from broker.core.directory import Directory, Key, Organization, Team
from broker.core.grants import Rule, key_level, organization_level, team_level
from broker.core.match import Pattern
from broker.identity.keys import KeyTable
from broker.stores.location import Location
from tests.stores.conftest import Open, at_file, opened

__all__ = ["at_file", "opened"]

SECRET = Secret("k" * 40)
START = 1_000_000.0
SERVERS = ("sql", "docs", "hr")


@dataclass
class Notes:
    """A journal that remembers, and refuses when it is told to."""

    deeds: list[Deed] = field(default_factory=list)
    error: Exception | None = None

    async def record(self, deed: Deed) -> None:
        if self.error is not None:
            raise self.error
        self.deeds.append(deed)

    def last(self) -> tuple[str, str, str, str]:
        deed = self.deeds[-1]
        return deed.actor.principal, deed.action, deed.target, deed.outcome


def file_directory() -> Directory:
    """acme (of the file) with the team ops, and in it the key robot."""
    everything = (Rule((Pattern("*"),)),)
    robot = Key("robot", "robot", key_level("acme", "ops", "robot"), role=Role.TEAM_ADMIN)
    ops = Team("ops", team_level("acme", "ops"), {"robot": robot})
    return Directory({"acme": Organization("acme", organization_level("acme", everything), {"ops": ops})})


@dataclass
class World:
    """What a test works with. Teams: acme/ops (file), acme/data and acme/web, beta/data (database)."""

    office: Office
    notes: Notes
    clock: FakeClock
    file: list[Directory]

    async def table(self) -> KeyTable:
        return KeyTable(SECRET, (await self.office.store.load()).directory)

    async def actor(
        self,
        organization: str,
        team: str,
        role: Role,
        name: str = "",
        rules: Rules | None = None,
        expires: float | None = None,
    ) -> Caller:
        """Somebody with a key of that role."""
        name = name or f"{role}-{len(self.notes.deeds)}"
        made = await keys.create(self.office, LOCAL, organization, team, name, role=role, rules=rules, expires=expires)
        return (await self.table()).verify(made.text.reveal(), self.clock.wall()).caller


@pytest.fixture
def location(at_file: Location) -> Location:
    """SQLite, which is quick; who may do what does not depend on it. test_keys.py has both."""
    return at_file


@pytest.fixture
async def world(opened: Open) -> AsyncIterator[World]:
    clock, notes, file = FakeClock(START), Notes(), [file_directory()]
    office = Office(await opened(), lambda: file[0], lambda: SERVERS, clock, lambda: SECRET, notes)
    await teams.create(office, LOCAL, "acme", "data", Rules())
    await teams.create(office, LOCAL, "acme", "web", Rules())
    await organizations.create(office, LOCAL, "beta", Rules(allow=[{"servers": ["*"]}]))
    await teams.create(office, LOCAL, "beta", "data", Rules())
    yield World(office, notes, clock, file)


def user(name: str, organization: str = "acme", team: str = "", role: Role = Role.MEMBER) -> Caller:
    """Somebody with a token of an issuer."""
    return replace(Caller(f"jwt:https://login.acme.dev {name}"), organization=organization, team=team, role=role)
