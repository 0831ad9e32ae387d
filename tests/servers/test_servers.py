"""The peers of the tests are what they claim to be: checked with the SDK's own client, over each transport and era."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client

from tests import nursery
from tests.patience import PATIENCE
from tests.peers import SDK1_CLIENT, Peers, is_alive
from tests.servers import probe, raw, rawhttp

MODERN, LEGACY = "2026-07-28", "2025-11-25"
ERAS = {"auto": MODERN, "modern": MODERN, "legacy": LEGACY}
TIMEOUT = PATIENCE
"""Seconds for one conversation: a bound, not an expectation."""


def stdio(peers: Peers, script: str, *args: Any) -> StdioServerParameters:
    command, *rest = peers.command(script, *args)
    return StdioServerParameters(command=command, args=rest)


async def target(peers: Peers, transport: str, *args: Any) -> Any:
    """What `Client` takes to speak to a probe over this transport."""
    if transport == "stdio":
        return stdio(peers, "probe", *args)
    peer = await peers.astart("probe", "--transport", transport, *args)
    return peer.url if transport == "http" else sse_client(peer.url)


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for what another process does: there is no event that it could set."""
    with anyio.fail_after(TIMEOUT):
        while not is_true():  # noqa: ASYNC110
            await anyio.sleep(0.01)


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """The exceptions themselves, however deep the task groups of the SDK wrapped them."""
    return [leaf for e in group.exceptions for leaf in (leaves(e) if isinstance(e, BaseExceptionGroup) else [e])]


def text_of(result: types.CallToolResult) -> str:
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text


# --- probe.py ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", list(ERAS))
@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
async def test_a_probe_speaks_the_era_that_it_was_told(peers: Peers, transport: str, era: str) -> None:
    where = await target(peers, transport, "--era", era, "--name", "canary")
    with anyio.fail_after(TIMEOUT):
        async with Client(where) as client:
            assert client.protocol_version == ERAS[era]
            assert client.instructions is not None and "`echo`" in client.instructions
            assert client.server_info is not None and client.server_info.name == "canary"
            result = await client.call_tool("echo", {"text": "hi"})
            assert text_of(result) == "canary:hi"
            assert result.structured_content == {"text": "hi"}
            assert result.meta is not None and result.meta["probe/name"] == "canary"


@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
async def test_a_modern_probe_refuses_the_handshake(peers: Peers, transport: str) -> None:
    where = await target(peers, transport, "--era", "modern")
    codes: list[int] = []
    with anyio.fail_after(TIMEOUT):
        try:
            async with Client(where, mode="legacy"):
                pass
        except* MCPError as refusals:
            codes = [error.code for error in leaves(refusals) if isinstance(error, MCPError)]
    # Over HTTP the SDK's modern entry misses the envelope before it looks at the method.
    assert codes == [types.INVALID_PARAMS if transport == "http" else types.UNSUPPORTED_PROTOCOL_VERSION]


@pytest.mark.parametrize("transport", ["stdio", "sse"])
async def test_a_legacy_probe_does_not_know_discover(peers: Peers, transport: str) -> None:
    where = await target(peers, transport, "--era", "legacy")
    with anyio.fail_after(TIMEOUT):
        async with Client(where, mode=MODERN) as client:
            with pytest.raises(MCPError) as refusal:
                await client.session.send_discover(MODERN)
    assert refusal.value.code == types.METHOD_NOT_FOUND


@pytest.mark.parametrize(("flags", "status", "code"), [([], 400, -32600), (["--stateless"], 200, -32601)])
async def test_a_legacy_http_probe_answers_discover_like_a_server_of_its_age(
    peers: Peers, flags: list[str], status: int, code: int
) -> None:
    peer = await peers.astart("probe", "--transport", "http", "--era", "legacy", "--json", *flags)
    envelope = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": envelope}}
    accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN}
    async with httpx2.AsyncClient(timeout=TIMEOUT) as http:
        response = await http.post(peer.url, json=body, headers={**accept, "Mcp-Method": "server/discover"})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_probe_has_everything_that_a_server_can_have(peers: Peers, era: str) -> None:
    with anyio.fail_after(TIMEOUT):
        async with Client(stdio(peers, "probe", "--era", era, "--name", "p")) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == [tool.name for tool, _ in probe.TOOLS]
            assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"sum": 3}
            assert (await client.call_tool("fail", {})).is_error
            assert text_of(await client.call_tool(probe.DOTTED_NAME, {})).startswith("p:")
            assert text_of(await client.call_tool(probe.LONG_NAME, {})).startswith("p:")
            link, embedded = (await client.call_tool("link", {})).content
            assert isinstance(link, types.ResourceLink) and link.uri == probe.BLOB_URI
            assert isinstance(embedded, types.EmbeddedResource) and embedded.resource.uri == probe.README_URI

            greeting = (await client.get_prompt("greet", {"name": "Ada"})).messages[0].content
            assert isinstance(greeting, types.TextContent) and greeting.text == "p:hello Ada"
            assert (await client.get_prompt("with_resource")).messages[0].content.type == "resource"

            uris = [resource.uri for resource in (await client.list_resources()).resources]
            assert uris == [probe.README_URI, probe.BLOB_URI, probe.OPAQUE_URI, probe.WIDGET_URI]
            for uri in [*uris, "probe://docs/alpha"]:
                assert (await client.read_resource(uri)).contents[0].uri == uri
            with pytest.raises(MCPError):
                await client.read_resource("probe://nowhere")
            template = (await client.list_resource_templates()).resource_templates[0].uri_template
            assert template == probe.TEMPLATE

            prompt, docs = types.PromptReference(name="greet"), types.ResourceTemplateReference(uri=template)
            by_name = await client.complete(prompt, {"name": "name", "value": "a"})
            assert by_name.completion.values == ["Ada", "Alan"]
            by_id = await client.complete(docs, {"name": "id", "value": "b"})
            assert by_id.completion.values == ["beta"]


async def test_schemas_and_unknown_fields_are_on_the_wire_as_written(peers: Peers) -> None:
    peer = await peers.astart("probe", "--transport", "http", "--era", "modern", "--json")
    envelope = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    base = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN}

    async def post(method: str, params: dict[str, Any], **headers: str) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": envelope}}
        async with httpx2.AsyncClient(timeout=TIMEOUT) as http:
            response = await http.post(peer.url, json=body, headers={**base, "Mcp-Method": method, **headers})
        return response.json()["result"]

    listed = {tool["name"]: tool for tool in (await post("tools/list", {}))["tools"]}
    assert listed["with_refs"]["inputSchema"] == probe.WITH_REFS
    called = await post("tools/call", {"name": "echo", "arguments": {"text": "x"}}, **{"Mcp-Name": "echo"})
    assert called[probe.UNKNOWN_FIELD] == {"from": "probe"}


async def test_pages_and_extra_tools(peers: Peers) -> None:
    with anyio.fail_after(TIMEOUT):
        async with Client(stdio(peers, "probe", "--tools", 5, "--page-size", 3)) as client:
            seen, cursor, pages = [], None, 0
            while pages == 0 or cursor is not None:
                listed = await client.list_tools(cursor=cursor)
                seen += [tool.name for tool in listed.tools]
                cursor, pages = listed.next_cursor, pages + 1
    assert pages == 6 and seen == [*probe.BODIES, *(f"extra_{n}" for n in range(5))]


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
async def test_slow_reports_progress_and_notices_a_cancellation(
    peers: Peers, tmp_path: Path, transport: str, era: str
) -> None:
    log = tmp_path / "probe.log"
    where = await target(peers, transport, "--era", era, "--log", log)
    reports: list[float] = []
    told = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reports.append(progress)
        told.set()

    with anyio.fail_after(TIMEOUT):
        async with Client(where) as client, anyio.create_task_group() as tasks:
            # A report each quarter of a second: the SDK's SSE client fails if one comes while it closes.
            arguments = {"seconds": 1000, "steps": 4000, "label": "a"}

            async def call() -> None:
                await client.call_tool("slow", arguments, progress_callback=on_progress)

            tasks.start_soon(call)
            await told.wait()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(lambda: lines(log) == ["started a", "cancelled a"])
    assert reports[0] == 1


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_an_added_tool_is_announced_to_modern_and_legacy_callers(peers: Peers, transport: str) -> None:
    where = await target(peers, transport)
    heard = anyio.Event()

    async def on_message(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            heard.set()

    with anyio.fail_after(TIMEOUT):
        async with Client(where) as client, client.listen(tools_list_changed=True) as events:
            await client.call_tool("add_tool", {})
            async for _ in events:
                break
        async with Client(where, mode="legacy", message_handler=on_message) as client:
            assert client.server_capabilities.tools is not None and client.server_capabilities.tools.list_changed
            # The standalone stream of HTTP opens after the handshake; the first call may be too early for it.
            while not heard.is_set():
                await client.call_tool("add_tool", {})
                with anyio.move_on_after(0.1):
                    await heard.wait()


async def test_crash_ends_the_process_and_pid_tells_which(peers: Peers) -> None:
    peer = await peers.astart("probe", "--transport", "http", "--era", "modern")
    with anyio.fail_after(TIMEOUT):
        async with Client(peer.url) as client:
            told = (await client.call_tool("pid", {})).structured_content
            assert told is not None and is_alive(told["pid"])
        with pytest.RaisesGroup(httpx2.RemoteProtocolError, flatten_subgroups=True):
            async with Client(peer.url) as client:
                await client.call_tool("crash", {})
        await until(lambda: peer.process.poll() is not None)
    assert peer.process.returncode == 3 and not is_alive(told["pid"])


# --- raw.py --------------------------------------------------------------------------------------------------------


class Wire:
    """A bare pipe to raw.py, which sees the bytes as they are."""

    def __init__(self, peers: Peers, *args: Any) -> None:
        self.process = subprocess.Popen(
            peers.command("raw", *args),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        peers.processes.append(self.process)

    def send(self, method: str, ident: int | None = None, **params: Any) -> None:
        assert self.process.stdin is not None
        message = {"jsonrpc": "2.0", "method": method, "params": params, **({"id": ident} if ident else {})}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline(1_000_000)

    def handshake(self) -> None:
        self.send("initialize", 1, protocolVersion=LEGACY, capabilities={}, clientInfo={"name": "t", "version": "1"})
        while b'"protocolVersion"' not in self.line():
            pass
        self.send("notifications/initialized")

    def boom(self) -> bytes:
        self.send("tools/call", 2, name="boom", arguments={}, _meta={"progressToken": 5})
        return self.line()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


async def test_raw_without_a_fault_is_a_decent_legacy_server(peers: Peers) -> None:
    with anyio.fail_after(TIMEOUT):
        async with Client(stdio(peers, "raw", "--fault", "none")) as client:
            assert client.protocol_version == LEGACY
            assert [tool.name for tool in (await client.list_tools()).tools] == ["ok", "boom"]
            assert text_of(await client.call_tool("ok", {"text": "x"})) == "ok x"
            assert text_of(await client.call_tool("boom", {})) == "boom, but politely"


BYTES = {
    "invalid-utf8": b"\xff\xfe",
    "nan": b"NaN",
    "surrogate": rb"\ud800",
    "bigint": b"7" * raw.DIGITS,
    "deep": b"[" * raw.LEVELS,
    "endless-line": b"a" * 900_000,
    "dup-response": b"first",
    "unknown-id": b"987654321",
    "string-id": b'"id": "2"',
    "both-result-and-error": b'"error"',
    "bad-error": b'"error": "not an object"',
    "progress-flood": b'"progress": 1,',
    "list-changed-storm": b"notifications/tools/list_changed",
    "server-requests": b"sampling/createMessage",
    "exit-mid-call": b'{"jsonrpc":"2.0","id":',
    "stderr-flood": b"1000 lines",
    "misfit": b'"n": "one"',
}


@pytest.mark.parametrize("fault", list(BYTES))
def test_boom_sends_what_its_fault_says(peers: Peers, fault: str) -> None:
    wire = Wire(peers, "--fault", fault)
    wire.handshake()
    assert BYTES[fault] in wire.boom()
    wire.close()


FLOODS = {"blank-flood": b"\n", "empty-flood": b"{}\n"}


@pytest.mark.parametrize("fault", list(FLOODS))
def test_a_flood_begins_with_what_its_fault_says(peers: Peers, fault: str) -> None:
    wire = Wire(peers, "--fault", fault)
    wire.handshake()
    assert wire.boom() == FLOODS[fault]
    wire.close()


SPOILS_THE_PIPE = {"endless-line", "exit-mid-call"}


@pytest.mark.parametrize("fault", [fault for fault in raw.BOOM if fault not in SPOILS_THE_PIPE])
def test_ok_goes_on_working_after_boom(peers: Peers, fault: str) -> None:
    wire = Wire(peers, "--fault", fault, 20)
    wire.handshake()
    wire.send("tools/call", 2, name="boom", arguments={})
    wire.send("tools/call", 3, name="ok", arguments={"text": "still"})
    while b"ok still" not in wire.line():
        assert wire.process.poll() is None
    wire.close()


def test_every_fault_of_the_tables_is_tested() -> None:
    assert {*BYTES, *FLOODS, "hang-call"} == set(raw.BOOM)
    assert len(raw.FAULTS) == len(set(raw.FAULTS)) == 31


@pytest.mark.parametrize(("fault", "expected"), [("garbage", b"Welcome to raw!\n"), ("bom", b"\xef\xbb\xbf")])
def test_noise_stands_before_the_first_answer(peers: Peers, fault: str, expected: bytes) -> None:
    wire = Wire(peers, "--fault", fault)
    wire.send("initialize", 1)
    assert wire.line().startswith(expected)
    wire.close()


@pytest.mark.parametrize("fault", raw.LIST)
def test_the_faults_of_lists(peers: Peers, fault: str) -> None:
    wire = Wire(peers, "--fault", fault)
    wire.handshake()
    pages = []
    for cursor in (None, "1"):
        wire.send("tools/list", 2, **({"cursor": cursor} if cursor else {}))
        pages.append(json.loads(wire.line())["result"])
    cursors = [page.get("nextCursor") for page in pages]
    assert cursors == {"endless-cursor": ["1", "2"], "same-cursor": ["again"] * 2}.get(fault, [None] * 2)
    assert {"ok", "boom"} <= {tool.get("name") for tool in pages[0]["tools"] if isinstance(tool, dict)}
    wire.close()


def test_server_requests_are_answered_with_what_they_were_told(peers: Peers) -> None:
    wire = Wire(peers, "--fault", "server-requests", 3)
    wire.handshake()
    asked = [json.loads(wire.boom()), json.loads(wire.line()), json.loads(wire.line())]
    assert [question["method"].split("/")[0] for question in asked] == ["sampling", "elicitation", "roots"]
    assert wire.process.stdin is not None
    for question in asked:
        refusal = {"jsonrpc": "2.0", "id": question["id"], "error": {"code": -32601, "message": "no"}}
        wire.process.stdin.write(json.dumps(refusal).encode() + b"\n")
    wire.process.stdin.flush()
    assert json.loads(wire.line())["id"] == 2
    wire.close()


def test_exit0_ends_at_once_and_ignore_term_does_not(peers: Peers) -> None:
    gone, stubborn = Wire(peers, "--fault", "exit0"), Wire(peers, "--fault", "ignore-term")
    assert gone.process.wait(TIMEOUT) == 0
    stubborn.handshake()
    stubborn.process.terminate()
    stubborn.close()
    gone.close()
    with pytest.raises(subprocess.TimeoutExpired):
        stubborn.process.wait(0.2)


@pytest.mark.skipif(sys.platform == "win32", reason="sessions and groups are POSIX")
def test_grandchildren_live_one_in_the_group_and_one_apart(peers: Peers, tmp_path: Path) -> None:
    pids = peers.kill_pids_of(tmp_path / "pids")
    wire = Wire(peers, "--fault", "grandchild", "--pids", pids)
    wire.handshake()
    apart, beside = map(int, pids.read_text(encoding="ascii").split())
    assert is_alive(apart) and is_alive(beside)
    wire.close()
    wire.process.wait(TIMEOUT)
    assert is_alive(apart) and is_alive(beside)


@pytest.mark.parametrize("fault", ["hang-init", "no-read"])
def test_silence(peers: Peers, fault: str) -> None:
    """Nothing comes back: shown by the pipe, which ends without a byte when the server is killed."""
    wire = Wire(peers, "--fault", fault)
    if fault == "no-read":
        wire.handshake()
    wire.send("initialize", 9)
    with pytest.raises(subprocess.TimeoutExpired):
        wire.process.wait(0.2)
    wire.process.kill()
    assert wire.line() == b""
    wire.close()


# --- rawhttp.py ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("era", "version"), [("legacy", LEGACY), ("modern", MODERN)])
async def test_rawhttp_without_a_fault_is_a_decent_server(peers: Peers, era: str, version: str) -> None:
    peer = await peers.astart("rawhttp", "--era", era)
    with anyio.fail_after(TIMEOUT):
        async with Client(peer.url) as client:
            assert client.protocol_version == version
            assert [tool.name for tool in (await client.list_tools()).tools] == ["ok", "boom"]
            assert text_of(await client.call_tool("ok", {"text": "x"})) == "ok x"


ENDLESS = ["gzip-bomb", "endless-body", "drip", "sse-endless-event", "huge-json", "sse-blank-flood", "sse-empty-flood"]
STATUS = {"html-error": 502, "empty-200": 200, "redirect": 307, "401": 401, "429": 429, "503": 503}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}


@pytest.mark.parametrize("fault", list(STATUS))
async def test_rawhttp_refuses_as_told(peers: Peers, fault: str) -> None:
    peer = await peers.astart("rawhttp", "--fault", fault, "--at", "handshake")
    async with httpx2.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as http:
        response = await http.post(peer.url, json=CALL)
    assert response.status_code == STATUS[fault]
    if fault == "redirect":
        assert not response.headers["location"].startswith(peer.url.removesuffix("/mcp") + "/")


@pytest.mark.parametrize("fault", ENDLESS)
async def test_rawhttp_sends_more_than_anybody_asked_for(peers: Peers, fault: str) -> None:
    wanted = 20 if fault == "drip" else 5_000_000
    peer = await peers.astart("rawhttp", "--fault", fault, "--at", "handshake", "--bytes", 2**24, "--interval", 0.001)
    received = 0
    with anyio.fail_after(TIMEOUT):
        async with (
            httpx2.AsyncClient(timeout=TIMEOUT) as http,
            http.stream("POST", peer.url, json=CALL) as response,
        ):
            async for data in response.aiter_bytes():
                received += len(data)
                if received > wanted:
                    break
    assert response.status_code == 200 and received > wanted


@pytest.mark.parametrize("fault", ["huge-json", "gzip-bomb"])
async def test_a_huge_answer_is_valid_when_read_to_the_end(peers: Peers, fault: str) -> None:
    peer = await peers.astart("rawhttp", "--fault", fault, "--at", "handshake", "--bytes", 2**21)
    async with httpx2.AsyncClient(timeout=TIMEOUT) as http:
        result = (await http.post(peer.url, json=CALL)).json()["result"]
    assert len(result["content"][0]["text"]) == 2**21


async def test_a_session_expires_once(peers: Peers) -> None:
    peer = await peers.astart("rawhttp", "--fault", "session-expired")
    statuses = []
    async with httpx2.AsyncClient(timeout=TIMEOUT) as http:
        for _ in range(2):
            session = (await http.post(peer.url, json=CALL)).headers["mcp-session-id"]
            body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "boom"}}
            statuses.append((await http.post(peer.url, json=body, headers={"Mcp-Session-Id": session})).status_code)
    assert statuses == [404, 200]


async def test_every_other_result_of_a_misfit_is_one(peers: Peers) -> None:
    peer = await peers.astart("rawhttp", "--fault", "misfit")
    found: list[object] = []
    async with httpx2.AsyncClient(timeout=TIMEOUT) as http:
        headers = {"Mcp-Session-Id": (await http.post(peer.url, json=CALL)).headers["mcp-session-id"]}
        for _ in range(2):
            body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "boom"}}
            found.append((await http.post(peer.url, json=body, headers=headers)).json()["result"]["structuredContent"])
    assert found == [{"n": "one", "more": []}, {"n": 1, "more": []}]


async def test_hang_says_nothing(peers: Peers) -> None:
    peer = await peers.astart("rawhttp", "--fault", "hang", "--at", "handshake")
    async with httpx2.AsyncClient(timeout=0.2) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.post(peer.url, json=CALL)
    assert {"none", "session-expired", "hang", "misfit", *STATUS, *ENDLESS} == set(rawhttp.FAULTS)


# --- other people's ------------------------------------------------------------------------------------------------


async def test_server_everything_is_a_legacy_server_over_stdio(everything: list[str]) -> None:
    with anyio.fail_after(TIMEOUT):
        async with Client(StdioServerParameters(command=everything[0], args=everything[1:])) as client:
            assert client.protocol_version == LEGACY
            assert "echo" in [tool.name for tool in (await client.list_tools()).tools]


@pytest.mark.parametrize("transport", ["streamableHttp", "sse"])
async def test_server_everything_is_a_legacy_server_over_http(
    peers: Peers, everything: list[str], transport: str
) -> None:
    peer = await anyio.to_thread.run_sync(peers.start_everything, transport)
    with anyio.fail_after(TIMEOUT):
        async with Client(peer.url if transport == "streamableHttp" else sse_client(peer.url)) as client:
            assert client.protocol_version == LEGACY
            assert text_of(await client.call_tool("echo", {"message": "x"})) == "Echo: x"


@pytest.mark.parametrize("module", ["mcp_server_time", "mcp_server_git"])
@pytest.mark.parametrize(("mode", "version"), [("auto", MODERN), ("legacy", LEGACY)])
async def test_the_servers_of_the_shipped_configuration_speak_both_eras(module: str, mode: str, version: str) -> None:
    started, *args = nursery.command("-m", module)
    command = StdioServerParameters(command=started, args=args)
    with anyio.fail_after(TIMEOUT):
        async with Client(command, mode=mode) as client:
            assert client.protocol_version == version
            assert (await client.list_tools()).tools


OPERATIONS: list[Any] = [
    "initialize",
    "list_tools",
    ["call_tool", "echo", {"text": "hi"}],
    ["call_tool", "slow", {"seconds": 0, "steps": 2}],
    "list_prompts",
    ["get_prompt", "greet", {"name": "Ada"}],
    "list_resources",
    "list_templates",
    ["read_resource", "probe://docs/alpha"],
    ["complete", {"type": "ref/prompt", "name": "greet"}, "name", "G"],
    ["read_resource", "probe://nowhere"],
]


@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
async def test_the_sdk_1_client_reports_what_it_saw(peers: Peers, sdk1_python: Path, transport: str) -> None:
    if transport == "stdio":
        where = ["--stdio", *peers.command("probe", "--page-size", 4)]
    else:
        where = [f"--{transport}", (await peers.astart("probe", "--transport", transport, "--page-size", 4)).url]
    with anyio.fail_after(TIMEOUT):
        done = await anyio.run_process(
            [str(sdk1_python), str(SDK1_CLIENT), *where], input=json.dumps(OPERATIONS).encode(), check=False
        )
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(done.stdout)
    assert report["initialize"]["protocolVersion"] == LEGACY and "`echo`" in report["initialize"]["instructions"]
    results = report["results"]
    assert [result["op"] for result in results] == [op if isinstance(op, str) else op[0] for op in OPERATIONS]
    assert len(results[1]["ok"]["tools"]) == len(probe.TOOLS)
    assert results[2]["ok"]["content"][0]["text"] == "probe:hi"
    assert results[2]["ok"][probe.UNKNOWN_FIELD] == {"from": "probe"}
    assert results[-2]["ok"]["completion"]["values"] == ["Grace"]
    assert results[-1]["error"]["code"] is not None
    assert [step["progress"] for step in report["progress"]] == [1, 2]
