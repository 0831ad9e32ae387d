"""Budgets of real brokers on one store: never overspent, and nothing is lost with a broker that is killed."""

import os
import signal
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from broker.config import Secret
from broker.identity.keys import ENTROPY, hash_of, mint
from tests.callers.caller import Json
from tests.callers.web import Web
from tests.e2e.brokers import Brokers, Served, command, lines, until
from tests.e2e.conftest import brokers
from tests.peers import Peers

__all__ = ["brokers"]

SECRET = "s" * 40
KEY = mint(bytes(ENTROPY)).text.reveal()


class Paid(Web):
    """A caller with the key."""

    def headers(self, method: str, params: Json | None = None) -> dict[str, str]:
        return {**super().headers(method, params), "Authorization": f"Bearer {KEY}"}


def configure(brokers: Brokers, peers: Peers, budget: int, state: Path, log: Path) -> Path:
    """A server of which a call costs 1, and a key that may spend `budget`."""
    ci: Json = {"hash": hash_of(KEY, Secret(SECRET)), "limits": {"budget": {"month": budget}}}
    return brokers.configure(
        {"one": command(peers.command("probe", "--name", "one", "--log", log), cost=1)},
        state=state,
        identity={"key_secret": SECRET},
        organizations={"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": {"keys": {"ci": ci}}}}},
    )


async def serve(brokers: Brokers, *configs: Path) -> list[Served]:
    """Brokers, started at once."""
    found: list[Served] = []

    async def start(config: Path) -> None:
        found.append(await brokers.aserve(config))

    async with anyio.create_task_group() as tasks:
        for config in configs:
            tasks.start_soon(start, config)
    return found


async def make_calls(servers: list[Served], calls: int, era: str) -> tuple[int, set[str]]:
    """At all brokers at once: how many got a result, and what the others were told."""
    done: list[Json] = []

    async def run(served: Served) -> None:
        caller = Paid(served.url, era)
        if not caller.is_modern:
            await caller.greet()
        done.append(await caller.call("one__echo", {"text": "x"}))

    async with anyio.create_task_group() as tasks:
        for served in servers * (calls // len(servers)):
            tasks.start_soon(run, served)
    refused = [one["content"][0]["text"] for one in done if one.get("isError")]
    return len(done) - len(refused), set(refused)


async def test_of_64_calls_at_two_brokers_one_gets_the_last_unit(
    tmp_path: Path, peers: Peers, brokers: Brokers
) -> None:
    state = tmp_path / "state"
    configs = [configure(brokers, peers, 1, state, tmp_path / "log") for _ in range(2)]
    servers = await serve(brokers, *configs)
    got, refused = await make_calls(servers, 64, "modern")
    assert got == 1, [served.stderr[-2000:] for served in servers]
    (text,) = refused
    assert text.startswith("key acme/data/ci has used up its budget of 1/month: it begins anew at ")


async def test_a_broker_that_is_killed_in_a_call_has_spent_what_it_had_and_loses_nothing_else(
    tmp_path: Path, peers: Peers, brokers: Brokers
) -> None:
    """F-72, SP-13 too: nor has a call cost anything whose caller has vanished."""
    state, log = tmp_path / "state", tmp_path / "log"
    brokers.is_forked = False  # once the one that is killed is collected, it is gone
    config = configure(brokers, peers, 4, state, log)
    (first,) = await serve(brokers, config)
    assert await make_calls([first], 2, "legacy") == (2, set())
    caller = await Paid(first.url, "modern").greet()
    for number in range(3):  # more than is left, if one of them were paid, or still held what it may cost
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller.call, "one__slow", {"seconds": 300, "label": f"vanishes-{number}"})
            await until(lambda number=number: f"started vanishes-{number}" in lines(log), "the call is with the server")
            tasks.cancel_scope.cancel()
        await until(lambda number=number: f"cancelled vanishes-{number}" in lines(log), "it was cancelled")

    async def hang() -> None:
        with pytest.raises((OSError, EOFError, ConnectionError)):
            await caller.call("one__slow", {"seconds": 300})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang)
        await until(lambda: "started slow" in lines(log), "the call is with the server")
        os.kill(first.process.pid, signal.SIGKILL)
    await to_thread.run_sync(first.process.wait)
    (second,) = await serve(brokers, config)
    got, refused = await make_calls([second], 4, "modern")
    assert (got, len(refused)) == (2, 1), second.stderr[-2000:]
    brokers.close()
    kept = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert b"usage_hours" in kept and KEY.encode() not in kept and SECRET.encode() not in kept
