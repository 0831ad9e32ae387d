"""The probe caller: raw JSON-RPC in either era, which answers what it is asked, and keeps all that it got."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import anyio

from tests.callers.caller import Caller
from tests.callers.pipe import Pipe, piped
from tests.callers.web import Web
from tests.e2e.brokers import TIMEOUT, Json
from tests.fidelity.content import ANSWERS, DECLINED, META

CAPABILITIES: Json = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"context": {}, "tools": {}},
    "roots": {"listChanged": True},
}
EXTENSIONS: Json = {"probe.example/x": {"v": [1, None]}}
OF_ERA: dict[str, Json] = {
    "legacy": {**CAPABILITIES, "extensions": EXTENSIONS},
    "modern": {**CAPABILITIES, "extensions": {**EXTENSIONS, "io.modelcontextprotocol/tasks": {}}},
}
MAX_ROUNDS = 5
QUIET = ("/list_changed",)
"""Notifications that come whenever they like."""


def answer_to(method: str, params: Json) -> Json:
    """What the probe says to a question."""
    if method == "probe/ask":
        return {"uri": params["uri"], "odd": params["odd"], "x": [1, None], "_meta": META}
    return DECLINED if params.get("message", "").endswith("decline") else ANSWERS[method]


class Asked(Caller):
    """Can be asked anything, and knows each answer."""

    def __init__(self, *where: Any) -> None:
        super().__init__(*where)
        self.capabilities, self.answer = OF_ERA[self.era], answer_to

    def on_notice(self, notice: Json) -> None:
        if not notice["method"].endswith(QUIET):
            super().on_notice(notice)

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
            rounds.append(essentials(list(requests.values())))
            params["inputResponses"] = {
                key: self.answer(one["method"], one.get("params", {})) for key, one in requests.items()
            }
            params.pop("requestState", None)
            if "requestState" in result:
                params["requestState"] = result["requestState"]
        questions = [essentials(self.questions[asked:])] if self.questions[asked:] else rounds
        return {"notices": essentials(self.notices[first:]), "questions": questions, **answer}

    def _check_tokens(self, first: int, token: str) -> None:
        """Progress comes under our token, which then counts no more."""
        for notice in self.notices[first:]:
            if notice["method"] == "notifications/progress" and "progressToken" in notice["params"]:
                assert notice["params"].pop("progressToken") == token, notice

    def hearing(self) -> AbstractAsyncContextManager[None]:
        """While this is entered, what belongs to no request can be heard."""
        return nullcontext()

    async def all_of(self, field: str) -> Json:
        """A list to its end: the pages as one."""
        whole: Json = {field: []}
        for page in await self.pages(field):
            items = page.pop(field)
            page.pop("nextCursor", None)
            whole = {**page, field: whole[field] + items}
        return {"result": whole}


def essentials(messages: list[Json]) -> list[Json]:
    """Messages without what belongs to one hop."""
    return [{"method": one["method"], "params": one.get("params", {})} for one in messages]


class AskedPipe(Asked, Pipe):
    pass


class AskedWeb(Asked, Web):
    def hearing(self) -> AbstractAsyncContextManager[None]:
        return self.listening()


@asynccontextmanager
async def web(url: str, era: str) -> AsyncGenerator[AskedWeb, None]:
    yield await AskedWeb(url, era).greet()


@asynccontextmanager
async def pipe(argv: Sequence[str], era: str) -> AsyncGenerator[AskedPipe, None]:
    async with piped(AskedPipe(era), argv) as caller:
        yield caller
