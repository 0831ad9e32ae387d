"""The commands below `org`, `team`, `member` and `key`, as they are typed. Only typer is loaded here."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.cli.exits import EPILOG
from broker.cli.options import AsJson, Config, Level, LogLevel


class RoleName(StrEnum):
    """The roles, in the words of the file."""

    MEMBER = "member"
    TEAM_ADMIN = "team-admin"
    ORG_ADMIN = "org-admin"
    ADMIN = "admin"


def _completed(ctx: typer.Context, what: str, incomplete: str) -> list[str]:
    from broker.cli.complete import places

    given: Any = ctx.params.get("config")
    return places(Path(given) if isinstance(given, str | Path) else None, what, incomplete)


def organization_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For completion."""
    return _completed(ctx, "organizations", incomplete)


def team_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For completion."""
    return _completed(ctx, "teams", incomplete)


def key_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """For completion."""
    return _completed(ctx, "keys", incomplete)


OrgName = Annotated[
    str, typer.Argument(metavar="ORGANIZATION", autocompletion=organization_names, help="Its name, as in acme.")
]
TeamName = Annotated[
    str, typer.Argument(metavar="TEAM", autocompletion=team_names, help="ORGANIZATION/TEAM, as in acme/data.")
]
KeyName = Annotated[
    str,
    typer.Argument(metavar="KEY", autocompletion=key_ids, help="Its id, or its place and name, as in acme/data/ci."),
]
MemberName = Annotated[
    str, typer.Argument(metavar="MEMBER", help="A user, as in 'jwt:https://login.acme.dev ada', or key:ID.")
]
Org = Annotated[
    str | None,
    typer.Option(
        "--org", metavar="ORGANIZATION", autocompletion=organization_names, show_default=False, help="An organization."
    ),
]
Team = Annotated[
    str | None,
    typer.Option(
        "--team", metavar="TEAM", autocompletion=team_names, show_default=False, help="A team: ORGANIZATION/TEAM."
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="RULES",
        show_default=False,
        help="What may be used, in JSON or YAML as in the file: {servers: [sql]}, a list of such, [] for nothing, or "
        "null for all that the level above allows. May be given several times.",
    ),
]
Deny = Annotated[
    list[str] | None,
    typer.Option("--deny", metavar="RULES", show_default=False, help="What may not be used, also if it is allowed."),
]
Limits = Annotated[
    str | None,
    typer.Option(
        "--limits",
        metavar="LIMITS",
        show_default=False,
        help="How many calls, in JSON or YAML as in the file: {rate: 100/minute, concurrency: 8}, or null for any.",
    ),
]
Expires = Annotated[
    str | None,
    typer.Option(
        "--expires", metavar="WHEN", show_default=False, help="When it ends: 2027-01-01, 2027-01-01T12:00:00Z, or 30d."
    ),
]
Role = Annotated[
    RoleName, typer.Option("--role", help="What its holder may administer; it is no grant to use anything.")
]
NewRole = Annotated[
    RoleName | None, typer.Option("--role", show_default=False, help="What its holder may administer from now on.")
]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="The name of the key, one of its own in its place.")]
ForFile = Annotated[
    bool, typer.Option("--for-file", help="Print a key and its hash for servers.yaml, and store nothing.")
]
Overlap = Annotated[
    str,
    typer.Option("--overlap", metavar="DURATION", help="How long the old text stays good: 24h, 30d, 0 for not at all."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

org = typer.Typer(name="org", help="Organizations.", no_args_is_help=True)
team = typer.Typer(name="team", help="Teams.", no_args_is_help=True)
member = typer.Typer(name="member", help="Roles of users and keys in organizations and teams.", no_args_is_help=True)
key = typer.Typer(name="key", help="API keys.", no_args_is_help=True)
GROUPS = (org, team, member, key)


@org.command("create", epilog=EPILOG)
def create_org(
    name: OrgName,
    allow: Allow = None,
    deny: Deny = None,
    limits: Limits = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Make an organization. Without --allow nobody in it may use anything."""
    from broker.cli import places

    raise typer.Exit(places.create_organization(config, name, allow, deny, limits, as_json=json, level=log_level))


@org.command("list", epilog=EPILOG)
def list_orgs(config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR) -> None:
    """List the organizations of the file and of the store."""
    from broker.cli import places

    raise typer.Exit(places.list_organizations(config, as_json=json, level=log_level))


@org.command("show", epilog=EPILOG)
def show_org(name: OrgName, config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR) -> None:
    """Show an organization, its rules and limits."""
    from broker.cli import places

    raise typer.Exit(places.show_organization(config, name, as_json=json, level=log_level))


@org.command("grant", epilog=EPILOG)
def grant_org(
    name: OrgName,
    allow: Allow = None,
    deny: Deny = None,
    limits: Limits = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Set what an organization may use, and how often; what is not given stays."""
    from broker.cli import places

    raise typer.Exit(places.grant_organization(config, name, allow, deny, limits, as_json=json, level=log_level))


@org.command("delete", epilog=EPILOG)
def delete_org(
    name: OrgName, yes: Yes = False, config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR
) -> None:
    """Delete an organization with all its teams and keys."""
    from broker.cli import places

    raise typer.Exit(places.delete_organization(config, name, yes=yes, as_json=json, level=log_level))


@team.command("create", epilog=EPILOG)
def create_team(
    name: TeamName,
    allow: Allow = None,
    deny: Deny = None,
    limits: Limits = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Make a team. Without --allow it may use all that its organization may."""
    from broker.cli import places

    raise typer.Exit(places.create_team(config, name, allow, deny, limits, as_json=json, level=log_level))


@team.command("list", epilog=EPILOG)
def list_teams(
    organization: Org = None, config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR
) -> None:
    """List the teams of the file and of the store."""
    from broker.cli import places

    raise typer.Exit(places.list_teams(config, organization, as_json=json, level=log_level))


@team.command("show", epilog=EPILOG)
def show_team(name: TeamName, config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR) -> None:
    """Show a team, its rules and limits."""
    from broker.cli import places

    raise typer.Exit(places.show_team(config, name, as_json=json, level=log_level))


@team.command("grant", epilog=EPILOG)
def grant_team(
    name: TeamName,
    allow: Allow = None,
    deny: Deny = None,
    limits: Limits = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Set what a team may use, and how often; what is not given stays."""
    from broker.cli import places

    raise typer.Exit(places.grant_team(config, name, allow, deny, limits, as_json=json, level=log_level))


@team.command("delete", epilog=EPILOG)
def delete_team(
    name: TeamName, yes: Yes = False, config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR
) -> None:
    """Delete a team with its keys."""
    from broker.cli import places

    raise typer.Exit(places.delete_team(config, name, yes=yes, as_json=json, level=log_level))


@member.command("grant", epilog=EPILOG)
def grant_member(
    name: MemberName,
    role: Role,
    organization: Org = None,
    team: Team = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Give a user or a key a role in a place, or change it."""
    from broker.cli import places

    raise typer.Exit(places.grant_member(config, name, organization, team, role, as_json=json, level=log_level))


@member.command("list", epilog=EPILOG)
def list_members(
    organization: Org = None,
    team: Team = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """List the roles in an organization, with its teams, or in one team."""
    from broker.cli import places

    raise typer.Exit(places.list_members(config, organization, team, as_json=json, level=log_level))


@member.command("delete", epilog=EPILOG)
def delete_member(
    name: MemberName,
    organization: Org = None,
    team: Team = None,
    yes: Yes = False,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Take a role away."""
    from broker.cli import places

    raise typer.Exit(places.delete_member(config, name, organization, team, yes=yes, as_json=json, level=log_level))


@key.command("create", epilog=EPILOG)
def create_key(
    name: Name,
    organization: Org = None,
    team: Team = None,
    role: Role = RoleName.MEMBER,
    expires: Expires = None,
    allow: Allow = None,
    deny: Deny = None,
    limits: Limits = None,
    for_file: ForFile = False,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Make a key, and print it. It is shown once."""
    from broker.cli import keys

    if for_file:
        raise typer.Exit(keys.create_for_file(config, name, as_json=json, level=log_level))
    raise typer.Exit(
        keys.create(config, organization, team, name, role, expires, allow, deny, limits, as_json=json, level=log_level)
    )


@key.command("list", epilog=EPILOG)
def list_keys(
    organization: Org = None,
    team: Team = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """List keys, of a place or all: never their texts."""
    from broker.cli import keys

    raise typer.Exit(keys.listed(config, organization, team, as_json=json, level=log_level))


@key.command("show", epilog=EPILOG)
def show_key(name: KeyName, config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR) -> None:
    """Show what is known of a key, its rules and limits."""
    from broker.cli import keys

    raise typer.Exit(keys.show(config, name, as_json=json, level=log_level))


@key.command("grant", epilog=EPILOG)
def grant_key(
    name: KeyName,
    allow: Allow = None,
    deny: Deny = None,
    limits: Limits = None,
    role: NewRole = None,
    expires: Expires = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Set a key's rules, limits, role and end; what is not given stays."""
    from broker.cli import keys

    raise typer.Exit(keys.grant(config, name, allow, deny, limits, role, expires, as_json=json, level=log_level))


@key.command("rotate", epilog=EPILOG)
def rotate_key(
    name: KeyName,
    overlap: Overlap = "24h",
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Give a key a new text, and print it. It is shown once."""
    from broker.cli import keys

    raise typer.Exit(keys.rotate(config, name, overlap, as_json=json, level=log_level))


@key.command("revoke", epilog=EPILOG)
def revoke_key(
    name: KeyName, yes: Yes = False, config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR
) -> None:
    """End a key, for good. It stays in lists."""
    from broker.cli import keys

    raise typer.Exit(keys.revoke(config, name, yes=yes, as_json=json, level=log_level))


@key.command("move", epilog=EPILOG)
def move_key(
    name: KeyName,
    organization: Org = None,
    team: Team = None,
    config: Config = None,
    json: AsJson = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Move a key to another team; its text stays good."""
    from broker.cli import keys

    raise typer.Exit(keys.move(config, name, organization, team, as_json=json, level=log_level))


@key.command("delete", epilog=EPILOG)
def delete_key(
    name: KeyName, yes: Yes = False, config: Config = None, json: AsJson = False, log_level: LogLevel = Level.ERROR
) -> None:
    """End a key and forget it: its name is free again."""
    from broker.cli import keys

    raise typer.Exit(keys.delete(config, name, yes=yes, as_json=json, level=log_level))
