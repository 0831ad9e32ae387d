"""I-08, SP-80, SP-81: what is open ends with the credential, and belongs to nobody else while it is open."""

import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.core.caller import LOCAL
from broker.downstream.vigil import RECHECK, Vigil
from broker.identity.admission import Admission
from tests.downstream.desk import Desk, bearer, desk
from tests.downstream.raw_http import LEGACY, TIMEOUT, Connection, Reply, message, modern, modern_headers
from tests.identity.issuer import NOW
from tests.relay.fake import Asked, Fake, Gate, tool

INITIALIZE = message("initialize", {"protocolVersion": LEGACY, "capabilities": {}})
SLOW: dict[str, Any] = {"name": "one__slow", "arguments": {}}
UNAUTHORIZED = "Unauthorized: a valid credential is needed"

Headers = list[tuple[str, str]]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Desk, None]:
    fakes = {"one": Fake(tools=[tool("echo"), tool("slow")], answers={"slow": Gate()})}
    async with desk(tmp_path, fakes) as found:
        yield found
        for answer in found.front.fake.answers.values():
            assert isinstance(answer, Gate)
            answer.opened.set()


async def ask(place: Desk, method: str, headers: Headers, body: Any = None, path: str = "/mcp") -> Reply:
    return await place.front.client.raw(place.front.client.request(method, path, body, headers))


async def open_session(place: Desk, credential: Headers) -> Headers:
    """Its headers, without the credential."""
    reply = await ask(place, "POST", credential, INITIALIZE)
    assert reply.status == 200
    return [("Mcp-Session-Id", reply.header("mcp-session-id") or ""), ("MCP-Protocol-Version", LEGACY)]


def end_key(place: Desk) -> None:
    place.change(1, revoked=True)


def expire_key(place: Desk) -> None:
    place.change(1, expires=place.clock.wall())


def remove_key(place: Desk) -> None:
    place.keys.pop(1)
    place.adopt()


def rotate_key(place: Desk) -> None:
    """Another text, and no time for the old one."""
    place.key(7)
    place.change(1, hashes=place.keys.pop(7).hashes)


def move_key(place: Desk) -> None:
    """To another organization: what is open has the rights of the old place."""
    place.key(1, "other")
    place.adopt()


ENDS = [end_key, expire_key, remove_key, rotate_key, move_key]


async def until_over(connection: Connection) -> bytes:
    """What still came of a chunked response, to its proper end."""
    found = b""
    with anyio.fail_after(TIMEOUT):
        while chunk := await connection.chunk():
            found += chunk
    return found


async def on_get(place: Desk, credential: Headers, connection: Connection) -> None:
    session = await open_session(place, credential)
    await connection.send(place.front.client.request("GET", "/mcp", None, [*credential, *session]))
    assert (await connection.head()).status == 200


async def on_sse(place: Desk, credential: Headers, connection: Connection) -> None:
    await connection.send(place.front.client.request("GET", "/sse", None, credential))
    assert (await connection.head()).status == 200


async def on_listen(place: Desk, credential: Headers, connection: Connection) -> None:
    body = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    await connection.send(place.front.client.request("POST", "/mcp", body, [*credential, *modern_headers(body)]))
    assert (await connection.head()).status == 200
    assert (await connection.next_message())["method"] == "notifications/subscriptions/acknowledged"


async def on_resume(place: Desk, credential: Headers, connection: Connection) -> None:
    """A call of a session streams; its connection breaks, and the stream is taken up again."""
    session = await open_session(place, credential)
    place.front.fake.answers["slow"] = working = Working()
    async with place.front.client.connection() as first:
        body = message("tools/call", {**SLOW, "_meta": {"progressToken": 1}}, id=5)
        await first.send(place.front.client.request("POST", "/mcp", body, [*credential, *session]))
        assert (await first.head()).status == 200
        events = (await first.chunk()).decode()
    assert working.is_called
    event_id = next(line for line in events.split("\n") if line.startswith("id: "))[4:]
    again = [*credential, *session, ("Last-Event-ID", event_id)]
    await connection.send(place.front.client.request("GET", "/mcp", None, again))
    assert (await connection.head()).status == 200


class Working(Gate):
    """Says something at once, and waits."""

    is_called = False

    async def __call__(self, asked: Any) -> Any:
        self.is_called = True
        asked.progress(1)
        return await super().__call__(asked)


OPENED = [on_get, on_sse, on_listen, on_resume]
Open = Callable[[Desk, Headers, Connection], Any]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("opened", OPENED)
async def test_I08_a_stream_ends_soon_after_its_key_does(
    place: Desk, opened: Open, end: Callable[[Desk], None]
) -> None:
    assert RECHECK * 2 < 30
    mine, theirs = bearer(place.key(1)), bearer(place.key(2, "other"))
    async with place.front.client.connection() as ours, place.front.client.connection() as innocent:
        await opened(place, mine, ours)
        await on_listen(place, theirs, innocent)
        end(place)
        if end is not move_key:
            assert (await ask(place, "GET", mine)).status == 401
        place.sweep()
        await until_over(ours)
        place.front.fake.tools = [tool("echo"), tool("new")]
        place.front.fake.announce()
        place.clock.advance(1)
        assert (await innocent.next_message())["method"] == "notifications/tools/list_changed"


@pytest.mark.parametrize("opened", OPENED)
async def test_I08_a_stream_ends_soon_after_its_token_does(place: Desk, opened: Open) -> None:
    token = bearer(place.token(exp=NOW + 100))
    async with place.front.client.connection() as ours:
        await opened(place, token, ours)
        place.clock.advance(99)
        await ask(place, "GET", [])
        assert (await ask(place, "GET", token)).status == 405
        place.clock.advance(1)
        assert (await ask(place, "GET", token)).status == 401
        place.sweep()
        await until_over(ours)


async def test_I08_a_long_call_that_has_said_nothing_ends_with_401_and_is_cancelled(place: Desk) -> None:
    body = modern("tools/call", SLOW)
    headers = [*bearer(place.key(1)), *modern_headers(body)]
    async with place.front.client.connection() as ours:
        await ours.send(place.front.client.request("POST", "/mcp", body, headers))
        await place.front.fake.until(lambda: len(place.front.fake.asked) == 1)
        end_key(place)
        place.sweep()
        reply = await ours.reply()
        assert (reply.status, reply.json["error"]["message"]) == (401, UNAUTHORIZED)
        await place.front.fake.until(lambda: place.front.fake.cancelled == ["slow"])


async def test_I08_a_long_call_that_streams_ends_and_is_cancelled(place: Desk) -> None:
    place.front.fake.answers["slow"] = Working()
    body = modern("tools/call", SLOW, progressToken=1)
    headers = [*bearer(place.key(1)), *modern_headers(body)]
    async with place.front.client.connection() as ours:
        await ours.send(place.front.client.request("POST", "/mcp", body, headers))
        assert (await ours.head()).status == 200
        assert (await ours.next_message())["method"] == "notifications/progress"
        end_key(place)
        place.sweep()
        assert b"result" not in await until_over(ours)
        await place.front.fake.until(lambda: place.front.fake.cancelled == ["slow"])


async def test_I08_a_parked_call_of_a_revoked_key_is_cancelled_and_that_of_a_token_waits_for_the_next(
    place: Desk,
) -> None:
    async def ask_back(asked: Asked) -> dict[str, Any]:
        answer = await asked.ask("elicitation/create", {"message": "Who?", "requestedSchema": {"type": "object"}})
        return {"content": [], "vendor": answer["result"]}

    place.front.fake.answers["echo"] = ask_back

    async def call(credential: str, **retry: Any) -> dict[str, Any]:
        params = {"name": "one__echo", "arguments": {}, **retry}
        body = modern("tools/call", params, **{"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}})
        return (await ask(place, "POST", [*bearer(credential), *modern_headers(body)], body)).json["result"]

    await call(place.key(1))
    theirs = await call(place.token(exp=NOW + 5))
    assert len(place.broker.parking) == 2
    end_key(place)
    place.sweep()
    await place.front.fake.until(lambda: place.front.fake.cancelled == ["echo"])
    assert len(place.broker.parking) == 1
    [key] = theirs["inputRequests"]
    retry = {"inputResponses": {key: {"action": "decline"}}, "requestState": theirs["requestState"]}
    assert (await call(place.token(exp=NOW + 500), **retry))["vendor"] == {"action": "decline"}
    del place.front.fake.answers["echo"]


async def test_I08_the_sessions_of_a_revoked_key_end_and_their_calls_with_them(place: Desk) -> None:
    mine = bearer(place.key(1))
    session = await open_session(place, mine)
    async with place.front.client.connection() as ours:
        body = message("tools/call", SLOW, id=5)
        await ours.send(place.front.client.request("POST", "/mcp", body, [*mine, *session]))
        await place.front.fake.until(lambda: len(place.front.fake.asked) == 1)
        end_key(place)
        place.sweep()
        await place.front.fake.until(lambda: place.front.fake.cancelled == ["slow"])
        assert (await ours.head()).status in (200, 401)
    place.change(1, revoked=False)
    assert (await ask(place, "POST", [*mine, *session], message("ping"))).status == 404


async def test_a_session_goes_on_with_a_refreshed_token_and_with_a_rotated_key(place: Desk) -> None:
    """Spec 2025-11-25: a disconnection is no cancellation; nor is a token that was renewed."""
    old, new = place.token(exp=NOW + 30), place.token(exp=NOW + 500)
    session = await open_session(place, bearer(old))
    async with place.front.client.connection() as ours:
        body = message("tools/call", SLOW, id=5)
        await ours.send(place.front.client.request("POST", "/mcp", body, [*bearer(old), *session]))
        await place.front.fake.until(lambda: len(place.front.fake.asked) == 1)
        place.clock.advance(30)
        reply = await ours.reply()
        assert reply.status == 401
    assert place.front.fake.cancelled == []
    assert (await ask(place, "POST", [*bearer(new), *session], message("ping"))).status == 200

    first = place.key(1)
    session = await open_session(place, bearer(first))
    second = place.key(8)
    rotated = place.keys.pop(8).hashes[0]
    place.change(1, hashes=(*place.keys[1].hashes, rotated))
    for text in (second, first):
        assert (await ask(place, "POST", [*bearer(text), *session], message("ping"))).status == 200


async def test_SP27_a_session_has_the_rights_of_the_credential_that_asks_now(place: Desk) -> None:
    """A token with fewer scopes, of the same user, in the session that a token with more has opened."""
    session = await open_session(place, bearer(place.token(scope="a b")))
    seen: list[Any] = []
    answer = place.broker.engine.router.answer

    async def spy(request: Any, exchange: Any) -> Any:
        seen.append(exchange.who.caller.scopes)
        return await answer(request, exchange)

    place.broker.engine.router.answer = spy
    for scope in ("a b", "a", "a b"):
        headers = [*bearer(place.token(scope=scope)), *session]
        assert (await ask(place, "POST", headers, message("tools/list"))).status == 200
    assert seen == [{"a", "b"}, {"a"}, {"a", "b"}]


async def test_SP80_a_session_of_somebody_else_is_404_on_every_method(place: Desk) -> None:
    mine, theirs = bearer(place.key(1)), bearer(place.key(2, "other"))
    session = await open_session(place, mine)
    for other in (theirs, bearer(place.token()), bearer(place.token(sub="bob"))):
        for method, body in (("POST", message("ping")), ("GET", None), ("DELETE", None)):
            assert (await ask(place, method, [*other, *session], body)).status == 404, method
        again = [*other, *session, ("Last-Event-ID", "s1-0")]
        assert (await ask(place, "GET", again)).status == 404
        cancel = message("notifications/cancelled", {"requestId": 5}, id=...)
        assert (await ask(place, "POST", [*other, *session], cancel)).status == 404
    assert (await ask(place, "POST", [*mine, *session], message("ping"))).status == 200


async def test_SP80_the_old_stream_takes_messages_of_its_owner_only(place: Desk) -> None:
    mine, theirs = bearer(place.key(1)), bearer(place.key(2, "other"))
    async with place.front.client.connection() as ours:
        await ours.send(place.front.client.request("GET", "/sse", None, mine))
        await ours.head()
        [(_, endpoint)] = await ours.events()
        for headers, status in ((theirs, 404), ([], 401), (bearer(place.token()), 404), (mine, 202)):
            assert (await ask(place, "POST", headers, message("ping"), endpoint)).status == status


async def test_SP81_a_cursor_of_somebody_else_is_no_cursor(place: Desk) -> None:
    place.front.fake.tools = [tool(f"t{number}") for number in range(1100)]
    place.front.fake.announce()
    place.clock.advance(1)
    mine, theirs = bearer(place.key(1)), bearer(place.key(2, "other"))

    async def page(headers: Headers, cursor: str | None) -> Any:
        body = modern("tools/list", {} if cursor is None else {"cursor": cursor})
        reply = await ask(place, "POST", [*headers, *modern_headers(body)], body)
        return json.loads(reply.body)

    with anyio.fail_after(TIMEOUT):
        while "nextCursor" not in (first := (await page(mine, None))["result"]):
            await anyio.lowlevel.checkpoint()
    cursor = first["nextCursor"]
    assert (await page(theirs, cursor))["error"]["code"] == -32602
    assert (await page(mine, cursor))["result"]["tools"]


def test_I03_what_cannot_be_found_out_ends() -> None:
    vigil = Vigil()
    ended: list[str] = []

    def fail() -> bool:
        raise RuntimeError("planted")

    unknown, good = Admission(LOCAL, fail), Admission(LOCAL, lambda: True)
    with vigil.over(unknown, lambda: ended.append("unknown")), vigil.over(good, lambda: ended.append("good")):
        assert vigil.look() == 1
        assert vigil.look() == 0
    assert ended == ["unknown"]
    assert len(vigil) == 0
