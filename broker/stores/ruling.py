"""Stored rules -> rules, through the model of the file: what the file would refuse is no rule here either."""

from broker.config.access import RuleSettings
from broker.config.directory import rule_of
from broker.core.grants import Rule
from broker.stores.rows import RulesJson


def read_rules(rules: RulesJson) -> tuple[Rule, ...]:
    """Raises: ValueError, for anything that is none."""
    found = tuple(rule_of(RuleSettings.model_validate(one)) for one in rules)
    if any(rule.servers is None and not rule.names for rule in found):
        raise ValueError("a rule that names nothing")
    return found
