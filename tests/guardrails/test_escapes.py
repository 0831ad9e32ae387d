"""The corpora: what must not get through does not, what must work does, by the one way to load and to run (I-06)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.guardrails.pool import Pool
from broker.guardrails.run import judge, load
from broker.guardrails.verdict import PASS, Fault, Reject, Rewrite
from tests.guardrails.corpus import CANARY, CONTEXT, Attack, attacks, controls, source


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Pool]:
    """One pool for all: what one source does to it must not matter to the next."""
    pool = Pool(SystemClock())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANARY", CANARY)
        async with pool.running():
            yield pool
    assert pool.pids() == []


CASES = [
    pytest.param(attack, text, id=f"{attack.name}-{variant}")
    for attack in attacks()
    for variant, text in attack.variants()
]


@pytest.mark.parametrize(("attack", "text"), CASES)
async def test_I06_a_hostile_source_is_refused_or_denied(shared: Pool, attack: Attack, text: str) -> None:
    hostile = source(text)
    flaws = await load(shared, hostile)
    # Run what was refused, too: nothing may depend on whether it was loaded first.
    verdict = await judge(shared, hostile, CONTEXT, "args")
    outcome = "reject" if flaws else "denied" if isinstance(verdict, Fault) else "answered"
    assert outcome in attack.may_be, (outcome, flaws, verdict)
    assert not flaws or isinstance(verdict, Fault), "refused when loaded, and yet it decides"
    assert CANARY not in f"{flaws}{verdict}" and len(f"{flaws}{verdict}") < 10_000
    innocent = await judge(
        shared, source("def check(ctx):\n    return {'action': 'allow'}\n", timeout=10.0), {}, "args"
    )
    assert innocent == PASS


@pytest.mark.parametrize("control", controls(), ids=lambda control: control["name"])
async def test_an_ordinary_guardrail_works(shared: Pool, control: dict[str, Any]) -> None:
    ordinary = source(control["code"], timeout=10.0)
    assert await load(shared, ordinary) == ()
    verdict = await judge(shared, ordinary, control.get("ctx", CONTEXT), "args")
    assert type(verdict) is {"allow": type(PASS), "block": Reject, "modify": Rewrite}[control["expect_action"]], verdict
    if isinstance(verdict, Rewrite):
        assert verdict.value == control["expect_args"]
