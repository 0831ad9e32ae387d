"""Of all the commands that there are, a start needs one: the others are not built, for a host waits."""

from collections.abc import Sequence

import typer


def narrow(app: typer.Typer, words: Sequence[str]) -> None:
    """Leave the command that the first word names; all of them, if none is named so, for then they are told."""
    named = words[0] if words else ""
    chosen = [one for one in app.registered_commands if getattr(one.callback, "__name__", "") == named]
    if chosen:
        app.registered_commands, app.registered_groups = chosen, []
