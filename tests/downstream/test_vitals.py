"""F-98, F-99: a broker whose memory runs out, and a loop that does not turn."""

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from broker.clock import FakeClock, SystemClock
from broker.downstream.health import Health
from broker.downstream.memory import LOOK, Memory, limit_of_machine, resident
from broker.downstream.pulse import SICK, STUCK, WELL_AGAIN, Pulse
from broker.downstream.vitals import Vitals
from tests.downstream.conftest import Start, two_servers
from tests.downstream.raw_http import Connection, Session, modern, modern_headers
from tests.peers import ROOT
from tests.relay.fake import Fake, Gate, tool

LIMIT = 1000


class Machine:
    """Memory as a test says it is."""

    def __init__(self) -> None:
        self.used = 0
        self.memory = Memory(LIMIT, lambda: self.used)

    def holds(self, used: int) -> None:
        self.used = used
        self.memory.look()


async def test_F98_while_memory_is_short_requests_are_sent_away_and_what_is_in_flight_goes_on(start: Start) -> None:
    machine, gate = Machine(), Gate()
    one = Fake(tools=[tool("slow")], answers={"slow": gate})
    vitals = Vitals(SystemClock(), machine.memory)
    health = Health(vitals.checks())
    async with start({"one": one}, vitals=vitals, health=health) as front, front.client.connection() as waiting:
        session = await front.client.open_session()
        body = modern("tools/call", {"name": "one__slow", "arguments": {}})
        await waiting.send(front.client.request("POST", "/mcp", body, modern_headers(body)))
        await one.until(lambda: len(one.asked) == 1)
        machine.holds(851)
        for reply in (await front.client.ask("tools/list"), await session.ask("tools/list")):
            assert (reply.status, reply.header("retry-after"), reply.code) == (503, "5", -32600)
        ready = await front.client.raw(front.client.request("GET", "/readyz"))
        assert (ready.status, ready.body) == (503, b"memory: short\n")
        assert (await front.client.raw(front.client.request("GET", "/healthz"))).status == 200
        gate.opened.set()
        assert (await waiting.reply()).status == 200
        assert (await session.delete()).status == 200, "who leaves makes room"
        machine.holds(849)
        assert (await front.client.ask("tools/list")).status == 200
        assert (await front.client.raw(front.client.request("GET", "/readyz"))).status == 200


async def test_F98_when_memory_is_all_but_gone_the_oldest_that_only_wait_go_first(start: Start) -> None:
    machine = Machine()
    async with start(two_servers(), vitals=Vitals(SystemClock(), machine.memory)) as front:
        session = await front.client.open_session()

        async def stream(of: Session) -> Connection:
            connection = await front.client.connect()
            await connection.send(of.request(None, "GET"))
            assert (await connection.head()).status == 200
            return connection

        first = await stream(session)
        body = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        second = await front.client.connect()
        await second.send(front.client.request("POST", "/mcp", body, modern_headers(body)))
        assert (await second.head()).status == 200
        machine.used = 951
        front.house.clock.advance(LOOK)
        while await first.chunk():
            pass  # signs of life, until it is ended
        assert machine.memory.is_critical
        front.house.clock.advance(LOOK)
        while await second.chunk():
            pass
        machine.holds(0)
        again = await stream(session)
        await again.close()
        await first.close()
        await second.close()


def test_F98_memory_that_is_kept_after_it_was_freed_is_given_back_and_sends_nobody_away() -> None:
    held, given = {"in use": 700, "freed": 0}, list[int]()

    def give_back() -> None:
        given.append(held["freed"])
        held["freed"] = 0

    memory = Memory(LIMIT, lambda: sum(held.values()), give_back)
    seen = list[tuple[int, bool]]()
    for in_use, freed in ((700, 120), (700, 280), (900, 10), (870, 20), (700, 0), (700, 200)):
        held.update({"in use": in_use, "freed": freed})
        memory.look()
        seen.append((memory.used, memory.is_high))
    assert seen == [(820, False), (700, False), (900, True), (890, True), (700, False), (700, False)]
    assert given == [280, 10, 200], "not while there is room, and not again and again while there is none"


def test_F98_a_broker_without_a_limit_never_refuses_and_a_real_one_is_read_from_the_system() -> None:
    assert not Memory(None, lambda: 1 << 60).is_high
    limit = limit_of_machine()
    assert limit is None or limit > resident() > 1 << 20


def test_F98_a_real_broker_over_its_limit_serves_nobody_and_says_so(tmp_path: Path) -> None:
    config = tmp_path / "servers.yaml"
    config.write_text(json.dumps({"broker": {"state_dir": str(tmp_path)}, "server": {"memory_max": 64}, "servers": {}}))
    command = [sys.executable, "-m", "broker", "serve", "--port", "0", "--config", str(config)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as broker:
        try:
            assert broker.stderr is not None
            said = next(line for line in broker.stderr if "serving" in line)
            port = int(said.rpartition(":")[2].split("/")[0])

            async def ask() -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                found = await reader.read()
                writer.close()
                return found

            assert b"503" in (answer := anyio.run(ask)) and b"memory: short" in answer
        finally:
            broker.terminate()


def test_F99_a_loop_that_hangs_is_said_once_with_the_place_and_again_when_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    pulse = Pulse(clock)
    pulse.look()
    clock.advance(STUCK + 0.1)
    pulse.look()
    pulse.look()
    assert pulse.hangs == 1 and pulse.is_well
    clock.advance(SICK)
    pulse.beat()
    assert not pulse.is_well and pulse.worst > SICK
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    for _ in range(int(WELL_AGAIN)):
        assert not pulse.is_well
        clock.advance(1)
        pulse.beat()
    assert pulse.is_well and pulse.hangs == 1


async def test_F99_the_thread_sees_where_the_loop_is_while_it_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("broker.downstream.pulse.BEAT", 0.01)
    monkeypatch.setattr("broker.downstream.pulse.STUCK", 0.05)
    pulse = Pulse(SystemClock())

    def hang() -> None:
        while not pulse.hangs:
            pass  # a callback that does not return, until the thread has seen it

    async with pulse.running():
        hang()
        await anyio.sleep(0.02)
    said = next(record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert Path(__file__).name in said or "pulse.py" in said
