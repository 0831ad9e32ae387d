"""A fault of ours at each boundary that ARCHITECTURE.md names: the caller gets an id, the log has what is known of it.

Its text may hold anything: known secrets and what looks like one are in no log line and in no answer.
"""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import pytest

from broker import logs
from broker.config import Secret
from broker.core.caller import LOCAL
from broker.downstream import stream as stream_module
from broker.downstream import vigil
from broker.downstream.http import HttpFront
from broker.errors import BrokerError, InternalError
from broker.identity.admission import Admission
from broker.identity.identity import Identity
from broker.outputs import checks
from broker.relay import forward
from broker.relay.router import Router
from broker.upstream import isolated, supervise
from tests.downstream.conftest import serving
from tests.downstream.raw_http import LEGACY, TIMEOUT, message, modern, modern_headers
from tests.relay.fake import MODERN, Asked, Fake, Json, answering, house

KNOWN = "canary-known-7f3a9c"
TOKEN = "ghp_" + "a1B2" * 9
CALL: Json = {"name": "one__echo", "arguments": {}}


def fail(*args: Any, **more: Any) -> NoReturn:
    raise RuntimeError(f"cannot log in with {KNOWN},\n{TOKEN} or\x1b[31m password=hunter2")


async def afail(*args: Any, **more: Any) -> NoReturn:
    fail()


@dataclass
class Log:
    """Everything that is logged, as text, as JSON, and with traces."""

    streams: list[io.StringIO] = field(default_factory=list[io.StringIO])

    @property
    def text(self) -> str:
        return "".join(stream.getvalue() for stream in self.streams)


@pytest.fixture
def log() -> Iterator[Log]:
    Secret(KNOWN).reveal()
    found, root, ours = Log(), logging.getLogger(), logging.getLogger("broker")
    handlers: list[logging.Handler] = []
    before = ours.level
    for formatter in (logs.OneLine(with_traces=False), logs.OneLine(with_traces=True), logs._Json(with_traces=False)):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        handlers.append(handler)
        found.streams.append(stream)
        root.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    yield found
    ours.setLevel(before)
    for handler in handlers:
        root.removeHandler(handler)


def check(log: Log, answer: str, place: str, *, error_id: str | None = None, text: bool = True) -> None:
    """`place`: a file of ours that the line of the fault names."""
    assert "RuntimeError" in log.text and place in log.text
    if text:
        assert "cannot log in with ********" in log.text
    for said in (log.text, answer):
        assert KNOWN not in said and TOKEN not in said and "hunter2" not in said and "\x1b" not in said
    assert "cannot log in" not in answer
    if error_id is not None:
        assert error_id and f"internal error {error_id}" in log.text


async def answered(
    directory: Path, body: dict[str, Any], headers: list[tuple[str, str]], **more: Any
) -> tuple[int, Any, str]:
    async with serving(directory, {"one": Fake()}, **more) as front:
        reply = await front.client.post(body, headers)
    return reply.status, reply.json if reply.body else None, reply.body.decode()


async def test_a_credential_that_cannot_be_verified(tmp_path: Path, log: Log) -> None:
    class Failing:
        is_source = True
        admit = staticmethod(afail)

        def retire(self) -> None:
            pass

    body = modern("tools/call", CALL)
    headers = [*modern_headers(body), ("Authorization", "Bearer x")]
    status, _, said = await answered(
        tmp_path, body, headers, make_identity=lambda broker: Identity(broker.clock, [Failing()], is_private=True)
    )
    assert status == 503
    check(log, said, "identity/identity.py:", text=False)
    assert "cannot log in" not in log.text


def test_a_credential_of_an_open_stream(log: Log) -> None:
    assert not vigil.is_in_force(Admission(LOCAL, fail))
    check(log, "", "", text=False)
    assert "cannot log in" not in log.text


async def test_a_request(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Router, "answer", afail)
    body = modern("tools/call", CALL)
    status, answer, said = await answered(tmp_path, body, modern_headers(body))
    assert status == 200 and answer["error"]["message"] == "Internal error"
    check(log, said, "downstream/engine.py:", error_id=answer["error"]["data"]["errorId"])


async def test_the_opening_of_a_session(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Router, "greeting", afail)
    body = message("initialize", {"protocolVersion": LEGACY, "capabilities": {}})
    status, answer, said = await answered(tmp_path, body, [])
    assert status == 200
    check(log, said, "downstream/engine.py:", error_id=answer["error"]["data"]["errorId"])


async def test_anything_else_over_http(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpFront, "_post", fail)
    body = modern("tools/call", CALL)
    status, answer, said = await answered(tmp_path, body, modern_headers(body))
    assert status == 500
    check(log, said, "downstream/connection.py:", error_id=answer["error"]["data"]["errorId"])


async def test_the_stream_of_a_response(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(asked: Asked) -> Json:
        asked.progress(1)
        await anyio.lowlevel.checkpoint()
        return {"content": []}

    monkeypatch.setattr(stream_module, "pump", afail)
    async with serving(tmp_path, {"one": Fake(answers={"echo": busy})}) as front, front.client.connection() as caller:
        body = modern("tools/call", CALL, progressToken=1)
        await caller.send(front.client.request("POST", "/mcp", body, modern_headers(body)))
        with anyio.fail_after(TIMEOUT):
            said = await caller.reader.read()
    check(log, said.decode(), "downstream/stream.py:")


async def test_a_connection_to_a_server(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path, {"one": Fake()}) as place:
        monkeypatch.setattr(supervise, "fetch_list", afail)
        place.fakes["one"].announce()
        upstream = place.broker.generation.pool.upstreams["one"]
        with anyio.fail_after(TIMEOUT):
            while upstream.is_ready:
                await anyio.lowlevel.checkpoint()
        with pytest.raises(BrokerError) as raised:
            await place.ask("tools/call", CALL)
    check_link(log, raised.value, "upstream/supervise.py:")


async def test_the_connection_of_a_single_caller(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "shake_hands", afail)
    async with house(tmp_path, {"one": Fake()}, servers={"one": {"isolation": "caller"}}) as place:
        with pytest.raises(BrokerError) as raised:
            await place.ask("tools/call", CALL)
    check_link(log, raised.value, "upstream/isolated.py:")


def check_link(log: Log, error: BrokerError, place: str) -> None:
    answer = str(error.to_json())
    _, _, rest = error.message.partition("internal error ")
    check(log, answer, place, error_id=rest.partition(" ")[0])


async def test_a_call_that_waits_for_its_caller(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward.Forwarder, "_run", afail)
    async with house(tmp_path, {"one": Fake()}) as place:
        with pytest.raises(InternalError) as raised:
            await place.ask("tools/call", CALL, version=MODERN, capabilities={"elicitation": {"form": {}}})
    check(log, str(raised.value.to_json()), "relay/parking.py:", error_id=raised.value.data["errorId"])


async def test_a_look_at_a_result(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.Sampled, "_judge", afail)
    echo = {"name": "echo", "inputSchema": {"type": "object"}, "outputSchema": {"type": "object"}}
    fake = Fake(tools=[echo], answers={"echo": answering({"content": [], "structuredContent": {}})})
    async with house(tmp_path, {"one": fake}, metrics={"access": "public"}) as place:
        assert await place.ask("tools/call", CALL) == {"content": [], "structuredContent": {}}
        await anyio.lowlevel.checkpoint()
    check(log, "", "outputs/checks.py:", text=False)


@pytest.mark.parametrize("level", ["error", "debug"])
def test_a_command_and_whatever_ends_unseen_in_it(tmp_path: Path, level: str) -> None:
    """A thread, a finalizer, and the command itself: the interpreter would print all of them as they are."""
    script = (
        "import sys, threading\nfrom broker import cli\nfrom broker.cli import ask\n"
        "def fail(*args, **more):\n"
        "    from broker.cli.begin import begin\n    from broker.config import Secret\n"
        "    begin(more['level'])\n"
        "    known, token = Secret(ask.extra.pop()).reveal(), ask.extra.pop()\n"
        "    fault = RuntimeError('cannot log in with ' + known + ',\\n' + token)\n"
        "    class Last:\n        def __del__(self): raise fault\n"
        "    def die(): raise fault\n"
        "    thread = threading.Thread(target=die)\n    thread.start()\n    thread.join()\n    Last()\n"
        "    raise fault\n"
        "ask.ask = fail\nextra = sys.argv[1:3]\nlevel = sys.argv[3]\n"
        "sys.argv = ['mcp-broker', 'read', 'x', '--log-level', level]\n"
        "ask.extra = extra\n"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, TOKEN, KNOWN, level],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 1
    assert said.count("cannot log in with ********,") >= 3
    assert "in a thread" in said and "while something was cleared away" in said
    assert "a fault of the broker: RuntimeError" in said
    assert KNOWN not in said and TOKEN not in said
    assert ("Traceback" in said) is (level == "debug")
