"""What goes wrong around the broker, at random: servers and workers die or stand still, files change or break."""

import asyncio
import copy
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.peers import kill_group
from tests.soak.town import GUARD, ISOLATED, WEBS, Json, Town

CALM = (0.1, 1.0)
"""Seconds between two faults, at least and at most."""


class Weather:
    """`faults` counts what has happened."""

    def __init__(self, town: Town, dice: random.Random) -> None:
        self.town, self.dice = town, dice
        self.faults: Counter[str] = Counter()
        self._number = 0
        self._kinds: dict[Callable[[], Awaitable[None]], int] = {
            self.server_killed: 4,
            self.server_frozen: 2,
            self.web_killed: 1,
            self.guardrail_killed: 2,
            self.reloaded: 3,
            self.file_broken: 1,
        }

    async def blow(self, until: float) -> None:
        """Until then; in the end everything is whole again."""
        kinds, weights = list(self._kinds), list(self._kinds.values())
        try:
            while time.monotonic() < until:
                await asyncio.sleep(self.dice.uniform(*CALM))
                [kind] = self.dice.choices(kinds, weights)
                self.faults[kind.__name__.replace("_", " ")] += 1
                await kind()
        finally:
            self.town.guard(GUARD)
            self.town.write(self.town.document)
            self.town.hang_up()

    async def server_killed(self) -> None:
        for pid in self._some("tests.soak.upstream"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def server_frozen(self) -> None:
        """For a moment, or for longer than a call may take."""
        for pid in self._some("tests.soak.upstream"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                try:
                    await asyncio.sleep(self.dice.choice((0.1, 0.5, 4.0)))
                finally:
                    os.kill(pid, signal.SIGCONT)

    async def web_killed(self) -> None:
        key = self.dice.choice(tuple(WEBS))
        await asyncio.to_thread(kill_group, self.town.webs[key])
        await asyncio.sleep(self.dice.uniform(0, 1))
        await asyncio.to_thread(self.town.start_web, key)

    async def guardrail_killed(self) -> None:
        for pid in self._some("worker.main"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def reloaded(self) -> None:
        """With one server less, another one in its place, other limits, or nothing new at all."""
        self._number += 1
        changed: Json = copy.deepcopy(self.town.document)
        match self.dice.randrange(5):
            case 0:
                del changed["servers"]["turned"]
            case 1:
                changed["servers"]["turned"] |= self.town.command("turned", self._number)
            case 2:
                changed["servers"]["old-pipe"]["limits"]["concurrency"] = self.dice.randrange(1, 6)
            case 3:
                key = self.dice.choice(ISOLATED)
                changed["servers"][key] |= self.town.command(key, self._number)
            case _:
                self.town.guard(f"{GUARD}\n# {self._number}\n")
        self.town.write(changed)
        self.town.hang_up()

    async def file_broken(self) -> None:
        """What is in force stays."""
        broken = copy.deepcopy(self.town.document)
        match self.dice.randrange(3):
            case 0:
                self.town.write("servers: [")
            case 1:
                broken["servers"]["old-pipe"]["transprot"] = "http"
                self.town.write(broken)
            case _:
                self.town.guard("import os\n")
                self.town.write(json.dumps(broken))
        self.town.hang_up()
        await asyncio.sleep(0.5)
        self.town.guard(GUARD)
        self.town.write(self.town.document)

    def _some(self, word: str) -> list[int]:
        found = self.town.offspring(word)
        return self.dice.sample(found, min(len(found), 1))
