"""`/api/v1` over a real listener and a real store: every route as every role, and what no request may do."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import anyio.to_thread
import pytest

from broker.admin import keys, members, organizations, teams
from broker.admin.api import BASE, Api
from broker.admin.desk import Office
from broker.admin.insight import seen
from broker.admin.premises import Premises
from broker.admin.routes import ROUTES
from broker.admin.rules import Rules
from broker.app import Broker
from broker.clock import FakeClock
from broker.config import IdentitySettings
from broker.core.caller import LOCAL, Role
from broker.core.directory import Directory
from broker.core.request import Kind
from broker.downstream.guard import Guard
from broker.identity.assembly import identity_of
from broker.identity.identity import Identity
from broker.identity.supplies import Supplies
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.upstream import process
from broker.usage.assembly import archive_of
from tests.admin.conftest import SECRET, Notes
from tests.downstream.conftest import Front, serving
from tests.downstream.raw_http import LEGACY, Reply, message
from tests.identity.issuer import NOW
from tests.relay.fake import Fake, tool
from tests.spawning import watching_processes

ALL = Rules(allow=[{"servers": ["*"]}])
NOT_FOUND = b'{"error":{"code":"not_found","message":"there is no such thing that you may see"}}'
PEOPLE = {
    "stranger": ("beta", "", Role.ORG_ADMIN),
    "member": ("acme", "data", Role.MEMBER),
    "neighbour": ("acme", "web", Role.TEAM_ADMIN),
    "team-admin": ("acme", "data", Role.TEAM_ADMIN),
    "org-admin": ("acme", "", Role.ORG_ADMIN),
    "admin": ("ops", "", Role.ADMIN),
}
ORDER = tuple(PEOPLE)


@dataclass
class World:
    """The front, the office behind it, and a key for everybody."""

    front: Front
    office: Office
    texts: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    numbers: Any = field(default_factory=partial(count, 1))

    async def adopt(self) -> None:
        self.front.house.broker.generation.adopt((await self.office.store.load()).directory)

    async def ensure(self) -> str:
        """Everything is there again; a new key in acme/data to act on."""
        known = (await self.office.store.load()).directory
        for name in {"acme", "beta", "ops"} - known.organizations.keys():
            await organizations.create(self.office, LOCAL, name, Rules() if name == "beta" else ALL)
        there = known.organizations["acme"].teams if "acme" in known.organizations else {}
        for name in {"data", "web"} - there.keys():
            await teams.create(self.office, LOCAL, "acme", name, Rules())
        held = {place.key.name for place in known.places()}
        for name, (organization, team, role) in PEOPLE.items():
            if name not in held:
                made = await keys.create(self.office, LOCAL, organization, team, name, role=role)
                self.texts[name] = made.view.id, made.text.reveal()
        await members.grant(self.office, LOCAL, "key:" + "a" * 12, "acme", "data", Role.MEMBER)
        await members.grant(self.office, LOCAL, "key:" + "a" * 12, "acme", "", Role.MEMBER)
        target = await keys.create(self.office, LOCAL, "acme", "data", f"target{next(self.numbers)}")
        self.texts["target"] = target.view.id, target.text.reveal()
        await self.adopt()
        return target.view.id

    async def ask(
        self,
        who: str,
        method: str,
        path: str,
        body: Any = None,
        headers: list[tuple[str, str]] | None = None,
        base: str = BASE,
    ) -> Reply:
        client = self.front.client
        given = [("Authorization", f"Bearer {self.texts[who][1]}")] if who else []
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if headers is None:
            headers = [] if method == "GET" else [("Content-Type", "application/json")]
        lines = [("Host", f"127.0.0.1:{client.port}"), *given, *headers, ("Content-Length", str(len(raw)))]
        request = f"{method} {base}{path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines)
        async with client.connection() as connection:
            await connection.send(request.encode("latin-1") + b"\r\n" + raw)
            reply = await connection.head()
            reply.body = await connection.reader.readexactly(int(reply.header("content-length") or 0))
            return reply

    async def revision(self) -> int:
        return (await self.office.store.load()).revision

    async def session(self, who: str) -> str:
        """Open a session, and what the API calls it."""
        body = message("initialize", {"protocolVersion": LEGACY, "capabilities": {}})
        headers = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
        assert (await self.ask(who, "POST", "/mcp", body, headers, base="")).status == 200
        found = (await self.ask("admin", "GET", "/sessions")).json["items"]
        principal = f"key:{self.texts[who][0]}"
        return next(one["id"] for one in found if one["principal"] == principal)


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World, None]:
    directory = tmp_path_factory.mktemp("api")
    store = await open_store(Location(directory / "state", directory / "state" / "broker.db"))
    clock = FakeClock(NOW)
    office = Office(store, Directory, lambda: ("one", "two"), clock, lambda: SECRET, Notes())

    async def furnish() -> Office:
        return office

    def identity(broker: Broker) -> Identity:
        supplies = Supplies(broker.clock, broker.engine.router, lambda: SECRET)
        return identity_of(IdentitySettings(), supplies, is_private=True)

    def api(broker: Broker) -> Api:
        return Api(Premises(furnish), lambda: broker.generation, archive_of(broker.loaded.config, directory / "state"))

    fakes = {"one": Fake(tools=[tool("echo"), tool("wipe")], instructions="Be kind."), "two": Fake()}
    async with serving(directory, fakes, Guard(), identity, make_api=api, clock=clock) as front:
        found = World(front, office)
        await found.ensure()
        yield found
    await store.aclose()


RULES = {"deny": [{"tools": ["*__wipe"]}]}
MEMBER = {"principal": "key:" + "b" * 12, "role": "member"}
MEMBERS = "members?principal=key:" + "a" * 12
ORG, TEAM, KEY = "/organizations/acme", "/organizations/acme/teams/data", "/keys/{key}"
MATRIX: list[tuple[str, str, Any, tuple[int, ...]]] = [
    # For the stranger, a member, the admin of another team, of this team, of the organization, of all.
    ("GET", ORG, None, (404, 200, 200, 200, 200, 200)),
    ("PATCH", ORG, {"allow": [{"servers": ["*"]}]}, (404, 403, 403, 403, 403, 200)),
    ("GET", f"{ORG}/teams", None, (404, 200, 200, 200, 200, 200)),
    ("POST", f"{ORG}/teams", {"name": "new{n}"}, (404, 403, 403, 403, 201, 201)),
    ("GET", TEAM, None, (404, 200, 404, 200, 200, 200)),
    ("PATCH", TEAM, RULES, (404, 403, 404, 403, 200, 200)),
    ("GET", f"{ORG}/members", None, (404, 200, 200, 200, 200, 200)),
    ("POST", f"{ORG}/members", MEMBER, (404, 403, 403, 403, 200, 200)),
    ("DELETE", f"{ORG}/{MEMBERS}", None, (404, 403, 403, 403, 200, 200)),
    ("GET", f"{TEAM}/members", None, (404, 403, 404, 200, 200, 200)),
    ("POST", f"{TEAM}/members", MEMBER, (404, 403, 404, 200, 200, 200)),
    ("DELETE", f"{TEAM}/{MEMBERS}", None, (404, 403, 404, 200, 200, 200)),
    ("GET", KEY, None, (404, 403, 404, 200, 200, 200)),
    ("PATCH", KEY, RULES, (404, 403, 404, 200, 200, 200)),
    ("POST", f"{KEY}/rotate", {"overlap": 0}, (404, 403, 404, 200, 200, 200)),
    ("POST", f"{KEY}/revoke", {}, (404, 403, 404, 200, 200, 200)),
    ("POST", f"{KEY}/move", {"organization": "acme", "team": "data"}, (404, 403, 404, 200, 200, 200)),
    ("DELETE", KEY, None, (404, 403, 404, 200, 200, 200)),
    ("GET", "/views?as={key}", None, (404, 404, 404, 200, 200, 200)),
    ("POST", "/explain", {"as": "{key}", "name": "one__echo"}, (404, 404, 404, 200, 200, 200)),
    ("GET", "/upstreams/one", None, (404, 200, 200, 200, 200, 200)),
    ("DELETE", "/sessions/{session}", None, (404, 404, 404, 200, 200, 200)),
    ("DELETE", TEAM, None, (404, 403, 404, 403, 200, 200)),
    ("DELETE", ORG, None, (404, 403, 403, 403, 403, 200)),
]


def filled(value: Any, names: dict[str, str]) -> Any:
    text = json.dumps(value)
    for name, given in names.items():
        text = text.replace(f"{{{name}}}", given)
    return json.loads(text)


def unreal(value: Any) -> Any:
    """The same request about what is not there."""
    text = json.dumps(value)
    for there, absent in (("acme", "nowhere"), ("data", "nothing"), ("{key}", "z" * 12), ("{session}", "f" * 24)):
        text = text.replace(there, absent)
    return json.loads(text.replace("/upstreams/one", "/upstreams/six"))


def test_the_matrix_has_every_route_that_bears_an_id() -> None:
    def shape(path: str) -> str:
        path = path.partition("?")[0].replace("acme", "{organization}").replace("teams/data", "teams/{team}")
        return path.replace("/upstreams/one", "/upstreams/{server}")

    bearing = {(one.method, one.path) for one in ROUTES if "{" in one.path or one.path in ("/views", "/explain")}
    assert {(method, shape(path)) for method, path, _, _ in MATRIX} == bearing


@pytest.mark.parametrize("row", MATRIX, ids=lambda row: f"{row[0]} {row[1]}")
async def test_I13_every_route_as_every_role_and_not_found_in_the_same_bytes(
    world: World, row: tuple[str, str, Any, tuple[int, ...]]
) -> None:
    """I-13..I-16, I-21."""
    method, path, body, expected = row
    for who, status in zip(ORDER, expected, strict=True):
        names = {"key": await world.ensure(), "n": str(next(world.numbers))}
        if "{session}" in path:
            names["session"] = await world.session("target")
        before = await world.revision()
        reply = await world.ask(who, method, filled(path, names), filled(body, names))
        assert reply.status == status, (who, reply.body)
        if status >= 400:
            assert await world.revision() == before, who
        if status == 404:
            assert reply.body == NOT_FOUND, who
            absent = await world.ask(who, method, unreal(path), filled(unreal(body), names))
            assert (absent.status, absent.body, absent.headers) == (404, NOT_FOUND, reply.headers), who


async def test_I21_without_a_good_credential_every_route_is_401_in_the_same_bytes(world: World) -> None:
    await world.ensure()
    made = await keys.create(world.office, LOCAL, "ops", "", f"old{next(world.numbers)}", expires=NOW + 1)
    await world.adopt()
    world.texts["expired"] = made.view.id, made.text.reveal()
    world.front.house.clock.advance(2)
    bodies: set[bytes] = set()
    for route in (*ROUTES, None):
        method, path = (route.method, route.path) if route else ("GET", "/openapi.json")
        for who in ("", "expired"):
            reply = await world.ask(
                who, method, path.replace("{", "").replace("}", ""), {} if method != "GET" else None
            )
            assert reply.status == 401, (method, path)
            bodies.add(reply.body)
    assert len(bodies) == 1


SPAWN = {"command": "touch", "args": ["/tmp/x"], "env": {"A": "b"}, "transport": "stdio", "url": "http://127.0.0.1:9/"}


async def test_I01_no_field_of_any_route_becomes_a_process_or_a_url(world: World) -> None:
    await world.ensure()
    before = await world.revision()
    with watching_processes() as spawned:
        for route in ROUTES:
            path = route.path.replace("{organization}", "acme").replace("{team}", "data").replace("{key}", "z" * 12)
            for who in ORDER:
                given = {"name": "new", "organization": "acme", **SPAWN}
                reply = await world.ask(who, route.method, path.replace("{server}", "one"), given)
                assert 400 <= reply.status < 500, (route, who, reply.body)
    assert spawned == [] and await world.revision() == before


async def by_the_broker() -> None:
    started = await process.Process.start([sys.executable, "-c", ""], {}, None)
    await started.stop()


async def by_asyncio() -> None:
    await (await asyncio.create_subprocess_exec(sys.executable, "-c", "")).wait()


def spawn() -> None:
    os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}), 0)


async def by_posix_spawn() -> None:
    await anyio.to_thread.run_sync(spawn)


async def by_a_shell() -> None:
    await anyio.to_thread.run_sync(os.system, "true")


@pytest.mark.parametrize("start", [by_the_broker, by_asyncio, by_posix_spawn, by_a_shell])
async def test_I01_the_spy_sees_whoever_starts_a_process(start: Callable[[], Awaitable[None]]) -> None:
    with watching_processes() as spawned:
        await start()
    assert spawned


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "text/plain")],
        [("Content-Type", "application/x-www-form-urlencoded")],
        [("Content-Type", "multipart/form-data; boundary=x")],
        [],
        [("Content-Type", "application/json"), ("Origin", "null")],
        [("Content-Type", "application/json"), ("Origin", "https://evil.example")],
        [("Content-Type", "application/json"), ("Sec-Fetch-Site", "cross-site")],
        [("Content-Type", "application/json"), ("Sec-Fetch-Site", "same-site")],
    ],
    ids=str,
)
async def test_I36_a_page_of_another_site_changes_nothing(world: World, headers: list[tuple[str, str]]) -> None:
    await world.ensure()
    before = await world.revision()
    for method, path, body in (
        ("POST", "/organizations", {"name": "evil"}),
        ("PATCH", "/organizations/acme", RULES),
        ("DELETE", "/organizations/acme", {}),
    ):
        reply = await world.ask("admin", method, path, body, headers)
        assert reply.status in (403, 415), (method, reply.body)
        assert not any(name.startswith("access-control-") for name, _ in reply.headers)
    assert await world.revision() == before


async def test_I36_reading_changes_nothing(world: World) -> None:
    await world.ensure()
    before = await world.revision()
    for route in ROUTES:
        if route.method == "GET":
            path = route.path.replace("{organization}", "acme").replace("{team}", "data").replace("{server}", "one")
            query = {"/views": "?as=acme/data", "/audit/who-saw": "?name=one__a"}.get(route.path, "")
            path = path.replace("{key}", world.texts["target"][0]) + query
            assert (await world.ask("admin", "GET", path)).status == 200, path
    assert await world.revision() == before


@pytest.mark.parametrize(
    "path",
    ["/keys%2fx", "/keys/%2e%2e", "/keys/..", "/./keys", "//keys", "/keys/", "/keys/%00", "/keys/a%5cb", "/keys/a\\b"],
)
async def test_a_path_has_one_spelling(world: World, path: str) -> None:
    assert (await world.ask("admin", "GET", path)).status == 400


async def test_bodies_and_queries_are_strict_and_bounded(world: World) -> None:
    ask = partial(world.ask, "admin")
    for body in (b"", b"[]", b"{", b'{"name": 1}', b'{"name": "x", "nam": 1}', b'{"name": "x", "allow": "*"}'):
        assert (await ask("POST", "/organizations", body)).status == 400, body
    assert (await ask("POST", "/organizations", {"name": "Not-A-Name"})).status == 400
    assert (await ask("POST", "/organizations", {"name": "x1", "allow": [{"tools": ["nobody__x"]}]})).status == 400
    assert (await ask("POST", "/organizations", {"name": "acme"})).status == 409
    assert (await ask("POST", "/organizations", b" " * (4 * 1024 * 1024 + 1))).status == 413
    assert (await ask("GET", "/keys?nobody=x")).status == 400
    assert (await ask("GET", "/keys?team=a&team=b")).status == 400
    assert (await ask("GET", "/nobody")).status == 404
    wrong = await ask("PUT", "/keys", {})
    assert (wrong.status, wrong.header("allow")) == (405, "GET, POST")


async def test_a_key_is_shown_once_and_a_view_is_what_its_key_gets(world: World) -> None:
    await world.ensure()
    made = await world.ask(
        "team-admin", "POST", "/keys", {"organization": "acme", "team": "data", "name": "once", **RULES}
    )
    assert made.status == 201
    text, key_id = made.json["key"], made.json["id"]
    await world.adopt()
    for path in (f"/keys/{key_id}", "/keys", f"/views?as={key_id}"):
        assert text.encode() not in (await world.ask("admin", "GET", path)).body
    shown = (await world.ask("team-admin", "GET", f"/views?as={key_id}")).json
    assert [one["name"] for one in shown["tools"] if one["name"].startswith("one")] == ["one__echo"]
    assert "Be kind." in shown["instructions"]
    caller = next(
        one.caller for one in world.front.house.broker.generation.policy.directory.places() if one.key.id == key_id
    )
    served = await seen(world.front.house.broker.generation, caller)
    assert shown["tools"] == served.items[Kind.TOOL] and shown["instructions"] == served.instructions
    question = {"as": key_id, "name": "one__wipe"}
    assert (await world.ask("team-admin", "POST", "/explain", question)).json["rule"] == "key:acme/data/once/deny/0"


async def test_what_is_denied_from_above_stays_unknown_to_who_administers_below(world: World) -> None:
    await world.ensure()
    assert (await world.ask("org-admin", "PATCH", TEAM, RULES)).status == 200
    await world.adopt()
    question = {"as": "acme/data", "name": "one__wipe"}
    absent = {"as": "acme/data", "name": "one__nope"}
    told = {who: (await world.ask(who, "POST", "/explain", question)).json for who in ("team-admin", "org-admin")}
    assert told["org-admin"]["rule"] == "team:acme/data/deny/0"
    unknown = (await world.ask("team-admin", "POST", "/explain", absent)).json
    assert told["team-admin"] == {**unknown, "name": "one__wipe"}
    assert (await world.ask("org-admin", "PATCH", TEAM, {"deny": None})).status == 200


async def test_a_session_that_is_ended_is_gone_and_its_id_is_not_told(world: World) -> None:
    await world.ensure()
    session = await world.session("target")
    listed = (await world.ask("team-admin", "GET", "/sessions")).json["items"]
    assert session in [one["id"] for one in listed]
    assert (await world.ask("neighbour", "GET", "/sessions")).json["items"] == []
    assert (await world.ask("team-admin", "DELETE", f"/sessions/{session}")).status == 200
    assert session not in [one["id"] for one in (await world.ask("admin", "GET", "/sessions")).json["items"]]


async def test_a_session_of_the_old_transport_ends_with_its_stream(world: World) -> None:
    await world.ensure()
    client = world.front.client
    async with client.connection() as stream:
        await stream.send(
            client.request("GET", "/sse", None, [("Authorization", f"Bearer {world.texts['target'][1]}")])
        )
        assert (await stream.head()).status == 200
        principal = f"key:{world.texts['target'][0]}"
        listed = (await world.ask("admin", "GET", "/sessions")).json["items"]
        [session] = [one["id"] for one in listed if one["principal"] == principal]
        assert (await world.ask("neighbour", "DELETE", f"/sessions/{session}")).body == NOT_FOUND
        assert (await world.ask("org-admin", "DELETE", f"/sessions/{session}")).status == 200
        while await stream.chunk():
            pass
    assert session not in (await world.ask("admin", "GET", "/sessions")).body.decode()


async def test_the_document_has_every_route_and_no_other(world: World) -> None:
    await world.ensure()
    document = (await world.ask("member", "GET", "/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    told = {(method.upper(), path) for path, found in document["paths"].items() for method in found}
    assert told == {(route.method, BASE + route.path) for route in ROUTES}
    ids = [one["operationId"] for found in document["paths"].values() for one in found.values()]
    assert len(ids) == len(set(ids))
    schemas = document["components"]["schemas"]
    references = set(json.dumps(document).split('"#/components/schemas/')[1:])
    assert {one.partition('"')[0] for one in references} <= set(schemas)
    for word in ("command", "args", "env", "transport", "url"):
        assert all(word not in one.get("properties", {}) for one in schemas.values())
