"""Starts: from exec to the first answer."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.ask import LEGACY
from bench.gateways import Field, echo_argv, stdio_server
from bench.machine import ROOT, STOP_TIMEOUT, environment
from bench.report import Table

SERVERS: Final = 10
PAIRS: Final = 3
"""Rounds, at least, of starts that take a second and are compared with each other: one alone is right by chance."""
ANSWER_TIMEOUT: Final = 60.0
MAX_LINE: Final = 16 * 1024 * 1024
SDK_SERVER: Final = "bench/sdk_server.py"
COLD_TITLE: Final = f"Cold start with {SERVERS} stdio servers: seconds from exec to the first `tools/list`"
LIST_TITLE: Final = "From exec to the first whole `tools/list` of the broker on stdio"
HELP_TITLE: Final = "CPU of a command that does nothing"
ORDINARY: Final = "ordinary servers (SDK)"
LEAN: Final = "lean servers"
NONE: Final = "no servers"
HUNG: Final = f"{SERVERS} servers that hang, seen before"
HEALTHY: Final = f"{SERVERS - 1} healthy servers that were never seen"
DEAD: Final = "the same, and one that ends at once"
HELP: Final = "`mcp-broker --help`"
BASE: Final = "`python -c 'import typer, rich'`"


Argv = Callable[[], list[str]]
"""Makes a command line, with files of its own."""


class Dialogue:
    """A server on stdio, from its start; a legacy client, as most hosts are today."""

    def __init__(self, process: asyncio.subprocess.Process, started: float) -> None:
        self._process = process
        self._started = started
        self._id = 0

    @classmethod
    async def open(cls, argv: Sequence[str]) -> "Dialogue":
        """Start it."""
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
            limit=MAX_LINE,
            start_new_session=True,
        )
        return cls(process, started)

    async def ask(self, method: str, params: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The answer, and the seconds from the start of the process until it. Raises: TimeoutError, EOFError."""
        self._id += 1
        self._send({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        assert self._process.stdout is not None
        async with asyncio.timeout(ANSWER_TIMEOUT):
            while line := await self._process.stdout.readline():
                message = json.loads(line)
                if message.get("id") == self._id and "method" not in message:
                    return message, time.perf_counter() - self._started
        raise EOFError(f"the server ended before it answered {method}")

    async def initialize(self) -> float:
        """The handshake; the seconds from the start until its answer."""
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        answer, seconds = await self.ask("initialize", params)
        if "result" not in answer:
            raise EOFError(f"initialize was refused: {answer}")
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return seconds

    async def tools(self) -> tuple[int, float]:
        """How many tools it lists, and the seconds from the start until it did."""
        answer, seconds = await self.ask("tools/list", {})
        return len(answer.get("result", {}).get("tools", ())), seconds

    async def close(self) -> None:
        """End it: closed input, then by force, with what is left of its session."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")


@contextlib.asynccontextmanager
async def started(argv: Sequence[str]) -> AsyncGenerator[Dialogue, None]:
    """A dialogue that is closed in the end."""
    dialogue = await Dialogue.open(argv)
    try:
        yield dialogue
    finally:
        await dialogue.close()


def stdio_broker(field: Field, servers: dict[str, Any], state: Path | None = None) -> list[str]:
    """The command line of the broker on stdio."""
    return [*field.broker, "stdio", "--config", str(field.config(servers, state))]


async def first_answer(argv: Sequence[str]) -> float:
    """Seconds from exec to the answer to `initialize`."""
    async with started(argv) as dialogue:
        return await dialogue.initialize()


async def first_list(argv: Sequence[str], wanted: int) -> tuple[float, float, int]:
    """Seconds until the first list and until the first complete one, and how many tools were in the first."""
    async with started(argv) as dialogue:
        await dialogue.initialize()
        first, seconds = await dialogue.tools()
        count, complete = first, seconds
        while count < wanted and complete < ANSWER_TIMEOUT:
            await asyncio.sleep(0.05)
            count, complete = await dialogue.tools()
        return seconds, complete, first


async def start_tables(field: Field, rounds: int, step: Callable[[str], None]) -> list[Table]:
    """All about starts, less the cold ones with servers that take their time."""
    flag, state = field.fresh("flag") / "hang", field.fresh("seen")
    hung = {f"server{number}": stdio_server("--hang-if", flag) for number in range(SERVERS)}
    await first_list(stdio_broker(field, hung, state), SERVERS)
    await asyncio.sleep(0.5)
    flag.touch()

    def hanging() -> list[str]:
        return stdio_broker(field, hung, state)

    return [
        await start_table(field, hanging, rounds, step),
        await list_table(field, hanging, rounds, step),
        await help_table(field, rounds, step),
    ]


async def start_table(field: Field, hanging: Argv, rounds: int, step: Callable[[str], None]) -> Table:
    """From exec to the answer to `initialize`, on stdio."""
    table = Table(
        "From exec to the answer to `initialize`, on stdio",
        ("what", "median s", "fastest s", "slowest s"),
        "A legacy client. Servers that hang were seen before, and never answer again; one that was never seen is "
        "waited for, so the broker's answer contains its start. Interleaved.",
    )
    cases: dict[str, Argv] = {
        "the lean server itself": echo_argv,
        "`python -c 'import mcp'`, until it ends": lambda: [sys.executable, "-c", "import mcp"],
        f"broker, {NONE}": lambda: stdio_broker(field, {}),
        "broker, one healthy server that was never seen": lambda: stdio_broker(field, {"new": stdio_server()}),
        f"broker, {HUNG}": hanging,
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name, argv in cases.items():
            step(f"start {turn + 1}: {name}")
            seconds[name].append(await (lifetime(argv()) if "import" in name else first_answer(argv())))
    for name, values in seconds.items():
        table.add(name, *spread(values))
        table.keep({"case": name, "seconds": values})
    return table


async def list_table(field: Field, hanging: Argv, rounds: int, step: Callable[[str], None]) -> Table:
    """What servers that are not there cost the first list."""
    table = Table(
        LIST_TITLE,
        ("with", "median s", "fastest s", "slowest s"),
        "Lists of servers that were seen before wait for none of them. Interleaved.",
    )
    nine = {f"server{number}": stdio_server() for number in range(SERVERS - 1)}
    dead = {"command": sys.executable, "args": ["-c", "raise SystemExit(1)"]}
    cases: dict[str, tuple[Argv, int]] = {
        NONE: (lambda: stdio_broker(field, {}), 0),
        HUNG: (hanging, SERVERS),
        HEALTHY: (lambda: stdio_broker(field, nine), SERVERS - 1),
        DEAD: (lambda: stdio_broker(field, {**nine, "dead": dead}), SERVERS - 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(max(rounds, PAIRS)):
        for name, (argv, tools) in cases.items():
            step(f"first list {turn + 1}: {name}")
            seconds[name].append((await first_list(argv(), tools))[1])
    for name, values in seconds.items():
        table.add(name, *spread(values))
    table.keep(seconds)
    return table


async def help_table(field: Field, rounds: int, step: Callable[[str], None]) -> Table:
    """What the command line costs before it does anything."""
    table = Table(
        HELP_TITLE, ("what", "median s", "fastest s", "slowest s"), "Interleaved, and not on a terminal: no boxes."
    )
    cases = {BASE: [sys.executable, "-c", "import typer, rich"], HELP: [*field.broker, "--help"]}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(2 * rounds):
        for name, argv in cases.items():
            step(f"command {turn + 1}: {name}")
            seconds[name].append(await asyncio.to_thread(cpu_of, argv))
    for name, values in seconds.items():
        table.add(name, *spread(values))
    table.keep(seconds)
    return table


def spread(seconds: Sequence[float]) -> list[str]:
    """Three cells: median, fastest, slowest."""
    return [f"{value:.2f}" for value in (statistics.median(seconds), min(seconds), max(seconds))]


def cpu_of(argv: Sequence[str]) -> float:
    """Seconds of CPU that a program takes to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


async def lifetime(argv: Sequence[str]) -> float:
    """Seconds that a program runs."""
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*argv, env=environment())
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    return time.perf_counter() - begun


async def cold_list_table(field: Field, rounds: int, step: Callable[[str], None]) -> Table:
    """The first `tools/list` with ten stdio servers, against the ten started directly and at once."""
    table = Table(
        COLD_TITLE,
        ("servers", "started directly at once s", "broker, first list s", "complete list s", "tools in the first"),
        "Nothing was seen before. The servers use all cores. Ordinary ones are written with the SDK, as those that "
        "peers were measured with: each takes a second of CPU or two to start. Lean ones take a tenth of that, so that "
        "the start of the broker itself is seen.",
    )
    for kind, argv in {ORDINARY: [sys.executable, str(ROOT / SDK_SERVER)], LEAN: echo_argv()}.items():
        command, *arguments = argv
        server = {"command": command, "args": arguments, "env": {"PYTHONPATH": str(ROOT)}}
        servers = {f"server{number}": server for number in range(SERVERS)}
        direct: list[float] = []
        lists: list[tuple[float, float, int]] = []
        for turn in range(rounds if kind == ORDINARY else max(rounds, PAIRS)):
            step(f"cold start {turn + 1}: {SERVERS} {kind}, directly")
            found = await asyncio.gather(*(first_list(argv, 1) for _ in range(SERVERS)))
            direct.append(max(seconds for seconds, _, _ in found))
            step(f"cold start {turn + 1}: {SERVERS} {kind}, behind the broker")
            lists.append(await first_list(stdio_broker(field, servers), SERVERS))
        first, complete = (statistics.median(one[index] for one in lists) for index in (0, 1))
        tools = min(one[2] for one in lists)
        table.add(kind, f"{statistics.median(direct):.2f}", f"{first:.2f}", f"{complete:.2f}", f"{tools} of {SERVERS}")
        table.keep({"servers": kind, "direct": direct, "broker": lists})
    return table
