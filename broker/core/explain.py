"""Why a decision is what it is: every rung it passed, and the one that decided. For the command line and the API."""

from collections.abc import Iterator
from dataclasses import dataclass

from broker.core.caller import LOCAL, Caller
from broker.core.catalog import Entry
from broker.core.grants import full_name
from broker.core.policy import ANY, Permit, Policy, decide
from broker.core.ruling import Refusal, Ruling, Tier, rule_on


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: the rule that spoke, whether it let the caller pass, and why, in words for a person."""

    rule: str
    passed: bool
    reason: str


def explain(
    policy: Policy, caller: Caller, view: str, entry: Entry | None, arguments: object = ANY
) -> tuple[Step, ...]:
    """The steps of a decision, in order; the last one is the decision itself, with its rule.

    What a level says of a URI that nobody lists may be a step that did not pass, while the last one did: a visible
    template lets a caller in too.
    """
    decision = decide(policy, caller, view, entry, arguments)
    reason = "this rule lets the caller use it" if isinstance(decision, Permit) else decision.reason
    steps = () if entry is None else _steps(policy, caller, view, entry, arguments)
    return (*steps, Step(decision.rule, isinstance(decision, Permit), reason))


def _steps(policy: Policy, caller: Caller, view: str, entry: Entry, arguments: object) -> Iterator[Step]:
    name = full_name(entry.kind, entry.server, entry.own)
    yield Step("entry", True, f"{entry.public} is {name}, {'' if entry.listed else 'not '}listed by its server")
    if not policy.shows(view, entry.server):
        return
    if view:
        yield Step(f"view:{view}", True, f"server {entry.server!r} is part of the view")
    standing = policy.standing(caller)
    if standing.refusal is not None:
        return
    levels = ", ".join(tier.where for tier in standing.tiers) or "no levels"
    yield Step("place", True, f"{caller.principal} stands below {levels}")
    server = policy.ruling(policy.standing(LOCAL), entry)
    if not server.is_possible:
        return
    yield Step(server.rule, True, "the server's rules serve it")
    for tier in standing.tiers:
        yield _level(tier, rule_on((tier,), entry.kind, entry.server, entry.own, tier.where))
    ruling = policy.ruling(standing, entry)
    if arguments is not ANY and ruling.is_possible:
        yield from _conditions(ruling, arguments)


def _level(tier: Tier, ruling: Ruling) -> Step:
    if not ruling.is_possible:
        return Step(ruling.rule, False, ruling.reason)
    reason = "no rule denies it" if tier.allow is None else "a rule allows it, and none denies it"
    return Step(ruling.rule, True, reason + (", under conditions" if ruling.tests else ""))


def _conditions(ruling: Ruling, arguments: object) -> Iterator[Step]:
    for test in ruling.tests:
        verdict = test.judge(arguments)
        if isinstance(verdict, Refusal):
            yield Step(verdict.rule, False, f"the argument {verdict.argument!r} is not one that it lets through")
        else:
            yield Step(verdict or test.rule, True, "the arguments satisfy its conditions")
