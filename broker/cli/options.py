"""The options that commands share. Only typer is loaded here: this is what `--help` and completion wait for."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Level(StrEnum):
    """The least important log lines to show."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _config_of(ctx: typer.Context) -> Path | None:
    given: Any = ctx.params.get("config")
    return Path(given) if isinstance(given, str | Path) else None


def tool_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For completion."""
    from broker.cli.complete import names

    return names(_config_of(ctx), "tools", incomplete)


def prompt_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For completion."""
    from broker.cli.complete import names

    return names(_config_of(ctx), "prompts", incomplete)


def uris(ctx: typer.Context, incomplete: str) -> list[str]:
    """For completion."""
    from broker.cli.complete import names

    return names(_config_of(ctx), "resources", incomplete)


def view_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For completion."""
    from broker.cli.complete import views

    return views(_config_of(ctx), incomplete)


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        show_default=False,
        help="The configuration: our YAML, or the JSON of other hosts (mcpServers, VS Code). "
        "Left out: servers.yaml in this directory, else the file that $MCP_BROKER_CONFIG names.",
    ),
]
LogLevel = Annotated[
    Level, typer.Option("--log-level", case_sensitive=False, help="The least important log lines to show, on stderr.")
]


class UsedBy(StrEnum):
    """What `usage` tells apart."""

    ORGANIZATION = "organization"
    TEAM = "team"
    KEY = "key"
    TOOL = "tool"
    SERVER = "server"


class Format(StrEnum):
    """What log lines look like."""

    TEXT = "text"
    JSON = "json"


LogFormat = Annotated[Format, typer.Option("--log-format", help="json: each log line is an object, for collectors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
ShownAs = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="KEY",
        show_default=False,
        help="Whose: a key id, ORGANIZATION/TEAM or ORGANIZATION/TEAM/KEY; - for the key whose text is in "
        "$MCP_BROKER_KEY, or on stdin. Left out: the local user.",
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        show_default=False,
        help="How long to wait for servers. Left out: the longest connect_timeout among them.",
    ),
]
ARGUMENTS_HELP = (
    "A JSON object, or name=value pairs, or - to read a JSON object from stdin. "
    "A value that is JSON is taken as JSON, any other as text."
)
Arguments = Annotated[list[str] | None, typer.Argument(metavar="ARGUMENTS", show_default=False, help=ARGUMENTS_HELP)]
AnyName = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=tool_names, help="A public name, or a public URI.")
]


class KindName(StrEnum):
    """What a name may stand for, in the words of the file."""

    TOOLS = "tools"
    PROMPTS = "prompts"
    RESOURCES = "resources"
    TEMPLATES = "templates"


OfKind = Annotated[
    KindName | None,
    typer.Option("--kind", show_default=False, help="What the name stands for. Left out: whatever has that name."),
]
PromptArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ARGUMENTS",
        show_default=False,
        help="name=value pairs (values are text), or a JSON object, or - to read one from stdin.",
    ),
]
ToolName = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=tool_names, help="The tool's public name: SERVER__TOOL.")
]
PromptName = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=prompt_names, help="The prompt's public name: SERVER__PROMPT.")
]
ResourceUri = Annotated[
    str, typer.Argument(metavar="URI", autocompletion=uris, help="The resource's public URI: SERVER+URI.")
]
GuardrailFile = Annotated[
    Path, typer.Argument(metavar="FILE", show_default=False, help="The guardrail: RestrictedPython with check(ctx).")
]
View = Annotated[
    str,
    typer.Option(
        "--view", metavar="VIEW", autocompletion=view_names, show_default=False, help="One server, or one group."
    ),
]
Host = Annotated[
    str, typer.Option("--host", help="Where to listen: this machine only, while there is no credential source.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        show_default=False,
        help="Processes that serve as one, each on a core of its own. Left out: server.workers of the file, else 1.",
    ),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one, which is printed.")]
