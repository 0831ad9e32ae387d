"""Hostile callers of the HTTP front, on sockets of their own: floods of connections, and no descriptor left."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from broker.downstream import entrance as entrance_module
from broker.downstream.entrance import MAX_TOLD, RETRY_AFTER
from broker.downstream.room import Bounds, Room
from tests.downstream.conftest import Front, serving
from tests.downstream.desk import bearer, desk
from tests.downstream.raw_http import TIMEOUT, Connection, Reply, modern, modern_headers
from tests.hostile.cost import MIB, apart, memory_below
from tests.relay.fake import Fake, tool

LIST = modern("tools/list")


@asynccontextmanager
async def front_of(directory: Path, **bounds: int) -> AsyncGenerator[Front, None]:
    room = Room(Bounds(**bounds))
    async with serving(
        directory, {"one": Fake(tools=[tool("echo")])}, room=room, metrics={"access": "public"}
    ) as front:
        yield front


async def ask(front: Front, connection: Connection, headers: Any = ()) -> Reply:
    """List the tools on this connection."""
    await connection.send(front.client.request("POST", "/mcp", LIST, [*modern_headers(LIST), *headers]))
    return await connection.reply()


def is_refusal(reply: Reply) -> bool:
    """Whether it is the answer to who finds no room: it says when to come again, and that this connection ends."""
    return (reply.status, reply.header("connection"), reply.code) == (503, "close", -32600) and reply.header(
        "retry-after"
    ) == str(RETRY_AFTER)


async def test_F78_who_finds_no_room_is_told_when_to_come_again_and_who_is_in_notices_nothing(tmp_path: Path) -> None:
    async with front_of(tmp_path, total=4) as front, AsyncExitStack() as stack:
        inside = [await stack.enter_async_context(front.client.connection()) for _ in range(2)]
        for connection in inside:
            assert (await ask(front, connection)).status == 200
        silent = [await stack.enter_async_context(front.client.connection()) for _ in range(2)]
        async with front.client.connection() as late:
            assert is_refusal(await ask(front, late))
            assert await late.at_end()
        for connection in inside:
            assert (await ask(front, connection)).status == 200
        page = await metrics(front, inside[0])
        assert "mcp_broker_connections 4.0" in page and "mcp_broker_connections_max 4.0" in page
        assert 'mcp_broker_connections_refused_total{bound="all"} 1.0' in page
        await silent[0].close()
        assert (await served_at_last(front)).status == 200


async def metrics(front: Front, connection: Connection) -> list[str]:
    await connection.send(front.client.request("GET", "/metrics"))
    return (await connection.reply()).body.decode().splitlines()


async def served_at_last(front: Front) -> Reply:
    """The answer on a new connection, once the broker has noticed that another one is gone."""
    with anyio.fail_after(TIMEOUT):
        while True:
            async with front.client.connection() as connection:
                reply = await ask(front, connection)
                if reply.status != 503:
                    return reply


async def test_F78_an_address_full_of_strangers_shuts_nobody_out_who_was_let_in_from_there(tmp_path: Path) -> None:
    async with front_of(tmp_path, total=100, per_address=3) as front, AsyncExitStack() as stack:
        for _ in range(5):  # as a proxy does: more than strangers may have
            connection = await stack.enter_async_context(front.client.connection())
            assert (await ask(front, connection)).status == 200
        for _ in range(3):
            await stack.enter_async_context(front.client.connection())
        async with front.client.connection() as late:
            assert is_refusal(await ask(front, late))
        assert (await ask(front, connection)).status == 200


async def test_F78_one_key_cannot_take_the_connections_of_the_others(tmp_path: Path) -> None:
    room = Room(Bounds(100, per_caller=2))
    async with desk(tmp_path, {"one": Fake(tools=[tool("echo")])}, room=room) as place, AsyncExitStack() as stack:
        greedy, other = bearer(place.key(1)), bearer(place.key(2, "other"))
        place.adopt()
        front = place.front
        own = [await stack.enter_async_context(front.client.connection()) for _ in range(2)]
        for connection in own:
            assert (await ask(front, connection, greedy)).status == 200
        async with front.client.connection() as late:
            assert is_refusal(await ask(front, late, greedy))
            assert await late.at_end()
        async with front.client.connection() as innocent:
            assert (await ask(front, innocent, other)).status == 200
            # A proxy sends requests of many callers over one connection: it is whose was the last.
            assert is_refusal(await ask(front, innocent, greedy))
        assert (await ask(front, own[0], other)).status == 200
        assert (await ask(front, own[1], greedy)).status == 200
        async with front.client.connection() as again:
            assert (await ask(front, again, greedy)).status == 200


async def test_a_body_in_pieces_of_two_bytes_takes_no_more_than_what_is_in_it(tmp_path: Path) -> None:
    async with front_of(tmp_path) as front:
        fields = [*modern_headers(LIST), ("Transfer-Encoding", "chunked")]
        head = front.client.request("POST", "/mcp", None, fields)
        pieces = b"2\r\n  \r\n" * (3 * MIB // 2) + b"0\r\n\r\n"

        def send() -> None:
            with socket.create_connection(("127.0.0.1", front.client.port), TIMEOUT) as peer:
                peer.sendall(head + pieces)
                assert peer.recv(12) == b"HTTP/1.1 400"

        with memory_below(40 * MIB):
            await anyio.to_thread.run_sync(send)
        async with front.client.connection() as connection:
            assert (await ask(front, connection)).status == 200


async def test_F39_a_large_body_of_nothing_but_escapes_is_read_in_turns(tmp_path: Path) -> None:
    with apart():
        call = modern("tools/list", {"x": 0})
        body = json.dumps(call).replace('"x": 0', '"x": "' + '\\"' * (15 * MIB // 8) + '"')
    async with front_of(tmp_path) as front, front.client.connection() as connection:
        await connection.send(front.client.request("POST", "/mcp", body.encode(), modern_headers(call)))
        assert (await connection.reply()).status == 200


async def test_F78_a_flood_beyond_those_who_are_told_kindly_is_closed_at_once_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance_module, "TELLING", 0.1)
    before = len(os.listdir("/dev/fd"))
    async with front_of(tmp_path, total=2) as front, AsyncExitStack() as stack:
        inside = await stack.enter_async_context(front.client.connection())
        assert (await ask(front, inside)).status == 200
        await stack.enter_async_context(front.client.connection())
        flood = [await stack.enter_async_context(front.client.connection()) for _ in range(3 * MAX_TOLD)]
        for connection in flood:
            assert await connection.at_end() or is_refusal(await connection.reply())
        assert (await ask(front, inside)).status == 200
    assert len(os.listdir("/dev/fd")) <= before


@contextmanager
def no_descriptor_left() -> Generator[None, None, None]:
    """Inside, this process can open nothing."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": fast}) for fast in (False, True)])
async def test_F100_without_a_descriptor_callers_are_refused_and_who_is_in_notices_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with front_of(tmp_path, total=100) as front, AsyncExitStack() as stack:
        inside = await stack.enter_async_context(front.client.connection())
        assert (await ask(front, inside)).status == 200
        late = [stack.enter_context(socket.socket()) for _ in range(5)]
        with no_descriptor_left():
            for one in late:
                assert await refusal_on(one, front.client.port)
                assert (await ask(front, inside)).status == 200
        assert (await served_at_last(front)).status == 200
    assert caplog.text.count("no connection can be accepted") == 1


async def refusal_on(unconnected: socket.socket, port: int) -> bool:
    """Whether a socket that is not connected yet is answered 503, and closed."""
    loop = asyncio.get_running_loop()
    unconnected.connect(("127.0.0.1", port))  # the listener's queue takes it at once, and a loop would look the name up
    unconnected.setblocking(False)
    with anyio.fail_after(TIMEOUT):
        data = b""
        while part := await loop.sock_recv(unconnected, 4096):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 503 ") and json.loads(body)["error"]["code"] == -32600
