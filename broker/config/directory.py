"""The organizations of the file -> the `Directory` that the policy is compiled from."""

from collections.abc import Iterable, Mapping
from math import inf

from broker.config import rules
from broker.config.access import ConditionSettings, KeySettings, LevelSettings, OrganizationSettings, RuleSettings
from broker.config.identity import JwtIssuer
from broker.config.limits import level_limits_of
from broker.core.caller import Role
from broker.core.conditions import Condition, Op
from broker.core.directory import Directory, Key, KeyHash, Organization, Team
from broker.core.grants import Rule, key_level, organization_level, team_level
from broker.core.match import Pattern
from broker.core.quota import LevelLimits
from broker.core.request import Kind


def directory_of(organizations: Mapping[str, OrganizationSettings], issuers: Iterable[JwtIssuer] = ()) -> Directory:
    """Everybody that the file knows of, and what scopes of tokens allow."""
    scopes = {
        one.issuer: {scope: tuple(map(rule_of, those)) for scope, those in one.scopes.items()}
        for one in issuers
        if one.scopes
    }
    made = {name: _organization(name, settings) for name, settings in organizations.items()}
    return Directory(made, scopes=scopes)


def rule_of(settings: RuleSettings) -> Rule:
    """One rule."""
    written = {Kind(kind): getattr(settings, kind) for kind in Kind}
    return Rule(
        None if settings.servers is None else tuple(map(Pattern, settings.servers)),
        {kind: tuple(map(Pattern, those)) for kind, those in written.items() if those is not None},
        tuple(one for path, those in settings.when.items() for one in conditions_of(path, those)),
    )


def conditions_of(path: str, settings: ConditionSettings) -> list[Condition]:
    """The conditions on one argument; `path` begins with `args.`."""
    keys = tuple(path.split(".")[1:])
    written = {field.alias or name: getattr(settings, name) for name, field in ConditionSettings.model_fields.items()}
    given = {ConditionSettings.model_fields[name].alias or name for name in settings.model_fields_set}
    return [Condition(keys, Op(word), value) for word, value in written.items() if word in given]


def _organization(name: str, settings: OrganizationSettings) -> Organization:
    teams = {
        team: Team(team, team_level(name, team, *_parts(those)), _keys(name, team, those.keys))
        for team, those in settings.teams.items()
    }
    return Organization(name, organization_level(name, *_parts(settings)), teams, _keys(name, "", settings.keys))


def _keys(organization: str, team: str, keys: Mapping[str, KeySettings]) -> Mapping[str, Key]:
    return {
        name: Key(
            name,
            name,
            key_level(organization, team, name, *_parts(settings)),
            (KeyHash(settings.hash),),
            inf if settings.expires is None else rules.seconds(settings.expires),
            Role(settings.role),
        )
        for name, settings in keys.items()
    }


def _parts(level: LevelSettings) -> tuple[tuple[Rule, ...] | None, tuple[Rule, ...], LevelLimits]:
    allow = None if level.allow is None else tuple(map(rule_of, level.allow))
    return allow, tuple(map(rule_of, level.deny)), level_limits_of(level.limits)
