"""One child process: its pipes, and the news of its end. What differs by system and event loop is here.

On POSIX the pipes are our own, so that each end has one holder: uvloop's own children hold second copies of theirs, and
one that closes its stdout alone, or its stdin, would be noticed at the next time-out only (F-09, F-16). Its end is told
by a pidfd where there is one (Linux), else by a thread that waits. On Windows, whose event loop takes no pipes of ours,
asyncio starts it.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any, ClassVar, Final, Protocol, cast

from broker.threads import begin
from broker.upstream.source import Source

if sys.platform == "linux":
    from fcntl import F_SETPIPE_SZ, fcntl

ROOM: Final = 1024 * 1024
"""Bytes that a pipe of a child holds, where the system lets us say so: a message of 100 kB is then written at once, and
read at once, where one of 64 KiB has both sides wait for each other."""
MAX_ROOMY: Final = 8
"""Children at a time with such pipes. Linux counts what all pipes of one user may hold (64 MiB, unless told otherwise)
and gives whoever is beyond that pipes of 8 KiB, other programs of the same user too."""


class Child(Protocol):
    """A child that runs, or has run."""

    stdin: asyncio.StreamWriter
    stdout: Source
    stderr: Source
    exited: asyncio.Event
    """Set at its end, whoever holds its pipes open."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit code, once it has ended; negative is a signal."""
        ...

    def close(self) -> None:
        """Give pipes and watchers back."""
        ...


async def start_child(argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> Child:
    """Start a program in a session of its own. Must not be cancelled half-way. Raises: OSError, ValueError."""
    if sys.platform.startswith("win"):  # pragma: no cover - not where the tests run
        return await LoopChild.start(argv, env, cwd)
    return await PipeChild.start(argv, env, cwd)


class PipeChild:
    """See the module."""

    roomy: ClassVar[set["PipeChild"]] = set()
    """Those that have large pipes."""

    stdin: asyncio.StreamWriter
    stdout: Source
    stderr: Source

    def __init__(self, process: "subprocess.Popen[bytes]", loop: asyncio.AbstractEventLoop) -> None:
        self._process = process
        self._loop = loop
        self._readers: list[asyncio.BaseTransport] = []
        self._feeder: _Feeder | None = None
        self._descriptor: int | None = None
        self.exited = asyncio.Event()

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> "PipeChild":
        """See `start_child`."""
        process = subprocess.Popen(  # noqa: ASYNC220 - asyncio itself starts children in its thread
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
            bufsize=0,
        )
        child = cls(process, asyncio.get_running_loop())
        try:
            child._make_room()
            child.stdin = await child._writer(process.stdin)
            child.stdout = await child._source(process.stdout)
            child.stderr = await child._source(process.stderr)
            child._watch()
        except BaseException:
            process.kill()
            process.wait()
            child.close()
            raise
        return child

    @property
    def pid(self) -> int:
        """See `Child`."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """See `Child`."""
        return self._process.returncode

    def close(self) -> None:
        """See `Child`."""
        self.roomy.discard(self)
        self._forget_descriptor()
        for transport in self._readers:
            transport.close()
        if self._feeder is not None and not self._feeder.is_lost:
            self.stdin.transport.abort()  # what a child has not read by now, nobody will

    def _make_room(self) -> None:
        if sys.platform == "linux" and len(self.roomy) < MAX_ROOMY:
            self.roomy.add(self)
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # the system lets no pipe hold so much, or this user's hold no more
                    fcntl(pipe, F_SETPIPE_SZ, ROOM)

    async def _writer(self, pipe: IO[bytes] | None) -> asyncio.StreamWriter:
        end = Pipe(pipe, self._loop)
        transport, self._feeder = await self._loop.connect_write_pipe(lambda: _Feeder(self._loop), cast(Any, end))
        return asyncio.StreamWriter(transport, self._feeder, None, self._loop)

    async def _source(self, pipe: IO[bytes] | None) -> Source:
        transport, source = await self._loop.connect_read_pipe(Source, cast(Any, Pipe(pipe, self._loop)))
        self._readers.append(transport)
        return source

    def _watch(self) -> None:
        opener = getattr(os, "pidfd_open", None)
        if opener is not None:
            with contextlib.suppress(OSError):  # an old kernel, or no descriptor left
                descriptor: int = opener(self.pid)
                self._loop.add_reader(descriptor, self._on_exit)
                self._descriptor = descriptor
                return
        begin(threading.Thread(target=self._wait, name=f"child {self.pid}", daemon=True))

    def _on_exit(self) -> None:
        if self._process.poll() is not None:
            self._forget_descriptor()
            self.exited.set()

    def _wait(self) -> None:
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.exited.set)

    def _forget_descriptor(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)


class Pipe:
    """An end of a pipe for an event loop, which has it alone from then on, and closes its descriptor once.

    uvloop closes the descriptor itself, and calls `close` of what it was given after that. A file would close it again:
    by then a thread may have been given the same number, for a file of its own, or the database's.
    """

    def __init__(self, pipe: IO[bytes] | None, loop: asyncio.AbstractEventLoop) -> None:
        assert pipe is not None
        self._descriptor = os.dup(pipe.fileno())  # not inherited by children
        self._is_ours_to_close = not type(loop).__module__.startswith("uvloop")
        pipe.close()

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def close(self) -> None:
        """Called by the loop. The second time does nothing."""
        if self._is_ours_to_close:
            self._is_ours_to_close = False
            os.close(self._descriptor)


class _Feeder(asyncio.StreamReaderProtocol):
    """Of a pipe that is written to: it knows when to wait, and reads nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(asyncio.StreamReader(loop=loop), loop=loop)
        self.is_lost = False
        """Whether the pipe is closed; then there is nothing to abort."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.is_lost = True
        super().connection_lost(exc)


class _Protocol(asyncio.subprocess.SubprocessStreamProtocol):
    """Tells of the child's end when it comes. asyncio's `Process.wait` may also wait for the pipes (Python 3.11), which
    a descendant can hold open. What the pipes bring goes to a source for each."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=1, loop=loop)  # its own readers get nothing
        self.exited = asyncio.Event()
        self.sources = {1: Source(), 2: Source()}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        for number, source in self.sources.items():
            pipe = cast(asyncio.SubprocessTransport, transport).get_pipe_transport(number)
            assert pipe is not None
            source.connection_made(pipe)

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        self.sources[fd].data_received(cast(bytes, data))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        super().pipe_connection_lost(fd, exc)
        if fd in self.sources:
            self.sources[fd].connection_lost(exc)

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


class LoopChild:
    """See the module: asyncio's own way."""

    def __init__(
        self, transport: asyncio.SubprocessTransport, protocol: _Protocol, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport = transport
        self._process = asyncio.subprocess.Process(transport, protocol, loop)
        assert self._process.stdin is not None
        self.stdin = self._process.stdin
        self.stdout, self.stderr = protocol.sources[1], protocol.sources[2]
        self.exited = protocol.exited

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> "LoopChild":
        """See `start_child`."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: _Protocol(loop),
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=not sys.platform.startswith("win"),
        )
        return cls(transport, protocol, loop)

    @property
    def pid(self) -> int:
        """See `Child`."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """See `Child`."""
        return self._process.returncode

    def close(self) -> None:
        """See `Child`."""
        self._transport.close()
