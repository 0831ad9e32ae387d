"""`mcp-broker explain`: the rule by which a caller may or may not use something."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from broker.admin.insight import Explained, explained
from broker.cli.begin import begin, read_config, run_to_end
from broker.cli.cataloging import members
from broker.cli.exits import OK
from broker.cli.guise import put_on
from broker.cli.local import Local
from broker.cli.screen import Screen
from broker.cli.survey import survey
from broker.cli.words import line
from broker.compiled import naming_of
from broker.config import Loaded
from broker.core.caller import Caller
from broker.core.policy import ANY
from broker.core.request import Kind


def explain(
    config: Path | None,
    name: str,
    arguments: dict[str, Any] | None,
    *,
    who: str | None,
    view: str,
    kind: str | None,
    wait: float | None,
    show_all: bool,
    as_json: bool,
    level: str,
) -> int:
    """The exit code. Raises: Stop."""
    screen = begin(level)
    loaded = read_config(config)
    members(loaded, view)

    async def main() -> int:
        local = Local(loaded, _owner(loaded, name))
        caller = await put_on(local, who)
        async with local.running():
            await survey(local, screen, wait)
            found = explained(
                local.generation,
                caller,
                name,
                kind=None if kind is None else Kind(kind),
                view=view,
                arguments=ANY if arguments is None else arguments,
                at=local.broker.clock.wall(),
            )
        _show(screen, caller, found, show_all=show_all, as_json=as_json)
        return OK

    return run_to_end(main)


def _owner(loaded: Loaded, name: str) -> frozenset[str] | None:
    """The server that the form of a name belongs to; None if that is nobody's, and all must be asked."""
    naming = naming_of(loaded.config)
    owner = naming.resolve_uri(name) if ":" in name else naming.owner_of_name(name)
    return None if owner is None else frozenset({owner[0].key})


def _show(screen: Screen, caller: Caller, found: Explained, *, show_all: bool, as_json: bool) -> None:
    if as_json:
        screen.json({"caller": caller.principal, **asdict(found)})
        return
    how = "is permitted" if found.is_permitted else "is denied"
    why = "" if found.is_permitted else f": {line(found.reason, 1000)}"
    screen.say(f"{line(found.name)} {how} by {line(found.rule, 1000)}{why}")
    if found.is_hidden:
        screen.say("to the caller it sounds like a name that does not exist")
    if show_all:
        for step in found.steps:
            passed = "passed" if step.passed else "denied"
            screen.say(f"  {passed}  {line(step.rule, 1000)}: {line(step.reason, 1000)}")
