"""What is wrong with a configuration: said in plain words, with a place and a remedy, and never with a value.

Secrets live in the values, and problems end up in terminals, logs and tickets. So the three types here carry names,
places and remedies that we wrote; what they quote is chosen where they are made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class Fault(ValueError):
    """One thing that is wrong with one value, not yet tied to a place.

    A `ValueError`, so that a pydantic validator can raise it; the translation takes `message` and `remedy` from it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a configuration file.

    file: the path as it was given. line: counted from 1, None if the problem has no line (the file is missing).
    key: a dotted path such as `servers.docs.headers.Authorization`, empty for the file as a whole, in the words of the
    file (`mcpServers.My Server.url` in other people's files). message: without a full stop. remedy: a sentence, or "".
    """

    file: str
    line: int | None
    key: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = f"{self.key}: " if self.key else ""
        remedy = f". {self.remedy}" if self.remedy else ""
        return f"{place}: {subject}{self.message}{remedy}"


class ConfigError(Exception):
    """A configuration cannot be used. `problems`: every one that was found, in the order of the file, at least one.
    `files`: those that were read, or should have been: a change of one of them may mend it.
    """

    def __init__(self, problems: Sequence[Problem], files: Iterable[Path] = ()) -> None:
        self.problems = tuple(problems)
        self.files = frozenset(files)
        super().__init__("\n".join(str(problem) for problem in self.problems))
