"""The corpora on every way that a guardrail is used: loaded, tested, around a live request, a live result (I-06).

For each hostile source: it is refused or denied, an innocent call beside it succeeds, the broker's memory and loop are
untouched, and nothing of the broker comes out.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from anyio import lowlevel

from broker.cli import guardrail as command
from broker.clock import SystemClock
from broker.core.match import Pattern
from broker.guardrails.chain import Guardrail, GuardrailRecord, Phase, Selector
from broker.guardrails.guards import Guards
from broker.guardrails.pool import Pool
from broker.guardrails.run import judge, load
from broker.guardrails.source import Source
from broker.guardrails.verdict import Pass, Reject, Rewrite
from tests.guardrails.corpus import CANARY, CONTEXT, Attack, attacks, controls, source
from tests.hostile.cost import MIB, LoopWatch, memory_below
from tests.relay.fake import Fake, House, Judgements, house

INNOCENT = source("def check(ctx):\n    return {'action': 'allow'}\n", name="innocent", timeout=10.0)
MAX_GROWTH = 20 * MIB
MAX_CALLBACK = 0.05
"""Seconds of CPU."""


@dataclass
class World:
    """One broker and one pool for all: what one source does to them must not matter to the next."""

    place: House
    pool: Pool
    watch: LoopWatch

    async def live(self, hostile: Source, phase: Phase) -> tuple[dict[str, Any], list[GuardrailRecord]]:
        """The result of a call that `hostile` judges, while an innocent one is judged beside it."""
        trail = Judgements()
        echo, slow = Selector(names=(Pattern("one__echo"),)), Selector(names=(Pattern("one__slow"),))
        guards = Guards(
            [Guardrail(hostile, frozenset({phase}), echo), Guardrail(INNOCENT, frozenset({phase}), slow)],
            SystemClock(),
        )
        guards.pool = self.pool
        self.place.broker.generation.guards = guards
        self.place.trail = trail
        results: dict[str, Any] = {}

        async def call(name: str) -> None:
            arguments = {"name": f"one__{name}", "arguments": CONTEXT["args"]}
            results[name] = await self.place.ask("tools/call", arguments)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "echo")
            tasks.start_soon(call, "slow")
        assert results["slow"].get("isError") is None, "the innocent call"
        return results["echo"], [one for one in trail.found if one.guardrail == hostile.name]


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    pool, watch = Pool(SystemClock()), LoopWatch()
    with pytest.MonkeyPatch.context() as patch, watch.watching():
        patch.setenv("CANARY", CANARY)
        async with house(tmp_path_factory.mktemp("escapes"), {"one": Fake()}) as place, pool.running():
            yield World(place, pool, watch)
    assert pool.pids() == []


CASES = [
    pytest.param(attack, text, id=f"{attack.name}-{variant}")
    for attack in attacks()
    for variant, text in attack.variants()
]


@pytest.mark.parametrize(("attack", "text"), CASES)
async def test_I06_a_hostile_source_is_refused_or_denied_everywhere(world: World, attack: Attack, text: str) -> None:
    hostile = source(text)
    await lowlevel.checkpoint()  # the digest of 20 MB is the test's own, and so is the callback that made it
    world.watch.worst = 0.0
    with memory_below(MAX_GROWTH):
        flaws = await load(world.pool, hostile)
        code, document = await command.tested(world.pool, hostile, {**CONTEXT})
        lives = [await world.live(hostile, phase) for phase in (Phase.REQUEST, Phase.RESULT)]
    assert world.watch.worst < MAX_CALLBACK, world.watch.who
    outcomes = {"reject" if flaws else "denied" if code == 1 else "answered"}
    assert outcomes <= attack.may_be, (flaws, document)
    assert (code == 2) is bool(flaws), "the test command and the load agree"
    for result, noted in lives:
        # What was refused when it was loaded is run here all the same: nothing may depend on the order.
        is_denied = noted[-1].action in ("fault", "reject")
        assert is_denied or (outcomes == {"answered"} and document["action"] in ("allow", "modify")), (noted, document)
        assert not flaws or noted[-1].action == "fault", "refused when loaded, and yet it decides"
        if is_denied:
            assert result["content"] == [{"type": "text", "text": "blocked by guardrail tested"}]
        assert "arg-canary" not in noted[-1].reason
    out = json.dumps([[flaw.message for flaw in flaws], document, lives], default=str)
    assert CANARY not in out and len(out) < 20_000


@pytest.mark.parametrize("control", controls(), ids=lambda control: control["name"])
async def test_an_ordinary_guardrail_works(world: World, control: dict[str, Any]) -> None:
    ordinary = source(control["code"], timeout=10.0)
    context = control.get("ctx", CONTEXT)
    assert await load(world.pool, ordinary) == ()
    verdict = await judge(world.pool, ordinary, context, "args")
    assert type(verdict) is {"allow": Pass, "block": Reject, "modify": Rewrite}[control["expect_action"]], verdict
    if isinstance(verdict, Rewrite):
        assert verdict.value == control["expect_args"]
    code, document = await command.tested(world.pool, ordinary, {"phase": "request", **context})
    assert (code, document["action"]) == (0, control["expect_action"])
