"""The configuration as a value: strict, frozen, every field documented. What is not here cannot be configured.

The descriptions are the reference documentation (it is printed from them), so they are written for operators.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from broker.config import rules
from broker.config.access import OrganizationSettings
from broker.config.audit import AuditSettings, MetricsSettings, TracesSettings
from broker.config.checks import ServerFacts, conflicts, misdirected
from broker.config.costs import AnyCost, ToolCosts, UsageSettings, cost_conflicts
from broker.config.document import dotted
from broker.config.grants import grant_conflicts, scope_conflicts
from broker.config.guardrails import GuardrailSettings, selector_facts
from broker.config.identity import IdentitySettings
from broker.config.limits import ServerLimitSettings
from broker.config.problem import Fault
from broker.config.strict import TAG, Freeze, Lists, Masked, SecretText, Strictest, hidden, unsaid
from broker.workers.assignment import MAX_WORKERS

MAX_SECONDS: float = 86_400
"""A day. A longer time-out is a typing error, or a wish to have none."""

MAX_INSTRUCTIONS: int = 1 << 20
"""Characters. Instructions go into a model's context; a megabyte is beyond any of them."""

_Word = Annotated[str, AfterValidator(rules.word)]
_NamePattern = Annotated[str, AfterValidator(rules.name_pattern)]
_UriPattern = Annotated[str, AfterValidator(rules.pattern)]
_Argument = Annotated[SecretText, AfterValidator(rules.argument)]
_EnvValue = Annotated[Masked, BeforeValidator(hidden), AfterValidator(rules.argument)]
_HeaderValue = Annotated[Masked, BeforeValidator(hidden), AfterValidator(rules.header_value)]
_Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
_Characters = Annotated[int, Field(ge=1, le=MAX_INSTRUCTIONS)]


class BrokerSettings(Strictest):
    name: Annotated[str, AfterValidator(rules.single_line)] = Field(
        default="mcp-broker", max_length=64, description="The name the broker gives itself towards callers."
    )
    instructions: SecretText | None = Field(
        default=None, description="A preamble to the merged instructions. References are expanded."
    )
    instructions_max: _Characters = Field(
        default=32768, description="Characters of merged instructions a caller gets at most; the rest is cut, and said."
    )
    state_dir: Annotated[str, AfterValidator(rules.file_path)] | None = Field(
        default=None, description="Directory for snapshots of catalogs. null: the usual place of the operating system."
    )
    drain: float = Field(
        default=20,
        ge=0,
        le=600,
        description="Seconds that calls in flight get when their server is taken out of the file, or the broker ends.",
    )
    watch: bool = Field(
        default=True,
        description="true: changes of this file, and of the files that it names, are put in force when they are seen.",
    )
    first_wait: float = Field(
        default=5,
        ge=0,
        le=300,
        description="Seconds a list waits for servers that were never seen before, at most. 0: it does not wait.",
    )


class NamingSettings(Strictest):
    max_length: int = Field(
        default=47,
        ge=42,
        le=64,
        description="Characters of a public name, at most. Hosts allow 64 and put their own prefix in front.",
    )


class ServerSettings(Strictest):
    allowed_hosts: Annotated[tuple[Annotated[str, AfterValidator(rules.allowed_host)], ...], Lists] = Field(
        default=(), description="Values of the Host header that are served besides loopback names: host or host:port."
    )
    allowed_origins: Annotated[tuple[Annotated[str, AfterValidator(rules.allowed_origin)], ...], Lists] = Field(
        default=(), description="Values of the Origin header that are served besides loopback: scheme://host[:port]."
    )
    max_connections: int | None = Field(
        default=None, ge=16, le=1_000_000, description="Connections of callers, at most. null: 10000, or what fits."
    )
    max_connections_per_caller: int = Field(
        default=1000, ge=1, le=1_000_000, description="Of one key or user, at most; never more than half of all."
    )
    max_connections_per_address: int = Field(
        default=1000, ge=1, le=1_000_000, description="From one address without a good credential yet, likewise."
    )
    memory_max: int | None = Field(
        default=None,
        ge=64,
        le=1 << 20,
        description="MiB that the broker may hold, each worker of it. Above 85 % of it requests are answered 503, "
        "above 95 % streams that only wait are ended. null: what the container allows, if it says so, divided among "
        "workers.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=MAX_WORKERS,
        description="Processes of `serve` that share the port, sessions and limits; each has servers of its own. "
        "Read at the start.",
    )


class StoreSettings(Strictest):
    url: Annotated[Masked, BeforeValidator(hidden), AfterValidator(rules.store_url)] | None = Field(
        default=None,
        description="A PostgreSQL database that several machines share: postgresql://user:password@host/name. "
        "null: a SQLite file, broker.db, in broker.state_dir. References are expanded.",
    )
    pool_size: int = Field(
        default=5, ge=2, le=100, description="Connections to PostgreSQL, at most: one polls, one writes, others read."
    )


class NameRules(Strictest):
    allow: Annotated[tuple[_NamePattern, ...], Lists] = Field(
        default=("*",), description="Own names that are served; * stands for any characters. []: none."
    )
    deny: Annotated[tuple[_NamePattern, ...], Lists] = Field(
        default=(), description="Own names that are not served, also if they are allowed."
    )


class UriRules(Strictest):
    allow: Annotated[tuple[_UriPattern, ...], Lists] = Field(
        default=("*",), description="Own URIs that are served; * stands for any characters. []: none."
    )
    deny: Annotated[tuple[_UriPattern, ...], Lists] = Field(
        default=(), description="Own URIs that are not served, also if they are allowed."
    )


class InstructionsText(Strictest):
    text: str = Field(description="What callers get in place of the server's own instructions.")


def _instructions_tag(value: object) -> str:
    return TAG + ("text" if isinstance(value, dict | InstructionsText) else "word")


class ServerBase(Strictest):
    """What all servers have in common."""

    prefix: Annotated[str, AfterValidator(rules.prefix)] | None = Field(
        default=None,
        description='The word before __ in public names. null: the key of the server. "": none (one server at most).',
    )
    enabled: bool = Field(default=True, description="false: the server is not started; its names stay reserved.")
    protocol: Literal["auto", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"] = Field(
        default="auto", description="The protocol version to speak. auto: the best that both sides know."
    )
    timeout: _Seconds = Field(default=60, description="Seconds a call may take.")
    connect_timeout: _Seconds = Field(
        default=10, description="Seconds until the server must have answered the handshake. Commands: 60, URLs: 10."
    )
    instructions: Annotated[
        Annotated[Literal["upstream", "none"], Tag(TAG + "word")] | Annotated[InstructionsText, Tag(TAG + "text")],
        Discriminator(_instructions_tag),
    ] = Field(default="upstream", description="upstream: its own. none: nothing. {text: ...}: this text instead.")
    instructions_max: _Characters = Field(
        default=8192, description="Characters of this server's instructions, at most; the rest is cut, and said."
    )
    start: Literal["eager", "lazy"] = Field(
        default="eager", description="eager: started with the broker. lazy: by the first call or list that needs it."
    )
    idle_stop: Annotated[float, Field(ge=1, le=MAX_SECONDS)] | None = Field(
        default=None,
        description="Seconds without a call until it is stopped; the next call starts it. null: never.",
    )
    when_down: Literal["keep", "hide"] = Field(
        default="keep", description="While it is down: keep its last known entries in lists, or hide them."
    )
    isolation: Literal["shared", "caller", "session"] = Field(
        default="shared",
        description="shared: one link for all callers. caller: one for each. session: one for each legacy session.",
    )
    isolation_max: int = Field(
        default=16, ge=1, le=1000, description="Links of single callers or sessions at a time, at most."
    )
    isolation_idle: _Seconds = Field(
        default=300, description="Seconds after its last call when a link of a single caller or session is closed."
    )
    pins: Literal["off", "warn", "hold"] = Field(
        default="off",
        description="A definition that is not what it was: warn says so, hold serves it once it is accepted.",
    )
    redact: Literal["off", "results"] = Field(
        default="off",
        description="results: known secrets and well-known tokens are masked in its results and reports.",
    )
    roots: bool = Field(default=True, description="false: the server is told of no roots, and gets none.")
    tools: NameRules = Field(default=unsaid(NameRules), description="Which tools are served, by their own names.")
    prompts: NameRules = Field(default=unsaid(NameRules), description="Which prompts are served, by their own names.")
    resources: UriRules = Field(
        default=unsaid(UriRules), description="Which resources and templates are served, by URI."
    )
    limits: ServerLimitSettings | None = Field(default=None, description="How many calls, of all callers and of each.")
    cost: AnyCost | None = Field(
        default=None, description="What a call costs: an amount, or {call, result, max}. null: nothing."
    )
    tool_costs: ToolCosts = Field(
        default={}, validate_default=True, description="What calls of single tools cost instead, by their own names."
    )


class StdioServer(ServerBase):
    """A program that the broker starts, and speaks to over its standard input and output."""

    command: Annotated[SecretText, AfterValidator(rules.command)] = Field(
        description="The program. Looked up beside the broker's interpreter, then on PATH. References are expanded."
    )
    args: Annotated[tuple[_Argument, ...], Lists] = Field(
        default=(), description="Its arguments. References are expanded, but other users of the machine can see them."
    )
    env: Annotated[Mapping[Annotated[str, AfterValidator(rules.env_key)], _EnvValue], *Freeze] = Field(
        default={},
        validate_default=True,
        description="Its environment, besides a few harmless variables; not the broker's own. References are expanded.",
    )
    cwd: Annotated[SecretText, AfterValidator(rules.directory)] | None = Field(
        default=None, description="Its working directory. null: the broker's own. References are expanded."
    )
    connect_timeout: _Seconds = Field(
        default=60, description="Seconds until it must have answered the handshake; packages may be fetched before."
    )


class HttpServer(ServerBase):
    """A server that the broker connects to."""

    url: Annotated[SecretText, AfterValidator(rules.url)] = Field(
        description="Its endpoint, http or https, without user name and password. References are expanded."
    )
    transport: Literal["http", "sse"] = Field(
        default="http", description="http: streamable HTTP. sse: the older HTTP+SSE."
    )
    headers: Annotated[
        Mapping[Annotated[str, AfterValidator(rules.header_name)], _HeaderValue],
        *Freeze,
    ] = Field(default={}, validate_default=True, description="Headers of every request to it. References are expanded.")


_STDIO_ONLY = frozenset({"command", "args", "env", "cwd"})
_HTTP_ONLY = frozenset({"url", "transport", "headers"})


def server_kind(value: object) -> str:
    """`stdio` or `http`, by the presence of command or url, and by the company they keep if neither is there."""
    if isinstance(value, HttpServer):
        return "http"
    if not isinstance(value, Mapping) or "command" in value:
        return "stdio"
    return "http" if "url" in value or (_HTTP_ONLY & value.keys() and not _STDIO_ONLY & value.keys()) else "stdio"


def _server_tag(value: object) -> str:
    return TAG + server_kind(value)


Server: TypeAlias = StdioServer | HttpServer
_Server = Annotated[
    Annotated[StdioServer, Tag(TAG + "stdio")] | Annotated[HttpServer, Tag(TAG + "http")], Discriminator(_server_tag)
]


class Config(Strictest):
    """One configuration file. Made by `load`; constructing it directly checks the same, but one problem at a time."""

    broker: BrokerSettings = Field(default=unsaid(BrokerSettings), description="The broker as a whole.")
    naming: NamingSettings = Field(default=unsaid(NamingSettings), description="How public names are made.")
    server: ServerSettings = Field(default=unsaid(ServerSettings), description="The HTTP front.")
    store: StoreSettings = Field(default=unsaid(StoreSettings), description="Where what is made at run time is kept.")
    identity: IdentitySettings = Field(
        default=unsaid(IdentitySettings), description="Who may come: credentials of callers over HTTP."
    )
    audit: AuditSettings = Field(
        default_factory=lambda: unsaid(AuditSettings), description="What is recorded of calls and discoveries."
    )
    metrics: MetricsSettings = Field(
        default=unsaid(MetricsSettings), description="What is counted, and who may read it."
    )
    usage: UsageSettings = Field(default=unsaid(UsageSettings), description="What callers use, and what it costs.")
    traces: TracesSettings = Field(default=unsaid(TracesSettings), description="Spans of requests, for OpenTelemetry.")
    servers: Annotated[Mapping[_Word, _Server], *Freeze] = Field(
        default={}, validate_default=True, description="The MCP servers, by key, in the order of lists."
    )
    organizations: Annotated[Mapping[_Word, OrganizationSettings], *Freeze] = Field(
        default={}, validate_default=True, description="Who may see and use what: organizations, their teams and keys."
    )
    groups: Annotated[Mapping[_Word, Annotated[tuple[str, ...], Lists]], *Freeze] = Field(
        default={}, validate_default=True, description="Named groups of servers, by the keys of their members."
    )
    guardrails: Annotated[Mapping[_Word, GuardrailSettings], *Freeze] = Field(
        default={}, validate_default=True, description="Operator-written checks by name, in the order they judge."
    )

    @model_validator(mode="after")
    def _has_no_conflicts(self) -> "Config":
        facts = {key: _facts(server) for key, server in self.servers.items()}
        for finding in [*conflicts(facts, self.groups), *misdirected(selector_facts(self.guardrails), self.servers)]:
            raise Fault(f"{dotted(finding.path)}: {finding.message}", finding.remedy)
        written = self.model_dump(by_alias=True, exclude_unset=True)
        keys = tuple(self.servers)
        for finding in (
            *grant_conflicts(written.get("organizations", {}), keys),
            *scope_conflicts(written.get("identity", {}), keys),
            *cost_conflicts(written.get("servers", {}), written.get("organizations", {})),
        ):
            raise Fault(f"{dotted(finding.path)}: {finding.message}", finding.remedy)
        return self


def _facts(server: Server) -> ServerFacts:
    if isinstance(server, HttpServer):
        return ServerFacts(server.prefix, server.protocol, server.transport, tuple(server.headers))
    return ServerFacts(server.prefix, server.protocol)
