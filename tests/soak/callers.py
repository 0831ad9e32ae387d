"""Callers that look at every byte they get, and know which one is theirs."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.e2e.brokers import environment
from tests.e2e.wire import LIMIT, Response, http
from tests.fidelity.caller import CAPABILITIES, Asked, AskedPipe, AskedWeb, Json
from tests.peers import ROOT

CANARY = re.compile(rb"canary-\d{5}")
OFFERED: Json = {"elicitation": CAPABILITIES["elicitation"]}


class Findings:
    """What all callers found. `broken` must stay empty."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.bytes = 0
        self.broken: list[str] = []


class Watched(Asked):
    """`canary` is the only one that may ever come here."""

    canary: str
    findings: Findings
    capabilities = OFFERED

    def watch(self, data: bytes) -> bytes:
        self.findings.bytes += len(data)
        for found in CANARY.findall(data):
            if found != self.canary.encode():
                self.findings.broken.append(f"{self.canary} ({type(self).__name__}, {self.era}) got {data[:400]!r}")
        return data

    def answer_to(self, question: Json) -> Json:
        return {"action": "accept", "content": {"canary": self.canary}}

    def _on_notice(self, notice: Json) -> None:
        if "id" not in notice:
            if notice["method"] == "notifications/progress":
                self.findings.outcomes["progress"] += 1
            elif notice["method"] == "notifications/message":
                self.findings.outcomes["log messages"] += 1
            self._heard.set()
            return
        self.findings.outcomes["questions"] += 1
        body = {"jsonrpc": "2.0", "id": notice["id"], "result": self.answer_to(notice)}
        task = asyncio.create_task(self.reply(json.dumps(body).encode()))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)


class WatchedPipe(Watched, AskedPipe):
    def _on_message(self, data: bytes) -> None:
        message = json.loads(self.watch(data))
        if "method" not in message and message["id"] not in self._waiting:
            self.findings.broken.append(f"{self.canary}: an answer to nothing: {data[:200]!r}")
        super()._on_message(data)


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


class WatchedWeb(Watched, AskedWeb):
    async def post(self, body: bytes, headers: dict[str, str]) -> bytes:
        """The one answer; the stream is read to its end, in case there is a second."""
        answers: list[bytes] = []
        async with http("POST", self.url, headers, body) as response:
            self.status = status = response.status
            self.session = response.headers.get("mcp-session-id", self.session)
            self._see(response)
            async for data in response.messages():
                message = json.loads(data)
                if "method" in message:
                    self._on_notice(message)
                else:
                    answers.append(data)
        if len(answers) > 1:
            self.findings.broken.append(f"{self.canary}: {len(answers)} answers: {answers!r:.400}")
        if answers:
            return answers[0]
        if status == 202:
            return b""
        raise ConnectionError(f"HTTP {status} without a response")

    def _see(self, response: Response) -> None:
        self.watch(json.dumps(response.headers).encode())
        reader: Any = WatchedReader(response._reader, self.watch)
        response._reader = reader


@asynccontextmanager
async def watched_web(url: str, era: str, canary: str, findings: Findings) -> AsyncIterator[WatchedWeb]:
    caller = WatchedWeb(url, era).begin()
    caller.canary, caller.findings = canary, findings
    await caller.greet()
    yield caller
    if caller.session is not None:
        await caller.delete()


@asynccontextmanager
async def watched_pipe(argv: Sequence[str], era: str, canary: str, findings: Findings) -> AsyncIterator[WatchedPipe]:
    caller = WatchedPipe(era).begin()
    caller.canary, caller.findings = canary, findings
    caller.process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(),
        cwd=ROOT,
        limit=LIMIT,
        start_new_session=True,
    )
    reading = asyncio.create_task(caller.read())
    try:
        yield (await caller.greet())
    finally:
        caller.hang_up()
        try:
            await asyncio.wait_for(caller.process.wait(), 10)
        except TimeoutError:
            findings.broken.append(f"{canary}: the stdio front did not end")
            caller.process.kill()
            await caller.process.wait()
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
