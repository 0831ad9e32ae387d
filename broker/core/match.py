"""Patterns over names and URIs, and which one wins.

A pattern is text in which only `*` is special (any run of characters, none included). It is matched in one pass
by searching its literal pieces in order: no regular expression, so no pattern and no name can make it slow (I-34).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Pattern:
    """`text` with `*` as the only wildcard, always matched against the whole name."""

    text: str
    _pieces: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pieces", tuple(self.text.split("*")))

    def matches(self, name: str) -> bool:
        """Whether the whole of `name` fits."""
        first, *middle = self._pieces
        if not middle:
            return name == first
        last = middle.pop()
        if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
            return False
        position, end = len(first), len(name) - len(last)
        for piece in middle:
            found = name.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True


EVERYTHING = Pattern("*")
_EXPRESSION = re.compile(r"\{[^{}]*\}")


@lru_cache(maxsize=4096)
def template_pattern(template: str) -> Pattern:
    """What an RFC 6570 template could expand to, as a pattern: every expression may be anything.

    It is wider than the template on purpose: it says which server's names a URI could be, and the server itself
    says whether it is.
    """
    return Pattern(_EXPRESSION.sub("*", template))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which rule spoke, by its place: `deny/0`, `allow/2`, or `allow` (a list in which nothing matched)."""

    allowed: bool
    rule: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Allow and deny lists of patterns. Deny wins, and what nothing allows is denied."""

    allow: tuple[Pattern, ...] = (EVERYTHING,)
    deny: tuple[Pattern, ...] = ()

    @classmethod
    def from_texts(cls, allow: Sequence[str], deny: Sequence[str]) -> "Rules":
        """Rules of pattern texts."""
        return cls(tuple(map(Pattern, allow)), tuple(map(Pattern, deny)))

    def judge(self, *names: str) -> Verdict:
        """The verdict on an entry known by any of `names` (a URI, and the template that covers it)."""
        if (index := _first_match(self.deny, names)) is not None:
            return Verdict(False, f"deny/{index}")
        if (index := _first_match(self.allow, names)) is not None:
            return Verdict(True, f"allow/{index}")
        return Verdict(False, "allow")


def _first_match(patterns: Sequence[Pattern], names: Sequence[str]) -> int | None:
    for index, pattern in enumerate(patterns):
        if any(pattern.matches(name) for name in names):
            return index
    return None
