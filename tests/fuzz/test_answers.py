"""What an upstream behind HTTP may say: any bytes, in any pieces, with its end at any place."""

import asyncio
import itertools
import socket
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.upstream.connection import HIGH_WATER, MAX_HEAD, Connection, Known, WireFault, WireResponse
from broker.upstream.httpwire import HttpWire
from tests.fuzz.examples import at_least

PARTS = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No\r\n"),
        *(
            b"HTTP/1.1 999 \xff\r\n",
            b"HTTP/1.1 200\r\n",
            b"HTTP/9.9 200 OK\r\n",
            b"HTTP/1.1 101 Up\r\n",
            b"ICY 200 OK\r\n",
        ),
        *(b"Content-Length: 2\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 1e1\r\n"),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"Connection: close\r\n",
            b"Upgrade: h2c\r\n",
        ),
        *(
            b"Connection: upgrade\r\n",
            b"X: \xc3\xa4\r\n",
            b"X:" + b"y" * 5000 + b"\r\n",
            b" folded\r\n",
            b"no colon\r\n",
        ),
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"ok",
            b"0\r\n\r\n",
            b"2\r\nok\r\n",
            b"ffffffffffffffffff\r\n",
            b"2;x=y\r\nok\r\n",
        ),
        *(b"0\r\nTrailer: x\r\n\r\n", b"data: {}\n\n", b"z" * (HIGH_WATER + 1)),
    ]
)
WHOLE = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\nok",
    ]
)
STREAMS = st.lists(PARTS | WHOLE | st.binary(max_size=12), max_size=12).map(b"".join)


class Pipe:
    """A transport that counts what is asked of it; its socket is one."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.is_closed = False

    def get_extra_info(self, name: str) -> Any:
        return self.end if name == "socket" else None

    def write(self, data: bytes) -> None:
        assert not self.is_closed

    def pause_reading(self) -> None:
        assert not self.is_closed

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_closed = True


@dataclass
class Outcome:
    status: int
    body: bytes
    fault: bool
    is_complete: bool
    may_be_kept: bool


async def outcome_of(pieces: list[bytes], error: Exception | None, known: Known | None = None) -> Outcome:
    """What becomes of one response; nothing but a `WireFault` may come out, and at the end all is decided."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as end:
        transport, connection = Pipe(end), Connection({} if known is None else known)
        connection.connection_made(cast(asyncio.BaseTransport, transport))
        response = WireResponse(HttpWire("http://127.0.0.1:1/", {}, 1, 1), connection.loop)
        connection.ask(response, b"GET / HTTP/1.1\r\n\r\n")
        body = b""
        for piece in pieces:
            if not transport.is_closed:
                connection.data_received(piece)
            if response._parts:
                body += await response.read()
        kept = not transport.is_closed and response.is_complete and connection.may_be_kept
        connection.connection_lost(error)
        fault = False
        try:
            while part := await asyncio.wait_for(response.read(), 5):
                body += part
        except WireFault:
            fault = True
        response.came.cancel()
        assert response.is_complete or fault, "somebody would wait for ever"
        return Outcome(response.head.status, body, fault, response.is_complete, kept)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@settings(max_examples=at_least(150), deadline=None)
@given(STREAMS, st.lists(st.integers(0, 2**20), max_size=6), st.booleans())
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * 2, [3], False)
@example(b"HTTP/1.1 200 OK\r\nX:" + b"y" * (MAX_HEAD + 1), [], False)
@example(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, [], False)
def test_any_bytes_in_any_pieces_are_an_answer_or_a_fault_and_nobody_waits_for_ever(
    data: bytes, places: list[int], breaks: bool
) -> None:
    error = ConnectionResetError() if breaks else None
    found = asyncio.run(outcome_of(cut(data, places), error))
    assert len(found.body) <= len(data)
    assert found.is_complete or not found.may_be_kept


@settings(max_examples=at_least(100), deadline=None)
@given(WHOLE, st.lists(st.integers(0, 2**20), max_size=8))
def test_a_good_answer_is_the_same_however_it_is_cut(data: bytes, places: list[int]) -> None:
    found = asyncio.run(outcome_of(cut(data, places), None))
    assert (found.status, found.body, found.fault, found.is_complete) == (200, b"ok", False, True)


@settings(max_examples=at_least(150), deadline=None)
@given(WHOLE, STREAMS, st.lists(st.integers(0, 2**20), max_size=4))
def test_a_head_that_is_known_is_read_as_one_that_is_not(whole: bytes, tail: bytes, places: list[int]) -> None:
    async def outcomes() -> tuple[Outcome, Outcome]:
        known: Known = {}
        await outcome_of([whole], None, known)
        pieces = cut(whole + tail, places)
        return await outcome_of(pieces, None, known), await outcome_of(pieces, None)

    judge(*asyncio.run(outcomes()))


def judge(with_it: Outcome, without_it: Outcome) -> None:
    """What was read of a head that is known, and what a parser reads."""
    assert with_it.may_be_kept <= without_it.may_be_kept, "what may be kept otherwise is closed, never the reverse"
    with_it.may_be_kept = without_it.may_be_kept
    if not without_it.fault or without_it.is_complete:
        assert with_it == without_it


LENGTHS = st.sampled_from(
    [b"0", b"1", b"2", b"02", b"0000000002", b"3", b"+2", b"-2", b" 2", b"2 ", b"2,2", b"2\t", b"0x2"]
)
LENGTHS |= st.sampled_from(
    [b"", b"999999999", b"9999999999", b"99999999999999999999999", b"\xb2", b"2\n", b"2\0", b"2;"]
)


@settings(max_examples=at_least(150), deadline=None)
@given(
    st.sampled_from([b"Content-Length", b"content-length"]),
    LENGTHS,
    STREAMS,
    st.lists(st.integers(0, 2**20), max_size=4),
)
@example(b"content-length", b"2", b"ok", [])
@example(b"content-length", b"1", b"ok", [])
@example(b"content-length", b"3", b"ok", [])
def test_a_known_head_with_another_length_is_read_as_one_that_is_not_known(
    name: bytes, length: bytes, tail: bytes, places: list[int]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nX: y\r\n%b: %b\r\nZ: z\r\n\r\n"

    async def outcomes() -> tuple[Outcome, Outcome]:
        known: Known = {}
        await outcome_of([head % (name, b"2") + b"ok"], None, known)
        assert known
        pieces = cut(head % (name, length) + tail, places)
        return await outcome_of(pieces, None, known), await outcome_of(pieces, None)

    judge(*asyncio.run(outcomes()))
