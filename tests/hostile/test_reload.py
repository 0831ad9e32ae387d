"""Reloads under load: every call has its answer, and nothing of what came and went is left."""

import asyncio
import gc
import os
import signal
import sys
import weakref
from pathlib import Path
from typing import Any

import anyio
import yaml

from broker.reload import Reloads
from tests.hostile.conftest import BrokerOf
from tests.hostile.cost import children, descriptors
from tests.hostile.harness import Running, command, needs_proc, until
from tests.hostile.test_isolation import Person, stateful
from tests.peers import ROOT

ROUNDS = int(os.environ.get("BROKER_RELOADS", "9"))
"""The long form, 200 and more, is for whoever looks for a leak."""
SCRIPT = str(ROOT / "tests/servers/raw.py")


def server(number: int) -> dict[str, Any]:
    """A new one for each number."""
    return command([sys.executable, "-S", SCRIPT], env={"NUMBER": str(number)})


def write(run: Running, servers: dict[str, Any], **settings: Any) -> None:
    path = run.broker.loaded.path
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["broker"] |= settings
    document["servers"] = {"good": document["servers"]["good"], **servers}
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


@needs_proc
async def test_F90_reloads_under_load_drop_no_call_and_leave_nothing(broker_of: BrokerOf, tmp_path: Path) -> None:
    async with broker_of({"kept": server(-1), "turned": server(0)}, first_wait=20) as run:
        await run.ready("good", "kept", "turned")
        kept, pids = run.pid("kept"), children()
        await until(lambda: all(run.upstream(key).first_try.is_set() for key in ("good", "kept", "turned")))
        opened, tasks = descriptors(), len(asyncio.all_tasks())
        reloads, is_over, answered = Reloads(run.broker, {}), anyio.Event(), [0, 0]

        async def call(place: int, name: str) -> None:
            while not is_over.is_set():
                assert await run.text(name, text="x") == "ok x"
                answered[place] += 1

        async with anyio.create_task_group() as callers:
            for _ in range(4):
                callers.start_soon(call, 0, "kept__ok")
                callers.start_soon(call, 1, "turned__ok")
            for number in range(1, ROUNDS + 1):
                write(run, {"kept": server(-1), "turned": server(number)})
                assert await reloads.reload()
                if number % 3 == 0:
                    await run.ready("turned")
            is_over.set()
        assert min(answered) > ROUNDS and run.pid("kept") == kept
        await run.ready("turned")
        await until(lambda: len(run.broker.fleet) == 3 and len(children()) == len(pids))
        await until(lambda: descriptors() <= opened and len(asyncio.all_tasks()) <= tasks)
        assert reloads.done == ROUNDS


async def test_a_server_that_hangs_when_it_is_taken_out_holds_nobody_up(broker_of: BrokerOf) -> None:
    stubborn = command(["sh", "-c", "trap '' TERM INT; while :; do sleep 1; done"])
    async with broker_of({"stubborn": stubborn}) as run:
        await run.ready("good")
        reloads = Reloads(run.broker, {})
        write(run, {}, drain=0)
        assert await reloads.reload()
        await run.innocent()
        assert await run.tools() == ["good__ok"] or "stubborn" not in " ".join(await run.tools())
        await until(lambda: len(run.broker.fleet) == 1 and len(children()) == 1)


async def test_no_configuration_is_kept_by_links_of_callers_that_are_gone(broker_of: BrokerOf) -> None:
    """Each has the lists of all servers in it; what a caller wanted of a closed link is remembered for long."""
    mine = stateful(isolation="session", isolation_idle=60)
    async with broker_of({"bad": mine}) as run:
        await run.ready("good", "bad")
        reloads, before = Reloads(run.broker, {}), list[Any]()
        for number in range(3):
            ada = Person(run, "")
            await ada.call("remember", text="x")
            os.kill(await ada.pid(), signal.SIGKILL)
            await until(lambda: len(run.broker.generation.pool.isolated["bad"]) == 0)
            before.append(weakref.ref(run.broker.generation))
            write(run, {"bad": mine}, drain=number)
            assert await reloads.reload()
            await run.innocent()
        del ada
        await until(lambda: gc.collect() >= 0 and not any(one() for one in before))
