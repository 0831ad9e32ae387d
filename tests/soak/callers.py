"""Callers that look at every byte they get, and know which one is theirs."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.callers.caller import Caller, Duplex
from tests.callers.http import Response
from tests.callers.pipe import Pipe, piped
from tests.callers.web import OldWeb, Web, streamed
from tests.e2e.brokers import Json

CANARY = re.compile(rb"canary-\d{5}")
OFFERED: Json = {"elicitation": {"form": {}, "url": {}}}


class Findings:
    """What all callers found. `broken` must stay empty."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.calls = 0
        self.bytes = 0
        self.broken: list[str] = []


class Watched(Caller):
    """`canary` is the only one that may ever come here."""

    def __init__(self, *where: Any, canary: str, findings: Findings) -> None:
        super().__init__(*where)
        self.canary, self.findings = canary, findings
        self.capabilities, self.answer = OFFERED, self.say_who
        self.taken_back = set[int | str]()
        """Calls that were cancelled, or left."""
        self.answered = set[int | str]()

    def say_who(self, method: str, params: Json) -> Json:
        return {"action": "accept", "content": {"canary": self.canary}}

    def watch(self, data: bytes) -> bytes:
        self.findings.bytes += len(data)
        for found in CANARY.findall(data):
            if found != self.canary.encode():
                self.findings.broken.append(f"{self.canary} ({type(self).__name__}, {self.era}) got {data[:400]!r}")
        return data

    def on_message(self, message: Json) -> None:
        """Counted, and kept only while it is answered: a soak hears millions."""
        kinds = {"notifications/progress": "progress", "notifications/message": "log messages"}
        kind = "questions answered" if "id" in message else kinds.get(message["method"])
        if kind is not None:
            self.findings.outcomes[kind] += 1
        super().on_message(message)
        self.notices.clear()
        self.questions.clear()


class WatchedStream(Watched, Duplex):
    """One stream for everything: an answer on it answers something, or what was taken back while it was on its way."""

    def on_bytes(self, data: bytes) -> None:
        message = json.loads(self.watch(data))
        if "method" not in message and message["id"] not in self._waiting:
            if message["id"] not in self.taken_back:
                what = "a second answer" if message["id"] in self.answered else "an answer to nothing"
                self.findings.broken.append(f"{self.canary}: {what}: {data[:200]!r}")
            self.taken_back.discard(message["id"])
        elif "method" not in message:
            self.answered.add(message["id"])
        super().on_bytes(data)


class WatchedPipe(WatchedStream, Pipe):
    pass


class WatchedOldWeb(WatchedStream, OldWeb):
    pass


class WatchedReader:
    """Shows all that is read to somebody; what two chunks of a body share is shown as one."""

    def __init__(self, reader: asyncio.StreamReader, look: Callable[[bytes], bytes]) -> None:
        self._reader, self._look = reader, look
        self._tail = b""

    async def readline(self) -> bytes:
        return self._look(await self._reader.readline())

    async def readexactly(self, count: int) -> bytes:
        data = await self._reader.readexactly(count)
        self._look(self._tail + data)
        self._tail = data.removesuffix(b"\r\n")[-len("canary-00000") + 1 :]
        return data


class WatchedWeb(Watched, Web):
    def __init__(self, *where: Any, canary: str, findings: Findings) -> None:
        super().__init__(*where, canary=canary, findings=findings)
        self.on_head = self._look_on

    def _look_on(self, response: Response) -> None:
        self.watch(json.dumps(response.headers).encode())
        response.reader = WatchedReader(response.reader, self.watch)


@asynccontextmanager
async def watched_web(url: str, era: str, canary: str, findings: Findings) -> AsyncGenerator[WatchedWeb, None]:
    caller = await WatchedWeb(url, era, canary=canary, findings=findings).greet()
    yield caller
    if caller.session is not None:
        await caller.delete()


@asynccontextmanager
async def watched_old_web(url: str, canary: str, findings: Findings) -> AsyncGenerator[WatchedOldWeb, None]:
    async with streamed(WatchedOldWeb(url, canary=canary, findings=findings)) as caller:
        yield caller


@asynccontextmanager
async def watched_pipe(
    argv: Sequence[str], era: str, canary: str, findings: Findings
) -> AsyncGenerator[WatchedPipe, None]:
    caller = WatchedPipe(era, canary=canary, findings=findings)
    async with piped(caller, argv):
        yield caller
    if caller.had_to_be_killed:
        findings.broken.append(f"{canary}: the stdio front did not end")
