"""Whether the event loop turns: a thread of its own watches it, and says where it hangs if it does (F-99).

Everything here is served by one loop. A callback that does not return is an outage that looks like a slow network from
outside; from inside, only another thread can see it.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from broker.clock import Clock
from broker.logs import way

log = logging.getLogger(__name__)

BEAT: Final = 0.25
"""Seconds between two signs of life of the loop, and between two looks at them."""
STUCK: Final = 1.0
"""Seconds without one after which the log says where the loop is."""
SICK: Final = 5.0
"""Seconds without one that make the broker not ready: let others be asked."""
WELL_AGAIN: Final = 10.0
"""Seconds for which it stays so after the loop went on."""


class Pulse:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beat = clock.now()
        self._sick_until = float("-inf")
        self._loop_thread = 0
        self._end = threading.Event()
        self._was_said = False
        self.worst = 0.0
        """Seconds of the longest silence since the start."""
        self.hangs = 0
        """Silences of more than `STUCK` since the start."""

    @property
    def is_well(self) -> bool:
        """Whether the loop turns, and has not hung just now."""
        return self._clock.now() >= self._sick_until

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Watch the loop that enters this."""
        self._loop_thread = threading.get_ident()
        self._beat = self._clock.now()
        loop = asyncio.get_running_loop()
        beating = [loop.call_later(BEAT, lambda: None)]

        def beat() -> None:
            self.beat()
            beating[0] = loop.call_later(BEAT, beat)

        beat()
        watcher = threading.Thread(target=self._watch, name="pulse", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            beating[0].cancel()
            self._end.set()

    def beat(self) -> None:
        """The loop has come round."""
        now = self._clock.now()
        silence = now - self._beat
        self.worst = max(self.worst, silence)
        if silence > SICK:
            self._sick_until = now + WELL_AGAIN
        if self._was_said:
            log.warning("the event loop goes on, after %.1f s", silence)
        self._beat, self._was_said = now, False

    def look(self) -> None:
        """What the thread does again and again."""
        silence = self._clock.now() - self._beat
        if silence > STUCK and not self._was_said:
            self._was_said = True
            self.hangs += 1
            log.error("the event loop hangs since %.1f s, in %s", silence, self._place())

    def _watch(self) -> None:
        while not self._end.wait(BEAT):
            self.look()

    def _place(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage]  # its only name
        frames = [(one.f_code.co_filename, line) for one, line in traceback.walk_stack(frame)] if frame else []
        return way(frames[::-1]) or "a place that cannot be seen"
