"""Who may see and use what, as it is written: organizations, their teams and keys, and the rules of each."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from broker.config import rules
from broker.config.limits import LevelLimitSettings
from broker.config.problem import Fault
from broker.config.strict import Freeze, Lists, Strictest

_Word = Annotated[str, AfterValidator(rules.word)]
_NamePattern = Annotated[str, AfterValidator(rules.name_pattern)]
_UriPattern = Annotated[str, AfterValidator(rules.pattern)]
_Names: TypeAlias = Annotated[tuple[_NamePattern, ...], Lists] | None
_Uris: TypeAlias = Annotated[tuple[_UriPattern, ...], Lists] | None
_Scalar = Annotated[Any, AfterValidator(rules.scalar)]
_Scalars = Annotated[tuple[_Scalar, ...], Lists, Field(min_length=1, max_length=rules.MAX_VALUES)]
_Number = Annotated[Any, AfterValidator(rules.number)]


class ConditionSettings(Strictest):
    """What one argument must be; all that is written must hold."""

    exists: bool = Field(default=True, description="Whether it is there.")
    equals: _Scalar = Field(default=None, description="The one value. It compares as JSON: true is not 1, 1 is 1.0.")
    in_: _Scalars = Field(default=(), alias="in", description="One of these values.")
    not_in: _Scalars = Field(default=(), description="None of these values, but of their types.")
    prefix: str = Field(default="", description="A text that begins so.")
    min: _Number = Field(default=None, description="A number, not less than this.")
    max: _Number = Field(default=None, description="A number, not more than this.")

    @model_validator(mode="after")
    def _asks_something(self) -> "ConditionSettings":
        if not self.model_fields_set:
            raise Fault("a condition that asks nothing", "Write it as in {in: [test, staging]}, or remove it.")
        return self


class RuleSettings(Strictest):
    """One line of an allow or deny list; all that is written must hold."""

    servers: _Names = Field(default=None, description="Keys of servers; * stands for any characters.")
    tools: _Names = Field(default=None, description="Full names of tools: <key>__<own name>.")
    prompts: _Names = Field(default=None, description="Full names of prompts: <key>__<own name>.")
    resources: _Uris = Field(default=None, description="Full names of resources: <key>+<own URI>.")
    templates: _Uris = Field(default=None, description="Full names of templates: <key>+<own URI template>.")
    when: Annotated[Mapping[Annotated[str, AfterValidator(rules.argument_path)], ConditionSettings], *Freeze] = Field(
        default={}, validate_default=True, description="Conditions on the arguments of tools, by args.<path>."
    )

    @model_validator(mode="after")
    def _has_conditions(self) -> "RuleSettings":
        if "when" in self.model_fields_set and not self.when:
            # All of them commented out, say: the rule would hold for every call.
            raise Fault("when without conditions", "Add one, or remove when.")
        return self


_Rules: TypeAlias = Annotated[tuple[RuleSettings, ...], Lists]


class LevelSettings(Strictest):
    """What organizations, teams and keys have in common."""

    allow: _Rules | None = Field(
        default=None, description="What may be used. Left out: all that the level above allows. []: nothing."
    )
    deny: _Rules = Field(default=(), description="What may not be used, also if it is allowed.")
    limits: LevelLimitSettings | None = Field(default=None, description="How many calls, of all below this level.")


class KeySettings(LevelSettings):
    """A key, by what `mcp-broker key create --for-file` prints of it."""

    hash: Annotated[str, AfterValidator(rules.key_hash)] = Field(description="The hash of the key, never the key.")
    expires: Annotated[str, AfterValidator(rules.moment)] | None = Field(
        default=None, description="When it ends: a date (its beginning, UTC), or a time such as 2027-01-01T12:00:00Z."
    )
    role: Literal["member", "team-admin", "org-admin", "admin"] = Field(
        default="member", description="What its holder may administer; it is no grant to use anything."
    )


_Keys: TypeAlias = Annotated[Mapping[_Word, KeySettings], *Freeze]


class TeamSettings(LevelSettings):
    """A team of an organization."""

    keys: _Keys = Field(default={}, validate_default=True, description="Its keys, by name.")


class OrganizationSettings(LevelSettings):
    """An organization."""

    teams: Annotated[Mapping[_Word, TeamSettings], *Freeze] = Field(
        default={}, validate_default=True, description="Its teams, by name."
    )
    keys: _Keys = Field(default={}, validate_default=True, description="Keys that stand outside of any team, by name.")
