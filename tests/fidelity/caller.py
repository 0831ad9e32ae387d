"""The probe caller: raw JSON-RPC in either era, which answers what it is asked, and keeps all that it got."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import anyio

from tests.e2e.brokers import TIMEOUT, environment
from tests.e2e.wire import INITIALIZE, LIMIT, Caller, Failed, Json, Pipe, Web
from tests.fidelity.content import ANSWERS, DECLINED, META, UNKNOWN
from tests.peers import ROOT

CAPABILITIES: Json = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"context": {}, "tools": {}},
    "roots": {"listChanged": True},
}
MAX_ROUNDS = 5
QUIET = ("/list_changed",)
"""Notifications that come whenever they like."""


class Asked(Caller):
    """Answers questions; `questions` are those of legacy requests, `rounds` those of `input_required` results."""

    capabilities: Json = CAPABILITIES
    questions: list[Json]
    _replies: set[asyncio.Task[None]]

    def begin(self) -> Self:
        self.questions, self._replies = [], set()
        return self

    async def greet(self) -> Self:
        if self.is_modern:
            self.greeting = await self.ask("server/discover")
        else:
            self.greeting = await self.ask("initialize", {**INITIALIZE, "capabilities": self.capabilities})
            await self.tell("notifications/initialized")
        return self

    def envelope(self, params: Json | None) -> Json:
        if not self.is_modern:
            return params or {}
        whole = super().envelope(params)
        whole["_meta"] = {**whole["_meta"], "io.modelcontextprotocol/clientCapabilities": self.capabilities}
        return whole

    def _on_notice(self, notice: Json) -> None:
        if "id" not in notice:
            if not notice["method"].endswith(QUIET):
                super()._on_notice(notice)
            return
        self.questions.append({"method": notice["method"], "params": notice.get("params", {})})
        body = {"jsonrpc": "2.0", "id": notice["id"], "result": answer_to(notice)}
        task = asyncio.create_task(self.reply(json.dumps(body).encode()))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def reply(self, body: bytes) -> None:
        raise NotImplementedError

    async def cancel(self, ident: int, request: "asyncio.Task[Any]") -> None:
        """Take a request back in the manner of the era and the transport."""
        await self.tell("notifications/cancelled", {"requestId": ident, "reason": "because"})

    async def whole(self, method: str, params: Json | None = None, *, meta: Json | None = None) -> Json:
        """One request to its end: what came before the answer, the questions, and the answer."""
        params = dict(params or {})
        first, asked, rounds = len(self.notices), len(self.questions), []
        answer: Json = {}
        for _ in range(MAX_ROUNDS):
            ident = self.next_id()
            with anyio.fail_after(TIMEOUT):
                token = f"token-{ident}"
                sent = {**params, "_meta": {**(meta or {}), "progressToken": token}}
                answer = json.loads(await self.exchange(method, sent, ident=ident))
            assert answer.pop("id") == ident and answer.pop("jsonrpc") == "2.0", answer
            self._check_tokens(first, token)
            result = answer.get("result", {})
            if result.get("resultType") != "input_required":
                break
            requests = result.get("inputRequests", {})
            rounds.append([{"method": one["method"], "params": one.get("params", {})} for one in requests.values()])
            params["inputResponses"] = {key: answer_to(one) for key, one in requests.items()}
            params.pop("requestState", None)
            if "requestState" in result:
                params["requestState"] = result["requestState"]
        notices = [{"method": one["method"], "params": one.get("params", {})} for one in self.notices[first:]]
        questions = [self.questions[asked:]] if self.questions[asked:] else rounds
        return {"notices": notices, "questions": questions, **answer}

    def _check_tokens(self, first: int, token: str) -> None:
        """Progress comes under our token, which then counts no more."""
        for notice in self.notices[first:]:
            if notice["method"] == "notifications/progress" and "progressToken" in notice["params"]:
                assert notice["params"].pop("progressToken") == token, notice

    async def all_of(self, field: str) -> Json:
        """A list to its end: the pages as one."""
        method = "resources/templates/list" if field == "resourceTemplates" else f"{field}/list"
        whole: Json = {field: []}
        cursor = None
        while True:
            page = await self.ask(method, {"cursor": cursor} if cursor is not None else None)
            items, cursor = page.pop(field), page.pop("nextCursor", None)
            whole = {**page, field: whole[field] + items}
            if cursor is None:
                return {"result": whole}


def answer_to(question: Json) -> Json:
    if (question.get("params") or {}).get("message", "").endswith("decline"):
        return DECLINED
    return ANSWERS[question["method"]]


class AskedPipe(Asked, Pipe):
    async def reply(self, body: bytes) -> None:
        await self.send(body)


class AskedWeb(Asked, Web):
    async def reply(self, body: bytes) -> None:
        await self.post(body, self.headers("", None))

    async def cancel(self, ident: int, request: "asyncio.Task[Any]") -> None:
        if self.is_modern:
            request.cancel()
        else:
            await super().cancel(ident, request)


Open = Callable[[], Any]


@asynccontextmanager
async def web(url: str, era: str) -> AsyncIterator[AskedWeb]:
    yield await AskedWeb(url, era).begin().greet()


@asynccontextmanager
async def pipe(argv: Sequence[str], era: str) -> AsyncIterator[AskedPipe]:
    caller = AskedPipe(era).begin()
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
        yield await caller.greet()
    finally:
        with anyio.CancelScope(shield=True):
            caller.hang_up()
            with suppress(TimeoutError), anyio.fail_after(10):
                await caller.process.wait()
            with suppress(ProcessLookupError):
                caller.process.kill()
            await caller.process.wait()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


__all__ = ["META", "UNKNOWN", "Asked", "Failed", "pipe", "web"]
