"""The caller on the pipe of a command that it starts, as hosts do."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import IO, TypeVar

import anyio
import pytest

from broker.downstream.engine import Engine
from broker.downstream.stdio import StdioFront
from tests.callers.caller import Duplex
from tests.e2e.brokers import environment
from tests.patience import PATIENCE
from tests.peers import ROOT

LIMIT = 2**26
"""Bytes of one line."""
END_TIMEOUT: float = PATIENCE
"""Seconds that a command has to end by itself when its input has ended. How soon it does, tests of that say."""


class Pipe(Duplex):
    """Both eras, on one pipe."""

    process: asyncio.subprocess.Process
    patience: float = END_TIMEOUT
    had_to_be_killed = False

    async def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data + b"\n")
        await self.process.stdin.drain()

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.on_bytes(line)
        self.on_end()

    def hang_up(self) -> None:
        """Close the pipe's end, as a host does that goes."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def ended(self) -> None:
        """Hang up and wait; what does not end is killed."""
        self.hang_up()
        try:
            with anyio.fail_after(self.patience):
                await self.process.wait()
        except TimeoutError:
            self.had_to_be_killed = True
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


AnyPipe = TypeVar("AnyPipe", bound=Pipe)


@asynccontextmanager
async def piped(
    caller: AnyPipe, argv: Sequence[str], *, greets: bool = True, stderr: IO[bytes] | int = asyncio.subprocess.DEVNULL
) -> AsyncGenerator[AnyPipe, None]:
    """Start a command for a caller and say hello; at the end it gets EOF."""
    caller.process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env=environment(),
        cwd=ROOT,
        limit=LIMIT,
        start_new_session=True,
    )
    reading = asyncio.create_task(caller.read())
    try:
        yield await caller.greet() if greets else caller
    finally:
        with anyio.CancelScope(shield=True):
            await caller.ended()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


@asynccontextmanager
async def pipe(argv: Sequence[str], era: str, *, greets: bool = True) -> AsyncGenerator[Pipe, None]:
    """A caller on a command."""
    async with piped(Pipe(era), argv, greets=greets) as caller:
        yield caller


@asynccontextmanager
async def front_of(engine: Engine) -> AsyncGenerator[tuple[IO[bytes], IO[bytes]], None]:
    """The host's ends of the pipes of a stdio front in this process: what it writes, and what it reads."""
    ours, theirs = os.pipe()
    answers, out = os.pipe()
    with (
        pytest.MonkeyPatch.context() as patch,
        os.fdopen(answers, "rb") as told,
        os.fdopen(ours, "rb") as stdin,
        os.fdopen(out, "wb") as stdout,
    ):
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", stdout)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(StdioFront(engine, lambda _: None).serve)
            with os.fdopen(theirs, "wb", buffering=0) as pipe:
                yield pipe, told
