"""HTTP/1.1 as bytes: what is written, what is kept, and what a peer can do to us."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from broker.upstream import connection, httpwire
from broker.upstream.connection import HIGH_WATER, MAX_HEAD, Unreachable, WireFault, WireResponse
from broker.upstream.httpwire import HttpWire, RequestHead, can_carry
from tests.patience import PATIENCE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answer = Callable[["Peer", asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """Reads requests, and answers each with the next of `answers`, the last one again and again."""

    def __init__(self, *answers: bytes | Answer) -> None:
        self.answers = list(answers)
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    self.heads.append(head)
                    length = [line for line in head.split("\r\n") if line.startswith("Content-Length: ")]
                    self.bodies.append(await reader.readexactly(int(length[0].split()[1])) if length else b"")
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    if callable(answer):
                        await answer(self, writer)
                    else:
                        writer.write(answer)
                        await writer.drain()
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def meeting(
    *answers: bytes | Answer, headers: Mapping[str, str] | None = None, limit: int = 10
) -> AsyncGenerator[tuple[Peer, HttpWire], None]:
    peer = Peer(*answers)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(peer.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    wire = HttpWire(peer.url, headers or {}, 5, limit)
    try:
        with anyio.fail_after(PATIENCE):
            yield peer, wire
    finally:
        await wire.aclose()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def send(wire: HttpWire, head: RequestHead, body: bytes | None = b"{}") -> WireResponse:
    """The response, when its head has come."""
    response = wire.ask(head, body)
    try:
        await response.is_here
    except BaseException:
        wire.give_back(response)
        raise
    return response


async def whole(response: WireResponse) -> bytes:
    with response:
        data = b""
        while part := await response.read():
            data += part
        return data


async def post(peer: Peer, wire: HttpWire, body: bytes = b"{}") -> bytes:
    return await whole(await send(wire, RequestHead("POST", peer.url, {}), body))


async def until(is_true: Callable[[], bool]) -> None:
    while not is_true():  # noqa: ASYNC110 - what the operating system does sets no event
        await anyio.sleep(0.01)


async def test_a_request_is_these_bytes() -> None:
    async with meeting(OK, headers={"Authorization": "Bearer x", "accept": "a/b", "Connection": "close"}) as (
        peer,
        wire,
    ):
        await whole(
            await send(
                wire, RequestHead("POST", peer.url + "/gr\u00fc\u00dfe d%20e?q=1 2\r\n#f", {"Accept": "c/d"}), b"{}"
            )
        )
        assert peer.heads == [
            "POST /mcp/gr%C3%BC%C3%9Fe%20d%20e?q=1%202 HTTP/1.1\r\n"
            f"Host: {peer.url[7:-4]}\r\nAuthorization: Bearer x\r\nAccept: c/d\r\nContent-Length: 2\r\n\r\n"
        ]
        await whole(await send(wire, RequestHead("GET", peer.url, {}), None))
        assert "Content-Length" not in peer.heads[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nContent-Type: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_a_body_ends_where_its_head_says_and_the_connection_is_kept(answer: bytes, step: int) -> None:
    async def piecewise(peer: Peer, writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(answer), step):
            writer.write(answer[at : at + step])
            await asyncio.sleep(0)

    async with meeting(piecewise) as (peer, wire):
        for _ in range(3):
            response = await send(wire, RequestHead("POST", peer.url, {}), b"{}")
            assert "content-type" not in response.head.headers and "x-trailer" not in response.head.headers
            assert await whole(response) == b"hello"
        assert peer.connections == 1 and "0 busy, 1 idle" in repr(wire)


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async def closing(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await asyncio.sleep(0.02)
        writer.write(b"lo")
        writer.close()

    async with meeting(closing) as (peer, wire):
        assert await post(peer, wire) == b"hello"
        assert await post(peer, wire) == b"hello"
        assert peer.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"",
    ],
)
async def test_a_response_that_is_cut_is_no_response_and_is_not_asked_for_again(answer: bytes) -> None:
    async def cut(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with meeting(OK, cut) as (peer, wire):
        assert await post(peer, wire) == b"ok"
        with pytest.raises(WireFault, match="the connection broke"):
            await post(peer, wire, b"never twice")
        assert peer.bodies.count(b"never twice") == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (6 * MAX_HEAD),
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD + b"\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD,
        b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEAD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * (6 * MAX_HEAD),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * (6 * MAX_HEAD),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * MAX_HEAD,
    ],
    ids=[
        "other",
        "upgrade",
        "two-lengths",
        "chunk",
        "value",
        "head",
        "fields",
        "continue",
        "extension",
        "trailer",
        "trailers",
    ],
)
async def test_what_is_not_http_or_never_comes_to_its_content_ends_the_connection(answer: bytes) -> None:
    async with meeting(answer, OK) as (peer, wire):
        with pytest.raises(WireFault, match="HTTP fault"):
            await post(peer, wire)
        await until(lambda: peer.open == 0)
        assert await post(peer, wire) == b"ok"


FIVE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("answers", "connections"),
    [
        ([FIVE + b"hello"], 1),
        ([FIVE + b"hello" + OK, FIVE + b"hello"], 2),
        ([FIVE + b"hello", FIVE + b"hello" + OK, FIVE + b"hello"], 2),
        ([b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\n" + FIVE + b"hello"], 1),
        ([b"\r\n\r\n" + FIVE + b"hello"], 1),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"], 1),
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"], 3),
    ],
    ids=["plain", "and-more", "then-more", "early", "blank-lines", "chunked", "close"],
)
async def test_a_head_that_comes_again_means_what_it_meant(answers: list[bytes], connections: int) -> None:
    async with meeting(*answers) as (peer, wire):
        for _ in range(3):
            assert await post(peer, wire) == b"hello"
        assert peer.connections == connections


async def test_a_head_is_known_whatever_length_it_says() -> None:
    bodies = [b"hello", b"", b"x" * 1000, b"ok"]
    for name in (b"Content-Length", b"content-length"):
        answers = [b"HTTP/1.1 200 OK\r\nX: y\r\n%b: %d\r\nZ: z\r\n\r\n%b" % (name, len(body), body) for body in bodies]
        async with meeting(*answers) as (peer, wire):
            assert [await post(peer, wire) for _ in bodies] == bodies
            assert peer.connections == 1 and len(wire._known) == 1


async def test_a_status_without_a_body_is_not_known_by_what_it_says_of_a_length() -> None:
    """A parser that reads it takes nothing for its body."""
    bare = b"HTTP/1.1 204 No Content\r\nContent-Length: %d\r\n\r\n"
    async with meeting(bare % 0, bare % 5, OK) as (peer, wire):
        assert [await post(peer, wire) for _ in range(3)] == [b"", b"", b"ok"]


async def test_a_head_that_is_known_is_followed_by_its_body_in_any_pieces() -> None:
    steps = [len(FIVE), len(FIVE) + 2, len(FIVE) - 1, 3]

    async def piecewise(peer: Peer, writer: asyncio.StreamWriter) -> None:
        answer, step = FIVE + b"hello", steps.pop()
        for at in range(0, len(answer), step):
            writer.write(answer[at : at + step])
            await asyncio.sleep(0.001)

    async with meeting(FIVE + b"hello", piecewise) as (peer, wire):
        assert await post(peer, wire) == b"hello"
        while steps:
            assert await post(peer, wire) == b"hello"
        assert peer.connections == 1


async def test_a_body_after_a_known_head_that_is_cut_or_too_long_is_told_from_a_whole_one() -> None:
    async def cut(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(FIVE + b"hel")
        writer.close()

    async def too_long(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(FIVE + b"hel")
        await asyncio.sleep(0.01)
        writer.write(b"lo" + OK)

    async with meeting(FIVE + b"hello", too_long, FIVE + b"hello", cut) as (peer, wire):
        for _ in range(3):
            assert await post(peer, wire) == b"hello"
        assert peer.connections == 2
        with pytest.raises(WireFault, match="the connection broke"):
            await post(peer, wire)


async def test_what_comes_after_a_response_teaches_nothing_about_its_head() -> None:
    """The body of the one read before would be taken for its own, if their heads differ by just as many bytes."""
    longer = b"HTTP/1.1 200 OK\r\nX: 12345\r\nContent-Length: 2\r\n\r\n"
    shorter = b"HTTP/1.1 200 OK\r\nX: 123\r\nContent-Length: 7\r\n\r\n"
    assert len(longer) == len(shorter) + len(b"\r\n")
    is_read = asyncio.Event()

    async def says_more(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(longer + b"ok")
        await is_read.wait()
        writer.write(b"\r\n")

    answers = [longer + b"ok", shorter + b"goodbye", says_more, longer + b"ok"]
    async with meeting(*answers) as (peer, wire):
        assert [await post(peer, wire) for _ in range(2)] == [b"ok", b"goodbye"]
        with await send(wire, RequestHead("POST", peer.url, {}), b"{}") as response:
            assert await response.read() == b"ok"
            is_read.set()
            await until(lambda: peer.open == 0)
        assert [await post(peer, wire) for _ in range(2)] == [b"ok"] * 2
        assert peer.connections == 2


async def test_heads_that_a_peer_makes_up_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_KNOWN", 3)
    ours = [b"HTTP/1.1 200 OK\r\nX: %d\r\nContent-Length: 2\r\n\r\nok" % number for number in range(10)]
    long = b"HTTP/1.1 200 OK\r\nX: " + b"x" * connection.MAX_KNOWN_HEAD + b"\r\nContent-Length: 2\r\n\r\nok"
    async with meeting(*ours, long) as (peer, wire):
        for _ in range(12):
            assert await post(peer, wire) == b"ok"
            assert len(wire._known) <= 3
        assert all(len(head) <= connection.MAX_KNOWN_HEAD for head in wire._known)


async def test_a_connection_that_the_peer_has_closed_is_noticed_before_the_request_is_written() -> None:
    """Even if the loop has not seen it yet."""

    async def last(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()
        writer.close()

    async with meeting(last, OK) as (peer, wire):
        response = await send(wire, RequestHead("POST", peer.url, {}), b"{}")
        assert await whole(response) == b"ok"
        await until(lambda: peer.open == 0)
        assert await post(peer, wire) == b"ok"
        assert len(peer.heads) == 2


async def test_an_answer_that_nobody_asked_for_is_never_taken_for_the_next_one() -> None:
    async with meeting(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", OK) as (peer, wire):
        assert await post(peer, wire) == b"ok"
        assert await post(peer, wire) == b"ok"
        assert peer.connections == 2


async def test_an_answer_that_comes_while_nobody_asks_is_never_taken_for_the_next_one() -> None:
    said = anyio.Event()

    async def twice(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(OK.replace(b"ok", b"no"))
        await writer.drain()
        said.set()

    async with meeting(twice, OK) as (peer, wire):
        assert await post(peer, wire) == b"ok"
        await said.wait()
        assert await post(peer, wire) == b"ok"
        assert peer.connections == 2


async def test_F63_a_header_that_is_not_one_line_is_not_sent() -> None:
    async with meeting(OK) as (peer, wire):
        for name, value in [("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "a\0"), ("X\r\nY", "b"), ("X Y", "b"), ("", "b")]:
            with pytest.raises(WireFault):
                await whole(await send(wire, RequestHead("POST", peer.url, {name: value}), b"{}"))
        with pytest.raises(WireFault):
            await whole(await send(wire, RequestHead("POST", peer.url, {"X": "\ud800"}), b"{}"))
        assert peer.connections == 0


async def test_F64_connections_are_bounded_and_who_waits_gets_a_turn_in_order() -> None:
    go_on = anyio.Event()

    async def slow(peer: Peer, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(OK)

    async with meeting(slow, limit=2) as (peer, wire), anyio.create_task_group() as tasks:
        for n in range(10):
            tasks.start_soon(post, peer, wire, b"%d" % n)
        await until(lambda: len(peer.heads) == 2)
        with anyio.move_on_after(0.05) as waited:
            await post(peer, wire, b"late")
        assert waited.cancelled_caught, "it waits within its own deadline"
        go_on.set()
        await until(lambda: len(peer.heads) == 10)
        assert peer.connections == 2
        assert sorted(peer.bodies) == [b"%d" % n for n in range(10)]


async def test_who_gives_up_waiting_for_a_turn_waits_no_more() -> None:
    """However many come and go while all turns are taken, none of them is kept."""
    go_on = anyio.Event()

    async def slow(peer: Peer, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(OK)

    async with meeting(slow, limit=1) as (peer, wire), anyio.create_task_group() as tasks:
        tasks.start_soon(post, peer, wire)
        await until(lambda: len(peer.heads) == 1)
        async with anyio.create_task_group() as hasty:
            for _ in range(20):
                hasty.start_soon(post, peer, wire, b"never")
            await until(lambda: len(wire._queue) == 20)
            hasty.cancel_scope.cancel()
        assert len(wire._queue) == 0
        tasks.start_soon(post, peer, wire, b"patient")
        await until(lambda: len(wire._queue) == 1)
        go_on.set()
        await until(lambda: len(peer.bodies) == 2)
        assert peer.bodies[1] == b"patient"


async def test_a_request_that_is_cancelled_closes_its_connection_and_gives_its_turn_back() -> None:
    async def silent(peer: Peer, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)

    async def half(peer: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")

    async with meeting(silent, half, OK, limit=1) as (peer, wire):
        for asked in (1, 2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(post, peer, wire)
                await until(lambda asked=asked: len(peer.heads) == asked)
                await anyio.sleep(0.02)
                tasks.cancel_scope.cancel()
            await until(lambda: peer.open == 0)
        assert await post(peer, wire) == b"ok"


async def test_a_response_that_is_given_back_twice_takes_no_connection_from_who_has_it_now() -> None:
    go_on = anyio.Event()

    async def later(peer: Peer, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(OK)

    async with meeting(OK, later, limit=1) as (peer, wire):
        first = await send(wire, RequestHead("POST", peer.url, {}))
        wire.give_back(first)
        async with anyio.create_task_group() as tasks:

            async def asked() -> None:
                assert await post(peer, wire, b"second") == b"ok"

            tasks.start_soon(asked)
            await until(lambda: len(peer.bodies) == 2)
            wire.give_back(first)
            assert (wire._free, len(wire._busy), len(wire._idle)) == (0, 1, 0)
            go_on.set()
        assert peer.connections == 1


async def test_a_body_that_nobody_reads_stays_with_its_peer() -> None:
    sent = 0

    async def endless(peer: Peer, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with meeting(endless) as (peer, wire):
        response = await send(wire, RequestHead("POST", peer.url, {}), b"{}")
        before = -1
        while before != sent:
            before = sent
            await anyio.sleep(0.1)
        assert len(await response.read()) <= 2 * HIGH_WATER
        await until(lambda: sent > before)
        wire.give_back(response)
        await until(lambda: peer.open == 0)


async def test_closing_fails_what_is_in_flight_and_what_comes_later() -> None:
    async def silent(peer: Peer, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)

    async with meeting(silent, limit=1) as (peer, wire):

        async def refused() -> None:
            with pytest.raises(WireFault, match="closed"):
                await post(peer, wire)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused)
            tasks.start_soon(refused)
            await until(lambda: len(peer.heads) == 1)
            await wire.aclose()
        await refused()
        await until(lambda: peer.open == 0)


async def test_idle_connections_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with meeting(OK) as (peer, wire):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(post, peer, wire)
        assert peer.open == 3
        monkeypatch.setattr(httpwire, "KEEP", -1.0)
        assert await post(peer, wire) == b"ok"
        await until(lambda: peer.open == 0)


async def test_a_connection_that_was_idle_for_long_carries_nothing_more() -> None:
    """Its server may be closing it in this very moment, and whether a call has come there nobody would know."""
    async with meeting(OK) as (peer, wire):
        assert await post(peer, wire) == b"ok"
        (old,) = wire._idle
        assert await post(peer, wire) == b"ok" and wire._idle == [old]
        old.idle_since -= httpwire.KEEP + 1
        assert await post(peer, wire) == b"ok"
        assert len(wire._idle) == 1 and wire._idle[0] is not old
        await until(lambda: peer.open == 1)


async def test_who_cannot_be_reached_is_said_in_few_words() -> None:
    for url, why in [
        ("http://127.0.0.1:1/", r"cannot connect \(connection refused\)"),
        ("http://localhost:1/", r"cannot connect \(connection refused\)"),
        ("http://nobody.invalid/", "its host name cannot be resolved"),
    ]:
        with pytest.raises(Unreachable, match=why):
            await send(HttpWire(url, {}, 5, 1), RequestHead("GET", url, {}), None)


async def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with meeting(OK) as (peer, wire):
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("127.0.0.1", int(peer.url.split(":")[2][:-4]), type=1)

        async def resolve(*_: object, **__: object) -> object:
            family, kind, protocol, name, address = found[0]
            return [(family, kind, protocol, name, (address[0], 1)), *found]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        opened = await wire._connect()
        assert not opened.transport.is_closing()
        opened.abort()


async def test_a_host_that_swallows_packets_costs_the_connect_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    with pytest.raises(WireFault, match="did not accept a connection in time") as fault:
        await send(HttpWire("http://127.0.0.1:1/", {}, 0.05, 1), RequestHead("GET", "http://127.0.0.1:1/", {}), None)
    assert not isinstance(fault.value, Unreachable)


def test_what_this_client_is_for() -> None:
    assert can_carry("http://127.0.0.1:8000/mcp") and can_carry("http://[::1]/")
    for other in ("https://a/", "http://u:p@a/", "http://gr\u00fc\u00dfe.example/", "http:///x", "ws://a/"):
        assert not can_carry(other)
