"""pydantic's errors -> findings, in plain words and without the values."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from broker.config.access import (
    ConditionSettings,
    KeySettings,
    OrganizationSettings,
    RuleSettings,
    TeamSettings,
)
from broker.config.checks import did_you_mean
from broker.config.costs import CostSettings, UsageSettings
from broker.config.document import Data, Finding, Path
from broker.config.guardrails import GuardrailSettings
from broker.config.identity import IdentitySettings, JwtIssuer
from broker.config.limits import LevelLimitSettings, LimitSettings, ServerLimitSettings
from broker.config.model import (
    BrokerSettings,
    Config,
    HttpServer,
    InstructionsText,
    NameRules,
    NamingSettings,
    ServerSettings,
    StdioServer,
    StoreSettings,
    UriRules,
)
from broker.config.problem import Fault
from broker.config.strict import TAG

_TOP: dict[str, type[BaseModel]] = {
    "broker": BrokerSettings,
    "naming": NamingSettings,
    "server": ServerSettings,
    "store": StoreSettings,
    "identity": IdentitySettings,
    "usage": UsageSettings,
}
_IN_SERVER: dict[str, type[BaseModel]] = {
    "tools": NameRules,
    "prompts": NameRules,
    "resources": UriRules,
    "instructions": InstructionsText,
    "cost": CostSettings,
    "limits": ServerLimitSettings,
}
SERVER_FIELDS: frozenset[str] = frozenset({*StdioServer.model_fields, *HttpServer.model_fields})

_ELSEWHERE: dict[str, str] = {"type": "transport", "serverUrl": "url", "disabled": "enabled", "environment": "env"}
"""What other formats call our fields, where the spelling is not near."""

_WORDS: dict[str, tuple[str, str]] = {
    "string_type": ("must be a text", "Put numbers, true and false in quotes."),
    "is_instance_of": ("must be a text", "Put numbers, true and false in quotes."),
    "bool_type": ("must be true or false", ""),
    "int_type": ("must be a whole number", ""),
    "int_from_float": ("must be a whole number", ""),
    "float_type": ("must be a number", ""),
    "finite_number": ("must be a finite number", ""),
    "dict_type": ("must be a mapping", "Write name: value lines below it."),
    "mapping_type": ("must be a mapping", "Write name: value lines below it."),
    "model_type": ("must be a mapping", "Write name: value lines below it."),
    "tuple_type": ("must be a list", "Write it as in [one, two]."),
}
_BOUNDS: dict[str, str] = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length} entries",
    "string_too_long": "must have at most {max_length} characters",
}


def findings(error: ValidationError, data: Data) -> list[Finding]:
    """data: what was validated, to tell a server with a command from one with a url."""
    details = error.errors(include_url=False, include_input=False)
    return [_finding(detail["type"], detail["loc"], detail.get("ctx", {}), data) for detail in details]


def _finding(kind: str, loc: Path, context: Mapping[str, Any], data: Data) -> Finding:
    path = _without_tags(loc)
    if kind == "extra_forbidden":
        return _unknown_key(path, data)
    if kind == "missing":
        return _missing(path)
    message, remedy = _said(kind, context)
    if loc and loc[-1] == "[key]":
        return Finding(path[:-1], message, remedy)
    return Finding(path, message, remedy)


def _without_tags(loc: Path) -> Path:
    return tuple(part for part in loc if not (isinstance(part, str) and part.startswith(TAG)))


def _said(kind: str, context: Mapping[str, Any]) -> tuple[str, str]:
    if isinstance(fault := context.get("error"), Fault):
        return fault.message, fault.remedy
    if kind == "literal_error":
        return f"must be {str(context['expected']).replace(chr(39), '')}", ""
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context), ""
    # Not pydantic's own message: some of those quote the input.
    return _WORDS.get(kind, ("is not valid", ""))


def _missing(path: Path) -> Finding:
    if len(path) == 3 and path[0] == "servers":
        remedy = "Add command (a program to start) or url (a server to connect to)."
        return Finding(path[:-1], "a server needs a command or a url", remedy)
    return Finding(path[:-1], f"{path[-1]} is missing")


def _unknown_key(path: Path, data: Data) -> Finding:
    name = str(path[-1])
    if len(path) == 3 and path[0] == "servers" and name in SERVER_FIELDS:
        return _misplaced(path, name, data)
    known = _known_fields(path[:-1])
    if (ours := _ELSEWHERE.get(name, "")) in known:
        return Finding(path, "unknown key", f'Did you mean "{ours}"?')
    return Finding(path, "unknown key", did_you_mean(name, known))


def _misplaced(path: Path, name: str, data: Data) -> Finding:
    servers = data.get("servers") if isinstance(data, dict) else None
    entry = servers.get(str(path[1])) if isinstance(servers, dict) else None
    has_command = isinstance(entry, dict) and "command" in entry
    if has_command and name == "url":
        return Finding(path, "a server has a command or a url, not both", "Make two servers of it, or remove one.")
    has, other = ("a command", "a url") if name in HttpServer.model_fields else ("a url", "a command")
    return Finding(path, f"only for servers with {other}; this one has {has}", "Remove it.")


def _known_in_organizations(below: Path) -> frozenset[str]:
    match below:
        case (_,):
            return frozenset(OrganizationSettings.model_fields)
        case (_, "teams", _):
            return frozenset(TeamSettings.model_fields)
        case (*_, "keys", _):
            return frozenset(KeySettings.model_fields)
        case (*_, "limits"):
            return frozenset(LevelLimitSettings.model_fields)
        case (*_, "limits", "servers", _):
            return frozenset(LimitSettings.model_fields)
        case (*_, "allow" | "deny", int()):
            return frozenset(RuleSettings.model_fields)
        case (*_, "when", _):
            return frozenset(field.alias or name for name, field in ConditionSettings.model_fields.items())
        case _:
            return frozenset()


def _known_fields(parent: Path) -> frozenset[str]:
    match parent:
        case ():
            return frozenset(Config.model_fields)
        case ("servers", _):
            return SERVER_FIELDS
        case ("guardrails", _):
            return frozenset(GuardrailSettings.model_fields)
        case ("servers", _, str(field)) if field in _IN_SERVER:
            return frozenset(_IN_SERVER[field].model_fields)
        case ("servers", _, "tool_costs", _):
            return frozenset(CostSettings.model_fields)
        case ("servers", _, "limits", "per_caller"):
            return frozenset(LimitSettings.model_fields)
        case ("identity", "jwt", _):
            return frozenset(JwtIssuer.model_fields)
        case ("identity", "jwt", _, "scopes", scope, *below) if below:
            return _known_in_organizations((scope, "allow", *below))
        case ("organizations", *below):
            return _known_in_organizations(tuple(below))
        case (str(section),) if section in _TOP:
            return frozenset(_TOP[section].model_fields)
        case _:
            return frozenset()
