"""Which guardrails judge what: what is remembered of that is never taken for something else."""

import itertools
from dataclasses import replace

import pytest

from broker.core.caller import LOCAL, Caller
from broker.core.match import Pattern
from broker.guardrails import chain
from broker.guardrails.chain import OF_CALLS, Chains, Guardrail, Phase, Selector, Subject
from broker.guardrails.source import Source

CALLERS = [LOCAL, *(Caller("key:x", *place) for place in itertools.product(["acme", "b"], ["", "data"], ["", "ci"]))]
ENTRIES = [*itertools.product(["one", "two"], ["tools", "prompts"], ["a", "b"]), ("one", "", ""), ("two", "", "")]
SELECTORS = [
    Selector(servers=frozenset({"one"})),
    Selector(kinds=frozenset({"prompts"})),
    Selector(names=(Pattern("*__a"),)),
    Selector(organizations=(Pattern("acme"),)),
    Selector(teams=(Pattern("*/data"),)),
    Selector(keys=(Pattern("ci"),)),
]


def guardrail(selector: Selector, *phases: Phase) -> Guardrail:
    return Guardrail(Source("check", b"", "0" * 64, 1.0, 1, 1), frozenset(phases), selector)


@pytest.mark.parametrize("kept", [1, 5, chain.MAX_KEPT])
@pytest.mark.parametrize("selector", SELECTORS)
def test_what_is_remembered_of_one_call_says_nothing_of_another(
    monkeypatch: pytest.MonkeyPatch, selector: Selector, kept: int
) -> None:
    monkeypatch.setattr(chain, "MAX_KEPT", kept)
    chains = Chains([guardrail(selector, Phase.RESULT)])
    found: set[bool] = set()
    for _, caller, (server, kind, own) in itertools.product(range(2), CALLERS, ENTRIES):
        judges = chains.judge_calls(server, kind, own, caller)
        assert judges == selector.fits(Subject(server, kind, own, caller=caller))
        found.add(judges)
    assert found == {True, False}


def test_a_call_is_judged_in_any_phase_of_it_and_no_definition_is_a_call() -> None:
    for phase in Phase:
        chains = Chains([guardrail(Selector(), phase)])
        assert chains.judge_calls("one", "tools", "a", LOCAL) == (phase in OF_CALLS) == (phase is not Phase.DEFINITION)
    first = guardrail(Selector(keys=(Pattern("none"),)), Phase.REQUEST)
    assert Chains([first, replace(first, selector=Selector())]).judge_calls("one", "tools", "a", LOCAL)
