"""The load: callers that ask again as soon as they have their answer, and check every answer.

`over_http` takes the compiled one where it can be had (native.py): the load shares its core with the upstream, and what
it takes of that core, nginx cannot show. The one in Python does the same, more slowly.
"""

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from bench import native
from bench.ask import FIRST_ID, HOLE, PATIENCE, Ask, Load, Sample, WrongAnswer, open_session
from bench.echo import MODERN
from bench.machine import environment, on_core


async def over_http(port: int, ask: Ask, era: str, callers: int, keys: Sequence[str] = ()) -> Load:
    """Each with a connection of its own, and one of `keys` in turn; in the legacy era, with the session of its key."""
    used = list(keys[:callers]) or [""]
    sessions = {key: open_session(port, key) if era != MODERN else None for key in used}
    turn = [used[number % len(used)] for number in range(callers)]
    requests = [ask.http(port, era, sessions[key], key) for key in turn]
    program = native.program()
    return await (native.connect(program, port, requests, ask.needle) if program else connect(port, requests, ask))


def name() -> str:
    """Which load asks over HTTP here."""
    return "compiled (bench/load.c)" if native.program() else "in Python: no C compiler, or not Linux"


async def connect(port: int, requests: Sequence[bytes], ask: Ask) -> "Callers":
    """A caller for each request."""
    run = Run(ask)
    lines: list[HttpLine] = []
    for request in requests:
        _, line = await asyncio.get_running_loop().create_connection(
            lambda request=request: HttpLine(run, request.split(HOLE)), "127.0.0.1", port
        )
        lines.append(line)
    return Callers(run, lines, len(lines))


async def over_pipe(argv: Sequence[str], core: int, ask: Ask, era: str, callers: int) -> "Callers":
    """All over the pipe of one server, which is started here."""
    run = Run(ask)
    with on_core(core):
        _, line = await asyncio.get_running_loop().subprocess_exec(
            lambda: PipeLine(run, ask.body(era).split(HOLE)), *argv, stderr=None, env=environment()
        )
    return Callers(run, [line], callers)


class Line(Protocol):
    """A connection, ready to be asked."""

    def ask(self) -> None:
        """Send the next request."""
        ...


@dataclass(slots=True)
class Run:
    """The state that the callers of one run share."""

    question: Ask
    ids: int = FIRST_ID
    deadline: float = 0.0
    asked: dict[int, float] = field(default_factory=dict[int, float])
    latencies: list[float] = field(default_factory=list[float])
    done: "asyncio.Future[None] | None" = None

    def next_id(self) -> int:
        """The id of a request that is sent now."""
        self.ids += 1
        self.asked[self.ids] = time.perf_counter()
        return self.ids

    def answered(self, body: bytes, line: Line) -> None:
        """An answer has come: check it, and ask again while there is time."""
        now = time.perf_counter()
        try:
            self.latencies.append(now - self.asked.pop(self.question.check(body)))
        except (WrongAnswer, LookupError) as error:
            self.fail(WrongAnswer(f"{error!r}: {body[:300]!r}"))
            return
        if now < self.deadline:
            line.ask()
        elif not self.asked and self.done is not None and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """The run is worth nothing."""
        if self.done is not None and not self.done.done():
            self.done.set_exception(error)

    async def measure(self, lines: Sequence[Line], seconds: float) -> Sample:
        """Let all lines ask for so long. Raises: WrongAnswer, TimeoutError."""
        self.latencies = []
        self.done = asyncio.get_running_loop().create_future()
        gc.collect()
        gc.disable()
        cpu, started = time.process_time(), time.perf_counter()
        self.deadline = started + seconds
        try:
            for line in lines:
                line.ask()
            async with asyncio.timeout(seconds + PATIENCE):
                await self.done
        finally:
            gc.enable()
        return Sample(time.perf_counter() - started, self.latencies, time.process_time() - cpu)


class HttpLine(asyncio.Protocol):
    """One keep-alive connection of a caller."""

    def __init__(self, run: Run, parts: list[bytes]) -> None:
        self._run = run
        self._parts = parts
        self._received = b""
        self._end = 0
        """Where the answer that is being received ends; 0 until its head is there."""
        self._body = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._run.fail(WrongAnswer(f"the connection was closed: {exc}"))

    def ask(self) -> None:
        """See `Line`."""
        digits = b"%d" % self._run.next_id()
        self._transport.write(digits.join(self._parts))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received = received = self._received + data if self._received else data
        if not self._end:
            self._body = received.find(b"\r\n\r\n") + 4
            if self._body < 4:
                return
            head = received[: self._body].lower()
            at = head.find(b"content-length:")
            if not head.startswith(b"http/1.1 200") or at < 0:
                self._run.fail(WrongAnswer(received[:500]))
                return
            self._end = self._body + int(head[at + 15 : head.index(b"\r", at)])
        if len(received) >= self._end:
            body = received[self._body : self._end]
            self._received, self._end = b"", 0
            self._run.answered(body, self)

    def close(self) -> None:
        """End it."""
        self._run.done = None
        self._transport.close()


class PipeLine(asyncio.SubprocessProtocol):
    """A server on stdio, which many callers ask at once."""

    def __init__(self, run: Run, parts: list[bytes]) -> None:
        self._run = run
        self._parts = parts
        self._chunks: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.SubprocessProtocol`."""
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """See `asyncio.SubprocessProtocol`."""
        if b"\n" not in data:
            self._chunks.append(data)
            return
        *lines, rest = (b"".join(self._chunks) + data).split(b"\n")
        self._chunks = [rest] if rest else []
        for line in lines:
            self._run.answered(line, self)

    def process_exited(self) -> None:
        """See `asyncio.SubprocessProtocol`."""
        self._run.fail(WrongAnswer("the server has ended"))

    def ask(self) -> None:
        """See `Line`."""
        digits = b"%d" % self._run.next_id()
        self._stdin.write(digits.join(self._parts) + b"\n")

    def close(self) -> None:
        """End it, with its process."""
        self._run.done = None
        self._stdin.close()
        self._transport.kill()
        self._transport.close()


class Callers:
    """So many callers of one server, connected."""

    def __init__(self, run: Run, open_lines: Sequence[HttpLine | PipeLine], callers: int) -> None:
        self._run = run
        self._open = open_lines
        self._lines: list[HttpLine | PipeLine] = list(open_lines) * (callers // len(open_lines))

    async def measure(self, seconds: float) -> Sample:
        """Ask for so long. Raises: WrongAnswer, TimeoutError."""
        return await self._run.measure(self._lines, seconds)

    async def close(self) -> None:
        """Close all connections."""
        for line in self._open:
            line.close()
        await asyncio.sleep(0)  # the loop does it
