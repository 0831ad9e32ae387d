"""The section `audit:`: what is recorded of calls and discoveries, and how long it is kept."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from broker.config import rules
from broker.config.strict import Freeze, Strictest

_Form = Literal["plain", "hash", "mask"]
_Paths = Annotated[Mapping[Annotated[str, AfterValidator(rules.value_path)], _Form], *Freeze]
_Allowed = Annotated[Mapping[Annotated[str, AfterValidator(rules.tool_name)], _Paths], *Freeze]


class MetricsSettings(Strictest):
    access: Literal["off", "admin", "public"] = Field(
        default="off", description="Who may read /metrics: nobody, keys with the role admin, or everybody."
    )


class TracesSettings(Strictest):
    enabled: Annotated[bool, AfterValidator(rules.has_opentelemetry)] = Field(
        default=False, description="true: requests are traced, and spans sent to a collector of OpenTelemetry."
    )
    endpoint: Annotated[str, AfterValidator(rules.url)] | None = Field(
        default=None, description="Where spans are sent, the whole URL. null: as OTEL_EXPORTER_OTLP_ENDPOINT says."
    )
    sample: float | None = Field(
        default=None, ge=0, le=1, description="Share of the traces that begin here. null: OTEL_TRACES_SAMPLER, or all."
    )


class AuditSettings(Strictest):
    enabled: bool | None = Field(
        default=None, description="Whether calls and discoveries are recorded. null: where callers have credentials."
    )
    required: bool = Field(
        default=False,
        description="true: a call is made only once its decision is written, and refused if it cannot be.",
    )
    keep_days: int = Field(default=90, ge=1, le=3660, description="Days after which records are removed.")
    max_bytes: int = Field(
        default=1 << 30, ge=1 << 20, le=1 << 44, description="Bytes of records, at most; the oldest make room."
    )
    sync: bool = Field(
        default=False, description="true: a record counts as written once the disk has it: it survives a power loss."
    )
    index: bool = Field(
        default=True, description="Whether the store gets an index of the records, by which they are found quickly."
    )
    arguments: _Allowed = Field(
        default={}, validate_default=True, description="Arguments that are recorded, by full name and path; none else."
    )
    results: _Allowed = Field(
        default={}, validate_default=True, description="The same for the structured results of tools."
    )
