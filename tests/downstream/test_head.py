"""A head that is known again is what the parser would have read, and nothing else is known."""

import asyncio
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.downstream.connection import KEEP_ALIVE, RESTS_AFTER, Connection, Serve
from broker.downstream.head import MAX_KNOWN, MAX_KNOWN_FIELDS, MAX_KNOWN_HEAD, NO_HEAD, Found, Head, KnownHeads
from broker.downstream.room import Place, Room
from broker.downstream.web import BodyRefused, Disconnected, Http


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 5) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Echo:
    """A server that tells what it was asked; implements `Server`."""

    def __init__(self) -> None:
        self.room = Room()
        self.is_closing = False
        self.seen: list[Any] = []
        self.serve: Serve = self._serve

    def opened(self, connection: Connection) -> None: ...
    def ended(self, connection: Connection) -> None: ...

    async def _serve(self, http: Http) -> None:
        try:
            body = await http.body(1000)
        except (BodyRefused, Disconnected):
            body = b"refused"
        self.seen.append((http.method, http.path, http.query, dict(http.headers) | {"content-length": ""}, body))
        http.respond(200, body)


def _place(room: Room) -> Place:
    """Of somebody who was let in on it before."""
    place = room.enter("192.0.2.1")
    assert place is not None and room.settle(place, "alice")
    return place


async def settled() -> None:
    """What can be answered is answered."""
    for _ in range(10):
        await asyncio.sleep(0)


async def told(pieces: list[bytes]) -> tuple[list[Any], bytes, bool, int]:
    """What a server sees of these pieces, what is answered, whether the connection ends; and heads that are known."""
    echo, transport = Echo(), Transport()
    connection = Connection(echo, _place(echo.room))
    connection.connection_made(transport)
    for piece in pieces:
        if not transport.is_closed:
            connection.data_received(piece)
            await settled()
    return echo.seen, transport.written, transport.is_closed, len(connection._known)  # pyright: ignore[reportPrivateUsage]


FIELDS = st.lists(
    st.sampled_from(
        [
            *(b"Host: x", b"Accept: */*", b"Connection: keep-alive", b"Connection: close", b"Expect: 100-continue"),
            *(b"Transfer-Encoding: chunked", b"Upgrade: h2c", b"X: content-length: 3", b"X:\r\n Content-Length: 3"),
            *(b"Content-Length: 3", b"content-length: 3", b"content-length:3", b"CONTENT-LENGTH: 3"),
        ]
    ),
    max_size=4,
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    body = draw(st.sampled_from([b"", b"a", b"abc", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n"]))
    length = draw(st.sampled_from([b"%d" % len(body), b"0%d" % len(body), b"+1", b"3", b""]))
    name = draw(st.sampled_from([b"Content-Length: ", b"content-length: ", b"content-length:", b"Content-length: "]))
    fields = draw(FIELDS)
    fields.insert(draw(st.integers(0, len(fields))), name + length)
    first = draw(
        st.sampled_from([b"POST /mcp HTTP/1.1", b"POST /mcp?x HTTP/1.1", b"GET /a HTTP/1.1", b"POST /mcp HTTP/1.0"])
    )
    lead = draw(st.sampled_from([b"", b"", b"\r\n"]))
    return lead + b"\r\n".join((first, *fields, b"", body))


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Some requests again and again, in pieces of any size."""
    some = draw(st.lists(requests(), min_size=1, max_size=3))
    pieces = draw(st.lists(st.sampled_from(some), min_size=2, max_size=8))
    if draw(st.booleans()):
        whole = b"".join(pieces)
        cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=6)))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if a < b]
    return pieces


@settings(max_examples=100, deadline=None)
@given(conversations())
def test_whoever_repeats_a_head_is_read_as_if_it_were_new(pieces: list[bytes]) -> None:
    *known, _ = asyncio.run(told(pieces))
    with mock.patch.object(KnownHeads, "find", lambda *_: NO_HEAD):
        *read, _ = asyncio.run(told(pieces))
    assert known == read


async def test_a_head_is_known_when_it_comes_again_with_a_body_of_another_length() -> None:
    found: list[bool] = []
    find = KnownHeads.find

    def noted(known: KnownHeads, data: bytes) -> Found:
        hit = find(known, data)
        found.append(hit[1] is not None)
        return hit

    with mock.patch.object(KnownHeads, "find", noted):
        post = b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
        seen, *_ = await told([post % (1, b"a"), post % (3, b"abc"), post % (0, b"")])
    assert [body for *_, body in seen] == [b"a", b"abc", b""]
    assert found == [False, True, True]
    known = KnownHeads()
    head = Head("POST", "/mcp", headers=[(b"content-length", b"1")])
    key, *_ = known.find(post % (1, b"a"))
    known.learn(key, head)
    assert known.find(post % (3, b"abc")) == (key, head, b"abc") and known.find(post % (3, b"abcd")) == NO_HEAD


@pytest.mark.parametrize(
    "data",
    [
        b"POST /mcp HTTP/1.1\r\nContent-Length: 1\r\nX: " + b"x" * MAX_KNOWN_HEAD + b"\r\n\r\na",
        b"POST /mcp HTTP/1.1\r\nContent-Length: 1\r\n" + b"a: b\r\n" * MAX_KNOWN_FIELDS + b"\r\na",
        b"POST /mcp HTTP/1.1\r\nContent-Length: 0000000001\r\n\r\na",
        b"POST /mcp HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
        b"POST /mcp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ],
    ids=["long", "many fields", "a length of many digits", "the last one", "chunks"],
)
async def test_a_head_that_is_not_plain_is_read_each_time(data: bytes) -> None:
    seen, _, _, known = await told([data])
    assert len(seen) == 1 and known == 0


async def test_of_a_connection_on_which_nobody_was_let_in_no_head_is_kept() -> None:
    echo, transport = Echo(), Transport()
    place = echo.room.enter("192.0.2.1")
    assert place is not None
    connection = Connection(echo, place)
    connection.connection_made(transport)
    known = connection._known  # pyright: ignore[reportPrivateUsage]
    for is_let_in in (False, True):
        if is_let_in:
            assert connection.settle("alice")
        connection.data_received(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\na")
        await settled()
        assert len(known) == is_let_in


async def test_a_connection_keeps_few_heads_and_none_when_it_rests() -> None:
    echo, transport = Echo(), Transport()
    connection = Connection(echo, _place(echo.room))
    connection.connection_made(transport)
    known = connection._known  # pyright: ignore[reportPrivateUsage]
    for number in range(MAX_KNOWN + 3):
        connection.data_received(b"POST /%d HTTP/1.1\r\nContent-Length: 1\r\n\r\na" % number)
        await settled()
    assert len(known) == MAX_KNOWN
    now = asyncio.get_running_loop().time()
    connection.look(now + RESTS_AFTER / 2)
    assert len(known) == MAX_KNOWN
    connection.look(now + RESTS_AFTER + 1)
    assert len(known) == 0 and RESTS_AFTER < KEEP_ALIVE and not transport.is_closed
