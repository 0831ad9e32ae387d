"""What a state directory calls itself in a database that others use too: which files of the index are its own."""

import os
from pathlib import Path
from typing import Final

NAME: Final = "origin"
_LENGTH: Final = 32


def origin_of(directory: Path) -> str | None:
    """The name; None, if there is none yet. Raises: OSError."""
    try:
        return (directory / NAME).read_text("ascii").strip()[:_LENGTH] or None
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def make_origin(directory: Path, name: str) -> str:
    """The name, which is `name` unless there is one. Raises: OSError."""
    found = origin_of(directory)
    if found is not None:
        return found
    made = directory / f"{NAME}.{name}"
    made.write_text(name, "ascii")
    try:
        os.link(made, directory / NAME)  # whole or not at all, and never over that of another broker
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return origin_of(directory) or name
