"""Rules of core, in the words of the file: for what is shown."""

from collections.abc import Sequence
from typing import Any

from broker.core.grants import Rule


def rules_json(rules: Sequence[Rule] | None) -> list[dict[str, Any]] | None:
    """As they would be written in `allow` or `deny`."""
    return None if rules is None else [_rule(rule) for rule in rules]


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
