"""The configuration: `load` a file, get a `Config`, or a `ConfigError` with everything that is wrong with it."""

from broker.config.access import (
    ConditionSettings,
    KeySettings,
    LevelSettings,
    OrganizationSettings,
    RuleSettings,
    TeamSettings,
)
from broker.config.audit import AuditSettings, MetricsSettings
from broker.config.changes import Changes
from broker.config.costs import BudgetSettings, CostSettings, UsageSettings, budget_of, prices_of
from broker.config.directory import directory_of, rule_of
from broker.config.guardrails import GuardrailSettings, GuardrailText, read_text
from broker.config.identity import IdentitySettings, JwtIssuer
from broker.config.limits import (
    LevelLimitSettings,
    LimitSettings,
    ServerLimitSettings,
    level_limits_of,
    server_limits_of,
)
from broker.config.load import Loaded, load
from broker.config.model import (
    BrokerSettings,
    Config,
    HttpServer,
    InstructionsText,
    NameRules,
    NamingSettings,
    Server,
    ServerBase,
    ServerSettings,
    StdioServer,
    StoreSettings,
    UriRules,
)
from broker.config.problem import ConfigError, Fault, Problem
from broker.config.secret import BadReferenceError, Secret, Sources, expand, reveal
from broker.config.strict import SecretText

__all__ = [
    "AuditSettings",
    "BadReferenceError",
    "BrokerSettings",
    "BudgetSettings",
    "Changes",
    "ConditionSettings",
    "Config",
    "ConfigError",
    "CostSettings",
    "Fault",
    "GuardrailSettings",
    "GuardrailText",
    "HttpServer",
    "IdentitySettings",
    "InstructionsText",
    "JwtIssuer",
    "KeySettings",
    "LevelLimitSettings",
    "LevelSettings",
    "LimitSettings",
    "Loaded",
    "MetricsSettings",
    "NameRules",
    "NamingSettings",
    "OrganizationSettings",
    "Problem",
    "RuleSettings",
    "Secret",
    "SecretText",
    "Server",
    "ServerBase",
    "ServerLimitSettings",
    "ServerSettings",
    "Sources",
    "StdioServer",
    "StoreSettings",
    "TeamSettings",
    "UriRules",
    "UsageSettings",
    "budget_of",
    "directory_of",
    "expand",
    "level_limits_of",
    "load",
    "prices_of",
    "read_text",
    "reveal",
    "rule_of",
    "server_limits_of",
]
