"""What a worker is told by its supervisor, and what the ids that it gives out say of it.

A text that a worker gives out, and that must come back to it, begins with its number: `2.<what it would be alone>`. The
number is no secret, and proves nothing: who has another one asks another worker, which does not know the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

MAX_WORKERS: Final = 32
"""Workers of one broker: each has every server that is a command to itself, and a column in every count."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One of `count` workers, which are numbered from 1 on. One that is alone is as if there were none."""

    number: int = 1
    count: int = 1

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self.count == 1

    def mark(self, text: str) -> str:
        """`text`, with the number of this worker in front."""
        return text if self.is_alone else f"{self.number}.{text}"

    def unmark(self, text: object) -> object:
        """What was marked here; anything else as it is, since nobody here made it."""
        if self.is_alone or not isinstance(text, str):
            return text
        return text.removeprefix(f"{self.number}.")

    def other(self, text: object) -> int:
        """The number of the other worker that has given `text` out; 0: it was this one, or none."""
        if self.is_alone or not isinstance(text, str):
            return 0
        number = text[:3].partition(".")[0]
        if not number.isdecimal() or not number.isascii() or not text.startswith(f"{number}."):
            return 0
        owner = int(number)
        return owner if owner != self.number and 1 <= owner <= self.count else 0

    @property
    def next(self) -> int:
        """The number of the worker after this one, in a ring."""
        return self.number % self.count + 1


ALONE: Final = Worker()


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one worker is given, descriptors by their numbers. `serve` is what the command was given."""

    worker: Worker
    listener: int
    leash: int
    """A stream socket to the supervisor. An empty line says that the worker is ready, one with a number that it ends,
    within so many seconds. The end of the supervisor is the end of it."""
    board: int
    """Memory that all workers share: `board.py`."""
    bells: tuple[tuple[int, int], ...]
    """A pipe of each worker, by its number less one: reading and writing end."""
    directory: Path
    """Private to this broker: the workers' sockets."""
    serve: Mapping[str, Any]

    def text(self) -> str:
        """As JSON."""
        return json.dumps({**asdict(self), "directory": str(self.directory)})

    @classmethod
    def read(cls, text: str) -> "Assignment":
        """What `text` made."""
        given: dict[str, Any] = json.loads(text)
        return cls(
            Worker(**given["worker"]),
            given["listener"],
            given["leash"],
            given["board"],
            tuple((one, other) for one, other in given["bells"]),
            Path(given["directory"]),
            given["serve"],
        )


def socket_of(directory: Path, number: int) -> Path:
    """Where a worker takes connections from the others."""
    return directory / f"{number}.sock"
