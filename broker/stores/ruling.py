"""Stored rules and limits -> those of core, through the model of the file: what the file would refuse is none here."""

from dataclasses import replace

from broker.config.access import RuleSettings
from broker.config.directory import rule_of
from broker.config.limits import LevelLimitSettings, level_limits_of
from broker.core.grants import Level, Rule
from broker.core.quota import UNLIMITED, LevelLimits
from broker.stores.rows import LimitsJson, RulesJson, Terms


def read_level(empty: Level, terms: Terms) -> Level:
    """A level with what is stored of it. Raises: ValueError, if any of that cannot be read."""
    return replace(
        empty,
        allow=empty.allow if terms.allow is None else read_rules(terms.allow),
        deny=() if terms.deny is None else read_rules(terms.deny),
        limits=UNLIMITED if terms.limits is None else read_limits(terms.limits),
    )


def read_limits(limits: LimitsJson) -> LevelLimits:
    """Raises: ValueError, for anything that is none."""
    return level_limits_of(LevelLimitSettings.model_validate(limits))


def read_rules(rules: RulesJson) -> tuple[Rule, ...]:
    """Raises: ValueError, for anything that is none."""
    found = tuple(rule_of(RuleSettings.model_validate(one)) for one in rules)
    if any(rule.servers is None and not rule.names for rule in found):
        raise ValueError("a rule that names nothing")
    return found
