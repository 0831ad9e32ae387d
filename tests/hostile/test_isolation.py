"""`isolation` on real processes: state that must not leak, questions at once, and what dies, hangs, or must go."""

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.core.caller import LOCAL
from broker.core.era import LATEST_LEGACY
from broker.core.questions import Question
from broker.downstream.engine import Who, ignore_emit
from broker.downstream.message import Incoming
from broker.upstream import isolated
from broker.upstream.process import Process
from tests.hostile.conftest import BrokerOf
from tests.hostile.cost import children
from tests.hostile.harness import AT_ONCE, Running, command, exists, needs_proc, until
from tests.peers import ROOT

pytestmark = needs_proc

STATEFUL = str(ROOT / "tests/servers/stateful.py")


def stateful(*more: str, isolation: str = "session", **settings: Any) -> dict[str, Any]:
    return command([sys.executable, "-S", STATEFUL, *more], isolation=isolation, **settings)


class Person:
    """A legacy session of the broker in this process."""

    def __init__(self, run: Running, session: str) -> None:
        self.run, self.session = run, session
        self.questions: list[Question] = []
        self.capabilities: dict[str, Any] = {"elicitation": {"form": {}}}

    async def ask(self, question: Question) -> dict[str, Any]:
        self.questions.append(question)
        return {"action": "accept", "content": {"who": self.session}}

    async def message(self, name: str, **arguments: Any) -> dict[str, Any]:
        who = Who(LOCAL, LATEST_LEGACY, capabilities=self.capabilities, session=self.session)
        incoming = Incoming(1, "tools/call", {"name": f"bad__{name}", "arguments": arguments})
        return json.loads((await self.run.broker.engine.answer(incoming, who, ignore_emit, self)).body)

    async def call(self, name: str, **arguments: Any) -> Any:
        message = await self.message(name, **arguments)
        assert "result" in message, message
        return json.loads(message["result"]["content"][0]["text"])

    async def pid(self) -> int:
        return (await self.call("recall"))["pid"]


async def test_F38_I38_what_a_server_keeps_for_one_session_no_other_sees(broker_of: BrokerOf) -> None:
    async with broker_of({"bad": stateful()}) as run:
        await run.ready("good", "bad")
        ada, bob = Person(run, "s1"), Person(run, "s2")
        bob.capabilities = {}
        await ada.call("remember", text="canary")
        theirs, other = await ada.call("recall"), await bob.call("recall")
        assert theirs["text"] == "canary" and other["text"] == ""
        assert (theirs["declared"], other["declared"]) == ({"elicitation": {"form": {}}}, {})
        assert len({theirs["pid"], other["pid"], run.pid("bad")}) == 3
        assert len(children()) == 4, "good, the supervised one, and one for each"
        await run.innocent()
    assert not exists(theirs["pid"], other["pid"])


@pytest.mark.parametrize("isolation", ["session", "shared"])
async def test_two_callers_are_asked_at_once_each_its_own_question_and_on_a_shared_link_nobody(
    broker_of: BrokerOf, isolation: str
) -> None:
    async with broker_of({"bad": stateful(isolation=isolation)}) as run:
        await run.ready("good", "bad")
        people, answers = [Person(run, "s1"), Person(run, "s2")], dict[str, Any]()
        waiting = [Person(run, "s1"), Person(run, "s2")]

        async def ask(person: Person) -> None:
            answers[person.session] = await person.call("ask")

        async with anyio.create_task_group() as tasks:
            for person in waiting:
                tasks.start_soon(person.message, "hang")
            await until(lambda: isolation == "session" or run.pending("bad") == 2)
            if isolation == "shared":
                for person in people:
                    await ask(person)
            else:
                async with anyio.create_task_group() as asking:
                    for person in [Person(run, "s3"), Person(run, "s4")]:
                        people.append(person)
                        asking.start_soon(ask, person)
            tasks.cancel_scope.cancel()
    if isolation == "shared":
        assert all("isolation: caller or session" in answer["message"] for answer in answers.values())
        assert not any(person.questions for person in people)
    else:
        assert answers == {one: {"action": "accept", "content": {"who": one}} for one in ("s3", "s4")}
        assert [len(person.questions) for person in people] == [0, 0, 1, 1]


async def test_a_process_that_is_killed_fails_its_own_calls_and_the_next_call_starts_another(
    broker_of: BrokerOf,
) -> None:
    async with broker_of({"bad": stateful()}) as run:
        await run.ready("good", "bad")
        ada, bob = Person(run, "s1"), Person(run, "s2")
        await bob.call("remember", text="kept")
        killed = await ada.pid()
        async with anyio.create_task_group() as tasks:
            failed: list[Any] = []

            async def hang() -> None:
                failed.append(await ada.message("hang"))

            tasks.start_soon(hang)
            os.kill(killed, signal.SIGKILL)
            with anyio.fail_after(AT_ONCE):
                await until(lambda: bool(failed))
        assert "signal 9" in failed[0]["error"]["message"]
        assert await ada.pid() != killed
        assert (await bob.call("recall"))["text"] == "kept" and run.is_ready("bad")
        await until(lambda: not exists(killed))


async def test_a_session_that_ends_ends_its_process_and_an_idle_one_ends_too(broker_of: BrokerOf) -> None:
    async with broker_of({"bad": stateful(isolation_idle=1)}) as run:
        await run.ready("good", "bad")
        ada, bob = Person(run, "s1"), Person(run, "s2")
        theirs, idle = await ada.pid(), await bob.pid()
        run.broker.engine.session_ended("s1")
        await until(lambda: not exists(theirs))
        await until(lambda: not exists(idle))
        assert await bob.pid() != idle


async def test_the_bound_is_a_bound_on_processes_and_says_what_to_do(broker_of: BrokerOf) -> None:
    async with broker_of({"bad": stateful(isolation_max=1)}) as run:
        await run.ready("good", "bad")
        first = await Person(run, "s1").pid()
        second = await Person(run, "s2").pid()
        assert not exists(first), "it made room before the other one began"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Person(run, "s2").message, "hang")
            await until(lambda: "x1" in repr(run.broker.generation.pool.isolated["bad"]))
            with anyio.fail_after(AT_ONCE):
                error = (await Person(run, "s3").message("recall"))["error"]
            assert "all 1 links" in error["message"] and "servers.bad.isolation_max" in error["message"]
            tasks.cancel_scope.cancel()
        assert exists(second)


async def test_a_session_that_ends_as_its_link_opens_ends_that_link_and_is_no_fault(
    broker_of: BrokerOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shake = isolated.shake_hands
    async with broker_of({"bad": stateful()}) as run:
        await run.ready("good", "bad")

        async def shake_and_end(*given: Any, **more: Any) -> None:
            await shake(*given, **more)
            run.broker.engine.session_ended("s1")

        with monkeypatch.context() as patch:
            patch.setattr(isolated, "shake_hands", shake_and_end)
            message = await Person(run, "s1").message("recall")
        assert "its session has ended" in message["error"]["message"]
        assert (await Person(run, "s2").call("recall"))["text"] == ""
        await run.innocent()
    assert "internal error" not in caplog.text


async def test_F104_a_fault_of_ours_while_a_callers_link_is_closed_costs_nobody_else_anything(
    broker_of: BrokerOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with broker_of({"bad": stateful()}) as run:
        await run.ready("good", "bad")
        ada, bob = Person(run, "s1"), Person(run, "s2")
        theirs, _ = await ada.pid(), await bob.call("remember", text="kept")
        stop = Process.stop

        async def stop_and_fail(self: Process) -> None:
            await stop(self)
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

        with monkeypatch.context() as patch:
            patch.setattr(Process, "stop", stop_and_fail)
            run.broker.engine.session_ended("s1")
            await until(lambda: "internal error" in caplog.text)
        assert not exists(theirs)
        assert (await bob.call("recall"))["text"] == "kept" and await ada.pid() != theirs
        await run.innocent()


async def test_F03_a_hung_handshake_of_one_callers_link_costs_no_other(broker_of: BrokerOf, tmp_path: Path) -> None:
    script = tmp_path / "sometimes.sh"
    hung = tmp_path / "hang"
    script.write_text(f'#!/bin/sh\nif [ -e "{hung}" ]; then exec sleep 1000; fi\nexec {sys.executable} -S {STATEFUL}\n')
    script.chmod(0o755)
    async with broker_of({"bad": command([str(script)], isolation="session", connect_timeout=3)}) as run:
        await run.ready("good", "bad")
        ada, bob = Person(run, "s1"), Person(run, "s2")
        await bob.call("remember", text="kept")
        hung.touch()
        async with anyio.create_task_group() as tasks:
            failed: list[Any] = []

            async def fail() -> None:
                failed.append(await ada.message("recall"))

            tasks.start_soon(fail)
            with anyio.fail_after(AT_ONCE):
                assert (await bob.call("recall"))["text"] == "kept"
        assert "handshake within 3 s" in failed[0]["error"]["message"]
        hung.unlink()
        assert (await ada.call("recall"))["text"] == ""
