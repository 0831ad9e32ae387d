"""Bad input, code by code: the same rows on every front, and what each of them answers (issue by the specification).

What belongs to HTTP alone (headers, content types, sessions that are another's) has its rows in test_messages_http.py,
test_modern_http.py and test_sessions_http.py.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.downstream.conftest import Front
from tests.downstream.raw_http import META, Reply, Session, message, modern, modern_headers
from tests.downstream.test_sse_front import Sse, opened
from tests.downstream.test_stdio_front import Host, started

Outcome = tuple[int | None, int | None]
"""HTTP status (None on a pipe), and the code of the JSON-RPC error; None: no error, or no answer at all."""
MARK = "mark"
"""The id of a ping after something that must get no answer: what comes first is its answer."""


class Face(ABC):
    """One front in one era."""

    @abstractmethod
    async def send(self, body: bytes) -> Outcome:
        """What these bytes are answered with."""


class Http(Face):
    def __init__(self, front: Front, session: Session | None) -> None:
        self.front, self.session = front, session

    async def send(self, body: bytes) -> Outcome:
        found = await self._post(body)
        return found.status, found.code

    async def _post(self, body: bytes) -> Reply:
        if self.session is not None:
            return await self.session.post(body)
        headers = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/list")]
        try:
            read = json.loads(body)
            headers = modern_headers(read)
            if "_meta" in read["params"]:
                headers[0] = (headers[0][0], str(read["params"]["_meta"][f"{META}protocolVersion"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # what cannot be read has no headers of its own
        return await self.front.client.post(body, headers)


class Stream(Face):
    """Old HTTP+SSE: the POST is accepted, and the answer comes on the stream."""

    def __init__(self, sse: Sse) -> None:
        self.sse = sse

    async def send(self, body: bytes) -> Outcome:
        found = await self.sse.post(body)
        if found.status != 202:
            return found.status, found.code
        await self.sse.post(message("ping", None, MARK))
        first = await self.sse.stream.next_message()
        if first["id"] == MARK:
            return 202, None
        assert (await self.sse.stream.next_message())["id"] == MARK
        return 202, first.get("error", {}).get("code")


class Pipe(Face):
    def __init__(self, host: Host) -> None:
        self.host = host

    async def send(self, body: bytes) -> Outcome:
        self.host.write(body.replace(b"\n", b" ") + b"\n")
        [first] = await self.host.ask(message("ping", None, MARK))
        if first["id"] == MARK:
            return None, None
        assert (await self.host.read())["id"] == MARK
        return None, first.get("error", {}).get("code")


@pytest.fixture(scope="module")
async def faces(front: Front, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[dict[str, Face], None]:
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(started(tmp_path_factory.mktemp("bad-input")))
        await host.ready()
        await host.initialize()
        sse = await stack.enter_async_context(opened(front))
        session = await front.client.open_session()
        yield {"modern": Http(front, None), "session": Http(front, session), "sse": Stream(sse), "pipe": Pipe(host)}
        await session.delete()


def text(**changes: Any) -> bytes:
    """A ping with other or further members; Ellipsis leaves one out."""
    whole = {"jsonrpc": "2.0", "id": 7, "method": "ping", "params": {}} | changes
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def enveloped(method: str = "tools/list", params: Any = None, **meta: Any) -> bytes:
    return json.dumps(modern(method, params, **meta)).encode()


def bare(method: str, params: Any = None) -> bytes:
    return json.dumps(message(method, params)).encode()


UNREADABLE = {
    **{"half a message": b'{"jsonrpc": "2.0"', "no JSON": b"hello", "invalid UTF-8": b'{"jsonrpc": "\xff"}'},
    **{"NaN": text(params={"n": float("nan")}), "a name twice": b'{"jsonrpc": "2.0", "id": 1, "id": 2}'},
    **{"a lone surrogate": text(params={"s": "\ud800"}), "an id of 5 000 digits": b'{"id": ' + b"7" * 5000 + b"}"},
}
INVALID = {
    **{"a batch": b"[" + text() + b"]", "an empty batch": b"[]", "a number": b"1", "a string": b'"ping"'},
    **{"null": b"null", "nothing in it": b"{}", "no jsonrpc": text(jsonrpc=...), "jsonrpc 1.0": text(jsonrpc="1.0")},
    **{"id null": text(id=None), "id a float": text(id=1.5), "id a bool": text(id=True), "id a list": text(id=[1])},
    **{"no method": text(method=...), "method a number": text(method=1), "method empty": text(method="")},
    **{"params a list": text(params=[]), "params null": text(params=None), "METHOD beside method": text(METHOD="x")},
    "result and error": b'{"jsonrpc": "2.0", "id": 7, "result": {}, "error": {}}',
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_SP06_F77_what_is_no_JSON_is_a_parse_error_on_every_front(faces: dict[str, Face], what: str) -> None:
    outcomes = {name: await face.send(UNREADABLE[what]) for name, face in faces.items()}
    http = (400, -32700)
    assert outcomes == {"modern": http, "session": http, "sse": http, "pipe": (None, -32700)}


@pytest.mark.parametrize("what", INVALID)
async def test_SP11_SP26_F76_what_is_no_message_is_an_invalid_request_on_every_front(
    faces: dict[str, Face], what: str
) -> None:
    outcomes = {name: await face.send(INVALID[what]) for name, face in faces.items()}
    http = (400, -32600)
    assert outcomes == {"modern": http, "session": http, "sse": http, "pipe": (None, -32600)}


UNKNOWN_VERSION = {f"{META}protocolVersion": "2099-01-01"}
NOWHERE = {"name": "nobody__here", "arguments": {}}
REFUSED: dict[str, tuple[bytes, dict[str, Outcome]]] = {
    "SP25 a method that nobody knows, modern": (
        enveloped("no/body"),
        {"modern": (404, -32601), "pipe": (None, -32601)},
    ),
    "SP25 a method that nobody knows, legacy": (
        bare("no/body"),
        {"session": (200, -32601), "sse": (202, -32601), "pipe": (None, -32601)},
    ),
    "a tool that nobody has, modern": (
        enveloped("tools/call", NOWHERE),
        {"modern": (400, -32602), "pipe": (None, -32602)},
    ),
    "a tool that nobody has, legacy": (
        bare("tools/call", NOWHERE),
        {"session": (200, -32602), "sse": (202, -32602), "pipe": (None, -32602)},
    ),
    "SP25 an envelope of a version to come": (
        enveloped(**UNKNOWN_VERSION),
        {"modern": (400, -32022), "pipe": (None, -32022)},
    ),
    "SP29 an envelope without capabilities": (
        json.dumps(message("tools/list", {"_meta": {f"{META}protocolVersion": "2026-07-28"}})).encode(),
        {"modern": (400, -32602), "pipe": (None, -32602)},
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_done_has_the_code_of_its_reason(faces: dict[str, Face], what: str) -> None:
    body, expected = REFUSED[what]
    assert {name: await faces[name].send(body) for name in expected} == expected


UNASKED = [
    {"jsonrpc": "2.0", "id": ident, **outcome}
    for ident in (1, 99, -1, "1", "q1")
    for outcome in ({"result": {"action": "accept"}}, {"error": {"code": -1, "message": "no"}})
]


@pytest.mark.parametrize("answer", UNASKED, ids=json.dumps)
async def test_F76_an_answer_to_a_question_never_asked_is_dropped_or_refused_and_answers_nothing(
    faces: dict[str, Face], answer: dict[str, Any]
) -> None:
    """2026-07-28 has no requests to callers, so that a response in a POST is none of its messages."""
    outcomes = {name: await face.send(json.dumps(answer).encode()) for name, face in faces.items()}
    assert outcomes == {"modern": (400, -32600), "session": (202, None), "sse": (202, None), "pipe": (None, None)}


@pytest.mark.parametrize("method", ["notifications/initialized", "notifications/cancelled", "no/body", "tools/call"])
async def test_SP11_F76_a_notification_is_never_answered_known_or_not(faces: dict[str, Face], method: str) -> None:
    body = json.dumps(message(method, {"requestId": 77}, ...)).encode()
    outcomes = {name: await face.send(body) for name, face in faces.items()}
    assert outcomes == {name: (None if name == "pipe" else 202, None) for name in faces}


async def test_SP25_without_an_envelope_or_a_session_a_pipe_answers_ping_alone(tmp_path: Path) -> None:
    async with started(tmp_path) as host:
        pipe = Pipe(host)
        assert await pipe.send(bare("tools/list")) == (None, -32602)
        assert await pipe.send(bare("server/discover")) == (None, -32602)
        assert await pipe.send(bare("ping")) == (None, None)
        assert await host.end() == 0
