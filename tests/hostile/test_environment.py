"""F-36, F-39, F-53, F-62, F-97, F-105: what is around us fails: networks, certificates, clocks, systems."""

import asyncio
import errno
import http.client
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker import half_open
from broker.clock import SystemClock
from broker.compiled import state_directory
from broker.config import Config
from broker.upstream import connection, tlswire
from broker.workers import supervisor
from tests.cli.conftest import running, wait_until
from tests.hostile.conftest import BrokerOf
from tests.hostile.cost import MIB
from tests.hostile.harness import needs_proc, quick
from tests.hostile.web import says, streams, web
from tests.outbound.site import authority
from tests.peers import ROOT
from tests.servers.rawhttp import Out, Request

JSON = {"Content-Type": "application/json"}
BARE = {"PATH": "/usr/bin:/bin"}
_CAPABILITY = "+dac_read_search"  # to read our interpreter, wherever it is installed; to write it is good for nothing
NAMELESS = [
    *("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"),
    *("--inh-caps", _CAPABILITY, "--ambient-caps", _CAPABILITY),
]
"""In front of a command: a user of whom no file knows."""


def has_ipv6() -> bool:
    """Whether there is a loopback of it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def test_F36_content_that_does_not_fit_its_schema_passes_as_it_came(broker_of: BrokerOf) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    offered = [{"name": "boom", "inputSchema": {"type": "object"}, "outputSchema": schema}]
    listed = json.dumps({"jsonrpc": "2.0", "id": 0, "result": {"tools": offered}}).replace('"id": 0', '"id": $ID')
    result = {"content": [{"type": "text", "text": "x"}], "structuredContent": {"n": "not a number", "more": []}}
    answer = json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).replace('"id": 0', '"id": $ID')
    boom, tools = says("200 OK", JSON, answer.encode()), says("200 OK", JSON, listed.encode())
    async with web(boom=boom, tools_list=tools) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        assert await run.call("bad__boom") == result
        await run.innocent()


@pytest.mark.costs("15 MiB, several times, the server's included", memory=160 * MIB)
async def test_F39_a_result_just_below_the_limit_arrives_and_one_above_it_is_an_error_of_its_call(
    broker_of: BrokerOf,
) -> None:
    sizes = iter([15 * MIB, 17 * MIB])

    async def image(out: Out, request: Request, ident: Any) -> None:
        item = {"type": "image", "mimeType": "image/png", "data": "A" * next(sizes)}
        body = json.dumps({"jsonrpc": "2.0", "id": ident, "result": {"content": [item]}}).encode()
        await says("200 OK", {**JSON, "Content-Length": str(len(body))}, body)(out, request, ident)

    async with web(boom=image) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.ready("bad")
        assert len((await run.call("bad__boom"))["content"][0]["data"]) == 15 * MIB
        error = await run.refused("bad__boom")
        assert "larger than 16" in error["message"]
        await run.innocent("bad")


def patience(connection: socket.socket) -> float:
    """Seconds until the kernel gives up a peer that is silent."""
    ip = socket.IPPROTO_TCP
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    quiet = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined]
    every, times = (connection.getsockopt(ip, option) for option in (socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT))
    return connection.getsockopt(ip, quiet) + every * times


@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
async def test_F53_a_connection_to_a_peer_that_vanished_is_broken_by_the_kernel_within_a_minute(
    broker_of: BrokerOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tls: bool
) -> None:
    """Over TLS the handshake fails, since nobody vouches for the peer: its socket is a socket all the same."""
    watched: list[socket.socket] = []
    notice = half_open.notice_half_open

    def noticed(connection: socket.socket) -> None:
        notice(connection)
        watched.append(connection.dup())

    for module in (connection, tlswire):
        monkeypatch.setattr(module, "notice_half_open", noticed)
    tls = authority(tmp_path).server if is_tls else None
    async with web(tls=tls) as peer, broker_of({"bad": {"url": peer.url}}) as run:
        assert bool(await run.trouble("bad")) is is_tls
        assert watched and all(patience(one) <= half_open.GONE_AFTER < 60 for one in watched)
    for one in watched:
        one.close()


def test_F53_what_a_front_accepts_inherits_the_same_patience() -> None:
    from broker.downstream.server import bind

    with bind("127.0.0.1", 0) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as accepted:
            assert patience(accepted) <= half_open.GONE_AFTER


async def test_F62_a_certificate_that_nobody_vouches_for_is_said_and_nothing_is_sent(
    broker_of: BrokerOf, tmp_path: Path
) -> None:
    async with web(tls=authority(tmp_path).server) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        assert await run.trouble("bad") == "its TLS certificate is not valid"
        await run.innocent()
        assert bad.seen == [], "there is no way around it, and no second try without TLS"


async def test_F62_a_certificate_of_the_systems_authorities_is_good_until_it_expires(tmp_path: Path) -> None:
    made = [authority(tmp_path, name, is_expired=name == "expired") for name in ("good", "expired")]
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(b"".join(one.file.read_bytes() for one in made))
    async with web(tls=made[0].server) as good, web(tls=made[1].server) as expired:
        config = tmp_path / "servers.yaml"
        config.write_text(json.dumps({"servers": {"good": {"url": good.url}, "expired": {"url": expired.url}}}))
        done = await anyio.run_process(
            [sys.executable, "-m", "broker", "check", "--connect", "--json", "--config", str(config)],
            env={**BARE, "SSL_CERT_FILE": str(trusted), "XDG_STATE_HOME": str(tmp_path)},
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    assert good.seen and not expired.seen
    assert "its TLS certificate is not valid" in done.stdout.decode()


async def test_F62_a_host_that_cannot_be_found_and_one_without_TLS_are_said(broker_of: BrokerOf) -> None:
    def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as plain:
        url = f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}/mcp"
        lost = {"nowhere": {"url": "https://nowhere.invalid/mcp"}, "lost": {"url": "http://nowhere.invalid/mcp"}}
        async with broker_of({"plain": {"url": url}, **lost}) as run:
            assert await run.trouble("nowhere") == await run.trouble("lost") == "its host name cannot be resolved"
            assert await run.trouble("plain") == "the TLS handshake failed"
            await run.innocent()


class Stepping(SystemClock):
    """Real time, on a machine whose wall clock is set while the broker runs."""

    def __init__(self) -> None:
        self.step = 0.0

    def wall(self) -> float:
        return super().wall() + self.step


@pytest.mark.parametrize("step", [3600.0, -3600.0, 86400.0 * 400])
async def test_F97_a_clock_that_is_set_ends_no_call_and_no_wait(broker_of: BrokerOf, step: float) -> None:
    clock = Stepping()

    async def slow(out: Out, request: Request, ident: Any) -> None:
        clock.step = step
        await streams('data: {"jsonrpc":"2.0","id":$ID,"result":{"content":[{"type":"text","text":"in time"}]}}\n\n')(
            out, request, ident
        )

    async with web(boom=slow) as peer, broker_of({"bad": {"url": peer.url, "timeout": 5}}, clock=clock) as run:
        await run.ready("bad")
        assert await run.text("bad__boom") == "in time"
        await run.innocent("bad")


def called(directory: Path, text: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[bytes]":
    """`mcp-broker call`, in an environment of these variables only."""
    config = directory / "servers.yaml"
    good = {"command": sys.executable, "args": [str(ROOT / "tests/servers/raw.py")]}
    config.write_text(json.dumps({"broker": {"state_dir": str(directory / "state")}, "servers": {"good": good}}))
    arguments = json.dumps({"text": text}, ensure_ascii=False)
    return subprocess.run(
        [sys.executable, "-m", "broker", "call", "good__ok", arguments, "--config", str(config)],
        env={**BARE, **environment},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )


def test_F105_the_broker_works_where_little_is_as_usual(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"
    strange = {
        "LC_ALL": "POSIX",
        "SSL_CERT_FILE": "nowhere.pem",
        "HTTP_PROXY": nobody,
        "HTTPS_PROXY": nobody,
        "ALL_PROXY": nobody,
        "HOME": "nowhere",
        "XDG_STATE_HOME": "",
    }
    done = called(tmp_path, "größer 日本", strange)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert "größer 日本" in done.stdout.decode("utf-8")


def test_F105_text_that_the_locale_cannot_read_is_one_clear_line(tmp_path: Path) -> None:
    done = called(tmp_path, "größer", {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"an argument is not UTF-8 text\n")


@needs_proc
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="root and setpriv make the user")
def test_F105_a_user_without_a_name_and_a_home_can_run_it() -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        config = Path(directory) / "servers.yaml"
        config.write_text(json.dumps({"servers": {"good": quick()}}))
        done = subprocess.run(
            [*NAMELESS, sys.executable, "-m", "broker", "call", "good__ok", "{}", "--config", str(config)],
            env=BARE,
            cwd=ROOT,
            capture_output=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ok\n", b"")


@pytest.mark.parametrize("given", ["~", "~/", "~/state"])
def test_F105_who_has_no_home_is_at_home_in_the_root(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    def unknown(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    config = Config.model_validate({"broker": {"state_dir": given}, "servers": {}})
    assert state_directory(config) == Path("/", given.strip("~/"))


async def test_F105_a_state_directory_that_cannot_be_made_is_said_once_and_nothing_else_is_lost(
    broker_of: BrokerOf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a root that is read-only: below a regular file nobody makes a directory, root neither."""
    (tmp_path / "state").write_text("no directory")
    async with broker_of({"other": quick()}) as run:
        await run.innocent()
        await run.ready("other")
        assert await run.text("other__ok") == "ok"
    said = [record.getMessage() for record in caplog.records if "snapshot" in record.getMessage()]
    assert said == [
        f"no catalog snapshot: {tmp_path}/state/catalog cannot be written (Not a directory); set broker.state_dir"
    ]


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_F105_a_server_at_an_address_of_IPv6_is_reached(broker_of: BrokerOf) -> None:
    async with web(host="::1") as peer, broker_of({"six": {"url": peer.url}}) as run:
        assert "//[::1]:" in peer.url
        await run.innocent("six")


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_F105_a_broker_that_listens_on_IPv6_alone_says_where_and_serves(tmp_path: Path) -> None:
    with running(tmp_path) as program:
        program.configure(one=program.plain())
        program.start("serve", "--host", "::1", "--port", "0")
        wait_until(lambda: "http://[::1]:" in program.errors.read_text(encoding="utf-8"), "it listens")
        port = re.findall(r"http://\[::1\]:(\d+)", program.errors.read_text(encoding="utf-8"))[0]
        front = http.client.HTTPConnection("::1", int(port), timeout=30)
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        front.request("POST", "/mcp", body, {**JSON, "Accept": "application/json, text/event-stream"})
        answer = front.getresponse()
        assert answer.status == 200, answer.read()
        front.close()


def no_room() -> None:
    """In a child, before it begins: no file of it may hold a byte, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def few_descriptors() -> None:
    """Likewise: it may open a few files only."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


@needs_proc
@pytest.mark.parametrize(
    ("lacks", "beginning", "remedy"),
    [
        (
            no_room,
            "cannot make a directory for the sockets of the workers: no usable temporary directory",
            "Make room there, or start the broker again, with TMPDIR set to another directory.\n",
        ),
        (
            few_descriptors,
            "cannot prepare 24 workers: too many open files.",
            "Allow it more open files (`ulimit -n`) and memory, or start it with fewer `--workers`.\n",
        ),
    ],
)
def test_F105_a_supervisor_that_is_given_too_little_says_so_in_one_line(
    lacks: Callable[[], None], beginning: str, remedy: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plan = supervisor.Plan(24, listener.fileno(), 1.0, "info", False, {})
        done = subprocess.run(
            [sys.executable, "-m", "broker.workers.supervisor", plan.text()],
            pass_fds=[listener.fileno()],
            preexec_fn=lacks,
            cwd=ROOT,
            capture_output=True,
            timeout=60,
        )
    said = done.stderr.decode()
    assert (done.returncode, done.stdout, said.count("\n")) == (1, b"", 1)
    assert said.startswith(beginning) and said.endswith(remedy)


def test_F105_which_directory_has_no_room_for_the_sockets_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(prefix: str, dir: str | None = None) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"/somewhere/{prefix}x")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    monkeypatch.setattr(supervisor, "become_subreaper", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert supervisor.main(supervisor.Plan(2, listener.fileno(), 1.0, "info", False, {}).text()) == 1
    assert capsys.readouterr().err == (
        "cannot make a directory for the sockets of the workers in /somewhere: no space left on device. "
        "Make room there, or start the broker again, with TMPDIR set to another directory.\n"
    )
