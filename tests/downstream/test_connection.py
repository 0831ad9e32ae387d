"""HTTP/1.1 as a server speaks it: framing, order, bounds, and every way in which a connection ends."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from broker.downstream import connection as connection_module
from broker.downstream import ending, web
from broker.downstream import server as server_module
from broker.downstream.connection import MAX_FIELDS, MAX_HEAD
from broker.downstream.server import HttpServer, bind
from broker.downstream.web import BodyRefused, Disconnected, Http
from tests.downstream.raw_http import TIMEOUT, Client, Connection

Serve = Callable[[Http], Awaitable[None]]
GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"


class Site:
    """A server of `serve`, and what it has seen."""

    def __init__(self, serve: Serve) -> None:
        self.server = HttpServer(self._serve)
        self.serve = serve
        self.seen: list[Http] = []
        self.closing = anyio.Event()
        self.client = Client(0)

    def _serve(self, http: Http) -> Awaitable[None]:
        self.seen.append(http)
        return self.serve(http)


@asynccontextmanager
async def site(serve: Serve) -> AsyncGenerator[Site, None]:
    found = Site(serve)
    listener = bind("127.0.0.1", 0)
    found.client = Client(listener.getsockname()[1])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(found.server.run, listener, found.closing)
        with anyio.fail_after(TIMEOUT):
            yield found
        found.closing.set()
    assert not found.server.connections


async def echo(http: Http) -> None:
    """Answers with what it was asked."""
    try:
        body = await http.body(1000)
    except BodyRefused as refused:
        return http.respond(refused.status)
    text = f"{http.method} {http.path} {http.query.decode()} {body.decode()}"
    http.respond(200, text.encode(), ((b"content-type", b"text/plain"),))


async def stream(http: Http) -> None:
    await http.start(200, ((b"content-type", b"text/plain"),))
    for part in (b"one", b"", b"two"):
        await http.write(part, more=True)
    await http.write(b"", more=False)


def post(path: str, *parts: bytes, headers: str = "") -> bytes:
    """A request whose body comes in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode() + body


def transport_of(connection: Connection) -> asyncio.Transport:
    return cast(asyncio.Transport, connection.writer.transport)


async def until(is_true: Callable[[], Any]) -> None:
    while not is_true():  # noqa: ASYNC110 - what the operating system does sets no event
        await anyio.sleep(0.01)


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_requests_on_one_connection_are_answered_in_order(step: int) -> None:
    sent = (
        b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        + post("/d", b"he", b"llo")
        + b"DELETE http://other/e?f HTTP/1.1\r\nHost: x\r\n\r\n"
        + b"\r\nGET /%41//..;x#frag HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    async with site(echo) as served, served.client.connection() as connection:
        for at in range(0, len(sent), step):
            await connection.send(sent[at : at + step])
            await asyncio.sleep(0)
        bodies = [(await connection.reply()).body for _ in range(4)]
        assert bodies == [b"POST /a b=c hello", b"POST /d  hello", b"DELETE /e f ", b"GET /%41//..;x  "]
        assert len(served.server.connections) == 1


async def test_many_requests_in_one_breath_wait_their_turn() -> None:
    running = 0

    async def one_at_a_time(http: Http) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await anyio.lowlevel.checkpoint()
        running -= 1
        http.respond(200, http.path.encode())

    async with site(one_at_a_time) as served, served.client.connection() as connection:
        await connection.send(b"".join(GET % n for n in range(1000)))
        for n in range(1000):
            assert (await connection.reply()).body == b"/%d" % n


async def test_a_response_without_a_length_comes_in_chunks_and_the_connection_goes_on() -> None:
    async with site(stream) as served, served.client.connection() as connection:
        for n in range(2):
            await connection.send(GET % n)
            reply = await connection.head()
            assert reply.header("transfer-encoding") == "chunked" and reply.header("connection") is None
            assert [await connection.chunk() for _ in range(3)] == [b"one", b"two", b""]


@pytest.mark.parametrize("serve", [echo, stream])
async def test_HEAD_gets_a_head_alone(serve: Serve) -> None:
    async with site(serve) as served, served.client.connection() as connection:
        await connection.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + GET % 1)
        assert (await connection.head()).status == 200
        assert (await connection.reply()).status == 200


async def test_http_1_0_ends_with_its_connection() -> None:
    async with site(stream) as served, served.client.connection() as connection:
        await connection.send(b"GET / HTTP/1.0\r\n\r\n")
        reply = await connection.head()
        assert reply.header("connection") == "close" and reply.header("transfer-encoding") is None
        assert await connection.reader.read() == b"onetwo"


async def test_connection_close_is_said_and_done() -> None:
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(b"GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET % 2)
        reply = await connection.reply()
        assert (reply.body, reply.header("connection")) == (b"GET /1  ", "close")
        assert await connection.at_end()
        assert len(served.seen) == 1


@pytest.mark.parametrize("expects", ["100-continue", "100-CONTINUE"])
async def test_who_expects_it_is_told_to_go_on_when_the_body_is_wanted(expects: str) -> None:
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: {expects}\r\n\r\n".encode())
        assert (await connection.head()).status == 100
        await connection.send(b"ok")
        assert (await connection.reply()).body == b"POST /  ok"
        await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n")
        assert (await connection.reply()).status == 413, "not asked for what would be refused"


@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_an_upgrade_is_not_taken_up_and_the_request_is_served_as_it_is(body: bytes) -> None:
    """As the HTTP client of Java asks for it on every first request."""
    lines = f"Connection: Upgrade, HTTP2-Settings\r\nContent-Length: {len(body)}\r\nHTTP2-Settings: AA\r\nUpgrade: h2c"
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(f"POST /a HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n".encode() + body)
        assert (await connection.reply()).body == b"POST /a  " + body
        await connection.send(GET % 2)
        assert (await connection.reply()).status == 200


REFUSED = {
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two framings": b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two framings the other way": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc",
    "a signed length": b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
    "an endless length": b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
    "another encoding": b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "chunked not last": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\nabc",
    "chunked twice": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an encoding that is nearly chunked": b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
    "a folded first field": b"GET / HTTP/1.1\r\n X: a\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nX : a\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: x\n\n",
    "a bare line feed after a field": b"GET / HTTP/1.1\r\nX: a\nY: b\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
    "a blank in the target": b"GET /a b HTTP/1.1\r\n\r\n",
    "a control character in the target": b"GET /\x01 HTTP/1.1\r\n\r\n",
    "another version": b"GET / HTTP/1.2\r\n\r\n",
    "an old version": b"GET / HTTP/0.9\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"FETCH / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_I24_what_could_be_read_in_two_ways_is_refused_and_never_served(what: str) -> None:
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(GET % 1 + REFUSED[what])
        assert (await connection.reply()).body == b"GET /1  "
        reply = await connection.reply()
        assert (reply.status, reply.header("connection")) == (400, "close")
        assert await connection.at_end()
        assert [http.path for http in served.seen] == ["/1"]


BAD_CHUNKS = {
    "a size that is none": b"xyz\r\n",
    "a size with a prefix": b"0x3\r\nabc\r\n",
    "a blank after the size": b"3 \r\nabc\r\n",
    "a bare line feed": b"3\nabc\n",
    "too much": b"3\r\nabcd\r\n",
}


@pytest.mark.parametrize("what", BAD_CHUNKS)
async def test_I24_a_chunk_that_is_none_ends_request_and_connection(what: str) -> None:
    async def read(http: Http) -> None:
        with pytest.raises(Disconnected):
            await http.body(1000)

    async with site(read) as served, served.client.connection() as connection:
        await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + BAD_CHUNKS[what])
        assert (await connection.reply()).status == 400
        assert await connection.at_end()
        assert len(served.seen) == 1


async def test_a_request_whose_body_breaks_behind_the_answer_that_ends_the_connection_gets_that_answer_alone() -> None:
    async def refuse(http: Http) -> None:
        http.respond(404)

    async with site(refuse) as served, served.client.connection() as connection:
        await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
        reply = await connection.reply()
        assert (reply.status, reply.header("connection")) == (404, "close")
        assert await connection.at_end()
        task = served.seen[0].task
        assert task is not None and task.done() and task.exception() is None


async def test_CONNECT_opens_no_tunnel() -> None:
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(b"CONNECT evil:1 HTTP/1.1\r\nHost: evil:1\r\n\r\nSSH")
        assert (await connection.reply()).status == 405
        assert await connection.at_end() and served.seen == []


LONG_HEADS = {
    "a field": b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n",
    "a field without end": b"GET / HTTP/1.1\r\nX: " + b"x" * 3 * MAX_HEAD,
    "a name without end": b"GET / HTTP/1.1\r\n" + b"x" * 3 * MAX_HEAD,
    "a target": b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\n\r\n",
    "a target without end": b"GET /" + b"x" * 3 * MAX_HEAD,
    "many fields": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    "fields without end": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * MAX_HEAD,
}


@pytest.mark.parametrize("what", LONG_HEADS)
@pytest.mark.parametrize("step", [4096, 1 << 20])
async def test_SP21_a_head_that_is_too_long_is_431(what: str, step: int) -> None:
    async with site(echo) as served, served.client.connection() as connection:
        with suppress(ConnectionError):
            for at in range(0, len(LONG_HEADS[what]), step):
                await connection.send(LONG_HEADS[what][at : at + step])
        assert (await connection.reply()).status == 431
        assert await connection.at_end() and served.seen == []


async def test_SP21_a_head_within_the_bounds_is_served() -> None:
    fields = b"".join(b"X-%d: %b\r\n" % (n, b"y" * 500) for n in range(MAX_FIELDS))
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n" + fields[: fields.rindex(b"X")] + b"\r\n")
        await connection.send(b"z" * 100 + GET % 1)
        assert (await connection.reply()).status == 200
        assert (await connection.reply()).status == 200


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short time-out for callers that do not read. One that reads slowly must find the time to on a busy machine."""
    monkeypatch.setattr(server_module, "LOOK", 0.01)
    monkeypatch.setattr(connection_module, "WRITE_TIMEOUT", 1)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short time-outs, in which a request that is sent must still arrive on a busy machine."""
    monkeypatch.setattr(server_module, "LOOK", 0.01)
    for name in ("HEAD_TIMEOUT", "KEEP_ALIVE", "LINGER"):
        monkeypatch.setattr(connection_module, name, 0.3)
    monkeypatch.setattr(web, "BODY_TIMEOUT", 0.05)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: l", GET % 1 + b"POST / HT"])
async def test_F70_a_head_that_does_not_come_is_408(sent: bytes) -> None:
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(sent)
        statuses = [(await connection.reply()).status for _ in range(1 + sent.startswith(GET % 1))]
        assert statuses[-1] == 408 and await connection.at_end()
        assert len(served.seen) == len(statuses) - 1


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("sent", [b"", GET % 1])
async def test_F70_an_idle_connection_is_closed(sent: bytes) -> None:
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(sent)
        if sent:
            await connection.reply()
        assert await connection.at_end()


@pytest.mark.usefixtures("hasty")
async def test_F70_a_body_that_does_not_come_is_408() -> None:
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel")
        reply = await connection.reply()
        assert (reply.status, reply.header("connection")) == (408, "close")
        assert await connection.at_end()


@pytest.mark.usefixtures("hasty")
async def test_F70_a_request_that_takes_long_is_no_idle_connection() -> None:
    async def slow(http: Http) -> None:
        await anyio.sleep(1)
        http.respond(200)

    async with site(slow) as served, served.client.connection() as connection:
        await connection.send(GET % 1)
        assert (await connection.reply()).status == 200


@pytest.mark.usefixtures("impatient")
async def test_F74_who_never_reads_is_dropped_and_who_reads_slowly_is_not() -> None:
    size = 32 * 1024 * 1024

    async def big(http: Http) -> None:
        http.respond(200, b"x" * size)

    async with site(big) as served:
        async with served.client.connection() as deaf:
            transport_of(deaf).pause_reading()
            await deaf.send(GET % 1)
            await until(lambda: served.seen)
            await until(lambda: not served.server.connections)
        async with served.client.connection() as slow:
            await slow.send(GET % 2)
            await slow.head()
            left = size
            while left:
                left -= len(await slow.reader.read(4 * 1024 * 1024))
                await anyio.sleep(0.02)


async def test_F74_no_request_is_taken_while_the_answer_to_the_last_one_is_unread() -> None:
    async def big(http: Http) -> None:
        http.respond(200, b"x" * 32 * 1024 * 1024)

    async with site(big) as served, served.client.connection() as connection:
        transport_of(connection).pause_reading()
        await connection.send(GET % 1 + GET % 2)
        await until(lambda: served.seen)
        await anyio.sleep(0.05)
        assert len(served.seen) == 1
        transport_of(connection).resume_reading()
        assert len((await connection.reply()).body) == len((await connection.reply()).body)


async def test_F71_who_is_refused_in_the_middle_of_a_body_can_read_why() -> None:
    async with site(echo) as served, served.client.connection() as connection:
        await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        reply = await connection.reply()
        assert (reply.status, reply.header("connection")) == (413, "close")
        await connection.send(b"x" * 3_000_000)
        assert await connection.at_end()


async def test_F71_a_body_that_nobody_asks_for_stays_with_its_caller() -> None:
    asked = anyio.Event()

    async def late(http: Http) -> None:
        await asked.wait()
        http.respond(200, b"%d" % len(await http.body(1 << 30)))

    async with site(late) as served, served.client.connection() as connection:
        size = 64 * 1024 * 1024
        connection.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await until(lambda: served.seen)
        await anyio.sleep(0.1)
        assert served.seen[0].size <= 2 * connection_module.HIGH_WATER
        asked.set()
        assert (await connection.reply()).body == b"%d" % size


@pytest.mark.parametrize("sent", [GET % 1, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel"])
async def test_who_goes_is_noticed_at_once(sent: bytes) -> None:
    told = anyio.Event()

    async def wait(http: Http) -> None:
        http.on_gone = told.set
        await http.gone()
        with suppress(Disconnected):
            await http.body(10)
        http.respond(200)  # to nobody

    async with site(wait) as served:
        connection = await served.client.connect()
        await connection.send(sent)
        await until(lambda: served.seen)
        connection.reset()
        await told.wait()
        await until(lambda: not served.server.connections)


async def test_a_fault_is_500_or_a_cut_stream_and_the_server_lives(caplog: pytest.LogCaptureFixture) -> None:
    async def faulty(http: Http) -> None:
        if http.path == "/stream":
            await http.start(200, ())
            await http.write(b"one", more=True)
        if http.path != "/ok":
            raise RuntimeError("a fault of ours")
        http.respond(200)

    async with site(faulty) as served:
        async with served.client.connection() as connection:
            await connection.send(GET % 1 + b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [(await connection.reply()).status for _ in range(2)] == [500, 200]
        async with served.client.connection() as connection:
            await connection.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await connection.head()
            assert await connection.reader.read() == b"3\r\none\r\n"
    assert "a fault of ours" in caplog.text


async def test_F90_at_the_end_idle_connections_close_and_what_is_in_flight_is_finished() -> None:
    go_on = anyio.Event()

    async def slow(http: Http) -> None:
        await go_on.wait()
        http.respond(200)

    async with site(slow) as served, served.client.connection() as idle, served.client.connection() as busy:
        await busy.send(GET % 1 + GET % 2)
        await until(lambda: served.seen)
        served.closing.set()
        assert await idle.at_end()
        go_on.set()
        reply = await busy.reply()
        assert (reply.status, reply.header("connection")) == (200, "close")
        assert await busy.at_end()
        with pytest.raises(ConnectionRefusedError):
            await served.client.connect()


async def test_F90_what_does_not_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "DRAIN", 0.05)
    monkeypatch.setattr(server_module, "LAST_WORDS", 0.05)
    cancelled: list[str] = []

    async def endless(http: Http) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(http.path)

    async with site(endless) as served:
        connections: list[Connection] = []
        for n in range(3):
            connections.append(await served.client.connect())
            await connections[-1].send(GET % n)
        await until(lambda: len(served.seen) == 3)
        connections[0].reset()
        served.closing.set()
        assert await connections[1].at_end() and await connections[2].at_end()
        for connection in connections:
            await connection.close()
    assert sorted(cancelled) == ["/0", "/1", "/2"]


async def test_a_response_header_is_one_line() -> None:
    async def split(http: Http) -> None:
        http.respond(200, b"", ((b"x", b"a\r\nSet-Cookie: b"),))

    async with site(split) as served, served.client.connection() as connection:
        await connection.send(GET % 1)
        assert (await connection.reply()).status == 500
