"""The load of the benchmark, compiled and in Python: what it asks, and which answers it takes."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import orjson
import pytest

from bench import load, native
from bench.ask import Ask, Load, Needle, WrongAnswer
from bench.echo import MODERN, Echo

SECONDS = 0.05
Answer = Callable[[bytes], bytes]
Connect = Callable[[int, Sequence[bytes], Ask], Awaitable[Load]]


async def compiled(port: int, requests: Sequence[bytes], ask: Ask) -> Load:
    program = native.program()
    assert program is not None
    return await native.connect(program, port, requests, ask.needle)


LOADS = [load.connect, *([compiled] if native.program() else [])]
"""The compiled one where it can be had."""


@pytest.fixture(params=LOADS)
def connect(request: pytest.FixtureRequest) -> Connect:
    return request.param


class Server:
    """One that answers every request with what `answer` makes of its body."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.bodies: list[bytes] = []
        self.keys: list[set[str]] = []
        """Of each connection."""
        self._tasks: set[asyncio.Task[object] | None] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[int]:
        """Its port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*filter(None, self._tasks))  # they end with their connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        keys: set[str] = set()
        self.keys.append(keys)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                keys.update(re.findall(r"authorization: Bearer (\S+)", head))
                length = re.search(r"content-length: (\d+)", head)
                assert length is not None
                self.bodies.append(await reader.readexactly(int(length[1])))
                answer = self._answer(self.bodies[-1])
                if not answer:
                    return writer.close()
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def echoed(body: bytes) -> bytes:
    _, answer = Echo(3).answer(body)
    assert answer is not None
    return whole(answer)


async def asked(connect: Connect, port: int, ask: Ask, keys: Sequence[str] = ("",), seconds: float = SECONDS) -> int:
    """How many calls were measured."""
    opened = await connect(port, [ask.http(port, MODERN, None, key) for key in keys], ask)
    try:
        sample = await opened.measure(seconds)
        again = await opened.measure(seconds)
    finally:
        await opened.close()
    assert all(0 < latency < sample.seconds for latency in sample.latencies)
    return len(sample.latencies) + len(again.latencies)


@pytest.mark.parametrize("ask", [Ask.echo("echo", 32), Ask.echo("echo", 100_000), Ask.echo("echo", 32, 300_000)])
async def test_every_call_is_measured_and_has_an_id_of_its_own(connect: Connect, ask: Ask) -> None:
    server = Server(echoed)
    async with server.running() as port:
        calls = await asked(connect, port, ask, ["", ""])
    assert calls == len(server.bodies) >= 4
    assert len({orjson.loads(body)["id"] for body in server.bodies}) == calls


async def test_each_caller_has_a_connection_and_a_key_of_its_own(connect: Connect) -> None:
    server = Server(echoed)
    async with server.running() as port:
        await asked(connect, port, Ask.echo("echo", 32), ["one", "two", "three"])
    assert sorted(map(sorted, server.keys)) == [["one"], ["three"], ["two"]]


async def test_the_tools_of_a_list_are_counted(connect: Connect) -> None:
    async with Server(echoed).running() as port:
        assert await asked(connect, port, Ask.tools(3))
        for count in (2, 4):
            with pytest.raises(WrongAnswer):
                await asked(connect, port, Ask.tools(count))


def changed(old: bytes, new: bytes) -> Answer:
    return lambda body: echoed(body).replace(old, new)


WRONG: dict[str, Answer] = {
    "another text": changed(b"xx", b"xy"),
    "the id of another request": changed(b'"id":10000', b'"id":10009'),
    "an error": lambda body: whole(b'{"jsonrpc":"2.0","id":1,"error":{}}'),
    "another status": lambda body: echoed(body).replace(b"200 OK", b"503 No"),
    "no length": changed(b"Content-Length", b"Content-Width"),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
async def test_an_answer_that_is_not_the_right_one_ends_the_run(connect: Connect, answer: Answer) -> None:
    async with Server(answer).running() as port:
        with pytest.raises(WrongAnswer):
            await asked(connect, port, Ask.echo("echo", 32))


async def test_a_server_that_closes_the_connection_ends_the_run(connect: Connect) -> None:
    async with Server(lambda _: b"").running() as port:
        with pytest.raises(WrongAnswer, match="closed"):
            await asked(connect, port, Ask.echo("echo", 32))


async def test_callers_of_different_keys_share_no_session_in_the_legacy_era(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []

    async def connect(_program: object, _port: int, given: Sequence[bytes], _needle: Needle) -> None:
        requests.extend(given)

    monkeypatch.setattr(load, "open_session", lambda _port, key: f"session-of-{key}")
    monkeypatch.setattr(native, "connect", connect)
    monkeypatch.setattr(native, "program", lambda: True)
    await load.over_http(1, Ask.echo("echo", 32), "2025-11-25", 3, ["one", "two"])
    sessions = [re.findall(rb"mcp-session-id: (\S+)", request) for request in requests]
    assert sessions == [[b"session-of-one"], [b"session-of-two"], [b"session-of-one"]]
