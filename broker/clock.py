"""The only caller of time and of random: everything else is given the values.

`FakeClock` stands beside the real one, so that tests of back-off, limits and expiry never sleep.
"""

import hashlib
import random
import secrets
import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """Time in seconds, chance in [0, 1), and waiting."""

    def now(self) -> float:
        """Seconds on a clock that never steps back; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, which may step: for what another process, or a later start, must understand."""
        ...

    def chance(self) -> float:
        """A number in [0, 1), for jitter."""
        ...

    def token(self) -> str:
        """128 unguessable bits, in URL-safe text: session ids, error ids."""
        ...

    def random_bytes(self, size: int) -> bytes:
        """`size` unguessable bytes, to make keys of."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The real one. Every call asks for the time several times: there is nothing between them and the system."""

    now = staticmethod(time.monotonic)
    """See `Clock`."""
    wall = staticmethod(time.time)
    """See `Clock`."""

    def chance(self) -> float:
        """See `Clock`."""
        return random.random()

    def token(self) -> str:
        """See `Clock`."""
        return secrets.token_urlsafe(24)

    def random_bytes(self, size: int) -> bytes:
        """See `Clock`."""
        return secrets.token_bytes(size)

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await anyio.sleep(seconds)


class FakeClock:
    """A clock that moves when told to. `sleep` returns once `advance` has passed its end."""

    def __init__(self, now: float = 0.0, chance: float = 0.5) -> None:
        self._now = now
        self._chance = chance
        self._tokens = 0
        self._sleepers: list[tuple[float, anyio.Event]] = []

    def now(self) -> float:
        """See `Clock`."""
        return self._now

    def wall(self) -> float:
        """See `Clock`; the same time here."""
        return self._now

    def chance(self) -> float:
        """See `Clock`."""
        return self._chance

    def token(self) -> str:
        """See `Clock`; predictable here."""
        self._tokens += 1
        return f"token-{self._tokens}"

    def random_bytes(self, size: int) -> bytes:
        """See `Clock`; predictable here, and never the same twice."""
        self._tokens += 1
        return hashlib.shake_128(str(self._tokens).encode()).digest(size)

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        woken = anyio.Event()
        self._sleepers.append((self._now + seconds, woken))
        await woken.wait()

    def advance(self, seconds: float) -> None:
        """Move time on and wake whoever has slept enough."""
        self._now += seconds
        due = [item for item in self._sleepers if item[0] <= self._now]
        self._sleepers = [item for item in self._sleepers if item[0] > self._now]
        for _, woken in due:
            woken.set()
