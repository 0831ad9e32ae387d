"""The bare relays of the benchmark do what they are there for: else what they cost would say nothing."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from bench.bare import Caller, Relay

BODY = b'{"id":1}'
JSON = b"content-type: application/json\r\n"


def post(body: bytes = BODY, more: bytes = b"") -> bytes:
    return b"POST /mcp HTTP/1.1\r\nhost: here\r\n%b%bcontent-length: %d\r\n\r\n%b" % (JSON, more, len(body), body)


def whole(body: bytes, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%b%bcontent-length: %d\r\n\r\n%b" % (status, JSON, more, len(body), body)


class Upstream:
    """Answers what `answer` makes of a request, head and body; after nothing at all it hangs up."""

    def __init__(self, answer: Callable[[bytes], bytes] = lambda request: whole(request.partition(b"\r\n\r\n")[2])):
        self.answer = answer
        self.connections = 0
        self.requests: list[bytes] = []
        self.tasks: set[asyncio.Task[object] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]))
                self.requests.append(head + body)
                answer = self.answer(head + body)
                if not answer:
                    break
                writer.write(answer)
        writer.close()


class Client:
    """A connection to the relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.send = writer.write

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next one."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        body = await self._reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r")[0]))
        return int(head.split()[1]), head, body

    async def end(self) -> bytes:
        """All that comes until the relay hangs up."""
        return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def port_of(server: asyncio.Server) -> int:
    return server.sockets[0].getsockname()[1]


@asynccontextmanager
async def asked(relay: Relay) -> AsyncGenerator[Client]:
    """A connection to it."""
    made: list[Caller] = []

    def caller() -> Caller:
        made.append(Caller(relay))
        return made[-1]

    front = await asyncio.get_running_loop().create_server(caller, "127.0.0.1", 0)
    async with front:
        client = Client(*await asyncio.open_connection("127.0.0.1", port_of(front)))
        try:
            yield client
        finally:
            await client.close()
            for one in (*made, *relay.idle):
                one.transport.abort()


@asynccontextmanager
async def relayed(upstream: Upstream, *, is_strict: bool = False) -> AsyncGenerator[Client]:
    """A connection to a relay in front of an upstream."""
    behind = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    async with behind:
        async with asked(Relay(port_of(behind), is_strict=is_strict)) as client:
            yield client
        await asyncio.gather(*filter(None, upstream.tasks))  # they end with their connections


strictly = pytest.mark.parametrize("is_strict", [False, True], ids=["bare", "strict"])


@strictly
async def test_a_request_and_its_answer_pass_with_the_fields_that_the_other_side_needs(*, is_strict: bool) -> None:
    upstream = Upstream(lambda _: whole(b'{"ok":true}', b"404 Not Found", b"Mcp-Session-Id: s\r\nx-other: 1\r\n"))
    async with relayed(upstream, is_strict=is_strict) as client:
        client.send(post(more=b"Mcp-Name: echo\r\nauthorization: Bearer x\r\n"))
        status, head, body = await client.answer()
    assert (status, body) == (404, b'{"ok":true}')
    assert JSON in head and b"Mcp-Session-Id: s\r\n" in head and b"x-other" not in head
    [request] = upstream.requests
    assert request.startswith(b"POST /mcp HTTP/1.1\r\n") and request.endswith(BODY)
    assert JSON in request and b"Mcp-Name: echo\r\n" in request and b"authorization" not in request


@strictly
async def test_several_requests_in_one_read_are_answered_in_turn_over_one_connection(*, is_strict: bool) -> None:
    upstream = Upstream()
    async with relayed(upstream, is_strict=is_strict) as client:
        bodies = [b'{"id":%d}' % number for number in range(5)]
        client.send(b"".join(map(post, bodies)))
        assert [(await client.answer())[2] for _ in bodies] == bodies
    assert upstream.connections == 1


async def test_a_head_that_is_known_again_makes_no_difference_to_what_comes_with_it() -> None:
    async with relayed(Upstream()) as client:
        for _ in range(3):
            client.send(post())
            assert (await client.answer())[2] == BODY
        client.send(post()[:-2])  # the same head, and the body in two pieces
        client.send(BODY[-2:] + post())
        client.send(post())
        assert [(await client.answer())[2] for _ in range(3)] == [BODY] * 3


@strictly
async def test_bodies_in_chunks_pass_in_both_directions(*, is_strict: bool) -> None:
    chunks = b'5\r\n{"id"\r\n3\r\n:1}\r\n0\r\n\r\n'
    upstream = Upstream(lambda _: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
    async with relayed(upstream, is_strict=is_strict) as client:
        for _ in range(2):
            client.send(b"POST /mcp HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
            assert (await client.answer())[2] == BODY
    assert upstream.connections == 1 and all(request.endswith(b"\r\n\r\n" + BODY) for request in upstream.requests)


async def test_an_upstream_that_cannot_be_reached_is_502_each_time() -> None:
    gone = await asyncio.start_server(Upstream().serve, "127.0.0.1", 0)
    port = port_of(gone)
    gone.close()
    await gone.wait_closed()
    async with asked(Relay(port, is_strict=False)) as client:
        client.send(post() + post())
        assert [(await client.answer())[0] for _ in range(2)] == [502, 502]


@pytest.mark.parametrize("answer", [b"", b"no HTTP at all\r\n\r\n"], ids=["hangs up", "talks nonsense"])
async def test_an_upstream_that_breaks_is_502_and_is_asked_again_with_the_next_request(answer: bytes) -> None:
    answers = [answer, whole(BODY)]
    upstream = Upstream(lambda _: answers.pop(0))
    async with relayed(upstream) as client:
        client.send(post() + post())
        assert [(await client.answer())[0] for _ in range(2)] == [502, 200]
    assert upstream.connections == 2


async def test_a_caller_that_wants_the_end_gets_it_with_its_answer() -> None:
    async with relayed(Upstream()) as client:
        client.send(post(more=b"connection: close\r\n"))
        said = await client.end()
    assert said.endswith(BODY) and b"connection: close\r\n" in said


async def test_an_answer_that_ends_the_connection_is_not_its_last_use() -> None:
    upstream = Upstream(lambda _: whole(BODY, more=b"Connection: close\r\n"))
    async with relayed(upstream) as client:
        for _ in range(2):
            client.send(post())
            assert (await client.answer())[2] == BODY
    assert upstream.connections == 2


async def test_only_the_strict_one_refuses_what_can_be_read_in_two_ways() -> None:
    twice = b'{"id":1,"id":2}'
    for is_strict, statuses in ((False, [200, 200]), (True, [400, 502])):
        answers = [BODY, twice] if not is_strict else [twice]
        upstream = Upstream(lambda _, answers=answers: whole(answers.pop(0)))
        async with relayed(upstream, is_strict=is_strict) as client:
            client.send(post(twice) + post())
            assert [(await client.answer())[0] for _ in statuses] == statuses
