"""The file, read again while the broker runs: what it says is put in force whole, or not at all.

    read it, with all that it names ─► build a generation ─► swap
            └─ a mistake ─► said, with file and line; what was in force stays, until the file is mended

Reloads come one after the other. Whoever asks for one while another is under way gets one more afterwards, so that what
is in force at the end is what the file said last.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from broker.app import Broker, nothing
from broker.config import Changes, ConfigError, Loaded, load
from broker.errors import printable
from broker.threads import NoThreads, at_any_rate, in_thread
from broker.usage.gauges import Gauge
from broker.usage.trouble import Trouble

log = logging.getLogger(__name__)

LOOK: Final = 1.0
"""Seconds between two looks at the files: a change is seen in the second look after it."""
FIXED: Final = (
    "store",
    "audit",
    "metrics",
    "usage",
    "traces",
    "broker.state_dir",
    "server.memory_max",
    "server.workers",
)
"""Sections, and settings of others, that a broker is assembled by: what else they say waits for a restart."""

Prepare = Callable[[Loaded], Callable[[], None]]
"""Makes ready what a front has of a configuration; what it returns puts that in force, and must not fail.

Raises: NotReloadable.
"""


class NotReloadable(Exception):
    """A sound configuration that cannot take the place of the one in force. The text says why, and what to do."""


def prepare_nothing(loaded: Loaded) -> Callable[[], None]:
    """For fronts that have nothing of it."""
    return nothing


class Reloads:
    """See the module. `environ`: where `${env:X}` looks."""

    def __init__(self, broker: Broker, environ: Mapping[str, str], prepare: Prepare = prepare_nothing) -> None:
        self._broker = broker
        self._environ = environ
        self._prepare = prepare
        self._path: Path = broker.loaded.path
        self._wanted = anyio.Event()
        self._changes = Changes(broker.loaded.files)
        self._looking = anyio.Lock()
        self.trouble = ""
        """Why the file is not in force, in a sentence; "" while it is."""
        self.done = 0
        self.failed = 0
        """How many reloads there were since the start."""
        self._is_put_off = False
        """Whether the file could not be read for a reason that is none of its own: it is tried again."""
        self._blindness = Trouble(
            log, "whether the file has changed is not known: %s", "the file is looked at again for changes"
        )

    def want(self) -> None:
        """Read the file again, soon."""
        self._wanted.set()

    def gauges(self) -> list[Gauge]:
        """How it is doing."""
        return [
            Gauge("reload_failed", "1: the file has mistakes, and is not in force.", int(bool(self.trouble))),
            Gauge("reloads", "Reloads.", self.done, {"outcome": "done"}, is_counter=True),
            Gauge("reloads", "Reloads.", self.failed, {"outcome": "failed"}, is_counter=True),
        ]

    async def serve(self) -> None:
        """Do what is wanted, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            await self.reload()

    async def watch(self) -> None:
        """Want a reload whenever the files have changed, until cancelled. `broker.watch: false` stops the looking."""
        while True:
            await self._broker.clock.sleep(LOOK)
            if not self._broker.loaded.config.broker.watch:
                continue
            if await self._has_changed():
                log.info("%s, or a file that it names, has changed", printable(str(self._path)))
                self.want()
            elif self._is_put_off and not self._blindness.why:
                self.want()

    async def _has_changed(self) -> bool:
        try:
            async with self._looking:
                found = await in_thread(self._changes.look)
        except NoThreads as error:
            self._blindness.begin(str(error))
            return False
        self._blindness.end()
        return found

    async def reload(self) -> bool:
        """Read the file and put it in force; whether that was done. Everything is said in the log."""
        files = self._broker.loaded.files
        self._is_put_off = False
        try:
            async with self._looking:
                await in_thread(self._changes.note)
            loaded = await in_thread(load, self._path, self._environ)
            files = loaded.files
            await self._put_in_force(loaded)
        except ConfigError as error:
            # What mends it may be a file that was named before, or one that is named now.
            files |= error.files
            return self._refused([str(problem) for problem in error.problems])
        except NotReloadable as error:
            return self._refused([f"{self._path}: {error}"])
        except NoThreads as error:
            self._is_put_off = True
            return self._refused([f"{self._path} cannot be read now: {error}"])
        except Exception as fault:
            log.error("internal error", exc_info=fault)
            return self._refused([f"{self._path}: an internal error of the broker; its log has the cause"])
        finally:
            async with self._looking:
                await at_any_rate(partial(self._changes.follow, files))
        return True

    async def _put_in_force(self, loaded: Loaded) -> None:
        """Raises: ConfigError, NotReloadable."""
        loaded, waiting = fixed(loaded, self._broker.loaded)
        _refuse_opening(loaded, self._broker.loaded)
        commit = self._prepare(loaded)
        await self._broker.reload(loaded, commit)
        if self.trouble:
            log.info("%s has no mistakes any more", printable(str(self._path)))
        self.trouble = ""
        self.done += 1
        log.info("%s was read again, and is in force", printable(str(self._path)))
        for problem in loaded.warnings:
            log.warning("%s", printable(str(problem), 1000))
        if waiting:
            log.warning("what has changed in %s needs a restart", ", ".join(waiting))

    def _refused(self, problems: list[str]) -> bool:
        for problem in problems:
            log.error("%s", printable(problem, 1000))
        log.error("%s is not in force: what was in force before stays", printable(str(self._path)))
        self.trouble = printable(problems[0], 1000) + (f" (and {len(problems) - 1} more)" if problems[1:] else "")
        self.failed += 1
        return False


def fixed(loaded: Loaded, now: Loaded) -> tuple[Loaded, list[str]]:
    """What of a file can be put in force, with the rest as it is; and the names of what has changed in the rest."""
    config, waiting = loaded.config, list[str]()
    for name in FIXED:
        section, _, setting = name.partition(".")
        wanted, running = getattr(config, section), getattr(now.config, section)
        if setting and getattr(wanted, setting) != getattr(running, setting):
            config = config.model_copy(update={section: wanted.model_copy(update={setting: getattr(running, setting)})})
            waiting.append(name)
        elif not setting and wanted != running:
            config = config.model_copy(update={section: running})
            waiting.append(name)
    return replace(loaded, config=config), waiting


def _refuse_opening(loaded: Loaded, now: Loaded) -> None:
    """Whoever takes the last credential source out of a file by an edit does not mean that everybody may come in.

    Raises: NotReloadable.
    """
    if _has_source(now) and not _has_source(loaded):
        raise NotReloadable("it has no organizations and no issuers any more: that needs a restart")


def _has_source(loaded: Loaded) -> bool:
    return bool(loaded.config.organizations or loaded.config.identity.jwt)
