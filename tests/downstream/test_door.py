"""Who comes in, on every route, with every kind of credential (I-02, I-14, I-20, I-21, SP-27, SP-28, SP-74..SP-79)."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from broker.core.directory import Source
from broker.identity import failures
from tests.downstream.desk import PUBLIC, Desk, bearer, desk
from tests.downstream.raw_http import LEGACY, Reply, head, message, modern, modern_headers
from tests.identity.issuer import NOW, Issuer
from tests.relay.fake import Fake, tool

WELL_KNOWN = "/.well-known/oauth-protected-resource"
CALL = modern("tools/call", {"name": "one__echo", "arguments": {}})
INITIALIZE = message("initialize", {"protocolVersion": LEGACY, "capabilities": {}})

GUARDED = [
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
    ("PUT", "/mcp"),
    ("HEAD", "/mcp"),
    ("OPTIONS", "/mcp"),
    ("POST", "/mcp/one"),
    ("GET", "/mcp/one"),
    ("DELETE", "/mcp/one"),
    ("POST", "/mcp/nobody"),
    ("GET", "/mcp/nobody"),
    ("GET", "/sse"),
    ("POST", "/sse"),
    ("POST", "/messages?session=x"),
    ("GET", "/messages"),
]
BOUNDS = failures.PER_ADDRESS, failures.IN_ALL
PUBLIC_ROUTES = ["/healthz", "/readyz", WELL_KNOWN, f"{WELL_KNOWN}/mcp", f"{WELL_KNOWN}/mcp/one", f"{WELL_KNOWN}/sse"]


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Desk, None]:
    """For tests that leave no trace."""
    fakes = {"one": Fake(tools=[tool("echo"), tool("slow")])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failures, "PER_ADDRESS", 10**6)
        patch.setattr(failures, "IN_ALL", 10**6)
        async with desk(tmp_path_factory.mktemp("door"), fakes) as found:
            found.key(3, revoked=True)
            found.key(4, expires=NOW - 1)
            found.adopt()
            yield found


@pytest.fixture
async def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Desk, None]:
    """For tests that change something."""
    monkeypatch.setattr(failures, "PER_ADDRESS", BOUNDS[0])
    monkeypatch.setattr(failures, "IN_ALL", BOUNDS[1])
    async with desk(tmp_path, {"one": Fake(tools=[tool("echo"), tool("slow")])}) as found:
        yield found


def refused_credentials(house: Desk) -> dict[str, list[tuple[str, str]]]:
    good = house.key(1)
    stranger = Issuer.new()
    return {
        "none": [],
        "empty": [("Authorization", "")],
        "bearer of nothing": [("Authorization", "Bearer")],
        "basic": [("Authorization", "Basic dXNlcjpwYXNz")],
        "basic with the key": [("Authorization", f"Basic {good}")],
        "the key without a scheme": [("Authorization", good)],
        "two schemes": [("Authorization", f"Bearer {good}, Bearer {good}")],
        "two spaces": [("Authorization", f"Bearer  {good}")],
        "something behind it": [("Authorization", f"Bearer {good} x")],
        "no key": bearer("mcpb_nonsense"),
        "an unknown key": bearer(house.key(1)[:-1] + ("A" if good[-1] != "A" else "B")),
        "a key in capitals": bearer(good.upper()),
        "a key that is cut": bearer(good[:-1]),
        "a revoked key": bearer(house.key(3, revoked=True)),
        "an expired key": bearer(house.key(4, expires=NOW - 1)),
        "an expired token": bearer(house.token(exp=NOW - 1)),
        "a token for another": bearer(house.token(aud="https://other.example")),
        "a token of a stranger": bearer(stranger.token()),
        "a token of another issuer": bearer(house.token(iss="https://other.example")),
        "no token": bearer("x.y.z"),
        "a token as a key": [("X-API-Key", house.token())],
        "an empty key": [("X-API-Key", "")],
        "a key with an underscore in the header": [("X_Api_Key", good)],
        "a key under another name": [
            ("Api-Key", good),
            ("X-Auth-Token", good),
            ("Proxy-Authorization", f"Bearer {good}"),
        ],
        "a cookie": [("Cookie", f"token={good}; Authorization=Bearer {good}")],
        "a user by header": [
            ("X-User", "admin"),
            ("X-Team", "data"),
            ("X-Forwarded-User", "admin"),
            ("X-Remote-User", "a"),
        ],
        "an identity by proxy": [
            ("Forwarded", "for=127.0.0.1"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Real-IP", "::1"),
        ],
        "an endless key": bearer("mcpb_" + "x" * 30_000),
        "bytes": [("Authorization", "Bearer \xff\xfe")],
    }


NAMES = list(refused_credentials(Desk()).keys())


async def ask(house: Desk, method: str, path: str, headers: list[tuple[str, str]], body: Any = None) -> Reply:
    client = house.front.client
    data = body if body is not None else (CALL if method == "POST" else None)
    extra = modern_headers(CALL) if data is CALL else []
    async with client.connection() as connection:
        await connection.send(client.request(method, path, data, [*headers, *extra]))
        reply = await connection.head()
        length = int(reply.header("content-length") or 0)
        if length and method != "HEAD":
            reply.body = await connection.reader.readexactly(length)
        return reply


@pytest.mark.parametrize("name", NAMES)
async def test_I21_every_route_is_401_without_a_good_credential(house: Desk, name: str) -> None:
    """And nothing reaches an upstream; every bad credential sounds the same (SP-28, SP-79, F-80)."""
    headers = refused_credentials(house)[name]
    bodies: set[bytes] = set()
    for method, path in GUARDED:
        reply = await ask(house, method, path, headers)
        assert reply.status == 401, (method, path)
        if method != "HEAD":
            bodies.add(reply.body)
    assert bodies == {
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Unauthorized: a valid credential is needed"}}'
    }
    assert house.front.fake.asked == []


@pytest.mark.parametrize("path", PUBLIC_ROUTES)
async def test_I21_what_is_public_is_on_the_list_and_needs_nothing(house: Desk, path: str) -> None:
    assert (await ask(house, "GET", path, [])).status == 200
    assert (await ask(house, "GET", path, bearer("bad"))).status == 200
    assert (await ask(house, "POST", path, [])).status == 405


@pytest.mark.parametrize(
    "path",
    [
        *("//mcp", "/mcp/", "/%6dcp", "/mcp/..;/admin", "/mcp%2f..%2fadmin", "/mcp/%2e%2e/healthz", "/healthz/../mcp"),
        *("/sse/alice", "/mcp/alice/one", "/MCP", "/mcp;user=admin", "/admin", "/api/v1/keys", "/metrics", "/docs"),
        *(f"{WELL_KNOWN}/", f"{WELL_KNOWN}/admin", f"{WELL_KNOWN}/mcp/", f"{WELL_KNOWN}/mcp/%6fne", f"/x{WELL_KNOWN}"),
        "/.well-known/openid-configuration",
    ],
)
@pytest.mark.parametrize("with_key", [True, False])
async def test_I14_I24_any_other_path_is_404_with_and_without_a_credential(
    house: Desk, path: str, with_key: bool
) -> None:
    for method in ("GET", "POST"):
        reply = await ask(house, method, path, bearer(house.key(1)) if with_key else [])
        assert (reply.status, reply.body) == (404, b"")


async def test_I24_a_path_with_a_nul_is_refused_by_the_parser(house: Desk) -> None:
    reply = await house.front.client.raw(b"POST /mcp\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert reply.status == 400


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_good_key_is_admitted_in_either_header(house: Desk, scheme: str) -> None:
    for headers in ([("Authorization", f"{scheme} {house.key(1)}")], [("X-API-Key", house.key(1))]):
        reply = await ask(house, "POST", "/mcp", headers, modern("tools/list"))
        assert reply.status == 400, "the mirrored headers are missing, which is said to those who are admitted"
        listed = await house.front.client.post(modern("tools/list"), [*headers, *modern_headers(modern("tools/list"))])
        assert [one["name"] for one in listed.json["result"]["tools"]] == ["one__echo", "one__slow"]


async def test_a_good_token_is_admitted(house: Desk) -> None:
    listed = await house.front.client.post(
        modern("tools/list"), [*bearer(house.token()), *modern_headers(modern("tools/list"))]
    )
    assert [one["name"] for one in listed.json["result"]["tools"]] == ["one__echo", "one__slow"]


async def test_I14_nothing_but_the_credential_says_who_asks(house: Desk) -> None:
    """Headers and parameters that name somebody else change nothing: the session is that of the key."""
    lies = [("X-User", "local"), ("X-Team", "ops"), ("X-Forwarded-User", "root"), ("Connection", "authorization")]
    reply = await ask(house, "POST", "/mcp?user=admin&team=ops", [*bearer(house.key(1)), *lies], INITIALIZE)
    assert reply.status == 200
    session = [("Mcp-Session-Id", reply.header("mcp-session-id") or ""), ("MCP-Protocol-Version", LEGACY)]
    as_user = await ask(house, "POST", "/mcp", [*bearer(house.token()), *session], message("ping"))
    as_key = await ask(house, "POST", "/mcp", [*bearer(house.key(1)), *session], message("ping"))
    assert (as_user.status, as_key.status) == (404, 200)


def doubled(house: Desk) -> list[list[tuple[str, str]]]:
    one, two = house.key(1), house.key(2, "other")
    return [
        [*bearer(one), *bearer(two)],
        [*bearer(one), *bearer(one)],
        [*bearer(one), ("X-API-Key", two)],
        [*bearer(one), ("X-API-Key", one)],
        [("X-API-Key", one), ("x-api-key", two)],
        [*bearer(house.token()), ("X-API-Key", one)],
        [("Authorization", ""), ("X-API-Key", one)],
    ]


@pytest.mark.parametrize("number", range(7))
async def test_two_credentials_are_400_whatever_they_are(house: Desk, number: int) -> None:
    for method, path in GUARDED:
        reply = await ask(house, method, path, doubled(house)[number])
        assert reply.status == 400, (method, path)
        assert reply.header("www-authenticate") is None


@pytest.mark.parametrize("name", ["access_token", "api_key", "token", "x"])
async def test_SP75_a_credential_in_the_query_is_refused_on_every_route(
    house: Desk, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = house.key(1)
    for method, path in GUARDED:
        reply = await ask(house, method, f"{path.partition('?')[0]}?{name}={key}", bearer(key))
        assert reply.status == 400, (method, path)
        assert key.encode() not in reply.body
    assert key not in caplog.text


async def test_SP79_the_refusal_comes_ahead_of_the_body(house: Desk) -> None:
    client = house.front.client
    async with client.connection() as connection:
        await connection.send(head("POST", "/mcp", [*client.base, ("Content-Length", "1000000")]))
        assert (await connection.reply()).status == 401


async def test_SP27_two_callers_on_one_connection_are_two(house: Desk) -> None:
    client = house.front.client
    expected = {house.key(1): 200, "": 401, house.key(2, "other"): 200, "mcpb_bad": 401}
    session = await ask(house, "POST", "/mcp", bearer(house.key(1)), INITIALIZE)
    ours = [("Mcp-Session-Id", session.header("mcp-session-id") or ""), ("MCP-Protocol-Version", LEGACY)]
    listing = modern("tools/list")
    async with client.connection() as connection:
        for _ in range(2):
            for key, status in expected.items():
                headers = bearer(key) if key else []
                request = client.request("POST", "/mcp", listing, [*headers, *modern_headers(listing)])
                await connection.send(request)
                assert (await connection.reply()).status == status
                await connection.send(client.request("POST", "/mcp", message("ping"), [*headers, *ours]))
                found = (await connection.reply()).status
                assert found == (status if key != house.key(2, "other") else 404)


async def test_I16_which_views_exist_is_said_to_callers_only(house: Desk) -> None:
    assert (await ask(house, "POST", "/mcp/one", [])).body == (await ask(house, "POST", "/mcp/nobody", [])).body
    assert (await ask(house, "POST", "/mcp/nobody", bearer(house.key(1)))).status == 404
    one, nobody = [await ask(house, "GET", f"{WELL_KNOWN}/mcp/{view}", []) for view in ("one", "nobody")]
    assert one.body.replace(b"one", b"nobody") == nobody.body


async def test_SP77_scopes_narrow_what_the_place_allows_and_are_not_enough_alone(tmp_path: Path) -> None:
    scopes = {"read": [{"tools": ["one__echo"]}], "all": [{"servers": ["*"]}]}
    jwt = {"issuer": "https://login.example", "audience": "x", "organization": "acme", "scopes": scopes}
    section = {"public_url": PUBLIC, "jwt": [jwt]}
    async with desk(tmp_path, {"one": Fake(tools=[tool("echo"), tool("slow")])}, identity=section) as found:

        async def listed(credential: str) -> list[str]:
            body = modern("tools/list")
            reply = await found.front.client.post(body, [*bearer(credential), *modern_headers(body)])
            return [one["name"] for one in reply.json["result"]["tools"]]

        assert await listed(found.token(scope="read")) == ["one__echo"]
        assert await listed(found.token(scope="read all")) == ["one__echo", "one__slow"]
        assert await listed(found.token(scope="unknown")) == await listed(found.token()) == []
        assert await listed(found.key(1)) == ["one__echo", "one__slow"]
        body = modern("tools/call", {"name": "one__slow", "arguments": {}})
        reply = await found.front.client.post(body, [*bearer(found.token(scope="read")), *modern_headers(body)])
        assert reply.json["error"]["message"] == "Unknown tool: one__slow"
        assert found.front.fake.asked == []


# -- what is told to those who may not come in ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/mcp", "/mcp"),
        ("/mcp/one", "/mcp/one"),
        ("/sse", "/sse"),
        ("/messages", "/sse"),
    ],
)
@pytest.mark.parametrize("host", ["localhost", "broker.example", "broker.example:443"])
async def test_SP74_the_challenge_is_made_from_the_public_url_alone(
    house: Desk, path: str, resource: str, host: str
) -> None:
    lies = [("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "http"), ("Forwarded", "host=evil.example")]
    where = f'resource_metadata="{PUBLIC}{WELL_KNOWN}{resource}"'
    request = house.front.client.request("GET", path, None, [("Host", host), *lies], drop=["host"])
    reply = await house.front.client.raw(request)
    assert reply.header("www-authenticate") == f'Bearer realm="mcp-broker", {where}'
    request = house.front.client.request("GET", path, None, [("Host", host), *lies, *bearer("bad")], drop=["host"])
    reply = await house.front.client.raw(request)
    assert reply.header("www-authenticate") == f'Bearer realm="mcp-broker", error="invalid_token", {where}'


@pytest.mark.parametrize("path", ["", "/mcp", "/mcp/one", "/sse"])
async def test_SP74_SP78_the_metadata_names_the_resource_and_its_issuers(house: Desk, path: str) -> None:
    found = (await ask(house, "GET", WELL_KNOWN + path, [("X-Forwarded-Host", "evil.example")])).json
    assert found == {
        "resource": PUBLIC + (path or "/mcp"),
        "authorization_servers": ["https://login.example"],
        "bearer_methods_supported": ["header"],
        "resource_name": "test",
    }
    assert "offline_access" not in json.dumps(found)


async def test_I02_metadata_is_for_our_own_hosts(house: Desk) -> None:
    for host in ("evil.example", "broker.example/x", "broker.example@evil.example", "x#"):
        request = house.front.client.request("GET", WELL_KNOWN, None, [("Host", host)], drop=["host"])
        assert (await house.front.client.raw(request)).status == 421


# -- how often, and what is not known now -----------------------------------------------------------------------------


async def test_F80_guessing_is_slowed_down_and_hurts_nobody_who_was_known(own: Desk) -> None:
    good, late = own.key(1), own.key(2, "other")
    assert (await ask(own, "GET", "/mcp", bearer(good))).status == 405
    async with own.front.client.connection() as connection:
        statuses: list[int] = []
        for number in range(61):
            request = own.front.client.request("GET", "/mcp", None, bearer(f"mcpb_guess{number}"))
            await connection.send(request)
            statuses.append((await connection.reply()).status)
    assert statuses == [401] * 60 + [429]
    unread = await ask(own, "GET", "/mcp", bearer(late))
    assert unread.status == 429, "a guess that happens to be right sounds like any other"
    assert unread.header("retry-after") == "60"
    assert (await ask(own, "GET", "/mcp", bearer(good))).status == 405
    assert (await ask(own, "GET", "/mcp", [])).status == 401, "to come without one is no guess"
    own.clock.advance(60)
    assert (await ask(own, "GET", "/mcp", bearer(late))).status == 405


async def test_F94_what_the_store_may_know_is_503_while_it_is_down(own: Desk) -> None:
    good = own.key(1)
    fixed = own.key(5, source=Source.FILE)
    own.adopt()
    own.silence = 60
    assert (await ask(own, "GET", "/mcp", bearer(good))).status == 405
    unknown = await ask(own, "GET", "/mcp", bearer(own.key(9)))
    assert (unknown.status, unknown.header("retry-after")) == (503, "5")
    assert unknown.header("www-authenticate") is None
    own.silence = 61
    assert (await ask(own, "GET", "/mcp", bearer(good))).status == 503
    assert (await ask(own, "GET", "/mcp", bearer(fixed))).status == 405
    own.silence = 0
    assert (await ask(own, "GET", "/mcp", bearer(good))).status == 405


async def test_a_broker_without_its_key_secret_admits_no_key(own: Desk) -> None:
    own.key_secret = None
    assert (await ask(own, "GET", "/mcp", bearer(own.key(1)))).status == 503
    own.key_secret = None
    assert (await ask(own, "GET", "/mcp", bearer(own.token()))).status == 405


async def test_I04_a_key_that_is_revoked_is_refused_at_the_next_request(own: Desk) -> None:
    key = own.key(1)
    for _ in range(3):
        assert (await ask(own, "GET", "/mcp", bearer(key))).status == 405
    own.change(1, revoked=True)
    assert (await ask(own, "GET", "/mcp", bearer(key))).status == 401
    own.change(1, revoked=False, expires=NOW + 5)
    assert (await ask(own, "GET", "/mcp", bearer(key))).status == 405
    own.clock.advance(5)
    assert (await ask(own, "GET", "/mcp", bearer(key))).status == 401


async def test_I04_what_is_remembered_of_a_token_is_of_all_of_it(own: Desk) -> None:
    """Two tokens that begin alike, and one whose signature was changed after it was remembered."""
    ada, bob = own.token(sub="ada"), own.token(sub="bob")
    assert ada[:40] == bob[:40]
    opened = await ask(own, "POST", "/mcp", bearer(ada), INITIALIZE)
    session = [("Mcp-Session-Id", opened.header("mcp-session-id") or ""), ("MCP-Protocol-Version", LEGACY)]
    head, body, signature = ada.split(".")
    changed = f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    swapped = f"{head}.{bob.split('.')[1]}.{signature}"
    for text, status in ((ada, 200), (bob, 404), (changed, 401), (swapped, 401), (ada[:-3], 401), (ada, 200)):
        reply = await ask(own, "POST", "/mcp", [*bearer(text), *session], message("ping"))
        assert reply.status == status


async def test_the_last_key_that_goes_makes_nobody_local(own: Desk) -> None:
    own.keys.clear()
    own.adopt()
    own.settings()
    assert (await ask(own, "GET", "/mcp", [])).status == 401
