"""Two callers with keys of their own, one server that both share, real processes: nobody reaches the other's task."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from broker.config import Secret
from broker.identity.keys import ENTROPY, hash_of, mint
from tests.callers.web import Web
from tests.e2e.brokers import TIMEOUT, Brokers, Json, Served, command
from tests.fidelity.caller import OF_ERA, answer_to
from tests.peers import ROOT

SECRET = "an end-to-end secret of keys, long enough"
ERAS = ("legacy", "modern")


class Keyed(Web):
    """A caller with a key; the last response is kept as it came."""

    def __init__(self, url: str, era: str, key: str) -> None:
        super().__init__(url, era)
        self.key = key
        self.capabilities, self.answer = OF_ERA[era], answer_to

    def headers(self, method: str, params: Json | None = None) -> dict[str, str]:
        return super().headers(method, params) | {"Authorization": f"Bearer {self.key}"}

    async def raw(self, method: str, params: Json) -> bytes:
        with anyio.fail_after(TIMEOUT):
            return await self.exchange(method, params, ident=7)


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return {name: mint(os.urandom(ENTROPY)).text.reveal() for name in ("ann", "bob")}


@pytest.fixture(scope="module", params=[1, 3], ids=["one process", "workers"])
def served(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[Served]:
    brokers = Brokers(tmp_path_factory.mktemp("tasks"))
    argv = [sys.executable, "-m", "tests.fidelity.upstream", "--transport", "stdio"]
    servers = {era: command([*argv, "--era", era], cwd=str(ROOT)) for era in ERAS}
    hashes = {name: {"hash": hash_of(text, Secret(SECRET))} for name, text in keys.items()}
    team: Json = {"allow": [{"servers": ["*"]}], "keys": hashes}
    try:
        yield brokers.serve(
            brokers.configure(
                servers,
                server={"workers": request.param},
                identity={"key_secret": SECRET},
                organizations={"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": team}}},
            )
        )
    finally:
        brokers.close()


async def make(caller: Keyed, label: str) -> str:
    params: Json = {"name": f"{caller.era}__as_task", "arguments": {"label": label}}
    if caller.is_modern:
        return (await caller.ask("tools/call", params))["taskId"]
    return (await caller.ask("tools/call", {**params, "task": {}}))["task"]["taskId"]


@pytest.mark.parametrize("era", ERAS)
async def test_i32_the_task_of_another_key_is_no_task(served: Served, keys: dict[str, str], era: str) -> None:
    ann, bob = [await Keyed(served.url, era, keys[name]).greet() for name in ("ann", "bob")]
    ident = await make(ann, "anns")
    assert ident == f"{era}.task anns"
    for method in ("get", "cancel", "update" if era == "modern" else "result"):
        answers: list[Any] = [await bob.raw(f"tasks/{method}", {"taskId": one}) for one in (ident, f"{era}.task x")]
        answers.append(await bob.raw(f"tasks/{method}", {"taskId": "task anns"}))
        assert answers[0] == answers[1] == answers[2], "byte for byte"
        assert json.loads(answers[0])["error"]["code"] == -32602
    if era == "legacy":
        assert (await bob.ask("tasks/list"))["tasks"] == []
        assert [one["taskId"] for one in (await ann.ask("tasks/list"))["tasks"]] == [ident]
        await ann.ask("tasks/result", {"taskId": ident})
        assert [one["method"] for one in ann.questions] == ["elicitation/create"] and not bob.questions
        assert not any("task" in json.dumps(one) for one in bob.notices)
    else:
        assert (await ann.ask("tasks/get", {"taskId": ident}))["taskId"] == ident
