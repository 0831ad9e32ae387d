"""Other settings of identity in force: what has not changed goes on, and what has ends with what it admitted."""

import gc
import weakref

import pytest

from broker.clock import FakeClock
from broker.config import IdentitySettings, JwtIssuer, Secret
from broker.core.directory import Directory, Key, KeyHash, Organization, Team
from broker.core.grants import Rule, key_level, organization_level, team_level
from broker.core.match import Pattern
from broker.identity.admission import Admission, Unauthorized
from broker.identity.assembly import change_of, identity_of
from broker.identity.identity import Identity
from broker.identity.keys import ENTROPY, hash_of, mint
from broker.identity.supplies import Supplies
from tests.identity.asking import Ask, Told
from tests.identity.issuer import AUDIENCE, NOW, Issuer

PUBLIC = "https://broker.example"
MADE = mint(b"k" * ENTROPY)
ISSUERS = Issuer.new(), Issuer.new(url="https://other.example")


def secret(letter: str) -> Secret:
    return Secret(letter * 40)


def directory(key_secret: Secret) -> Directory:
    every = (Rule(servers=(Pattern("*"),)),)
    key = Key(MADE.id, "ci", key_level("acme", "data", "ci"), (KeyHash(hash_of(MADE.text.reveal(), key_secret)),))
    team = Team("data", team_level("acme", "data", every), {MADE.id: key})
    return Directory({"acme": Organization("acme", organization_level("acme", every), {"data": team})})


class Organizations(dict[str, Organization]):
    """Those of a directory; whether they are gone can be seen."""


def settings(key_secret: str = "s", *issuers: Issuer, **more: object) -> IdentitySettings:
    jwt = tuple(
        JwtIssuer(issuer=one.url, audience=(AUDIENCE,), organization="acme", keys=tuple(one.jwks["keys"]))
        for one in issuers
    )
    return IdentitySettings.model_validate({"public_url": PUBLIC, "key_secret": secret(key_secret), "jwt": jwt, **more})


class Place:
    def __init__(self, now: IdentitySettings) -> None:
        self.now = now
        self.directory = directory(secret("s"))
        self.identity = identity_of(now, self.supplies(now), is_private=True)

    def supplies(self, of: IdentitySettings) -> Supplies:
        return Supplies(FakeClock(NOW), Told(lambda: self.directory), lambda: of.key_secret)

    def change(self, to: IdentitySettings) -> None:
        commit = change_of(self.identity, self.now, to, self.supplies(to))
        commit()
        self.now = to


async def admitted(identity: Identity, text: str) -> Admission:
    return await identity.admit(Ask.bearer(text), "192.0.2.7")


async def test_nothing_ends_where_nothing_has_changed() -> None:
    place = Place(settings("s", *ISSUERS))
    key = await admitted(place.identity, MADE.text.reveal())
    token = await admitted(place.identity, ISSUERS[0].token())
    place.change(settings("s", *ISSUERS, store_grace=5.0))
    assert key.is_in_force() and token.is_in_force()
    place.change(settings("s", *reversed(ISSUERS)))
    assert key.is_in_force() and token.is_in_force()
    assert (await admitted(place.identity, ISSUERS[1].token())).is_in_force()


async def test_an_admission_that_nobody_asks_about_again_keeps_no_keys_of_earlier_times() -> None:
    place = Place(settings("s", *ISSUERS))
    organizations = Organizations(place.directory.organizations)
    place.directory, before = Directory(organizations), weakref.ref(organizations)
    del organizations
    key, token = [await admitted(place.identity, text) for text in (MADE.text.reveal(), ISSUERS[0].token())]
    assert key.is_in_force() and token.is_in_force()
    place.directory = directory(secret("s"))
    with pytest.raises(Unauthorized):
        await admitted(place.identity, mint(b"o" * ENTROPY).text.reveal())
    gc.collect()
    assert before() is None
    assert key.is_in_force() and token.is_in_force()


async def test_I08_an_issuer_that_goes_takes_what_it_admitted_with_it() -> None:
    place = Place(settings("s", *ISSUERS))
    gone, stays = [await admitted(place.identity, one.token()) for one in ISSUERS]
    key = await admitted(place.identity, MADE.text.reveal())
    place.change(settings("s", ISSUERS[1]))
    assert not gone.is_in_force() and stays.is_in_force() and key.is_in_force()
    with pytest.raises(Unauthorized):
        await admitted(place.identity, ISSUERS[0].token())


async def test_an_issuer_that_comes_is_asked_from_then_on() -> None:
    place = Place(settings())
    with pytest.raises(Unauthorized):
        await admitted(place.identity, ISSUERS[0].token())
    place.change(settings("s", ISSUERS[0]))
    assert (await admitted(place.identity, ISSUERS[0].token())).is_in_force()


async def test_I08_another_key_secret_ends_what_the_old_one_admitted() -> None:
    place = Place(settings())
    key = await admitted(place.identity, MADE.text.reveal())
    place.change(settings("t"))
    assert not key.is_in_force(), "also while the store still has the old hashes"
    with pytest.raises(Unauthorized):
        await admitted(place.identity, MADE.text.reveal())
    place.directory = directory(secret("t"))
    assert (await admitted(place.identity, MADE.text.reveal())).is_in_force()


async def test_what_was_made_ready_and_not_put_in_force_changes_nothing() -> None:
    place = Place(settings("s", ISSUERS[0]))
    token = await admitted(place.identity, ISSUERS[0].token())
    change_of(place.identity, place.now, settings("t"), place.supplies(settings("t")))
    assert token.is_in_force() and (await admitted(place.identity, MADE.text.reveal())).is_in_force()
