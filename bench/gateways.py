"""What stands in the field: the upstreams, the broker in front of them, and others for comparison."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.ask import LEGACY, Ask, WrongAnswer, list_tools
from bench.echo import MODERN
from bench.load import over_http
from bench.machine import ROOT, cores, cpu_seconds, free_port, start, stop
from bench.settings import Parts, setting

READY_TIMEOUT: Final = 120.0
"""Seconds until a process that was started must answer."""

NGINX: Final = """
daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 100000000; client_max_body_size 16m; client_body_buffer_size 256k;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 128k;
    upstream echo {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://echo; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""

WARMED: Final = 64
"""Callers whose first call, which waits for the store, is before anything is measured: the most that any case has."""

LOOK: Final = 0.5
"""Seconds between two looks at whether a process still works by itself."""
AT_REST: Final = 0.1
"""Of one core: a broker that nobody asks takes less, for what it does by the clock."""

PEERS: Final = ROOT / ".venv-peers"
"""What `make peers` has made; its stamp says that it is whole."""

NotReady = TimeoutError
"""What was started does not answer in time."""


NOTHING: Final[Mapping[str, Any]] = {}


def echo_argv(*arguments: object) -> list[str]:
    """The command line of an upstream."""
    return [sys.executable, "-m", "bench.echo", *map(str, arguments)]


class Field:
    """Starts things in one directory, and stops all of them in the end."""

    def __init__(self, directory: Path, broker: Sequence[str]) -> None:
        self.directory = directory
        self.broker = broker
        """The command that starts the broker, less its arguments."""
        self.load_core, self.core = cores()
        self.took = 0.0
        """Seconds until the last broker that was started listed its tools."""
        self._stack = ExitStack()

    def __enter__(self) -> "Field":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, argv: Sequence[str], core: int | None) -> subprocess.Popen[bytes]:
        """A process, stopped with the field at the latest."""
        process = start(argv, core, self.directory / "log.txt")
        self._stack.callback(stop, process)
        return process

    async def upstream(self, tools: int = 1) -> int:
        """An HTTP server; its port."""
        port = free_port()
        process = self.start(echo_argv("--port", port, "--tools", tools), self.load_core)
        await ready(process, port, tools)
        return port

    async def serve(
        self,
        servers: Mapping[str, Any],
        tools: int,
        wrap: Sequence[str] = (),
        more: Mapping[str, Any] = NOTHING,
        key: str = "",
        state: Path | None = None,
        *,
        is_pinned: bool = True,
    ) -> tuple[subprocess.Popen[bytes], int]:
        """The broker in front of `servers`, which have `tools` tools in all; its process and port. `more`: further
        sections of the file; `key`: with which it is asked whether it is ready; `is_pinned`: it has one core.
        """
        port = free_port()
        argv = [*(wrap or self.broker), "serve", "--config", str(self.config(servers, state, more))]
        begun = time.monotonic()
        argv += ["--host", "127.0.0.1", "--port", str(port)]
        process = self.start(argv, self.core if is_pinned else None)
        await ready(process, port, tools, key)
        self.took = time.monotonic() - begun
        return process, port

    async def serve_with(
        self,
        servers: Mapping[str, Any],
        tools: int,
        parts: Parts,
        *,
        state: Path | None = None,
        keys: Sequence[str] = (),
    ) -> tuple[subprocess.Popen[bytes], int, list[str]]:
        """The same with these parts on, when a call is permitted; its process, its port, and the keys of callers.
        `keys`: of the store in `state`.
        """
        made = setting(dict(servers), parts, self.fresh("parts"))
        given = [*(keys or made.keys)]
        process, port = await self.serve({}, tools, more=made.sections, key=given[0] if given else "", state=state)
        await permitted(port, f"{next(iter(servers))}__echo", given[:WARMED])
        await rested(process.pid)
        return process, port, given

    async def nginx(self, upstream: int, tools: int = 1) -> tuple[subprocess.Popen[bytes], int] | None:
        """nginx in front of an upstream; None, if this machine has none."""
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
        if binary is None:
            return None
        port = free_port()
        directory = self.fresh("nginx")
        file = directory / "nginx.conf"
        file.write_text(NGINX.format(directory=directory, port=port, upstream=upstream))
        argv = [binary, "-p", str(directory), "-e", str(directory / "nginx.log"), "-c", str(file)]
        process = self.start(argv, self.core)
        await ready(process, port, tools)
        return process, port

    async def relay(self, upstream: int, *, is_strict: bool) -> tuple[subprocess.Popen[bytes], int]:
        """A bare relay in Python in front of an upstream."""
        port = free_port()
        argv = [sys.executable, "-m", "bench.bare", "--upstream", str(upstream), "--port", str(port)]
        process = self.start([*argv, *(["--strict"] if is_strict else [])], self.core)
        await ready(process, port, 1)
        return process, port

    async def fastmcp(self, upstream: int, connected: str | None = None) -> tuple[subprocess.Popen[bytes], int] | None:
        """FastMCP's proxy in front of an upstream, `connected` once in that era or as documented; None without it."""
        if not self.has_fastmcp():
            return None
        port = free_port()
        argv = [str(PEERS / "bin" / "python"), str(Path(__file__).parent / "peers" / "fastmcp_proxy.py")]
        argv += ["--upstream", f"http://127.0.0.1:{upstream}/mcp", "--port", str(port)]
        process = self.start([*argv, *(["--connected", connected] if connected else [])], self.core)
        await ready(process, port, 1)
        return process, port

    @staticmethod
    def has_fastmcp() -> bool:
        """Whether it is installed."""
        return (PEERS / ".stamp").exists()

    @staticmethod
    def remedy(name: str) -> str:
        """How to have what is missing here."""
        return {"nginx": "`apt-get install nginx-light`, or any other nginx on PATH", "FastMCP": "`make peers`"}[name]

    def clear(self) -> None:
        """Stop all that stands."""
        self._stack.close()

    def config(self, servers: Mapping[str, Any], state: Path | None = None, more: Mapping[str, Any] = NOTHING) -> Path:
        """A configuration file with a state directory that nobody has used."""
        directory = self.fresh("broker")
        settings = {"state_dir": str(state or directory / "state")}
        file = directory / "servers.yaml"
        file.write_text(json.dumps({"broker": settings, "servers": servers, **more}))  # JSON is YAML
        return file

    def fresh(self, name: str) -> Path:
        """A new directory."""
        number = sum(1 for _ in self.directory.iterdir())
        path = self.directory / f"{name}-{number}"
        path.mkdir()
        return path

    def log(self) -> str:
        """The end of what the processes said."""
        file = self.directory / "log.txt"
        return file.read_text(errors="replace")[-4000:] if file.exists() else ""


def http_server(port: int, era: str) -> dict[str, Any]:
    """An HTTP upstream, for the configuration."""
    return {"url": f"http://127.0.0.1:{port}/mcp", "protocol": era}


def stdio_server(*arguments: object, protocol: str = "auto") -> dict[str, Any]:
    """A stdio upstream, for the configuration."""
    command, *rest = echo_argv(*arguments)
    path = str(Path(__file__).parent.parent)
    return {"command": command, "args": rest, "env": {"PYTHONPATH": path}, "protocol": protocol}


async def permitted(port: int, tool: str, keys: Sequence[str]) -> None:
    """Wait until a call with each key is: budgets are leased from the store, and guardrails warm. Raises: NotReady."""
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        load = await over_http(port, Ask.echo(tool, 32), MODERN, len(keys) or 1, keys)
        try:
            await load.measure(0.01)
            return
        except WrongAnswer:
            await asyncio.sleep(0.05)
        finally:
            await load.close()
    raise NotReady(f"{tool} is not permitted after {READY_TIMEOUT:g} s")


async def rested(
    pid: int,
    cpu: Callable[[int], float] = cpu_seconds,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until a process has nothing to do by itself any more: what a start and the first call leave to be done
    later, once, would be divided over the few calls that are measured. Raises: NotReady.
    """
    deadline = now() + READY_TIMEOUT
    while now() < deadline:
        before, begun = cpu(pid), now()
        await sleep(LOOK)
        if cpu(pid) - before < AT_REST * (now() - begun):
            return
    raise NotReady(f"the broker still works by itself after {READY_TIMEOUT:g} s")


async def ready(process: subprocess.Popen[bytes], port: int, tools: int, key: str = "") -> None:
    """Wait until a server lists so many tools. Raises: NotReady."""
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if len(await asyncio.to_thread(list_tools, port, key)) == tools:
                return
        except (OSError, ValueError):
            pass
        await asyncio.sleep(0.05)
    why = "it has ended" if process.poll() is not None else f"nothing for {READY_TIMEOUT:g} s"
    raise NotReady(f"{process.args} does not list {tools} tools: {why}")


ERAS: Final = {"modern": MODERN, "legacy": LEGACY}
FASTMCP: Final = {MODERN: MODERN, LEGACY: "legacy"}
"""How FastMCP's client is told its era."""
