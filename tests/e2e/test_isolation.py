"""`isolation` as callers have it: sessions over HTTP in front of one command, and the one caller of a pipe."""

import json
from contextlib import AsyncExitStack
from typing import Any

import anyio

from tests.callers.caller import Json
from tests.callers.pipe import Pipe, piped
from tests.callers.web import Web
from tests.e2e.brokers import TIMEOUT, Brokers, children, command, until
from tests.peers import Peers

CAPABILITIES: Json = {"elicitation": {"form": {}}, "roots": {}}


class Person(Web):
    """A legacy session that answers with its own name."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, "legacy")
        self.capabilities = CAPABILITIES
        self.answer = lambda method, params: answered(name, method)

    async def say(self, tool: str, **arguments: Any) -> Any:
        return said(await self.ask("tools/call", {"name": f"keeps__{tool}", "arguments": arguments}))


def answered(name: str, method: str) -> Json:
    if method == "roots/list":
        return {"roots": [{"uri": f"file:///{name}"}]}
    return {"action": "accept", "content": {"who": name}}


def said(result: Json) -> Any:
    return json.loads(result["content"][0]["text"])


async def test_sessions_over_http_share_no_process_no_state_and_no_question(brokers: Brokers, peers: Peers) -> None:
    brokers.is_forked = False
    served = await brokers.aserve(
        brokers.configure({"keeps": command(peers.command("stateful"), isolation="session", timeout=20)})
    )
    with anyio.fail_after(TIMEOUT):
        async with AsyncExitStack() as stack:
            people = [Person(served.url, name) for name in ("ada", "bob")]
            for person in people:
                await person.greet()
                await stack.enter_async_context(person.listening())
            ada, bob = people
            await ada.say("remember", text="canary")
            mine, theirs = await ada.say("recall"), await bob.say("recall")
            assert (mine["text"], theirs["text"]) == ("canary", "")
            answers: dict[str, Any] = {}

            async def ask(person: Person, name: str) -> None:
                answers[name] = (await person.say("ask"))["content"]

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, ada, "ada")
                tasks.start_soon(ask, bob, "bob")
            assert answers == {"ada": {"who": "ada"}, "bob": {"who": "bob"}}
            assert {mine["pid"], theirs["pid"]} < children(served.process.pid)
            assert len(children(served.process.pid)) == 3
            assert await bob.delete() == 200
            await until(lambda: theirs["pid"] not in children(served.process.pid), "its process ends with the session")
            assert mine["pid"] in children(served.process.pid)


async def test_the_caller_of_a_pipe_owns_every_server_and_no_second_process_is_started(
    brokers: Brokers, peers: Peers
) -> None:
    brokers.is_forked = False
    config = brokers.configure(
        {
            "keeps": command(peers.command("stateful"), isolation="caller"),
            "kept": command(peers.command("stateful"), roots=False),
        }
    )
    host = Pipe("legacy")
    host.capabilities = CAPABILITIES
    host.answer = lambda method, params: answered("host", method)
    with anyio.fail_after(TIMEOUT):
        async with piped(host, brokers.stdio(config)):
            kept = said(await host.ask("tools/call", {"name": "kept__recall"}))
            keeps = said(await host.ask("tools/call", {"name": "keeps__recall"}))
            assert keeps["roots"] == {"roots": [{"uri": "file:///host"}]} and kept["roots"] is None
            assert keeps["declared"] == CAPABILITIES and kept["declared"] == {"elicitation": {"form": {}}}
            assert len(children(host.process.pid)) == 2
