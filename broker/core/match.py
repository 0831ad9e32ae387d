"""Patterns over names and URIs, and which one wins.

A pattern is text in which only `*` is special (any run of characters, none included). It is matched in one pass
by searching its literal pieces in order: no regular expression, so no pattern and no name can make it slow (I-34).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Final


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

    def could_begin(self, beginning: str) -> bool:
        """Whether any name that begins so, and is longer, fits."""
        first, *rest = self._pieces
        if not rest:
            return len(first) > len(beginning) and first.startswith(beginning)
        return first.startswith(beginning) or beginning.startswith(first)


EVERYTHING = Pattern("*")
_EXPRESSION = re.compile(r"\{[^{}]*\}")


@lru_cache(maxsize=4096)
def template_pattern(template: str) -> Pattern:
    """What an RFC 6570 template could expand to, as a pattern: every expression may be anything.

    It is wider than the template on purpose: it says which server's names a URI could be, and the server itself
    says whether it is.
    """
    return Pattern(_EXPRESSION.sub("*", template))


MAX_COVERED: Final = 1024
MAX_EXPRESSIONS: Final = 16
"""Characters of a URI, and expressions of a template, that `template_covers` looks at: for more the answer is no. It
takes time in proportion to both, and a server chooses one while a caller chooses the other: this many take 2 ms."""

_ENDS: Final = {"+": "", "#": "", "/": "?#", "?": "#", "&": "#"}
"""Characters that an expansion cannot hold, by the operator of its expression; `/?#` for any other."""
_STARTS: Final = "#./;?&"
"""Operators that their expansion begins with, unless it is empty."""


def template_covers(template: str, uri: str) -> bool:
    """Whether `uri` could be an expansion of an RFC 6570 template, in which `{x}` is one segment of a path.

    Narrower than `template_pattern`, because a caller is let in by it: `docs://{page}` must not be a way to what
    another template, `docs://private/{page}`, would have to show. (Servers that take a `/` in `{x}` mean `{+x}`.)
    """
    expressions = list(islice(_EXPRESSION.finditer(template), MAX_EXPRESSIONS + 1))
    if len(uri) > MAX_COVERED or len(expressions) > MAX_EXPRESSIONS:
        return False
    reached = {0}
    end = 0
    for found in (*expressions, None):
        literal = template[end : found.start() if found else len(template)]
        reached = {at + len(literal) for at in reached if uri.startswith(literal, at)}
        if found is not None:
            end = found.end()
            reached = _behind(found.group()[1:2], reached, uri)
    return len(uri) in reached


def _behind(operator: str, reached: set[int], uri: str) -> set[int]:
    """Where an expansion that begins at one of `reached` may end."""
    ends = _ENDS.get(operator, "/?#")
    begins = operator if operator in _STARTS else ""
    behind = set(reached)
    known = -1
    for start in sorted(reached):
        # What begins inside of what is known already ends at the same character.
        if start > known and uri.startswith(begins, start):
            at = start + len(begins)
            known = min((found for end in ends if (found := uri.find(end, at)) >= 0), default=len(uri))
            behind.update(range(at, known + 1))
    return behind


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
