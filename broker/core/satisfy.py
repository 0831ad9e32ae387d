"""Could any call pass? The exact answer for rules with conditions, so that a tool is listed iff some call of it could
be permitted.

A *demand* is what one argument must be. An allow rule demands all its conditions; a deny rule is escaped by any one of
them. So a tool can be called iff out of each *clause* (the allow rules of one level; one deny rule) one alternative can
be chosen such that all that is demanded can be true of one object of arguments.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from broker.core.conditions import Path
from broker.core.domain import Domain, Plain

Demands: TypeAlias = Mapping[Path, Domain]
"""What some arguments must be, all at once."""
Clause: TypeAlias = Sequence[Demands]
"""Alternatives."""
_Trees: TypeAlias = Mapping[str, Demands]
"""Demands by the first key of their paths: what lies below one key says nothing of another."""

MAX_STEPS: Final = 500
"""Choices that are tried beyond one for each clause. The question is as hard as any (several deny rules with several
conditions are an instance of SAT), so rules could be written that hold the broker for hours; this many take some 6 ms.
"""


class TooComplex(Exception):
    """The answer was not found within `MAX_STEPS`; whoever asks must take it for no."""


def can_all_hold(clauses: Sequence[Clause]) -> bool:
    """Whether some object of arguments satisfies one alternative of each clause.

    Raises: TooComplex.
    """
    # Those without a choice first, and what cannot hold alone not at all: most rules leave nothing to search.
    ordered = sorted(([one for one in clause if can_hold(one)] for clause in clauses), key=len)
    steps = len(ordered) + MAX_STEPS
    chosen: list[tuple[_Trees, Iterator[Demands]]] = [({}, iter(ordered[0]))] if ordered else []
    while chosen:
        trees, alternatives = chosen[-1]
        for alternative in alternatives:
            steps -= 1
            if steps < 0:
                raise TooComplex
            both = _both(trees, _trees(alternative))
            if both is not None:
                break
        else:
            chosen.pop()
            continue
        if len(chosen) == len(ordered):
            return True
        chosen.append((both, iter(ordered[len(chosen)])))
    return not ordered


def can_hold(demands: Demands) -> bool:
    """Whether some object of arguments satisfies all demands. They meet where one path is the beginning of another."""
    return all(_can_be(below) for below in _trees(demands).values())


def _both(first: _Trees, second: _Trees) -> _Trees | None:
    """Both at once, or None if that cannot be."""
    both = dict(first)
    for key, below in second.items():
        known = first.get(key, {})
        both[key] = {
            **known,
            **{path: known[path] & domain if path in known else domain for path, domain in below.items()},
        }
        if not _can_be(both[key]):
            return None
    return both


def _can_be(demands: Demands) -> bool:
    """Whether a value can satisfy the demands on it (the path `()`) and on what lies below it.

    Below an object anything may lie; below what is absent, nothing does; below anything else, nothing is sure.
    """
    own = demands.get(())
    below = _trees({path: domain for path, domain in demands.items() if path})
    if not below:
        return own is None or not own.is_empty
    if (own is None or Plain.OBJECT in own.plain) and all(_can_be(one) for one in below.values()):
        return True
    return all(Plain.ABSENT in domain.plain for domain in demands.values())


def _trees(demands: Demands) -> _Trees:
    found: dict[str, dict[Path, Domain]] = {}
    for path, domain in demands.items():
        found.setdefault(path[0], {})[path[1:]] = domain
    return found
