"""The one client, on real sockets: what it follows, what it stops reading, and what it sends."""

import gzip
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import anyio
import pytest

from broker.outbound import fetch
from broker.outbound.fetch import FetchFailed, Outbound
from tests.outbound.site import Page, Site, authority, site


@pytest.fixture
async def server() -> AsyncGenerator[Site, None]:
    async with site() as started:
        yield started


async def test_a_document_is_fetched_and_no_credential_or_cookie_is_sent(server: Site) -> None:
    server.pages["/a"] = Page.json({"n": 1}, headers={"Set-Cookie": "a=b"})
    outbound = Outbound()
    for _ in range(2):
        assert await outbound.get_json(f"{server.url}/a", allow_private=True) == {"n": 1}
    for head in server.heads:
        names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line}
        assert names == {"host", "accept", "accept-encoding", "connection", "user-agent"}


async def test_https_is_verified(tmp_path: Path) -> None:
    made = authority(tmp_path)
    async with site(made.server) as server:
        server.pages["/a"] = Page.json({"n": 1})
        assert await Outbound(tls=made.client).get_json(f"{server.url}/a", allow_private=True) == {"n": 1}
        with pytest.raises(FetchFailed, match="TLS certificate is not valid"):
            await Outbound().get_json(f"{server.url}/a", allow_private=True)
        assert server.asked == ["/a"]


async def test_https_is_verified_for_the_name_not_for_the_address(tmp_path: Path) -> None:
    made = authority(tmp_path)

    async def lie(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with site(made.server) as server:
        with pytest.raises(FetchFailed, match="TLS certificate is not valid"):
            await Outbound(lie, made.client).get_json(f"https://bank.example:{server.port}/", allow_private=True)
        assert server.asked == []


async def test_SP90_a_name_is_resolved_once_and_the_connection_pinned_to_that(server: Site) -> None:
    """A name that answers differently the second time: there is no second time."""
    server.pages["/a"] = Page.json({})
    answers = iter([["127.0.0.1"]])

    async def rebind(host: str, port: int) -> Sequence[str]:
        return next(answers)

    await Outbound(rebind).get_json(f"http://rebind.example:{server.port}/a", allow_private=True)
    assert server.asked == ["/a"]


async def test_a_redirect_on_the_same_origin_is_followed_within_bounds(server: Site) -> None:
    server.pages["/a"] = Page(status=302, headers={"Location": "/b"})
    server.pages["/b"] = Page(status=308, headers={"Location": f"{server.url}/c"})
    server.pages["/c"] = Page.json({"n": 2})
    server.pages["/loop"] = Page(status=307, headers={"Location": "/loop"})
    assert await Outbound().get_json(f"{server.url}/a", allow_private=True) == {"n": 2}
    with pytest.raises(FetchFailed, match="more than 3 redirects"):
        await Outbound().get_json(f"{server.url}/loop", allow_private=True)
    assert server.asked[3:] == ["/loop"] * 4


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/b",
        "http://localhost:1/b",
        "https://localhost:{port}/b",
        "http://169.254.169.254/",
        "//169.254.169.254/",
        "file:///etc/passwd",
        "http://user:secret@localhost:{port}/b",
        "",
        "\\\\169.254.169.254/",
    ],
)
async def test_F56_I05_a_redirect_elsewhere_is_refused(server: Site, location: str) -> None:
    server.pages["/a"] = Page(status=302, headers={"Location": location.format(port=server.port)})
    server.pages["/b"] = Page.json({})
    with pytest.raises(FetchFailed):
        await Outbound().get_json(f"{server.url}/a", allow_private=True)
    assert set(server.asked) == {"/a"}


async def test_a_document_that_is_too_large_is_not_read_to_its_end(server: Site) -> None:
    server.pages["/a"] = Page(b'{"a": "' + b"x" * fetch.MAX_SIZE + b'"}')
    server.pages["/endless"] = Page(b"x" * (fetch.MAX_SIZE * 2), headers={"Content-Length": str(10**12)})
    for path in ("/a", "/endless"):
        with pytest.raises(FetchFailed, match="larger than"):
            await Outbound().get_json(f"{server.url}{path}", allow_private=True)


async def test_F50_a_compressed_answer_is_refused_unread(server: Site) -> None:
    server.pages["/a"] = Page(gzip.compress(b"{}" + b" " * 10_000_000), headers={"Content-Encoding": "gzip"})
    with pytest.raises(FetchFailed, match="compressed"):
        await Outbound().get_json(f"{server.url}/a", allow_private=True)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"a": 1, "a": 2}', b'{"a": NaN}', b'"' * 5, b"[" * 10_000])
async def test_what_is_no_json_object_is_refused(server: Site, body: bytes) -> None:
    server.pages["/a"] = Page(body)
    with pytest.raises(FetchFailed, match="not a JSON object"):
        await Outbound().get_json(f"{server.url}/a", allow_private=True)


@pytest.mark.parametrize("status", [201, 400, 401, 404, 429, 500, 503])
async def test_any_other_status_is_no_document(server: Site, status: int) -> None:
    server.pages["/a"] = Page(b"{}", status)
    with pytest.raises(FetchFailed, match=f"HTTP {status}"):
        await Outbound().get_json(f"{server.url}/a", allow_private=True)


async def test_a_silent_server_is_given_up(server: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    server.pages["/a"] = Page(b"{}", before=anyio.sleep_forever)
    with pytest.raises(FetchFailed, match="no whole answer"):
        await Outbound().get_json(f"{server.url}/a", allow_private=True)


async def test_nobody_there_is_said(free_port: int) -> None:
    with pytest.raises(FetchFailed, match="cannot connect"):
        await Outbound().get_json(f"http://127.0.0.1:{free_port}/", allow_private=True)


async def test_F105_a_proxy_of_the_environment_is_not_asked(server: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages["/a"] = Page.json({})
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await Outbound().get_json(f"{server.url}/a", allow_private=True) == {}
