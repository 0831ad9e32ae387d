"""An issuer's keys from its own site: fetched once, renewed when it matters, and kept while the site is down."""

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from broker.clock import FakeClock
from broker.identity.admission import Unverifiable
from broker.identity.jwk import PublicKey
from broker.identity.key_sets import MAX_STALE, PAUSE, REFRESH, RETRY, FetchedKeys, metadata_urls
from broker.outbound.fetch import Outbound
from tests.identity.issuer import NOW, Issuer, new_key
from tests.outbound.site import TIMEOUT, Page, Site, site


class World:
    """An issuer with a site, and its keys as the broker has them."""

    def __init__(self, site: Site, path: str = "", jwks_url: str = "") -> None:
        self.site = site
        self.issuer = Issuer.new(site.url + path)
        self.clock = FakeClock(NOW)
        self.keys = FetchedKeys(
            Outbound(), self.clock, self.issuer.url, jwks_url, ("ES256", "RS256"), allow_private=True
        )

    async def find(self, key_id: str | None = "one") -> PublicKey | None:
        with anyio.fail_after(TIMEOUT):
            return await self.keys.find(key_id, "ES256")

    def rotate(self, key_id: str) -> None:
        self.issuer.keys[key_id] = (new_key("ES256"), "ES256")
        self.site.pages["/keys"] = Page.json(self.issuer.jwks)

    @property
    def fetches(self) -> int:
        return self.site.asked.count("/keys")


@pytest.fixture
async def world() -> AsyncGenerator[World, None]:
    async with site() as started:
        found = World(started)
        found.issuer.publish(started)
        yield found


async def test_keys_are_found_through_the_metadata_and_fetched_once(world: World) -> None:
    for _ in range(3):
        assert await world.find() is not None
    assert world.site.asked == ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_metadata_is_looked_for_in_the_places_of_the_specification(number: int) -> None:
    async with site() as started:
        world = World(started, "/tenant/1")
        world.issuer.publish(started, metadata_urls(world.issuer.url)[number].removeprefix(started.url))
        assert await world.find() is not None
        assert len(started.asked) == number + 2


def test_the_places_of_metadata() -> None:
    assert metadata_urls("https://a.example") == (
        "https://a.example/.well-known/oauth-authorization-server",
        "https://a.example/.well-known/openid-configuration",
    )
    assert metadata_urls("https://a.example/t/1") == (
        "https://a.example/.well-known/oauth-authorization-server/t/1",
        "https://a.example/.well-known/openid-configuration/t/1",
        "https://a.example/t/1/.well-known/openid-configuration",
    )


@pytest.mark.parametrize("said", ["https://evil.example", "{url}/", None, 1])
async def test_SP86_metadata_that_names_another_issuer_is_not_used(world: World, said: Any) -> None:
    name = said.format(url=world.site.url) if isinstance(said, str) else said
    world.site.pages["/.well-known/openid-configuration"] = Page.json(
        {"issuer": name, "jwks_uri": f"{world.site.url}/keys"}
    )
    with pytest.raises(Unverifiable):
        await world.find()
    assert world.fetches == 0


@pytest.mark.parametrize("uri", [None, 1, "file:///etc/passwd", "http://169.254.169.254/", "http://user@localhost/"])
async def test_SP90_metadata_cannot_send_us_anywhere(world: World, uri: Any) -> None:
    world.site.pages["/.well-known/openid-configuration"] = Page.json({"issuer": world.issuer.url, "jwks_uri": uri})
    with pytest.raises(Unverifiable):
        await world.find()


async def test_without_leave_nothing_is_fetched_from_a_private_address(world: World) -> None:
    keys = FetchedKeys(Outbound(), world.clock, world.issuer.url, "", ("ES256",), allow_private=False)
    with pytest.raises(Unverifiable):
        await keys.find("one", "ES256")
    assert world.site.asked == []


async def test_a_new_key_is_fetched_at_once_but_not_for_everybody_who_makes_one_up(world: World) -> None:
    assert await world.find() is not None
    world.rotate("two")
    assert await world.find("two") is None, "too soon"
    world.clock.advance(PAUSE)
    assert await world.find("two") is not None
    for number in range(50):
        assert await world.find(f"made-up-{number}") is None
    assert world.fetches == 2


async def test_those_who_wait_wait_for_the_same_fetch(world: World) -> None:
    gate, asked = anyio.Event(), anyio.Event()

    async def wait() -> None:
        asked.set()
        await gate.wait()

    world.site.pages["/keys"].before = wait
    found: list[PublicKey | None] = []

    async def one() -> None:
        found.append(await world.find())

    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one)
            await asked.wait()
            gate.set()
    assert len(found) == 20
    assert None not in found
    assert world.fetches == 1


async def test_who_gives_up_waiting_takes_nobody_along(world: World) -> None:
    gate, asked = anyio.Event(), anyio.Event()

    async def wait() -> None:
        asked.set()
        await gate.wait()

    world.site.pages["/keys"].before = wait
    found: list[PublicKey | None] = []
    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as tasks, anyio.create_task_group() as impatient:
            impatient.start_soon(world.find)
            await asked.wait()

            async def patient() -> None:
                found.append(await world.find())

            tasks.start_soon(patient)
            await anyio.lowlevel.checkpoint()
            impatient.cancel_scope.cancel()
            gate.set()
    assert found[0] is not None


async def fetched(world: World, count: int) -> None:
    """A fetch in the background has reached the site."""
    with anyio.fail_after(TIMEOUT):
        while world.fetches < count or world.keys._fetching is not None:
            await anyio.lowlevel.checkpoint()


async def test_a_withdrawn_key_ends_with_the_next_fetch(world: World) -> None:
    assert await world.find() is not None
    world.issuer.keys["two"] = world.issuer.keys.pop("one")
    world.site.pages["/keys"] = Page.json(world.issuer.jwks)
    world.clock.advance(REFRESH + 1)
    assert await world.find() is not None, "nobody waits for the fetch in the background"
    await fetched(world, 2)
    assert await world.find() is None
    assert await world.find("two") is not None


async def test_F94_keys_stay_good_for_a_while_when_the_issuer_is_down(world: World) -> None:
    assert await world.find() is not None
    world.site.pages.clear()
    world.clock.advance(MAX_STALE - 1)
    assert await world.find() is not None
    await fetched(world, 1)
    with pytest.raises(Unverifiable):
        await world.find("two")  # perhaps the issuer has made it since
    world.clock.advance(2)
    with pytest.raises(Unverifiable):
        await world.find()


async def test_an_issuer_that_is_down_is_asked_again_soon_and_not_by_everybody(world: World) -> None:
    pages = dict(world.site.pages)
    world.site.pages.clear()
    for _ in range(10):
        with pytest.raises(Unverifiable):
            await world.find()
    assert len(world.site.asked) == 2, "the two places of metadata, once"
    world.site.pages.update(pages)
    world.clock.advance(RETRY)
    assert await world.find() is not None


async def test_keys_may_be_fetched_from_a_url_that_is_configured() -> None:
    async with site() as started:
        world = World(started, jwks_url=f"{started.url}/keys")
        world.issuer.publish(started)
        assert await world.find() is not None
        assert started.asked == ["/keys"]


@pytest.mark.parametrize("document", [{}, {"keys": {}}, {"keys": None}, {"keys": "x"}])
async def test_what_is_no_set_of_keys_is_no_answer(world: World, document: Any) -> None:
    world.site.pages["/keys"] = Page.json(document)
    with pytest.raises(Unverifiable):
        await world.find()


async def test_an_issuer_without_keys_has_none(world: World) -> None:
    world.site.pages["/keys"] = Page.json({"keys": []})
    assert await world.find() is None


async def test_I03_a_fault_of_ours_in_a_fetch_is_no_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(Outbound, "get_json", fail)
    with pytest.raises(Unverifiable):
        await world.find()
