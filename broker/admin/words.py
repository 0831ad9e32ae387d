"""Rules and limits of core, in the words of the file: for what is shown."""

from collections.abc import Sequence
from typing import Any

from broker.core.amount import UNIT, amount_text
from broker.core.grants import Rule
from broker.core.quota import QUEUE, WAIT, LevelLimits, Limits


def rules_json(rules: Sequence[Rule] | None) -> list[dict[str, Any]] | None:
    """As they would be written in `allow` or `deny`."""
    return None if rules is None else [_rule(rule) for rule in rules]


def limits_json(limits: LevelLimits) -> dict[str, Any] | None:
    """As they would be written in `limits`; None for none."""
    written = _limits(limits.in_all)
    servers = {key: _limits(one) for key, one in limits.servers.items() if not one.is_none}
    written |= {"servers": servers} if servers else {}
    budget = {str(period): _amount(amount) for period, amount in limits.budget.items()}
    written |= {"budget": budget} if budget else {}
    return written or None


def _amount(amount: int) -> int | str:
    """As text, where a float would say something near it."""
    return amount_text(amount) if amount % UNIT else amount // UNIT


def _limits(limits: Limits) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if limits.rates:
        written["rate"] = [str(rate) for rate in limits.rates]
    if limits.concurrency is not None:
        written["concurrency"] = limits.concurrency
        written |= {} if limits.queue == QUEUE else {"queue": limits.queue}
        written |= {} if limits.wait == WAIT else {"wait": limits.wait}
    return written


def _rule(rule: Rule) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if rule.servers is not None:
        written["servers"] = [pattern.text for pattern in rule.servers]
    for kind, patterns in rule.names.items():
        written[str(kind)] = [pattern.text for pattern in patterns]
    when: dict[str, dict[str, Any]] = {}
    for one in rule.when:
        value = list(one.value) if isinstance(one.value, tuple) else one.value
        when.setdefault(f"args.{one.argument}", {})[str(one.op)] = value
    return {**written, "when": when} if when else written
