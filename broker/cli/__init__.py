"""The command line: each command parses, and calls one function.

What the commands need is imported inside them: `--help`, `--version` and completion of options load typer and rich,
and nothing of the broker.
"""

import gc
import sys
from typing import Annotated

import typer

from broker import __version__
from broker.cli.administration import GROUPS
from broker.cli.exits import EPILOG, told
from broker.cli.narrowing import narrow
from broker.cli.options import (
    AnyName,
    Arguments,
    AsJson,
    Config,
    Format,
    GuardrailFile,
    Host,
    Level,
    LogFormat,
    LogLevel,
    OfKind,
    Port,
    PromptArguments,
    PromptName,
    ResourceUri,
    ShownAs,
    ToolName,
    UsedBy,
    View,
    Wait,
    Workers,
)

app = typer.Typer(
    name="mcp-broker",
    help="One MCP server in front of many.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Boxes and colours, where somebody looks: they take twice as long as all the rest of `--help`.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


for group in GROUPS:
    app.add_typer(group, epilog=EPILOG)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"mcp-broker {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One MCP server in front of many."""


@app.command(epilog=EPILOG)
def serve(
    config: Config = None,
    host: Host = "127.0.0.1",
    port: Port = 8787,
    workers: Workers = None,
    log_level: LogLevel = Level.INFO,
    log_format: LogFormat = Format.TEXT,
) -> None:
    """Serve over HTTP, for hosts that connect to a URL."""
    from broker.cli import serving

    raise typer.Exit(serving.serve(config, host, port, workers, log_level, logs_json=log_format is Format.JSON))


@app.command(epilog=EPILOG)
def stdio(config: Config = None, log_level: LogLevel = Level.INFO, log_format: LogFormat = Format.TEXT) -> None:
    """Serve over standard input and output, for hosts that start a command."""
    from broker.cli import piping

    raise typer.Exit(piping.stdio(config, log_level, logs_json=log_format is Format.JSON))


@app.command(epilog=EPILOG)
def check(
    config: Config = None,
    connect: Annotated[bool, typer.Option("--connect", help="Also ask every server, and print how it is.")] = False,
    wait: Wait = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Check the whole configuration; every problem is said, with its line."""
    from broker.cli import checking

    raise typer.Exit(checking.check(config, connect=connect, wait=wait, as_json=json, level=log_level))


@app.command(epilog=EPILOG)
def catalog(
    config: Config = None,
    who: ShownAs = None,
    view: View = "",
    wait: Wait = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Show what callers are served, and about how many tokens it costs them."""
    from broker.cli import cataloging

    raise typer.Exit(cataloging.catalog(config, who=who, view=view, wait=wait, as_json=json, level=log_level))


@app.command(epilog=EPILOG)
def explain(
    name: AnyName,
    arguments: Arguments = None,
    config: Config = None,
    who: ShownAs = None,
    view: View = "",
    kind: OfKind = None,
    wait: Wait = None,
    show_all: Annotated[bool, typer.Option("--all", help="Every rung that the decision passed.")] = False,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Name the rule by which a caller may, or may not, use something."""
    from broker.cli import explaining
    from broker.cli.arguments import parse

    given = parse(arguments, values_are_text=False) if arguments else None
    raise typer.Exit(
        explaining.explain(
            config,
            name,
            given,
            who=who,
            view=view,
            kind=kind,
            wait=wait,
            show_all=show_all,
            as_json=json,
            level=log_level,
        )
    )


@app.command(epilog=EPILOG)
def call(
    name: ToolName,
    arguments: Arguments = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Call a tool, and print its result."""
    from broker.cli import ask, content
    from broker.cli.arguments import parse

    given = parse(arguments or (), values_are_text=False)
    question = ask.Question("tools/call", name, given, content.of_call)
    raise typer.Exit(ask.ask(config, question, as_json=json, level=log_level))


@app.command(epilog=EPILOG)
def read(uri: ResourceUri, config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR) -> None:
    """Read a resource, and print it."""
    from broker.cli import ask, content

    question = ask.Question("resources/read", uri, None, content.of_read)
    raise typer.Exit(ask.ask(config, question, as_json=json, level=log_level))


@app.command(epilog=EPILOG)
def prompt(
    name: PromptName,
    arguments: PromptArguments = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Get a prompt, and print its messages."""
    from broker.cli import ask, content
    from broker.cli.arguments import parse

    given = parse(arguments or (), values_are_text=True)
    question = ask.Question("prompts/get", name, given, content.of_prompt)
    raise typer.Exit(ask.ask(config, question, as_json=json, level=log_level))


@app.command(epilog=EPILOG)
def audit(
    config: Config = None,
    caller: Annotated[
        str | None,
        typer.Option("--caller", metavar="WHO", help="A principal (key:..., jwt:..., local) or key id."),
    ] = None,
    organization: Annotated[str | None, typer.Option("--organization", metavar="NAME", help="Of this one.")] = None,
    team: Annotated[str | None, typer.Option("--team", metavar="NAME", help="TEAM, or ORGANIZATION/TEAM.")] = None,
    tool: Annotated[
        str | None, typer.Option("--tool", metavar="NAME", help="The public or full name of what was asked for.")
    ] = None,
    server: Annotated[str | None, typer.Option("--server", metavar="KEY", help="Of this server.")] = None,
    outcome: Annotated[
        str | None,
        typer.Option("--outcome", metavar="WORD", help="done, failed, denied, blocked, error ..."),
    ] = None,
    rule: Annotated[str | None, typer.Option("--rule", metavar="RULE", help="Decided by this rule.")] = None,
    event: Annotated[
        str | None, typer.Option("--event", metavar="WORD", help="call, discovery, admin, auth, guardrail or gap.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="2h, 3d, or an ISO time.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Likewise.")] = None,
    on: Annotated[str | None, typer.Option("--on", metavar="DAY", help="A whole day, in local time.")] = None,
    who_saw: Annotated[
        str | None, typer.Option("--who-saw", metavar="NAME", help="List the callers that were shown this, instead.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="The newest, at most this many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on: print records as they come.")] = False,
    rebuild_index: Annotated[
        bool, typer.Option("--rebuild-index", help="Make the index anew from the records, instead.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the records as they are: a line of JSON each.")] = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Show who called what, who was shown what, and by which rule. In names, * stands for any characters."""
    from broker.cli import auditing

    if rebuild_index:
        raise typer.Exit(auditing.rebuild(config, log_level))
    question = auditing.question_of(
        since,
        until,
        on,
        caller=caller,
        organization=organization,
        team=team,
        tool=tool,
        server=server,
        outcome=outcome,
        rule=rule,
        event=event,
    )
    raise typer.Exit(
        auditing.audit(
            config,
            question,
            on=on,
            saw=who_saw,
            limit=limit,
            is_following=follow,
            as_json=json,
            level=log_level,
        )
    )


@app.command(epilog=EPILOG)
def usage(
    config: Config = None,
    by: Annotated[UsedBy, typer.Option("--by", help="What is told apart.")] = UsedBy.TOOL,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="12h, 7d ago, a date or a time; whole hours.")
    ] = "7d",
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Likewise; left out: now.")] = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Show who has used what, what it cost, and what is left of budgets."""
    from broker.cli import using

    raise typer.Exit(using.usage(config, by.value, since, until, as_json=json, level=log_level))


@app.command(epilog=EPILOG)
def status(
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="Where the broker listens.")
    ] = "http://127.0.0.1:8787",
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Show how the servers of a running broker are. MCP_BROKER_KEY has the key of an admin, if one is needed."""
    from broker.cli import condition

    raise typer.Exit(condition.show(url, log_level, as_json=json))


guardrails = typer.Typer(help="Operator-written checks: is a text one, and what does it say?", no_args_is_help=True)
app.add_typer(guardrails, name="guardrail")


@guardrails.command("check", epilog=EPILOG)
def guardrail_check(file: GuardrailFile, json: AsJson = False, log_level: LogLevel = Level.ERROR) -> None:
    """Say everything that is wrong with a guardrail, with its line."""
    from broker.cli import guardrail

    raise typer.Exit(guardrail.check(file, as_json=json, level=log_level))


@guardrails.command("test", epilog=EPILOG)
def guardrail_test(
    file: GuardrailFile,
    given: Annotated[
        str, typer.Option("--input", "-i", metavar="FILE", help="The ctx to judge, as JSON; - reads it from stdin.")
    ],
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Run a guardrail on one ctx, in the same process and under the same bounds as for a call."""
    from broker.cli import guardrail

    raise typer.Exit(guardrail.test(file, given, as_json=json, level=log_level))


pins = typer.Typer(help="What servers said of their tools, and what of it has changed since.", no_args_is_help=True)
app.add_typer(pins, name="pin")


@pins.command("list", epilog=EPILOG)
def pin_list(
    server: Annotated[str | None, typer.Argument(metavar="SERVER", help="Its key; left out: all.")] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what has changed.")] = False,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Show what is pinned, since when, and what has changed."""
    from broker.cli import pinning

    raise typer.Exit(pinning.show(config, server, only_changed=changed, as_json=json, level=log_level))


@pins.command("accept", epilog=EPILOG)
def pin_accept(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="Its key.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Own names of what to accept; left out: all.")
    ] = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Accept what has changed: from here on that is what it has to be."""
    from broker.cli import pinning

    raise typer.Exit(pinning.accept(config, server, names or (), as_json=json, level=log_level))


def main() -> None:
    """The program."""
    program = narrow(app, sys.argv[1:])
    # What is loaded stays: looking for circles in it meanwhile takes a seventh of the time to start. `begin` ends this.
    gc.disable()
    told(lambda: program(prog_name="mcp-broker"))
