"""`org`, `team`, `key` and `member`: what they share. The file is read, the store is opened, one action is done.

Whoever can run this can read the store's file: the actor is the operator of this machine, who may do everything.
"""

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import typer

from broker.admin.desk import Office
from broker.admin.errors import AdminError, Invalid
from broker.admin.journal import AuditJournal, Unrecorded
from broker.admin.rules import KEPT, Rules
from broker.cli.begin import begin, read_config, run_to_end
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.key_secret import key_secret_of
from broker.cli.moments import shown
from broker.cli.screen import Screen
from broker.cli.words import line
from broker.clock import SystemClock
from broker.compiled import state_directory
from broker.config import Loaded, directory_of
from broker.config.document import UnreadableError
from broker.config.load import read_data
from broker.config.secret import MAX_SECRET_FILE
from broker.core.shape import is_array, is_object
from broker.identity.key_secret import NoKeySecret
from broker.stores.empty import EmptyStore
from broker.stores.errors import StoreError
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.usage.assembly import audit_of_administration

if TYPE_CHECKING:
    from broker.stores.directory import DirectoryStore

Result = TypeVar("Result")
Do = Callable[[Office], Awaitable[Result]]

_TIMES: Final = ("created", "expires", "rotated", "overlap_ends")
_MAX_RULES: Final = MAX_SECRET_FILE
"""Characters of rules on a command line: longer ones stand better in the file."""


def look(config: Path | None, level: str, action: Do[Result], show: Callable[[Screen, Result], None]) -> int:
    """`do` for what only reads: a store that is not there yet is not made for that, and it is said."""
    return do(config, level, action, show, only_reads=True)


def do(
    config: Path | None,
    level: str,
    action: Do[Result],
    show: Callable[[Screen, Result], None],
    *,
    only_reads: bool = False,
) -> int:
    """Do one action, and show what it gives. The exit code. Raises: Stop."""
    screen = begin(level)
    loaded = read_config(config)
    location = Location.of(loaded.config.store, state_directory(loaded.config))
    is_missing = only_reads and location.url is None and not location.path.exists()
    if is_missing:
        screen.note(f"there is no database yet, only what {line(loaded.path)} says: the first that is made makes it")

    async def main() -> int:
        try:
            async with _open(loaded, _no_store() if is_missing else await open_store(location)) as office:
                result = await action(office)
        except Invalid as error:
            raise Stop(line(error, 2000), BAD_INPUT) from None
        except (AdminError, StoreError, Unrecorded, NoKeySecret) as error:
            raise Stop(line(error, 2000), FAILED) from None
        show(screen, result)
        return OK

    return run_to_end(main)


def _no_store() -> "DirectoryStore":
    """All that an action which only reads asks of one."""
    return cast("DirectoryStore", EmptyStore())


@asynccontextmanager
async def _open(loaded: Loaded, store: "DirectoryStore") -> AsyncGenerator[Office]:
    file = directory_of(loaded.config.organizations)
    audit = audit_of_administration(loaded.config, state_directory(loaded.config), SystemClock())
    try:
        async with audit.running():
            yield Office(
                store,
                lambda: file,
                lambda: tuple(loaded.config.servers),
                SystemClock(),
                lambda: key_secret_of(loaded),
                AuditJournal(audit),
            )
    finally:
        await store.aclose()


def place_of(organization: str | None, team: str | None) -> tuple[str, str]:
    """Of `--org acme`, or of `--team acme/data`. Raises: Stop, unless it is one of them."""
    if (organization is None) == (team is None):
        raise Stop("name a place: --team ORGANIZATION/TEAM, or --org ORGANIZATION", BAD_INPUT)
    return (organization, "") if organization is not None else split_team(team or "")


def split_team(text: str) -> tuple[str, str]:
    """`acme/data`. Raises: Stop."""
    organization, slash, team = text.partition("/")
    if not slash or not organization or not team or "/" in team:
        raise Stop(f"{line(text)!r} names no team: write ORGANIZATION/TEAM, as in acme/data", BAD_INPUT)
    return organization, team


def rules_of(allow: Sequence[str] | None, deny: Sequence[str] | None, limits: str | None) -> Rules:
    """Of `--allow` and `--deny`, each given any number of times, and of `--limits`. Raises: Stop."""
    return Rules(
        KEPT if not allow else _list("--allow", allow),
        KEPT if not deny else _list("--deny", deny),
        KEPT if limits is None else _object("--limits", limits),
    )


def _list(option: str, texts: Sequence[str]) -> list[Any] | None:
    """A rule, a list of them, or `null` for no list at all."""
    found: list[Any] = []
    for text in texts:
        value = _value(option, text)
        if value is None and len(texts) == 1:
            return None
        found += value if isinstance(value, list) else [value]
    return found


def _object(option: str, text: str) -> dict[str, Any] | None:
    """An object, or `null` for none."""
    value = _value(option, text)
    if value is None or is_object(value):
        return value
    raise Stop(f"{option} must be an object, as in {{rate: 100/minute}}, or null", BAD_INPUT)


def _value(option: str, text: str) -> Any:
    if len(text) > _MAX_RULES:
        raise Stop(f"{option} is longer than {_MAX_RULES} characters: write it into the file", BAD_INPUT)
    try:
        return read_data(text)
    except UnreadableError as error:
        raise Stop(f"{option} is neither JSON nor YAML: {line(error, 500)}", BAD_INPUT) from None


def confirm(question: str, *, is_given: bool) -> None:
    """Ask, unless `--yes` was given. Raises: Stop, if the answer is no, or there is nobody to ask."""
    if is_given:
        return
    if not sys.stdin.isatty():
        raise Stop(f"{line(question, 500)} Nobody is there to answer: add --yes.", BAD_INPUT)
    if not typer.confirm(line(question, 500), err=True):
        raise Stop("nothing was changed", FAILED)


def plain(view: Any) -> dict[str, Any]:
    """A view as JSON, its times readable."""
    found = asdict(view)
    return {name: shown(value) if name in _TIMES else value for name, value in found.items()}


def show_one(screen: Screen, view: Any, *, as_json: bool) -> None:
    """A view, a field on each line."""
    fields = plain(view)
    if as_json:
        screen.json(fields)
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        if value not in (None, ""):
            said = [line(written(one), 2000) for one in (value if is_array(value) else [value])]
            for number, text in enumerate(said or ["nothing"]):
                screen.say(f"{name if not number else '':<{width}}  {text}")


def written(rule: Any) -> str:
    """A rule in one line, as it can be typed."""
    if is_object(rule):
        return "{" + ", ".join(f"{name}: {written(value)}" for name, value in rule.items()) + "}"
    if is_array(rule):
        return "[" + ", ".join(map(written, rule)) + "]"
    return str(rule)
