"""Legacy sessions over HTTP: whose they are, how long they live, what is in flight in them."""

from typing import Any

import anyio
import pytest

from broker.core.caller import Caller
from broker.core.era import LATEST_LEGACY
from broker.downstream.in_flight import InFlight
from broker.downstream.session import IDLE_TIMEOUT, MAX_IN_FLIGHT, MAX_PER_PRINCIPAL, LegacySession, Sessions
from broker.downstream.vigil import RECHECK
from broker.errors import InvalidRequest
from broker.identity.admission import Admission, always
from tests.calls import calls_of
from tests.downstream.conftest import Front, Start, two_servers
from tests.downstream.raw_http import TIMEOUT, Connection, Reply, message
from tests.relay.fake import Fake, Gate

SLOW = {"name": "one__slow", "arguments": {}}


def slow(gate: Gate) -> dict[str, Fake]:
    return {"one": Fake(answers={"slow": gate})}


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_session_is_opened_in_the_version_asked_for(front: Front, version: str) -> None:
    session = await front.client.open_session(version=version)
    assert session.greeting["protocolVersion"] == version
    assert len(session.id) >= 1 and session.id.isprintable() and " " not in session.id
    reply = await session.ask("tools/list")
    result = reply.json["result"]
    assert [tool["name"] for tool in result["tools"]][:2] == ["one__echo", "one__slow"]
    assert not {"ttlMs", "cacheScope", "resultType"} & result.keys()
    await session.delete()


@pytest.mark.parametrize("version", ["2026-07-28", "1999-01-01", None, 5])
async def test_another_version_in_initialize_gets_the_latest_legacy_one(front: Front, version: Any) -> None:
    reply = await front.client.post(message("initialize", {"protocolVersion": version, "capabilities": {}}))
    assert reply.json["result"]["protocolVersion"] == "2025-11-25"


async def test_without_a_session_nothing_is_answered(front: Front) -> None:
    for method in ("tools/list", "ping", "tools/call", "server/discover"):
        reply = await front.client.post(message(method))
        assert (reply.status, reply.code) == (400, -32600)
    assert (await front.client.post(message("notifications/initialized", {}, ...))).status == 400


async def test_I16_I33_an_unknown_foreign_or_deleted_session_is_404(front: Front) -> None:
    session = await front.client.open_session("/mcp/one")
    for path, session_id in (
        ("/mcp/one", "nobody"),
        ("/mcp", session.id),
        ("/mcp/two", session.id),
        ("/mcp/both", session.id),
    ):
        headers = [("Mcp-Session-Id", session_id)]
        for method, body in (("POST", message("ping")), ("GET", None), ("DELETE", None)):
            reply = await front.client.raw(front.client.request(method, path, body, headers))
            assert (reply.status, reply.code) == (404, -32600), (path, method)
    assert (await session.ask("ping")).status == 200, "none of that hurt it"
    assert (await session.delete()).status == 200
    assert (await session.delete()).status == 404
    assert (await session.ask("ping")).status == 404


async def test_a_session_id_given_twice_is_no_session(front: Front) -> None:
    session = await front.client.open_session()
    headers = [("Mcp-Session-Id", session.id), ("Mcp-Session-Id", "other")]
    assert (await front.client.post(message("ping"), headers)).status == 400
    await session.delete()


@pytest.mark.parametrize("version", ["2099-01-01", "", "latest", "2025-11-25, 2025-06-18"])
async def test_SP25_an_unsupported_version_header_is_400(front: Front, version: str) -> None:
    session = await front.client.open_session()
    headers = [("Mcp-Session-Id", session.id), ("MCP-Protocol-Version", version)]
    for method, body in (("POST", message("ping")), ("POST", message("x", {}, ...)), ("GET", None), ("DELETE", None)):
        reply = await front.client.raw(front.client.request(method, "/mcp", body, headers))
        assert (reply.status, reply.code) == (400, -32022), method
        assert reply.json["error"]["data"]["supported"][-1] == "2026-07-28"
    await session.delete()


async def test_the_version_header_may_be_left_out(front: Front) -> None:
    session = await front.client.open_session()
    assert (await front.client.post(message("ping"), [("Mcp-Session-Id", session.id)])).status == 200
    await session.delete()


async def test_get_without_a_session_is_405_or_400(front: Front) -> None:
    bare = await front.client.raw(front.client.request("GET"))
    assert (bare.status, bare.header("allow")) == (405, "POST")
    modern = await front.client.raw(front.client.request("GET", headers=[("MCP-Protocol-Version", "2026-07-28")]))
    assert modern.status == 405
    legacy = await front.client.raw(front.client.request("GET", headers=[("MCP-Protocol-Version", "2025-11-25")]))
    assert legacy.status == 400
    session = await front.client.open_session()
    picky = [*session.headers, ("Accept", "application/json")]
    assert (await front.client.raw(front.client.request("GET", headers=picky, drop=["accept"]))).status == 406
    await session.delete()


async def test_a_get_with_a_body_is_refused_like_any_body_that_is_too_large(front: Front) -> None:
    session = await front.client.open_session()
    for request in (session.request(message("ping"), "GET"), front.client.request("GET", "/sse", message("ping"))):
        async with front.client.connection() as connection:
            await connection.send(request)
            assert (await connection.reply()).status == 413
    await session.delete()


async def test_F75_an_id_in_flight_in_the_session_is_refused_and_the_first_call_goes_on(start: Start) -> None:
    gate = Gate()
    async with start(slow(gate)) as front:
        first, other = await front.client.open_session(), await front.client.open_session()
        async with front.client.connection() as one, front.client.connection() as two:
            await one.send(first.request(message("tools/call", SLOW, id=7)))
            await front.fake.until(lambda: len(front.fake.asked) == 1)
            reply = await first.ask("tools/call", SLOW, id=7)
            assert (reply.status, reply.code, reply.json["id"]) == (200, -32600, 7)
            assert (await first.ask("ping", id="7")).json["result"] == {}, "another id: text"
            await two.send(other.request(message("tools/call", SLOW, id=7)))
            await front.fake.until(lambda: len(front.fake.asked) == 2)
            gate.opened.set()
            for connection in (one, two):
                assert (await connection.reply()).json["result"]["content"][0]["text"] == "done"
        assert (await first.ask("tools/call", SLOW, id=7)).code is None, "free again"


def answered(reply: Reply) -> bool:
    """Whether a stream has brought a response. A cancelled request gets none: its stream just ends."""
    assert (reply.status, reply.header("content-type")) == (200, "text/event-stream")
    return b'"jsonrpc"' in reply.body


async def test_SP34_cancelled_reaches_only_the_call_of_the_same_session(start: Start) -> None:
    gate = Gate()
    async with start(slow(gate)) as front:
        first, other = await front.client.open_session(), await front.client.open_session()
        async with front.client.connection() as one:
            await one.send(first.request(message("tools/call", SLOW, id=7)))
            await front.fake.until(lambda: len(front.fake.asked) == 1)
            for session, request_id in (
                (other, 7),
                (first, "7"),
                (first, 8),
                (first, None),
                (first, [7]),
                (first, True),
            ):
                cancel = message("notifications/cancelled", {"requestId": request_id}, ...)
                assert (await session.post(cancel)).status == 202
            assert front.fake.cancelled == []
            await first.post(message("notifications/cancelled", {"requestId": 7, "reason": "enough"}, ...))
            await front.fake.until(lambda: front.fake.cancelled == ["slow"])
            assert not answered(await one.reply())


async def test_SP14_a_legacy_disconnect_does_not_cancel(start: Start) -> None:
    gate = Gate()
    async with start(slow(gate)) as front:
        session = await front.client.open_session()
        connection = await front.client.connect()
        await connection.send(session.request(message("tools/call", SLOW, id=7)))
        await front.fake.until(lambda: len(front.fake.asked) == 1)
        connection.reset()
        assert (await session.ask("tools/call", SLOW, id=7)).code == -32600, "it is in flight still"
        assert front.fake.cancelled == []
        gate.opened.set()
        with anyio.fail_after(TIMEOUT):
            while (await session.ask("tools/call", SLOW, id=7)).code is not None:
                pass


async def test_delete_cancels_what_is_in_flight(start: Start) -> None:
    async with start(slow(Gate())) as front:
        session = await front.client.open_session()
        async with front.client.connection() as connection:
            await connection.send(session.request(message("tools/call", SLOW, id=7)))
            await front.fake.until(lambda: len(front.fake.asked) == 1)
            assert (await session.delete()).status == 200
            assert not answered(await connection.reply())
        assert front.fake.cancelled == ["slow"]


async def stream(front: Front, session: Any) -> Connection:
    connection = await front.client.connect()
    await connection.send(session.request(None, "GET"))
    reply = await connection.head()
    assert (reply.status, reply.header("content-type"), reply.header("x-accel-buffering")) == (
        200,
        "text/event-stream",
        "no",
    )
    assert [event for event, _ in await connection.events()] == [""], "a comment opens it"
    return connection


async def test_the_stream_of_a_session_tells_of_changes_and_ends_at_shutdown(start: Start) -> None:
    async with start(two_servers()) as front:
        session = await front.client.open_session("/mcp/one")
        async with await stream(front, session) as connection:
            front.house.fakes["two"].announce()
            front.fake.announce()
            assert await connection.next_message() == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            front.house.broker.engine.closing.set()
            assert await connection.chunk() == b""


async def test_I33_a_second_stream_of_a_session_ends_the_first_and_no_change_is_told_twice(start: Start) -> None:
    """2025-11-25: "The server MUST send each of its JSON-RPC messages on only one of the connected streams"."""
    async with start({"one": Fake()}) as front:
        session = await front.client.open_session()
        async with await stream(front, session) as old, await stream(front, session) as new:
            assert await old.chunk() == b""
            assert len(front.house.broker.engine.hub) == 1
            front.fake.announce()
            assert (await new.next_message())["method"] == "notifications/tools/list_changed"


async def test_SP80_the_stream_of_a_deleted_session_ends(start: Start) -> None:
    async with start({"one": Fake()}) as front:
        session = await front.client.open_session()
        async with await stream(front, session) as connection:
            assert (await session.delete()).status == 200
            assert await connection.chunk() == b""
        assert len(front.house.broker.engine.hub) == 0


async def test_a_stream_that_its_caller_cuts_is_forgotten(start: Start) -> None:
    async with start({"one": Fake()}) as front:
        session = await front.client.open_session()
        connection = await stream(front, session)
        hub = front.house.broker.engine.hub
        assert len(hub) == 1
        connection.reset()
        with anyio.fail_after(TIMEOUT):
            while len(hub):
                await session.ask("ping")


async def test_F79_a_session_flood_makes_room_among_the_idle_only(start: Start) -> None:
    gate = Gate()
    async with start(slow(gate)) as front:
        sessions = [await front.client.open_session()]
        async with front.client.connection() as connection, await stream(front, sessions[0]):
            sessions.append(await front.client.open_session())
            await connection.send(sessions[1].request(message("tools/call", SLOW)))
            await front.fake.until(lambda: len(front.fake.asked) == 1)
            for _ in range(MAX_PER_PRINCIPAL - 2):
                front.house.clock.advance(1)
                sessions.append(await front.client.open_session())
            front.house.clock.advance(1)
            newest = await front.client.open_session()
            statuses = [(await session.ask("ping", id=2)).status for session in (*sessions[:4], newest)]
            assert statuses == [200, 200, 404, 200, 200], "the one that was idle longest went"
            gate.opened.set()


async def test_F79_idle_sessions_expire_and_busy_ones_do_not(start: Start) -> None:
    async with start(slow(Gate())) as front:
        idle, used, streaming = [await front.client.open_session() for _ in range(3)]
        async with await stream(front, streaming):
            front.house.clock.advance(IDLE_TIMEOUT - 1)
            await used.ask("ping")
            front.house.clock.advance(RECHECK)
            await front.client.ask("tools/list")
            statuses = [(await session.ask("ping")).status for session in (idle, used, streaming)]
            assert statuses == [404, 200, 200]


def admitted(principal: str) -> Admission:
    return Admission(Caller(principal), always)


def session_of(principal: str, number: int = 0, **more: Any) -> LegacySession:
    return LegacySession(f"{principal}-{number}", Caller(principal), "", LATEST_LEGACY, **more)


def test_SP80_a_session_is_its_principals_alone() -> None:
    sessions = Sessions(lambda session: None)
    sessions.open(session_of("ann"))
    assert sessions.find("ann-0", admitted("bob"), "", 0) is None
    assert sessions.find("ann-0", admitted("ann"), "", 0) is not None


def test_F79_a_flood_of_one_principal_costs_no_other() -> None:
    sessions = Sessions(lambda session: None)
    sessions.open(session_of("bob"))
    for number in range(3 * MAX_PER_PRINCIPAL):
        assert sessions.open(session_of("ann", number, last_used=float(number)))
    assert len(sessions) == MAX_PER_PRINCIPAL + 1
    assert sessions.find("bob-0", admitted("bob"), "", 0) is not None


def test_opening_a_session_costs_the_same_beside_a_thousand_of_others() -> None:
    def cost(count: int) -> int:
        """Functions that are called to open one more."""
        sessions = Sessions(lambda session: None)
        for number in range(count):
            sessions.open(session_of(f"other{number}"))
        mine = session_of("ann")
        called = calls_of(lambda: sessions.open(mine))
        assert len(sessions) == count + 1
        return called

    assert cost(1000) == cost(10)


def test_a_principal_whose_sessions_have_ended_leaves_nothing_behind() -> None:
    sessions = Sessions(lambda session: None)
    for principal in ("ann", "bob"):
        session = session_of(principal)
        sessions.open(session)
        sessions.close(session)
        sessions.close(session)
    assert not vars(sessions)["_own"] and not len(sessions)


async def test_F79_when_all_are_busy_a_new_session_is_refused() -> None:
    sessions = Sessions(lambda session: None)
    for number in range(MAX_PER_PRINCIPAL):
        sessions.open(session_of("ann", number, in_flight={1: InFlight({}, 1)}))
    assert not sessions.open(session_of("ann", 999))
    assert sessions.open(session_of("bob"))


async def test_F73_requests_of_one_session_are_bounded() -> None:
    session = session_of("ann", in_flight={number: InFlight({}, number) for number in range(MAX_IN_FLIGHT)})
    with pytest.raises(InvalidRequest):
        session.begin("one more")
