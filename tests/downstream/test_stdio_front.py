"""The stdio front as a host meets it: a process, two pipes, both eras on them, and nothing but protocol on stdout."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests import nursery
from tests.callers.pipe import front_of
from tests.downstream.raw_http import LEGACY, META, MODERN, message, modern
from tests.patience import PATIENCE
from tests.peers import ROOT, SERVERS, is_alive
from tests.relay.fake import Fake, Gate, answering, house

TIMEOUT = PATIENCE
"""Seconds for any single step, a start of Python included: a bound, not an expectation."""
MAIN = ROOT / "tests" / "downstream" / "stdio_main.py"
HELLO = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "host", "version": "1"}}
OK = {"name": "raw__ok", "arguments": {}}
BOOM = {"name": "raw__boom", "arguments": {}}


@dataclass
class Host:
    process: asyncio.subprocess.Process
    directory: Path
    lines: list[bytes] = field(default_factory=list)
    """All that came on stdout."""

    def write(self, *messages: Any) -> None:
        assert self.process.stdin is not None
        data = [one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in messages]
        self.process.stdin.write(b"".join(data))

    async def read(self) -> Any:
        """The next message; what is no JSON object on a line of its own fails the test (SP-08)."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            line = await self.process.stdout.readline()
        assert line.endswith(b"\n"), line
        self.lines.append(line)
        found = json.loads(line)
        assert found["jsonrpc"] == "2.0"
        return found

    async def ask(self, *messages: Any) -> list[Any]:
        """Send, and read as many answers."""
        self.write(*messages)
        return [await self.read() for _ in messages]

    async def initialize(self) -> Any:
        [answer] = await self.ask(message("initialize", HELLO, "hello"))
        self.write(message("notifications/initialized", {}, ...))
        return answer["result"]

    async def ready(self) -> None:
        """The upstream has been called once."""
        [answer] = await self.ask(modern("tools/call", OK, id="ready"))
        assert "result" in answer, answer

    async def end(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        async with asyncio.timeout(TIMEOUT):
            rest = await self.process.stdout.read()
            for line in rest.splitlines():
                json.loads(line)
            return await self.process.wait()

    @property
    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


@asynccontextmanager
async def started(
    directory: Path, stdin: int = asyncio.subprocess.PIPE, *, is_forked: bool = True
) -> AsyncGenerator[Host, None]:
    """`is_forked`: see tests/nursery; not where it matters whose children the servers are."""
    args = [str(SERVERS / "raw.py"), "--fault", "hang-call"]
    config = {
        "broker": {"name": "test", "state_dir": str(directory / "state"), "drain": 0.2},
        "servers": {"raw": {"command": sys.executable, "args": args}},
    }
    path = directory / "servers.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    argv = [str(MAIN), str(path)]
    with (directory / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(nursery.command(*argv) if is_forked else [sys.executable, *argv]),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=1 << 26,
            start_new_session=True,
        )
    try:
        yield Host(process, directory)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        process._transport.close()  # pyright: ignore[reportAttributeAccessIssue]


async def test_both_eras_share_the_pipe_and_each_message_decides(tmp_path: Path) -> None:
    async with started(tmp_path) as host:
        discovered, refused, ponged = await host.ask(
            modern("server/discover", id=1), message("tools/list", {}, 2), message("ping", None, 3)
        )
        by_id = {answer["id"]: answer for answer in (discovered, refused, ponged)}
        assert by_id[1]["result"]["supportedVersions"] == [MODERN]
        assert by_id[2]["error"]["code"] == -32602, "no session, no envelope"
        assert by_id[3]["result"] == {}
        await host.ready()
        greeting = await host.initialize()
        assert greeting["protocolVersion"] == LEGACY and "supportedVersions" not in greeting
        [legacy] = await host.ask(message("tools/list", {}, "l"))
        [now] = await host.ask(modern("tools/list", id="m"))
        assert legacy["result"]["tools"] == now["result"]["tools"]
        assert "ttlMs" not in legacy["result"] and now["result"]["resultType"] == "complete"
        [again] = await host.ask(message("initialize", {**HELLO, "protocolVersion": "2024-11-05"}, "again"))
        assert again["result"]["protocolVersion"] == "2024-11-05"
        [unknown] = await host.ask(modern("tools/list", id="u", **{f"{META}protocolVersion": "2099-01-01"}))
        assert unknown["error"]["code"] == -32022 and unknown["error"]["data"]["supported"] == [MODERN]
        [partial] = await host.ask(message("tools/list", {"_meta": {f"{META}protocolVersion": MODERN}}, "p"))
        assert partial["error"]["code"] == -32602
        assert await host.end() == 0


async def test_F75_SP34_one_id_space_and_a_cancelled_call_gets_no_answer(tmp_path: Path) -> None:
    async with started(tmp_path) as host:
        await host.ready()
        await host.initialize()
        host.write(message("tools/call", BOOM, 7))
        for duplicate in (message("ping", None, 7), modern("tools/list", id=7)):
            [answer] = await host.ask(duplicate)
            assert (answer["id"], answer["error"]["code"]) == (7, -32600)
        [answer] = await host.ask(message("ping", None, "7"))
        assert answer["result"] == {}, "text is another id"
        host.write(message("notifications/cancelled", {"requestId": 7}, ...))
        [answer] = await host.ask(message("ping", None, 8))
        assert answer["id"] == 8
        [answer] = await host.ask(message("ping", None, 7))
        assert answer == {"jsonrpc": "2.0", "id": 7, "result": {}}, "free again"
        assert await host.end() == 0


async def test_SP34_a_call_that_is_cancelled_in_the_same_breath_gets_no_answer(tmp_path: Path) -> None:
    async with started(tmp_path) as host:
        await host.ready()
        host.write(
            modern("tools/call", BOOM, id=7),
            message("notifications/cancelled", {"requestId": 7}, ...),
            modern("tools/list", id=8),
        )
        assert (await host.read())["id"] == 8
        [answer] = await host.ask(modern("tools/list", id=7))
        assert "result" in answer, "the id is free: the call was cancelled"
        assert await host.end() == 0


GARBAGE = [
    (b"not json\n", -32700),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"\n', -32700),
    (b'{"jsonrpc": "2.0", "id": "\xff\xfe", "method": "ping"}\n', -32700),
    (b'{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}\n', -32700),
    (b'{"jsonrpc": "2.0", "id": ' + b"7" * 5000 + b', "method": "ping"}\n', -32700),
    (b"[" * 100_000 + b"\n", -32700),
    (b"\x00\n", -32700),
    (b"[]\n", -32600),
    (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]\n', -32600),
    (b"1\n", -32600),
    (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}\n', -32600),
]


async def test_F82_garbage_is_answered_and_the_pipe_lives(tmp_path: Path) -> None:
    async with started(tmp_path) as host:
        for data, code in GARBAGE:
            [answer] = await host.ask(data)
            assert (answer["id"], answer["error"]["code"]) == (None, code), data[:60]
        for silent in (b"\n", b"\r\n", b"   \n", b'{"jsonrpc": "2.0", "id": 1, "result": {}}\n', message("x", {}, ...)):
            host.write(silent)
        [answer] = await host.ask(b"\xef\xbb\xbf" + json.dumps(message("ping", None, "bom")).encode() + b"\r\n")
        assert answer["id"] == "bom"
        host.write(b'{"jsonrpc": "2.0", "id": "sp')
        [answer] = await host.ask(b'lit", "method": "ping"}\n')
        assert answer["id"] == "split"
        assert await host.end() == 0


async def test_F82_a_line_of_more_than_4_MiB_is_answered_and_ends_the_front(tmp_path: Path) -> None:
    """It cannot be told where such a line ends, so nothing behind it is read: -32700, and a clean exit."""
    async with started(tmp_path) as host:
        edge = json.dumps(message("ping", {"x": ""})).encode()
        whole = edge.replace(b'"x": ""', b'"x": "' + b"y" * ((4 << 20) - len(edge)) + b'"')
        [answer] = await host.ask(whole + b"\n")
        assert answer["result"] == {}, "4 MiB are read"
        host.write(b"x" * ((4 << 20) + 1))
        answer = await host.read()
        assert (answer["id"], answer["error"]["code"]) == (None, -32700)
        async with asyncio.timeout(TIMEOUT):
            assert await host.process.wait() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")
async def test_SP10_F82_end_of_input_with_calls_in_flight_ends_within_5_s_and_children_are_gone(tmp_path: Path) -> None:
    async with started(tmp_path, is_forked=False) as host:
        await host.ready()
        children = host.children
        assert children and all(is_alive(pid) for pid in children)
        host.write(*(modern("tools/call", BOOM, id=n) for n in range(20)))
        [answer] = await host.ask(modern("tools/list", id="last"))
        assert answer["id"] == "last"
        before = time.monotonic()
        assert await host.end() == 0
        assert time.monotonic() - before < 5
        assert not any(is_alive(pid) for pid in children)


async def test_F74_a_host_that_does_not_read_gets_all_its_answers_later(tmp_path: Path) -> None:
    async with started(tmp_path) as host:
        await host.ready()
        assert host.process.stdin is not None
        for n in range(1000):
            host.write(modern("tools/list", id=n))
            async with asyncio.timeout(TIMEOUT):
                await host.process.stdin.drain()
        answers = [await host.read() for _ in range(1000)]
        assert sorted(answer["id"] for answer in answers) == list(range(1000))
        assert all("result" in answer for answer in answers)
        assert await host.end() == 0


async def test_SP38_F90_a_subscription_is_acknowledged_and_ends_with_a_result_at_sigterm(tmp_path: Path) -> None:
    async with started(tmp_path) as host:
        await host.ready()
        [acknowledged] = await host.ask(
            modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id=5)
        )
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert acknowledged["params"]["_meta"] == {f"{META}subscriptionId": 5}
        host.process.send_signal(signal.SIGTERM)
        end = await host.read()
        assert end["id"] == 5 and end["result"]["_meta"][f"{META}subscriptionId"] == 5
        assert await host.end() == 0


async def test_F90_at_sigterm_a_call_that_does_not_end_in_time_is_told_why(
    tmp_path: Path,
) -> None:
    async with started(tmp_path) as host:
        await host.ready()
        host.write(modern("tools/call", BOOM, id=1), modern("server/discover", id=2))
        assert (await host.read())["id"] == 2, "the call is in flight"
        host.process.send_signal(signal.SIGTERM)
        cut = await host.read()
        assert cut["id"] == 1 and "the broker is shutting down" in cut["error"]["message"]
        assert await host.end() == 0


async def test_F90_at_sigterm_a_call_in_flight_is_finished_on_stdio(tmp_path: Path) -> None:
    async with (
        house(tmp_path, {"one": Fake(answers={"slow": (gate := Gate())})}) as place,
        front_of(place.broker.engine) as (pipe, told),
    ):
        call = modern("tools/call", {"name": "one__slow", "arguments": {}}, id=1)
        pipe.write(json.dumps(call).encode() + b"\n")
        await place.fakes["one"].until(lambda: bool(place.fakes["one"].asked))
        place.broker.engine.closing.set()
        pipe.write(json.dumps(modern("tools/list", id=2)).encode() + b"\n")
        refused = json.loads(await anyio.to_thread.run_sync(told.readline))
        assert refused["id"] == 2 and "shutting down" in refused["error"]["message"]
        gate.opened.set()
        done = json.loads(await anyio.to_thread.run_sync(told.readline))
        assert done["id"] == 1 and done["result"]["content"]


async def test_a_pipe_that_does_not_block_is_read_and_written_all_the_same(tmp_path: Path) -> None:
    """A host may hand over descriptors with O_NONBLOCK set: no data yet is not the end."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    async with started(tmp_path, stdin=ours) as host:
        os.close(ours)
        with os.fdopen(theirs, "wb", buffering=0) as pipe:
            for n in range(3):
                pipe.write(json.dumps(message("ping", None, n)).encode() + b"\n")
                assert (await host.read())["id"] == n
        async with asyncio.timeout(TIMEOUT):
            assert await host.process.wait() == 0


async def test_SP08_nothing_but_protocol_is_ever_on_stdout(tmp_path: Path) -> None:
    async with started(tmp_path) as host:
        await host.ready()
        await host.initialize()
        await host.ask(message("nobody/knows", {}, 1), message("tools/call", {"name": "x\ny\u2028z"}, 2), b"{\n")
        assert await host.end() == 0
        for line in host.lines:
            assert line.count(b"\n") == 1 and b"\r" not in line


async def test_what_a_host_watches_after_it_has_said_hello_again_is_told_too(tmp_path: Path) -> None:
    fake = Fake(
        resources=[{"uri": f"file:///{name}", "name": name} for name in "ab"],
        capabilities={"resources": {"subscribe": True}},
        answers={"resources/subscribe": answering({})},
    )
    async with house(tmp_path, {"one": fake}) as place, front_of(place.broker.engine) as (pipe, told):
        for number, name in enumerate("ab"):
            for said in (
                message("initialize", HELLO, 2 * number),
                message("notifications/initialized", {}, ...),
                message("resources/subscribe", {"uri": f"one+file:///{name}"}, 2 * number + 1),
            ):
                pipe.write(json.dumps(said).encode() + b"\n")
            for _ in range(2):
                assert "result" in json.loads(await anyio.to_thread.run_sync(told.readline))
        assert fake.link is not None
        for name in "ab":
            fake.link.on_event("notifications/resources/updated", {"uri": f"file:///{name}"})
        pipe.write(json.dumps(message("ping", {}, "last")).encode() + b"\n")
        found: list[str] = []
        while (said := json.loads(await anyio.to_thread.run_sync(told.readline))).get("id") != "last":
            found.append(said["params"]["uri"])
        assert found == ["one+file:///a", "one+file:///b"]
