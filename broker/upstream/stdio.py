"""Messages over the standard streams of a child process.

Spec: 2026-07-28 basic/transports/stdio. Framing is bounded: a line that never ends costs its upstream the
connection, not the broker its memory (F-13); a child that does not read is given up after `WRITE_TIMEOUT` (F-14).
"""

import collections
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import anyio

from broker.core import wire
from broker.secrecy import MAX_QUOTED, REACH, foreign
from broker.upstream.pipe import Gone
from broker.upstream.process import Process
from broker.upstream.source import Lines, Take

log = logging.getLogger(__name__)

WRITE_TIMEOUT: Final = 5.0
"""Seconds a full pipe may stay full; then the child counts as dead."""
MAX_UNSENT: Final = 1024 * 1024
"""Bytes that may wait for a child to read before `post` drops and `send` waits."""
STDERR_KEPT: Final = 64 * 1024
"""Bytes of stderr kept for whoever asks why (F-08)."""
MAX_WORDS: Final = 10
"""Lines of it that are shown."""

LAST_WORDS: Final = 1.0
"""Seconds after a child's end in which its last messages are still read, if its stdout stays open."""


class StdioDuplex:
    """See the module; implements `Duplex`."""

    def __init__(self, upstream: str, process: Process) -> None:
        self._upstream = upstream
        self._process = process
        self._stderr: collections.deque[bytes] = collections.deque()
        self._stderr_size = 0
        self._is_stderr_cut = False
        """Whether something was logged before what is kept of it."""
        self._begun = b""
        """The line of it that has not ended yet, while lines are shown."""

    @classmethod
    async def open(cls, upstream: str, argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> "StdioDuplex":
        """Start the command. Raises: CannotStart."""
        return cls(upstream, await Process.start(argv, env, cwd))

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def send(self, message: bytes) -> None:
        """See `Duplex`. One write is one frame: frames of parallel calls never mix."""
        pipe = self._process.pipe
        if pipe.is_closing():
            raise Gone(await self._why_ended("it closed its input"))
        pipe.write(message + b"\n")
        if pipe.get_write_buffer_size() <= MAX_UNSENT:
            return
        try:
            with anyio.fail_after(WRITE_TIMEOUT):
                await self._process.stdin.drain()
        except TimeoutError:
            raise Gone(f"it has not read its input for {WRITE_TIMEOUT:g} s") from None
        except (ConnectionError, RuntimeError):
            raise Gone(await self._why_ended("it closed its input")) from None

    def post(self, message: bytes) -> None:
        """See `Duplex`."""
        pipe = self._process.pipe
        if not pipe.is_closing() and pipe.get_write_buffer_size() <= MAX_UNSENT:
            pipe.write(message + b"\n")

    async def serve(self, take: Take) -> None:
        """See `Duplex`. The end of stdout is the end of the child, even if it lives on (F-09); so is its own end, even
        if one of its own children holds its stdout open.
        """
        self._process.stderr.read(self._on_log)
        lines = Lines(self._process.stdout, take, wire.FROM_UPSTREAM.size)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._outlive, tasks.cancel_scope)
                lines.begin()
                await lines.ended.wait()
                tasks.cancel_scope.cancel()
        finally:
            lines.stop()
        raise Gone(lines.fault or await self._why_ended("it closed its output"))

    async def _outlive(self, reading: anyio.CancelScope) -> None:
        await self._process.wait()
        await anyio.sleep(LAST_WORDS)
        reading.cancel()

    async def aclose(self) -> None:
        """See `Duplex`: stops the process and its descendants."""
        await self._process.stop()

    def stderr_tail(self) -> str:
        """The last line that the child logged, escaped and cut."""
        return next(iter(self._logged(1)), "")

    def last_words(self) -> tuple[str, ...]:
        """The last lines that the child logged, each escaped and cut."""
        return self._logged(MAX_WORDS)

    def _logged(self, count: int) -> tuple[str, ...]:
        kept = b"".join(self._stderr)
        if self._is_stderr_cut:  # what it begins with may be the end of a secret
            kept = kept.partition(b"\n")[2].strip() or kept[4 * REACH :]
        lines = [line for line in kept.splitlines() if line.strip()]
        return tuple(foreign(line.decode("utf-8", "replace").strip()) for line in lines[-count:])

    async def _why_ended(self, seen: str) -> str:
        code: int | None = None
        with anyio.move_on_after(LAST_WORDS / 2):
            code = await self._process.wait()
            await self._process.stderr.ended.wait()  # what it said last may still be in the pipe
        return self._with_tail(seen if code is None else _ended(code))

    def _with_tail(self, why: str) -> str:
        tail = self.stderr_tail()
        return f"{why}: {tail}" if tail else why

    def _on_log(self, chunk: bytes) -> None:
        """Always read, so that a child never blocks on its log. It is kept in a ring, and shown at debug level only."""
        self._stderr.append(chunk[-STDERR_KEPT:])
        self._stderr_size += len(self._stderr[-1])
        self._is_stderr_cut = self._is_stderr_cut or self._stderr_size > STDERR_KEPT or len(chunk) > STDERR_KEPT
        while self._stderr_size - len(self._stderr[0]) >= STDERR_KEPT:
            self._stderr_size -= len(self._stderr.popleft())
        if log.isEnabledFor(logging.DEBUG):
            self._begun = self._quote(self._begun + chunk)

    def _quote(self, said: bytes) -> bytes:
        """Log the start of what was said, whole lines only: a line may arrive in parts. Returns the start of the rest,
        as long as nobody knows what follows it."""
        lines, _, begun = said.rpartition(b"\n")
        if lines:
            log.debug("%s: stderr: %s", self._upstream, foreign(lines[:MAX_QUOTED].decode("utf-8", "replace")))
        return begun[:MAX_QUOTED]


def _ended(code: int) -> str:
    return f"it was ended by signal {-code}" if code < 0 else f"it exited with code {code}"
