"""Of all the commands that there are, a start needs one: the others are not built, for a host waits."""

import copy
from collections.abc import Sequence

import typer


def narrow(app: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """The same program with the command alone that the first word names; with all of them, if none is named so, for
    then they are told.
    """
    named = words[0] if words else ""
    chosen = [one for one in app.registered_commands if getattr(one.callback, "__name__", "") == named]
    if not chosen:
        return app
    narrowed = copy.copy(app)
    narrowed.registered_commands, narrowed.registered_groups = chosen, []
    return narrowed
