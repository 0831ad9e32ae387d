"""`mcp-broker key`. A key is printed once, when it is made or rotated, and nowhere else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker.admin import keys
from broker.admin.errors import Invalid
from broker.admin.names import good_name
from broker.admin.views import KeyView, MadeKey
from broker.cli.begin import begin, read_config
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.key_secret import key_secret_of
from broker.cli.moments import duration, moment, shown
from broker.cli.office import confirm, do, look, place_of, plain, rules_of, show_one
from broker.cli.screen import Screen
from broker.cli.words import line
from broker.clock import SystemClock
from broker.core.caller import LOCAL, Role
from broker.identity.key_secret import NoKeySecret
from broker.identity.keys import ENTROPY, hash_of, mint

_HEADER: Final = ("id", "name", "place", "role", "state", "created", "expires", "rotated", "source")
_STYLES: Final = {"active": "", "expired": "dim", "revoked": "dim", "stranded": "yellow"}


def create(
    config: Path | None,
    organization: str | None,
    team: str | None,
    name: str,
    role: str,
    expires: str | None,
    allow: Sequence[str] | None,
    deny: Sequence[str] | None,
    limits: str | None,
    *,
    as_json: bool,
    level: str,
) -> int:
    """The exit code. Raises: Stop; so do all functions here."""
    place, rules = place_of(organization, team), rules_of(allow, deny, limits)
    ends = None if expires is None else moment(expires, SystemClock().wall())
    return do(
        config,
        level,
        lambda office: keys.create(office, LOCAL, *place, name, role=Role(role), expires=ends, rules=rules),
        lambda screen, made: _show_made(screen, made, as_json=as_json),
    )


def create_for_file(config: Path | None, name: str, *, as_json: bool, level: str) -> int:
    """A key whose hash goes into the file; nothing is stored."""
    screen = begin(level)
    loaded = read_config(config)
    try:
        good_name("key", name)
        made = mint(SystemClock().random_bytes(ENTROPY))
        digest = hash_of(made.text.reveal(), key_secret_of(loaded))
    except Invalid as error:
        raise Stop(line(error, 500), BAD_INPUT) from None
    except NoKeySecret as error:
        raise Stop(line(error, 500), FAILED) from None
    if as_json:
        screen.json({"name": name, "key": made.text.reveal(), "hash": digest})
        return OK
    screen.say(made.text.reveal())
    screen.note("This is the only time that the key is shown, and it is not stored: keep it now.")
    screen.note(f"Into {line(loaded.path)}, below keys: of a team or an organization:", "dim")
    screen.say(f'{name}: {{hash: "{digest}"}}')
    return OK


def listed(config: Path | None, organization: str | None, team: str | None, *, as_json: bool, level: str) -> int:
    """Of a place, or all."""
    place = ("", "") if organization is None and team is None else place_of(organization, team)

    def show(screen: Screen, views: Sequence[KeyView]) -> None:
        if as_json:
            screen.json({"keys": [plain(view) for view in views]})
            return
        rows = [_row(view) for view in views]
        screen.table(_HEADER, rows, [_STYLES[view.state] for view in views], words=len(_HEADER))

    return look(config, level, lambda office: keys.listed(office, LOCAL, *place), show)


def show(config: Path | None, key: str, *, as_json: bool, level: str) -> int:
    """One."""
    return look(
        config,
        level,
        lambda office: keys.show(office, LOCAL, key),
        lambda screen, view: show_one(screen, view, as_json=as_json),
    )


def grant(
    config: Path | None,
    key: str,
    allow: Sequence[str] | None,
    deny: Sequence[str] | None,
    limits: str | None,
    role: str | None,
    expires: str | None,
    *,
    as_json: bool,
    level: str,
) -> int:
    """Its rules, its role, its end."""
    rules = rules_of(allow, deny, limits)
    ends = None if expires is None else moment(expires, SystemClock().wall())
    given = None if role is None else Role(role)
    return do(
        config,
        level,
        lambda office: keys.grant(office, LOCAL, key, rules, role=given, expires=ends),
        lambda screen, view: show_one(screen, view, as_json=as_json),
    )


def rotate(config: Path | None, key: str, overlap: str, *, as_json: bool, level: str) -> int:
    """A new text for the same key."""
    seconds = duration(overlap)
    return do(
        config,
        level,
        lambda office: keys.rotate(office, LOCAL, key, overlap=seconds),
        lambda screen, made: _show_made(screen, made, as_json=as_json),
    )


def revoke(config: Path | None, key: str, *, yes: bool, as_json: bool, level: str) -> int:
    """End it; it stays in lists."""
    confirm(f"Revoke key {key}? It cannot be undone.", is_given=yes)
    return do(
        config,
        level,
        lambda office: keys.revoke(office, LOCAL, key),
        lambda screen, view: _show_ended(screen, view, "revoked", as_json=as_json),
    )


def move(
    config: Path | None, key: str, organization: str | None, team: str | None, *, as_json: bool, level: str
) -> int:
    """To another place."""
    place = place_of(organization, team)
    return do(
        config,
        level,
        lambda office: keys.move(office, LOCAL, key, *place),
        lambda screen, view: show_one(screen, view, as_json=as_json),
    )


def delete(config: Path | None, key: str, *, yes: bool, as_json: bool, level: str) -> int:
    """End it, and forget it."""
    confirm(f"Delete key {key}? It cannot be undone.", is_given=yes)
    return do(
        config,
        level,
        lambda office: keys.delete(office, LOCAL, key),
        lambda screen, view: _show_ended(screen, view, "deleted", as_json=as_json),
    )


def _show_made(screen: Screen, made: MadeKey, *, as_json: bool) -> None:
    view = made.view
    if as_json:
        screen.json({"id": view.id, "key": made.text.reveal()})
        return
    screen.say(made.text.reveal())
    screen.note(f"key {view.id}, {_place(view)}/{view.name}. This is the only time that it is shown: keep it now.")
    if view.overlap_ends is not None:
        screen.note(f"what was good before is good until {shown(view.overlap_ends)}")


def _show_ended(screen: Screen, view: KeyView, what: str, *, as_json: bool) -> None:
    if as_json:
        screen.json(plain(view))
    else:
        screen.say(f"{what} key {view.id}, {_place(view)}/{view.name}")


def _row(view: KeyView) -> list[str]:
    ends = [shown(moment) or "" for moment in (view.created, view.expires, view.rotated)]
    return [view.id, view.name, _place(view), view.role, view.state, *ends, view.source]


def _place(view: KeyView) -> str:
    return f"{view.organization}/{view.team}" if view.team else view.organization
