"""SIGHUP: the file is read again, and what it says of organizations, teams and keys is in force at once.

Connections to servers are not touched. All of it or nothing: a file with a mistake in it changes nothing, and that is
said. What else has changed in the file waits for a restart, and that is said too.
"""

import logging
import os
import signal
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from broker.cli.screen import line
from broker.config import Config, ConfigError, directory_of, load
from broker.generation import Generation

log = logging.getLogger(__name__)

RELOADED: Final = "organizations"


async def serve_reloads(generation: Generation, path: Path) -> None:
    """Until cancelled. Where there is no such signal (Windows), nothing is read again."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None:
        return
    with anyio.open_signal_receiver(hangup) as received:
        async for _ in received:
            await reload(generation, path)


async def reload(generation: Generation, path: Path) -> bool:
    """Read the file and put it in force; whether that was done. Everything is said in the log."""
    try:
        loaded = await anyio.to_thread.run_sync(load, path, os.environ)
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s", line(problem, 1000))
        log.error("%s has mistakes: what was in force before stays in force", line(path))
        return False
    if generation.file.organizations and not loaded.config.organizations:
        # On loopback everybody would be the local user from now on: nobody means that by an edit.
        log.error("%s has no organizations any more: that needs a restart, what was in force stays", line(path))
        return False
    now = generation.config
    # The scopes of tokens are part of `identity`, which waits for a restart.
    generation.adopt_file(directory_of(loaded.config.organizations, now.identity.jwt))
    log.info("%s was read again: its organizations are in force", line(path))
    waiting = [name for name in Config.model_fields if getattr(loaded.config, name) != getattr(now, name)]
    if waiting := [name for name in waiting if name != RELOADED]:
        log.warning("changes of %s wait for a restart", ", ".join(waiting))
    return True
