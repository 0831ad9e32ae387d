"""The text of a guardrail as a value, with what a run of it may use; and what can be wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import orjson

MAX_SOURCE: Final = 64 * 1024
"""Bytes of a text. The parser's memory and time grow with it, and a check that needs more is a program."""


class Step(Enum):
    """What a process can be asked: to read a source, to run its module, to run its `check`."""

    COMPILE = "compile"
    ENTER = "enter"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Source:
    """One guardrail.

    text: UTF-8. sha256: its digest (hex), which names it everywhere. timeout: seconds of wall clock for a run. memory:
    bytes beyond what a process has before it. size: bytes of what is judged, and of what is returned.
    """

    name: str
    text: bytes = field(repr=False)
    sha256: str
    timeout: float = 0.25
    memory: int = 64 * 1024 * 1024
    size: int = 1024 * 1024
    orders: Mapping[Step, bytes] = field(init=False, repr=False, compare=False)
    """What a process is told for each step: made once."""

    def __post_init__(self) -> None:
        common = {"id": self.sha256, "cpu": self.timeout, "memory": self.memory}
        orders = {step: orjson.dumps({"do": step.value, **common}) + b"\n" for step in Step}
        object.__setattr__(self, "orders", orders)


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a text is no guardrail. `line` is counted from 1."""

    line: int
    message: str
