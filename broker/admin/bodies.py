"""What requests of the API may say: strict, and nothing else. No field is a command, or a URL to fetch (I-01)."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from broker.admin.rules import KEPT, MAX_RULES, Rules
from broker.core.caller import Role
from broker.core.request import Kind
from broker.usage import question as records

RoleName = Literal["member", "team-admin", "org-admin", "admin"]
KindName = Literal["tools", "prompts", "resources", "templates"]
Seconds = Annotated[float, Field(ge=0, le=253_402_300_799, allow_inf_nan=False)]
"""Until the year 9999."""
MAX_RECORDS: Final = 1000
"""Records of one answer: more would be many megabytes."""


def _number(text: object) -> object:
    """A number of a query string, where all is text."""
    try:
        return text if not isinstance(text, str) else float(text) if "." in text else int(text)
    except ValueError:
        return text


Moment = Annotated[Seconds, BeforeValidator(_number)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Word = Annotated[str, Field(min_length=1, max_length=512)]
RuleList = Annotated[list[dict[str, Any]], Field(max_length=MAX_RULES)] | None


class Body(BaseModel):
    """A field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RulesBody(Body):
    """`allow`, `deny`, `limits` in the words of servers.yaml: what is left out stays as it is, `null` takes it away."""

    allow: RuleList = None
    deny: RuleList = None
    limits: dict[str, Any] | None = None

    @property
    def rules(self) -> Rules:
        """See `Rules`."""
        given = self.model_fields_set
        return Rules(
            self.allow if "allow" in given else KEPT,
            self.deny if "deny" in given else KEPT,
            self.limits if "limits" in given else KEPT,
        )


class NewPlace(RulesBody):
    """An organization, or a team."""

    name: Word


class NewKey(RulesBody):
    """A key. `team`: left out for one that stands directly in its organization. `expires`: seconds since 1970."""

    organization: Word
    team: Word | None = None
    name: Word
    role: RoleName = "member"
    expires: Seconds | None = None


class KeyChange(RulesBody):
    """What is left out stays."""

    role: RoleName | None = None
    expires: Seconds | None = None

    @property
    def new_role(self) -> Role | None:
        """None: as it is."""
        return None if self.role is None else Role(self.role)


class Rotation(Body):
    """`overlap`: seconds for which the old text stays good."""

    overlap: Seconds | None = None


class Move(Body):
    """Where a key goes. `team`: left out for the organization itself."""

    organization: Word
    team: Word | None = None


class NewMember(Body):
    """`principal`: `jwt:<issuer> <subject>` or `key:<id>`."""

    principal: Word
    role: RoleName


class Question(Body):
    """May `as` use `name`? With `arguments`: may it make this call of a tool?"""

    model_config = ConfigDict(populate_by_name=False)

    who: Text = Field(alias="as")
    name: Text
    kind: KindName | None = None
    view: str = Field("", max_length=64)
    arguments: dict[str, Any] | None = None

    @property
    def of_kind(self) -> Kind | None:
        """None: whatever has that name."""
        return None if self.kind is None else Kind(self.kind)


class ViewQuery(Body):
    """Whose view, and which."""

    who: Text = Field(alias="as")
    view: str = Field("", max_length=64)


class PlaceQuery(Body):
    """Of one place only."""

    organization: str = Field("", max_length=64)
    team: str = Field("", max_length=64)


class UsageQuery(Body):
    """Of which time, and what is told apart. `since`, `until`: a date, or a time with its zone; left out: the last
    seven days. `step`: the lengths of time that are told apart.
    """

    by: Literal["organization", "team", "key", "tool", "server"] = "tool"
    step: Literal["hour", "day", "all"] = "all"
    since: str = Field("", max_length=64)
    until: str = Field("", max_length=64)


class _RecordQuery(Body):
    """Of whom, and when. Texts are patterns, in which `*` stands for any characters; times are seconds since 1970."""

    caller: Word | None = None
    organization: Word | None = None
    team: Word | None = None
    since: Moment | None = None
    until: Moment | None = None


class RecordQuery(_RecordQuery):
    """Which records: the newest `limit` of those that fit all that is given."""

    event: Word | None = None
    tool: Text | None = None
    server: Word | None = None
    outcome: Word | None = None
    rule: Text | None = None
    limit: Annotated[int, BeforeValidator(_number), Field(ge=1, le=MAX_RECORDS)] = 50

    @property
    def question(self) -> records.Question:
        """See `records.Question`."""
        return records.Question(**self.model_dump(exclude={"limit"}))


class SightQuery(_RecordQuery):
    """Who was shown `name`, a full or a public one."""

    name: Text

    @property
    def question(self) -> records.Question:
        """See `records.Question`."""
        return records.Question(**self.model_dump(exclude={"name"}))


class MemberQuery(Body):
    """Whose role."""

    principal: Word
