"""Where a request comes from and where it goes: Host, Origin, paths and methods, before anything else happens."""

import pytest

from tests.downstream.conftest import Front
from tests.downstream.raw_http import message, modern, modern_headers
from tests.peers import ROOT

CALL = modern("tools/call", {"name": "one__echo", "arguments": {}})
PLACES = [("POST", "/mcp"), ("POST", "/mcp/one"), ("GET", "/mcp"), ("GET", "/sse"), ("POST", "/messages?session=x")]

EVIL_ORIGINS = [
    "http://evil.com",
    "null",
    "",
    "http://localhost.evil.com",
    "http://evil.com/localhost",
    "http://localhost:1.evil.com",
    "http://localhost:1@evil.com",
    "http://localhost@evil.com",
    "http://127.0.0.1.nip.io",
    "http://127.0.0.1:80/",
    "http://[::1",
    "localhost",
    "//localhost",
    "file://localhost",
    "chrome-extension://localhost",
    "http://localhost, http://evil.com",
    "http://localhost http://evil.com",
    "https://app.example.evil.com",
    "http://app.example",
    "https://app.example:444",
    "http://localhost:",
    "http://xn--localhost",
    "http://LOCALHOST\x00.evil.com".replace("\x00", "%00"),
]
GOOD_ORIGINS = [
    "http://localhost",
    "http://localhost:6274",
    "https://127.0.0.1:1",
    "http://[::1]:80",
    "https://APP.example",
]

EVIL_HOSTS = [
    "evil.com",
    "x/health?",
    "x#",
    "x/..",
    "127.0.0.1:80/admin?",
    "127.0.0.1/healthz",
    "127.0.0.1@evil.com",
    "127.0.0.1:80@evil.com",
    "localhost.evil.com",
    "localhost:",
    "localhost:1.evil.com",
    "localhost:999999",
    "localhost evil.com",
    "localhost,evil.com",
    "[::1",
    "::1",
    "",
    "broker.example",
    "broker.example:8444",
    "internal.example.evil.com",
    "0.0.0.0",
]
GOOD_HOSTS = [
    "localhost",
    "LOCALHOST:80",
    "127.0.0.1:1",
    "[::1]",
    "[::1]:8787",
    "BROKER.example:8443",
    "internal.example:9",
]


@pytest.mark.parametrize("origin", EVIL_ORIGINS)
async def test_SP01_SP04_a_foreign_origin_is_403_everywhere_and_nothing_is_called(front: Front, origin: str) -> None:
    before = len(front.fake.asked)
    for method, path in PLACES:
        body = CALL if method == "POST" else None
        headers = [*(modern_headers(CALL) if body else []), ("Origin", origin)]
        reply = await front.client.raw(front.client.request(method, path, body, headers))
        assert reply.status == 403, (method, path)
        assert reply.json["id"] is None and reply.code == -32600
    assert len(front.fake.asked) == before


@pytest.mark.parametrize("origin", GOOD_ORIGINS)
async def test_SP01_an_allowed_origin_is_served(front: Front, origin: str) -> None:
    assert (await front.client.post(CALL, [*modern_headers(CALL), ("Origin", origin)])).status == 200


async def test_SP01_an_origin_given_twice_is_refused_also_if_the_first_is_ours(front: Front) -> None:
    origins = [("Origin", "http://localhost"), ("Origin", "http://evil.com")]
    for pair in (origins, origins[::-1]):
        assert (await front.client.post(CALL, [*modern_headers(CALL), *pair])).status == 403


@pytest.mark.parametrize("host", EVIL_HOSTS)
async def test_I02_I09_a_foreign_or_malformed_host_is_refused_everywhere(front: Front, host: str) -> None:
    before = len(front.fake.asked)
    for method, path in PLACES:
        body = CALL if method == "POST" else None
        headers = [("Host", host), *(modern_headers(CALL) if body else [])]
        reply = await front.client.raw(front.client.request(method, path, body, headers, drop=["host"]))
        assert reply.status in (400, 421), (method, path)
    assert len(front.fake.asked) == before


@pytest.mark.parametrize("host", GOOD_HOSTS)
async def test_I02_a_host_of_ours_is_served(front: Front, host: str) -> None:
    reply = await front.client.post(CALL, [("Host", host), *modern_headers(CALL)], drop=["host"])
    assert reply.status == 200


async def test_I02_a_missing_and_a_repeated_host_are_refused(front: Front) -> None:
    missing = await front.client.post(CALL, modern_headers(CALL), drop=["host"])
    twice = await front.client.post(CALL, [*modern_headers(CALL), ("Host", "evil.com")])
    same = await front.client.post(CALL, [*modern_headers(CALL), ("Host", "localhost")])
    assert {missing.status, twice.status, same.status} <= {400, 421}


async def test_I02_an_absolute_target_does_not_stand_in_for_the_host(front: Front) -> None:
    target = "http://localhost/mcp"
    reply = await front.client.post(CALL, [("Host", "evil.com"), *modern_headers(CALL)], target, drop=["host"])
    assert reply.status in (400, 421)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_answers_any_host_and_origin(front: Front, path: str) -> None:
    for host in ("evil.com", "x/admin?", "10.0.0.7:8787"):
        headers = [("Host", host), ("Origin", "http://evil.com")]
        reply = await front.client.raw(front.client.request("GET", path, None, headers, drop=["host"]))
        assert (reply.status, reply.body) == (200, b"ok\n")
    assert (await front.client.raw(front.client.request("GET", path, drop=["host"]))).status == 200
    assert (await front.client.raw(front.client.request("POST", path, b"x"))).status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//mcp",
        "/mcp/",
        "/mcp//",
        "/MCP",
        "/%6dcp",
        "/mcp%2f",
        "/mcp/..;/admin",
        "/mcp/../mcp",
        "/./mcp",
        "/mcp/.",
        "/mcp%2f..%2fadmin",
        "/mcp;x=1",
        "/mcp/one/",
        "/mcp/one/x",
        "/mcp/one%2f",
        "/mcp/%6fne",
        "/mcp/ONE",
        "/mcp/one,two",
        "/mcp/" + "x" * 20_000,
        "/sse/",
        "/messages/",
        "/sse/one",
        "/healthz/",
        "/healthz/../mcp",
        "/admin",
        "/api/v1",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/favicon.ico",
        "/.well-known/oauth-protected-resource",
    ],
)
async def test_I16_I24_any_other_path_is_404_before_anything_else(front: Front, path: str) -> None:
    """Also for a foreign Host or Origin, and for a body that is not JSON: nothing was looked at."""
    for method in ("GET", "POST", "DELETE", "PUT"):
        headers = [("Host", "evil.com"), ("Origin", "null"), ("Mcp-Session-Id", "x")]
        body = b"{" if method == "POST" else None
        reply = await front.client.raw(front.client.request(method, path, body, headers, drop=["host"]))
        assert (reply.status, reply.body) == (404, b""), method


async def test_a_query_does_not_change_the_path(front: Front) -> None:
    assert (await front.client.post(CALL, modern_headers(CALL), "/mcp?view=two&user=x")).status == 200


async def test_I16_a_view_that_does_not_exist_is_404_behind_the_door(front: Front) -> None:
    for method in ("GET", "POST", "DELETE", "PUT"):
        body = b"{" if method == "POST" else None
        reply = await front.client.raw(front.client.request(method, "/mcp/nobody", body))
        assert (reply.status, reply.body) == (404, b""), method


@pytest.mark.parametrize("name", ["api_key", "access_token", "API-Key", "x_api_key", "token", "Authorization"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/one", "/sse", "/messages"])
async def test_SP75_a_credential_in_the_query_string_is_refused(front: Front, path: str, name: str) -> None:
    reply = await front.client.post(CALL, modern_headers(CALL), f"{path}?session=1&{name}=planted-secret")
    assert reply.status == 400
    assert b"planted-secret" not in reply.body


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "HEAD", "TRACE"])
async def test_other_methods_are_405(front: Front, method: str) -> None:
    async with front.client.connection() as connection:
        await connection.send(front.client.request(method))
        reply = await connection.head()
    assert (reply.status, reply.header("allow")) == (405, "GET, POST, DELETE")


async def test_SP04_sse_paths_know_one_method_each(front: Front) -> None:
    assert (await front.client.raw(front.client.request("POST", "/sse", {}))).status == 405
    assert (await front.client.raw(front.client.request("GET", "/messages"))).status == 405


@pytest.mark.parametrize(
    "data", [b"GARBAGE\r\n\r\n", b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"]
)
async def test_what_is_not_http_is_refused_and_the_server_lives(front: Front, data: bytes) -> None:
    reply = await front.client.raw(data)
    assert reply.status in (400, 404)
    assert (await front.client.ask("tools/list")).status == 200


async def test_I24_a_body_of_two_lengths_is_refused(front: Front) -> None:
    smuggled = front.client.request("POST", "/mcp", CALL, [*modern_headers(CALL), ("Transfer-Encoding", "chunked")])
    assert (await front.client.raw(smuggled)).status == 400
    twice = front.client.request("POST", "/mcp", CALL, [*modern_headers(CALL), ("Content-Length", "1")])
    assert (await front.client.raw(twice)).status == 400


async def test_no_answer_says_what_serves_it(front: Front) -> None:
    replies = [
        await front.client.ask("tools/list"),
        await front.client.ask("nothing/here"),
        await front.client.post(b"{"),
        await front.client.post(message("tools/list")),
        await front.client.raw(front.client.request("GET", "/nowhere")),
        await front.client.raw(front.client.request("PUT")),
    ]
    for reply in replies:
        names = {name for name, _ in reply.headers}
        assert not names & {"server", "x-powered-by", "via", "date"}
        for word in (b"Traceback", b"uvicorn", b".py", str(ROOT).encode(), b"object at 0x", b"Exception"):
            assert word not in reply.body
