"""`mcp-broker org`, `team` and `member`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from broker.admin import members, organizations, teams
from broker.cli.office import confirm, do, look, place_of, plain, rules_of, show_one, split_team
from broker.cli.screen import Screen
from broker.cli.words import count, line
from broker.core.caller import LOCAL, Role

_ORGANIZATIONS: Final = ("organization", "source", "created")
_TEAMS: Final = ("team", "source", "created")
_MEMBERS: Final = ("member", "place", "role", "source")


def create_organization(
    config: Path | None,
    name: str,
    allow: Sequence[str] | None,
    deny: Sequence[str] | None,
    limits: str | None,
    *,
    as_json: bool,
    level: str,
) -> int:
    """The exit code. Raises: Stop; so do all functions here."""
    rules = rules_of(allow, deny, limits)

    def show(screen: Screen, view: Any) -> None:
        show_one(screen, view, as_json=as_json)
        if not view.allow:
            screen.note(
                f"nobody in it may use anything yet: mcp-broker org grant {name} --allow '{{servers: [\"*\"]}}'"
            )

    return do(config, level, lambda office: organizations.create(office, LOCAL, name, rules), show)


def list_organizations(config: Path | None, *, as_json: bool, level: str) -> int:
    """All of both sources."""

    def show(screen: Screen, views: Any) -> None:
        rows = [[view.name, view.source, plain(view)["created"] or ""] for view in views]
        _table(screen, "organizations", _ORGANIZATIONS, views, rows, as_json=as_json)

    return look(config, level, lambda office: organizations.listed(office, LOCAL), show)


def show_organization(config: Path | None, name: str, *, as_json: bool, level: str) -> int:
    """One."""
    return look(
        config,
        level,
        lambda office: organizations.show(office, LOCAL, name),
        lambda screen, view: show_one(screen, view, as_json=as_json),
    )


def grant_organization(
    config: Path | None,
    name: str,
    allow: Sequence[str] | None,
    deny: Sequence[str] | None,
    limits: str | None,
    *,
    as_json: bool,
    level: str,
) -> int:
    """Its rules."""
    rules = rules_of(allow, deny, limits)
    return do(
        config,
        level,
        lambda office: organizations.grant(office, LOCAL, name, rules),
        lambda screen, view: show_one(screen, view, as_json=as_json),
    )


def delete_organization(config: Path | None, name: str, *, yes: bool, as_json: bool, level: str) -> int:
    """With all that is in it."""
    confirm(f"Delete organization {name} with all its teams and keys?", is_given=yes)

    def show(screen: Screen, gone: tuple[int, int]) -> None:
        if as_json:
            screen.json({"deleted": name, "teams": gone[0], "keys": gone[1]})
        else:
            screen.say(f"deleted organization {name}, {count(gone[0], 'team')} and {count(gone[1], 'key')}")

    return do(config, level, lambda office: organizations.delete(office, LOCAL, name), show)


def create_team(
    config: Path | None,
    team: str,
    allow: Sequence[str] | None,
    deny: Sequence[str] | None,
    limits: str | None,
    *,
    as_json: bool,
    level: str,
) -> int:
    """A team."""
    place, rules = split_team(team), rules_of(allow, deny, limits)
    return do(
        config,
        level,
        lambda office: teams.create(office, LOCAL, *place, rules),
        lambda screen, view: show_one(screen, view, as_json=as_json),
    )


def list_teams(config: Path | None, organization: str | None, *, as_json: bool, level: str) -> int:
    """Of one organization, or all."""

    def show(screen: Screen, views: Any) -> None:
        rows = [[f"{view.organization}/{view.name}", view.source, plain(view)["created"] or ""] for view in views]
        _table(screen, "teams", _TEAMS, views, rows, as_json=as_json)

    return look(config, level, lambda office: teams.listed(office, LOCAL, organization), show)


def show_team(config: Path | None, team: str, *, as_json: bool, level: str) -> int:
    """One."""
    place = split_team(team)
    return look(
        config,
        level,
        lambda office: teams.show(office, LOCAL, *place),
        lambda screen, view: show_one(screen, view, as_json=as_json),
    )


def grant_team(
    config: Path | None,
    team: str,
    allow: Sequence[str] | None,
    deny: Sequence[str] | None,
    limits: str | None,
    *,
    as_json: bool,
    level: str,
) -> int:
    """Its rules."""
    place, rules = split_team(team), rules_of(allow, deny, limits)
    return do(
        config,
        level,
        lambda office: teams.grant(office, LOCAL, *place, rules),
        lambda screen, view: show_one(screen, view, as_json=as_json),
    )


def delete_team(config: Path | None, team: str, *, yes: bool, as_json: bool, level: str) -> int:
    """With its keys."""
    place = split_team(team)
    confirm(f"Delete team {team} with all its keys?", is_given=yes)

    def show(screen: Screen, keys: int) -> None:
        if as_json:
            screen.json({"deleted": team, "keys": keys})
        else:
            screen.say(f"deleted team {line(team)} and {count(keys, 'key')}")

    return do(config, level, lambda office: teams.delete(office, LOCAL, *place), show)


def grant_member(
    config: Path | None,
    member: str,
    organization: str | None,
    team: str | None,
    role: str,
    *,
    as_json: bool,
    level: str,
) -> int:
    """A role."""
    place = place_of(organization, team)
    return do(
        config,
        level,
        lambda office: members.grant(office, LOCAL, member, *place, Role(role)),
        lambda screen, view: show_one(screen, view, as_json=as_json),
    )


def list_members(config: Path | None, organization: str | None, team: str | None, *, as_json: bool, level: str) -> int:
    """Of a place, and for an organization of its teams too."""
    place = place_of(organization, team)

    def show(screen: Screen, views: Any) -> None:
        rows = [
            [
                line(view.principal, 600),
                f"{view.organization}/{view.team}" if view.team else view.organization,
                view.role,
                view.source,
            ]
            for view in views
        ]
        _table(screen, "members", _MEMBERS, views, rows, as_json=as_json)

    return look(config, level, lambda office: members.listed(office, LOCAL, *place), show)


def delete_member(
    config: Path | None,
    member: str,
    organization: str | None,
    team: str | None,
    *,
    yes: bool,
    as_json: bool,
    level: str,
) -> int:
    """The role, not the user."""
    place = place_of(organization, team)
    where = "/".join(part for part in place if part)
    confirm(f"Take the role of {member} in {where} away?", is_given=yes)

    def show(screen: Screen, _: None) -> None:
        if as_json:
            screen.json({"deleted": member, "place": where})
        else:
            screen.say(f"{line(member, 600)} has no role of its own in {line(where)} any more")

    return do(config, level, lambda office: members.remove(office, LOCAL, member, *place), show)


def _table(
    screen: Screen,
    name: str,
    header: Sequence[str],
    views: Sequence[Any],
    rows: Sequence[Sequence[str]],
    *,
    as_json: bool,
) -> None:
    if as_json:
        screen.json({name: [plain(view) for view in views]})
    else:
        screen.table(header, rows, [""] * len(rows), words=len(header))
