"""One thread that writes what the event loop hands it: the loop never waits for a disk.

The lines of calls are made on the loop, each when its answer has gone out and the caller has not asked again: the
thread would keep the interpreter for a batch of them, twenty times a second, and who called in that moment would wait.

What cannot be written stays in a bounded queue, is tried again every second, and what does not fit is counted. It is
said once that the audit fails, and once that it is well again (F-92).
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from broker.clock import Clock
from broker.core import wire
from broker.errors import MAX_FOREIGN_TEXT, printable
from broker.usage.files import Files
from broker.usage.records import DiscoveryRecord, Record, gap_line, view_line

log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Records that wait for the disk; past that they are dropped. Without it a full disk would fill the memory."""
BATCH: Final = 500
"""Records of one write."""
GATHER: Final = 0.05
"""Seconds that records are gathered where nobody waits for them: a write for each would cost the loop its turn. It is
what a broker that is killed loses, at most."""
AT_ONCE: Final = 50
"""Records that are made into lines in one go, which takes a quarter of a millisecond. Meanwhile the loop cannot go on,
and whoever calls in that moment waits as long."""
REST: Final = 0.001
"""Seconds between two such goes, in which the loop has the interpreter for itself."""
RETRY: Final = 1.0
"""Seconds between attempts while the disk refuses."""
CLOSES_WITHIN: Final = 2.0
"""Seconds that the end of the broker waits for the disk."""
MAX_SHOWN: Final = 10_000
"""Hashes of views that are remembered as explained in the current file; then each is explained again."""


class Writer:
    """See the module. `put` and `written` are called on the loop, everything else happens in the thread."""

    is_on: bool = True

    def __init__(self, files: Files, clock: Clock, *, gather: float = GATHER, retry: float = RETRY) -> None:
        self._files = files
        self._clock = clock
        self._gather = gather
        self._retry = retry
        self._waiting: deque[Record] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        """That makes lines; without one, the thread makes all."""
        self._fresh: list[Record] = []
        self._signals: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = {}
        self._wake = threading.Event()
        self._is_awake = False
        """Whether `_wake` need not be set: whoever puts a record does not ask it each time."""
        self._pause = threading.Event()
        self._is_over = False
        self._shown: set[str] = set()
        self._seq = 0
        self._said = 0
        self.lost = 0
        """Records that were dropped since the start; `_said` of them stand in the files as gaps."""
        self.is_failing = False
        """Whether the last attempt to write failed."""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        with suppress(RuntimeError):  # nobody's loop
            self._loop = asyncio.get_running_loop()
        self._thread.start()

    def put(self, record: Record) -> bool:
        """Hand a record over; whether there was room. Never blocks."""
        self._seq += 1
        record.seq, record.time = self._seq, self._clock.wall()
        if len(self._waiting) >= MAX_WAITING:
            self.lost += 1
            return False
        self._waiting.append(record)
        if self._loop is not None:
            if not self._fresh:
                self._loop.call_soon(self._prepare)
            self._fresh.append(record)
        if not self._is_awake:
            self._is_awake = True
            self._wake.set()
        return True

    def _prepare(self) -> None:
        fresh, self._fresh = self._fresh, []
        for record in fresh:
            try:
                record.made = record.line(in_haste=True)
            except wire.Malformed:
                continue  # the thread says so

    async def written(self, record: Record, seconds: float) -> bool:
        """Hand a record over, and wait until it is written; whether it was, within `seconds`."""
        if self.is_failing or not self._thread.is_alive():
            self.put(record)
            return False
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._signals[id(record)] = loop, done
        try:
            if not self.put(record):
                return False
            self._pause.set()
            async with asyncio.timeout(seconds):
                await done
        except TimeoutError:
            return False
        finally:
            self._signals.pop(id(record), None)
        return True

    @property
    def lag(self) -> int:
        """Records that are not written yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Write what waits, and end. Blocks, for `CLOSES_WITHIN` at most."""
        self._is_over = True
        self._wake.set()
        self._pause.set()
        self._thread.join(CLOSES_WITHIN)
        if self._waiting:
            log.error("%d audit records could not be written before the end", len(self._waiting))

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if not self._is_over and not self._signals:
                self._pause.wait(self._gather)
            self._pause.clear()
            if not self._waiting:
                # Awake as long as records come: to be woken for each batch would cost the loop more than to put one.
                # In this order: what is put from here on either wakes it again, or is seen below.
                self._wake.clear()
                self._is_awake = False
            while self._waiting:
                batch = [self._waiting[index] for index in range(min(BATCH, len(self._waiting)))]
                if not self._wrote(batch):
                    if self._is_over:
                        break
                    self._pause.wait(self._retry)
                    self._pause.clear()
                    continue
                for record in batch:
                    self._waiting.popleft()
                    if self._signals:
                        self._tell(record)
            if self._is_over:
                self._files.close()
                return

    def _wrote(self, batch: Sequence[Record]) -> bool:
        unsaid = self.lost - self._said
        try:
            lines, shown = self._lines(batch, unsaid)
            if self._files.turn(len(lines)):
                self._shown.clear()
                lines, shown = self._lines(batch, unsaid)
            self._files.append(lines)
        except OSError as error:
            self._alarm(error.strerror or type(error).__name__)
            return False
        self._shown |= shown
        self._said += unsaid
        if self.is_failing:
            self.is_failing = False
            log.warning("the audit is written again; %d records are lost since the start", self.lost)
        return True

    def _lines(self, batch: Sequence[Record], unsaid: int) -> tuple[bytes, set[str]]:
        if len(self._shown) > MAX_SHOWN:
            self._shown.clear()
        parts = [gap_line(unsaid, self._clock.wall())] if unsaid else []
        shown: set[str] = set()
        made = 0
        for record in batch:
            if record.made:
                parts.append(record.made)
                continue
            if made and made % AT_ONCE == 0:
                self._rest()
            made += 1
            if isinstance(record, DiscoveryRecord) and record.mark.hash not in self._shown | shown:
                shown.add(record.mark.hash)
                parts.append(view_line(record.mark))
            try:
                parts.append(record.line())
            except wire.Malformed as error:  # it must not stand in the way of the others
                log.error("an audit record cannot be written: %s", type(error).__name__)
                parts.append(gap_line(1, record.time))
        return b"".join(parts), shown

    def _rest(self) -> None:
        """Let the loop go on, unless somebody waits for what is being written, or more comes than can be written."""
        if not self._signals and not self._is_over and len(self._waiting) <= BATCH:
            self._pause.wait(REST)

    def _alarm(self, why: str) -> None:
        if not self.is_failing:
            self.is_failing = True
            where = self._files.directory
            log.error("the audit cannot be written to %s: %s", where, printable(why, MAX_FOREIGN_TEXT))

    def _tell(self, record: Record) -> None:
        found = self._signals.pop(id(record), None)
        if found is not None and not found[0].is_closed():
            loop, done = found
            loop.call_soon_threadsafe(_settle, done)


class NoWriter:
    """For who counts, and records nothing."""

    is_on: bool = False
    lost: int = 0
    lag: int = 0
    is_failing: bool = False

    def start(self) -> None:
        """See `Writer`."""

    def put(self, record: Record) -> bool:
        """See `Writer`."""
        return True

    async def written(self, record: Record, seconds: float) -> bool:
        """See `Writer`."""
        return True

    def close(self) -> None:
        """See `Writer`."""


NO_WRITER: Final = NoWriter()


def _settle(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
