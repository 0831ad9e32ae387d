"""What one worker holds is found by whichever worker a request comes to first."""

import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from broker.config import Secret
from broker.identity.keys import hash_of, mint
from tests.cli.conftest import Program, running, wait_until
from tests.workers.crew import LEGACY, PLAIN, STATEFUL, Caller, Json, Serving, Session, events, probe, stream, text

SECRET = "s" * 40
MINE, OTHER = mint(b"k" * 40), mint(b"o" * 40)
KEYS = {
    "mine": {"hash": hash_of(MINE.text.reveal(), Secret(SECRET)), "role": "admin"},
    "other": {"hash": hash_of(OTHER.text.reveal(), Secret(SECRET))},
}
PLACES = {
    "identity": {"key_secret": SECRET},
    "organizations": {"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": {"keys": KEYS}}}},
}


def kept() -> Json:
    """One server that keeps state, and one of the SDK."""
    return {"one": dict(STATEFUL), "probe": probe()}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One for all tests that kill nobody."""
    with running(tmp_path_factory.mktemp("workers")) as program:
        yield Serving(program, 2, servers=kept())


@pytest.fixture
def mortal(program: Program) -> Serving:
    """One whose workers may be killed."""
    return Serving(program, 2, servers=kept())


def test_a_session_answers_on_a_connection_of_either_worker(serving: Serving) -> None:
    sessions = {number: serving.session(number) for number in (1, 2)}
    pids = {number: text(sessions[number].call("one__recall"))["pid"] for number in (1, 2)}
    assert pids[1] != pids[2]
    for first, second in ((1, 2), (2, 1)):
        caller = serving.at(first)  # one connection, and requests of both workers' sessions in turn
        for _ in range(3):
            assert text(sessions[second].call("one__recall", caller))["pid"] == pids[second]
            assert text(sessions[first].call("one__recall", caller))["pid"] == pids[first]
    assert "Traceback" not in serving.log and "internal error" not in serving.log


def test_a_large_or_chunked_or_early_body_comes_whole(serving: Serving) -> None:
    session, caller = serving.session(2), serving.at(1)
    large = "x" * 3_000_000
    assert session.call("probe__echo", caller, text=large)["content"][0]["text"].endswith(large)
    body = json.dumps(
        session.message("tools/call", {"name": "probe__echo", "arguments": {"text": "y" * 70_000}})
    ).encode()
    for encoding in ("chunked", "length"):
        with socket.create_connection(("127.0.0.1", serving.port), timeout=30) as raw:
            fields = {**PLAIN, **session.headers, "Host": "127.0.0.1", "Expect": "100-continue"}
            fields |= {"Transfer-Encoding": "chunked"} if encoding == "chunked" else {"Content-Length": str(len(body))}
            head = "POST /mcp HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            raw.sendall(head.encode() + b"\r\n")
            for start in range(0, len(body), 10_000):
                part = body[start : start + 10_000]
                raw.sendall(b"%x\r\n%b\r\n" % (len(part), part) if encoding == "chunked" else part)
            if encoding == "chunked":
                raw.sendall(b"0\r\n\r\n")
            got = b""
            while b"y" * 70_000 not in got:
                data = raw.recv(65536)
                assert data, got[:500]
                got += data


def test_requests_behind_one_that_moves_are_not_answered_by_anybody_else(serving: Serving) -> None:
    """A caller that does not wait for answers is told that the connection ends, and asks again."""
    session, other = serving.session(2), serving.session(1)

    def request(of: Session) -> bytes:
        body = json.dumps(of.message("tools/list", {})).encode()
        fields = {**PLAIN, **of.headers, "Host": "127.0.0.1", "Content-Length": str(len(body))}
        return ("POST /mcp HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n").encode() + body

    for first, second in ((session, other), (other, session)):
        for _ in range(4):
            with socket.create_connection(("127.0.0.1", serving.port), timeout=30) as raw:
                raw.sendall(request(first) + request(second))
                got = b""
                while got.count(b"HTTP/1.1 200") < 2 and (data := raw.recv(65536)):
                    got += data
            assert got.count(b"HTTP/1.1 200") == 2 or (got.startswith(b"HTTP/1.1 200") and b"connection: close" in got)


def test_F96_sessions_of_a_killed_worker_are_unknown_and_those_of_the_other_notice_nothing(mortal: Serving) -> None:
    lost, kept = mortal.session(2), mortal.session(1)
    kept_pid = text(kept.call("one__recall"))["pid"]
    done: list[Any] = []

    def work() -> None:
        done.extend(text(kept.call("one__recall"))["pid"] for _ in range(60))

    with stream(mortal.port, "/mcp", **kept.headers) as listening:
        listening.until(b"\r\n\r\n")
        worker = threading.Thread(target=work)
        worker.start()
        wait_until(lambda: len(done) > 5, "calls are under way")
        mortal.kill(2)
        status, answer = lost.ask("tools/list", mortal.caller())
        assert status == 404 and "Session not found" in answer["error"]["message"]
        worker.join(60)
        assert done == [kept_pid] * 60
        listening.until(b": ")  # the stream is open: it was not touched
    mortal.says("worker 2 was ended by signal 9: it is started again")
    wait_until(lambda: 2 in mortal.workers() and mortal.log.count("workers serve") == 2, "it is back")
    assert mortal.session(2).call("one__recall")
    assert lost.ask("tools/list", mortal.caller())[0] == 404
    assert kept.ask("tools/list", mortal.caller())[0] == 200


def test_a_form_is_answered_on_a_connection_of_the_other_worker(serving: Serving) -> None:
    for holder in (1, 2):
        session = serving.session(holder, elicitation={})
        asking = serving.at(3 - holder)
        got: list[Any] = []

        def ask(session: Session = session, asking: Caller = asking, got: list[Any] = got) -> None:
            message = session.message("tools/call", {"name": "probe__ask", "arguments": {}})
            asking.connection.request("POST", "/mcp", json.dumps(message), {**PLAIN, **session.headers})
            answer = asking.connection.getresponse()
            seen = b""
            while data := answer.read1(65536):
                seen += data
                if not got and b"elicitation/create" in seen:
                    got.append(next(one for one in events(seen) if one.get("method") == "elicitation/create"))
            got.append(events(seen)[-1])

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda got=got: bool(got), "the question")
        reply = {"jsonrpc": "2.0", "id": got[0]["id"], "result": {"action": "accept", "content": {"name": "Ann"}}}
        assert serving.at(3 - holder).post(reply, **session.headers)[0] == 202
        thread.join(60)
        assert "Ann" in json.dumps(got[-1])


def test_a_parked_call_is_taken_up_wherever_the_retry_comes(serving: Serving) -> None:
    """A legacy upstream asks in the middle of a call of a modern caller: the call waits in one worker."""
    for asked_at in (1, 2):
        for answered_at in (1, 2):
            status, answer = serving.at(asked_at).modern("tools/call", "one__ask", arguments={})
            result = answer["result"]
            assert status == 200 and result["resultType"] == "input_required", answer
            assert result["requestState"].startswith(f"{asked_at}.")
            (key,) = result["inputRequests"]
            retry = {
                "arguments": {},
                "requestState": result["requestState"],
                "inputResponses": {key: {"action": "accept", "content": {"who": "Ann"}}},
            }
            status, again = serving.at(answered_at).modern("tools/call", "one__ask", **retry)
            assert text(again["result"])["content"] == {"who": "Ann"}, again
            # good once, wherever it comes
            for number in (1, 2):
                status, again = serving.at(number).modern("tools/call", "one__ask", **retry)
                assert again["error"]["data"] == {"reason": "invalid_request_state"}


def test_the_state_of_a_killed_worker_is_expired_also_for_the_one_that_takes_its_number(mortal: Serving) -> None:
    result = mortal.at(2).modern("tools/call", "one__ask", arguments={})[1]["result"]
    retry = {"arguments": {}, "requestState": result["requestState"], "inputResponses": {}}
    mortal.kill(2)
    for _ in range(2):
        answer = mortal.at(1).modern("tools/call", "one__ask", **retry)[1]
        assert answer["error"]["data"] == {"reason": "invalid_request_state"}
        wait_until(lambda: mortal.log.count("workers serve") == 2, "it is back")


def test_the_old_transport_takes_messages_on_any_connection(serving: Serving) -> None:
    for number in (1, 2):
        for _ in range(100):
            with stream(serving.port, "/sse") as opened:
                line = opened.until(b"\n\n").split(b"data: ")[1].splitlines()[0].decode()
                if not line.startswith(f"/messages?session={number}."):
                    continue
                init = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2024-11-05"}}
                for caller in (serving.at(1), serving.at(2)):
                    assert caller.ask("POST", line, init, **PLAIN)[0] == 202
                opened.until(b'"serverInfo"')
                break
        else:
            raise AssertionError(f"no stream of 100 came to worker {number}")


def test_a_stream_that_broke_is_taken_up_again_at_the_other_worker(serving: Serving) -> None:
    session = serving.session(2)
    message = session.message("tools/call", {"name": "probe__slow", "arguments": {"seconds": 1, "steps": 4}})
    message["params"]["_meta"] = {"progressToken": 7}
    body = json.dumps(message).encode()
    with socket.create_connection(("127.0.0.1", serving.port), timeout=30) as raw:
        fields = {**PLAIN, **session.headers, "Host": "127.0.0.1", "Content-Length": str(len(body))}
        head = "POST /mcp HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        raw.sendall(head.encode() + b"\r\n" + body)
        got = b""
        while b"notifications/progress" not in got:
            got += raw.recv(65536)
    last = next(line for line in got.decode().splitlines() if line.startswith("id: ")).removeprefix("id: ")
    status, _, seen = serving.at(1).ask(
        "GET", "/mcp", Accept="text/event-stream", **{"Last-Event-ID": last}, **session.headers
    )
    assert status == 200 and events(seen)[-1]["id"] == message["id"], seen
    assert "slept slow" in json.dumps(events(seen)[-1])


def test_a_stream_of_changes_and_a_subscription_belong_to_the_session_wherever_they_came(serving: Serving) -> None:
    session = serving.session(2)
    caller = serving.at(1)
    caller.connection.request("GET", "/mcp", headers={"Accept": "text/event-stream", **session.headers})
    answer = caller.connection.getresponse()
    assert answer.status == 200
    assert session.ask("resources/subscribe", serving.at(1), uri="probe+probe://static/readme")[1]["result"] == {}
    session.call("probe__add_tool", serving.at(1))
    seen = b""
    while b"notifications/tools/list_changed" not in seen:
        data = answer.read1(65536)
        assert data, seen
        seen += data


def test_how_a_server_is_says_in_which_worker(serving: Serving) -> None:
    for number in (1, 2):
        one = json.loads(serving.at(number).ask("GET", "/api/v1/upstreams/one")[2])
        assert (one["server"], one["worker"]) == ("one", number)


def test_F99_who_asks_for_what_a_hanging_worker_holds_is_told_to_come_later(mortal: Serving) -> None:
    held, kept, caller = mortal.session(2), mortal.session(1), mortal.at(1)
    other = mortal.at(1)
    os.kill(mortal.workers()[2], signal.SIGSTOP)
    try:
        status, headers, answer = caller.post(held.message("ping", {}), **held.headers)
        assert status == 503 and int(headers["retry-after"]) > 0, answer
        assert kept.ask("ping", other)[0] == 200
    finally:
        os.kill(mortal.workers()[2], signal.SIGCONT)
    assert held.ask("ping", caller)[0] == 200, "the same connection goes on, and the session is there"


def test_F99_a_list_of_all_workers_says_which_of_them_did_not_answer(serving: Serving) -> None:
    caller = serving.at(1)
    whole = json.loads(caller.ask("GET", "/api/v1/upstreams")[2])
    assert whole["missing"] == [] and {one["worker"] for one in whole["items"]} == {1, 2}
    os.kill(serving.workers()[2], signal.SIGSTOP)
    try:
        half = json.loads(caller.ask("GET", "/api/v1/upstreams")[2])
        said = serving.program.run("status", "--url", f"http://127.0.0.1:{serving.port}")
    finally:
        os.kill(serving.workers()[2], signal.SIGCONT)
    assert half["missing"] == [2] and {one["worker"] for one in half["items"]} == {1}
    assert said.code == 0 and "worker 2 does not answer" in said.out


def test_F99_what_another_worker_has_is_gone_only_if_that_worker_is(program: Program) -> None:
    with tempfile.TemporaryDirectory() as directory:
        program.environment["TMPDIR"] = directory
        serving = Serving(program, 2, servers=kept())
        held, caller = serving.session(2), serving.at(1)

        def ask() -> tuple[int, bool]:
            """The status, and whether it says when to come again."""
            status, headers, _ = caller.post(held.message("ping", {}), **held.headers)
            return status, "retry-after" in headers

        (sockets,) = Path(directory).glob("mcp-broker-*")
        real, place = sockets / "real", sockets / "2.sock"
        place.rename(real)
        assert ask() == (404, False), "nobody is there"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(place))
            assert ask() == (404, False), "it is dead"
            other.listen(1)
            with ExitStack() as waiting:
                while True:
                    one = waiting.enter_context(socket.socket(socket.AF_UNIX))
                    one.setblocking(False)
                    try:
                        one.connect(str(place))
                    except BlockingIOError:
                        break
                assert ask() == (503, True), "it is busy"
                for _ in range(2):
                    other.accept()[0].close()
            hasty = threading.Thread(target=lambda: other.accept()[0].close())
            hasty.start()
            assert ask() == (503, True), "it could not take it"
            hasty.join(60)
        real.replace(place)
        assert ask() == (200, False), "the same connection goes on, and the session is there"


def test_a_session_is_still_its_own_callers_alone_and_a_number_proves_nothing(program: Program) -> None:
    serving = Serving(program, 2, **PLACES)
    mine = {"X-API-Key": MINE.text.reveal()}
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    init = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    ids = [Caller(serving.port, **mine).post(init)[1]["mcp-session-id"] for _ in range(12)]
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"MCP-Protocol-Version": LEGACY}
    for ident in ids:
        number, _, rest = ident.partition(".")
        assert Caller(serving.port, **mine).post(listed, **headers, **{"Mcp-Session-Id": ident})[0] == 200
        for wrong in (f"{3 - int(number)}.{rest}", rest, f"0{ident}", f"9.{rest}", f"{number}..{rest}"):
            assert Caller(serving.port, **mine).post(listed, **headers, **{"Mcp-Session-Id": wrong})[0] == 404
        stranger = Caller(serving.port, **{"X-API-Key": OTHER.text.reveal()})
        assert stranger.post(listed, **headers, **{"Mcp-Session-Id": ident})[0] == 404
        nobody = Caller(serving.port)
        assert nobody.post(listed, **headers, **{"Mcp-Session-Id": ident})[0] == 401
    # An administrator sees the sessions of both, and ends them wherever they are.
    seen = json.loads(Caller(serving.port, **mine).ask("GET", "/api/v1/sessions")[2])["items"]
    assert len(seen) == 12 and {one["worker"] for one in seen} == {int(ident[0]) for ident in ids}
    for one in seen:
        status, _, answer = Caller(serving.port, **mine, **PLAIN).ask("DELETE", f"/api/v1/sessions/{one['id']}", {})
        assert status == 200 and json.loads(answer)["worker"] == one["worker"], answer
    assert json.loads(Caller(serving.port, **mine).ask("GET", "/api/v1/sessions")[2])["items"] == []
    assert Caller(serving.port, **mine, **PLAIN).ask("DELETE", f"/api/v1/sessions/{seen[0]['id']}", {})[0] == 404
