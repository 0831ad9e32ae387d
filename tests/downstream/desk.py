"""A front with identity: keys and tokens of two organizations, a directory that a test changes while it runs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from broker.app import Broker
from broker.clock import FakeClock
from broker.config import IdentitySettings, JwtIssuer, Secret
from broker.core.directory import Directory, Key, KeyHash, Organization, Source, Team
from broker.core.grants import Rule, key_level, organization_level, team_level
from broker.core.match import Pattern
from broker.downstream.guard import Guard
from broker.downstream.vigil import RECHECK
from broker.identity.assembly import identity_of, resource_of
from broker.identity.identity import Identity
from broker.identity.keys import ENTROPY, hash_of, mint
from broker.identity.supplies import Supplies
from tests.downstream.conftest import Front, serving
from tests.identity.issuer import AUDIENCE, NOW, Issuer
from tests.relay.fake import Fake

SECRET = Secret("k" * 40)
PUBLIC = "https://broker.example"
EVERYTHING = (Rule(servers=(Pattern("*"),)),)


def bearer(text: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {text}")]


@dataclass
class Desk:
    """`keys` by number; `directory` is what they come to. A change is in force when `adopt` returns."""

    issuer: Issuer = field(default_factory=Issuer.new)
    keys: dict[int, Key] = field(default_factory=dict[int, Key])
    silence: float = 0.0
    front: Front = field(init=False)
    key_secret: Secret | None = field(default_factory=lambda: SECRET)

    @property
    def broker(self) -> Broker:
        return self.front.house.broker

    @property
    def clock(self) -> FakeClock:
        return self.front.house.clock

    def key(self, number: int, organization: str = "acme", **more: Any) -> str:
        """A key, and its text."""
        made = mint(bytes([number]) * ENTROPY)
        level = key_level(organization, "data", f"k{number}")
        hashes = (KeyHash(hash_of(made.text.reveal(), SECRET)),)
        self.keys[number] = Key(made.id, f"k{number}", level, hashes, **{"source": Source.DATABASE, **more})
        return made.text.reveal()

    def change(self, number: int, **changes: Any) -> None:
        self.keys[number] = replace(self.keys[number], **changes)
        self.adopt()

    @property
    def directory(self) -> Directory:
        found: dict[str, Organization] = {}
        for name in ("acme", "other"):
            own = {key.id: key for key in self.keys.values() if key.level.where.startswith(f"key:{name}/")}
            team = Team("data", team_level(name, "data", EVERYTHING), own, Source.DATABASE)
            level = organization_level(name, EVERYTHING)
            found[name] = Organization(name, level, {"data": team}, source=Source.DATABASE)
        return Directory(found)

    def adopt(self) -> None:
        self.broker.generation.adopt(self.directory)

    def token(self, **changes: Any) -> str:
        return self.issuer.token(**changes)

    def settings(self) -> IdentitySettings:
        jwks = tuple(self.issuer.jwks["keys"])
        one = JwtIssuer(issuer=self.issuer.url, audience=(AUDIENCE,), organization="acme", keys=jwks)
        return IdentitySettings(public_url=PUBLIC, jwt=(one,))

    def identity(self, broker: Broker) -> Identity:
        supplies = Supplies(broker.clock, broker.engine.router, lambda: self.key_secret, lambda: self.silence)
        return identity_of(self.settings(), supplies, is_private=True)

    def sweep(self) -> None:
        """Time goes on until the front looks at everybody."""
        self.clock.advance(RECHECK)


@asynccontextmanager
async def desk(directory: Path, fakes: dict[str, Fake], **more: Any) -> AsyncGenerator[Desk, None]:
    """With key 1 of acme, and key 2 of another organization."""
    found = Desk()
    settings = found.settings()
    start = partial(serving, guard=Guard(public_url=PUBLIC), clock=FakeClock(NOW), **more)
    resource = resource_of(settings, "test")
    async with start(directory, fakes, make_identity=found.identity, resource=resource) as front:
        found.front = front
        found.key(1)
        found.key(2, "other")
        found.adopt()
        yield found
