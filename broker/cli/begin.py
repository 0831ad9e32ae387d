"""What every command begins with: logs set up, the configuration found and read; and how it is run to its end."""

import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from broker import logs
from broker.app import run_async
from broker.cli.exits import BAD_INPUT, INTERRUPTED, Stop
from broker.cli.words import count, line
from broker.config import ConfigError, Loaded, Problem, load

if TYPE_CHECKING:
    from broker.cli.screen import Screen

log = logging.getLogger(__name__)

DEFAULT_FILE: Final = "servers.yaml"
VARIABLE: Final = "MCP_BROKER_CONFIG"


def begin(level: str) -> "Screen":
    """The screen of a command, with logs above its progress bars."""
    from broker.cli.screen import Screen
    from broker.cli.terminal import Terminal

    screen = Screen()
    _begin(level, Terminal(screen.err) if screen.err.is_terminal else None)
    return screen


def begin_to_serve(level: str, *, as_json: bool, worker: int = 0) -> None:
    """Logs of a broker that serves; `worker`: its number, where there are several. Colours are loaded where somebody
    looks: hosts wait for us to start.
    """
    handler = None
    if sys.stderr.isatty() and not as_json:
        from rich.console import Console

        from broker.cli.terminal import Terminal

        handler = Terminal(Console(stderr=True))
    _begin(level, handler, as_json=as_json, worker=worker)


def _begin(level: str, handler: logging.Handler | None, *, as_json: bool = False, worker: int = 0) -> None:
    """All is loaded by now: the garbage collector works from here on, and leaves alone what was there before."""
    gc.freeze()
    gc.enable()
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            # A character that the terminal does not know must not end the command.
            reconfigure(errors="backslashreplace")
    logs.configure(level, handler, as_json=as_json, worker=worker)
    logs.catch_strays()


def find_config(given: Path | None) -> Path:
    """The file to read: the one named, or the usual one.

    Raises: Stop, with what to do.
    """
    if given is not None:
        return given
    usual = Path(DEFAULT_FILE)
    if usual.exists():
        return usual
    if named := os.environ.get(VARIABLE):
        return Path(named)
    message = f"there is no configuration: no {DEFAULT_FILE} in this directory, and {VARIABLE} is not set"
    raise Stop(f"{message}. Name a file with --config FILE, or write {DEFAULT_FILE}.", BAD_INPUT)


def read_config(given: Path | None) -> Loaded:
    """The configuration. Raises: Stop, with every problem it has."""
    path = find_config(given)
    try:
        return load(path, os.environ)
    except ConfigError as error:
        raise Stop(listed(path, error.problems), BAD_INPUT) from None


def listed(path: Path, problems: Sequence[Problem]) -> str:
    """Every problem on a line of its own, and how many there are."""
    lines = [line(problem, 1000) for problem in problems]
    return "\n".join([*lines, f"{line(path)}: {count(len(problems), 'problem')}, nothing was started"])


def warn(loaded: Loaded) -> None:
    """Log what the configuration should not have, though it may."""
    for problem in loaded.warnings:
        log.warning("%s", problem)


def run_to_end(main: Callable[[], Awaitable[int]]) -> int:
    """The exit code of `main`. A signal cancels it, and its upstream processes are stopped before this returns."""
    code = INTERRUPTED

    async def interruptible() -> None:
        nonlocal code
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on_signal, tasks.cancel_scope)
            code = await main()
            tasks.cancel_scope.cancel()

    run_async(interruptible)
    return code


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    # Windows event loops cannot wait for signals: there Ctrl-C interrupts.
    with suppress(NotImplementedError), anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for _ in received:
            scope.cancel()
