"""What a guardrail finds when it runs: about forty names, and for each kind of value the methods that it has.

Nothing here is a module, a class of ours that can be taken apart, or an object of the broker: a guest holds plain
values, its own functions, and functions that take and give plain values. What a method or a function could cost is
not bounded here but by the worker's limits, since a loop in C heeds no counter of ours.
"""

import importlib
import operator
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, GeneratorType
from typing import Any, Final

from RestrictedPython import Guards

from broker.core import wire
from broker.guardrails.dialect import ENTRY

# Neither has types.
_re2: Any = importlib.import_module("re2")
_guards: Any = Guards
_operator: Any = operator

MAX_RANGE: Final = 1_000_000
MAX_PATTERN: Final = 4096
"""Characters. RE2 takes time linear in the text, times the size of the pattern."""
MAX_KEPT: Final = 64
"""Compiled patterns that a process keeps; each holds memory that no call has any more."""
MAX_WRITTEN: Final = 50_000
"""Texts of guardrails among which patterns are looked for."""
MAX_TEXT: Final = 4 * 1024 * 1024
"""Characters that one search reads."""
MAX_PROGRAM: Final = 4 * 1024 * 1024
"""Bytes that RE2 may take for one pattern."""

_STR: Final = (
    *("capitalize", "casefold", "center", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii"),
    *("isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper"),
    *("join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex"),
    *("rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title"),
    *("upper", "zfill"),
)
_LIST: Final = ("append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort")
_DICT: Final = ("clear", "copy", "get", "items", "keys", "pop", "setdefault", "update", "values")
_SET: Final = (
    *("add", "clear", "copy", "difference", "discard", "intersection", "isdisjoint", "issubset", "issuperset"),
    *("pop", "remove", "symmetric_difference", "union", "update"),
)


class Expressions:
    """`re2`: regular expressions in linear time. Patterns and texts are bounded; results are plain values."""

    __slots__ = ()

    def matches(self, pattern: str, text: str) -> bool:
        """Whether `pattern` is found anywhere in `text`."""
        return _pattern(pattern).search(_text(text)) is not None

    def fullmatch(self, pattern: str, text: str) -> bool:
        """Whether all of `text` is a match."""
        return _pattern(pattern).fullmatch(_text(text)) is not None

    def search(self, pattern: str, text: str) -> list[str | None] | None:
        """The first match: the whole of it, then its groups; None if there is none."""
        found = _pattern(pattern).search(_text(text))
        return None if found is None else [found.group(0), *found.groups()]

    def findall(self, pattern: str, text: str) -> list[str]:
        """All matches, each as a whole."""
        return [found.group(0) for found in _pattern(pattern).finditer(_text(text))]

    def sub(self, pattern: str, replacement: str, text: str) -> str:
        r"""`text` with every match replaced; `\1` in the replacement is the first group."""
        return _pattern(pattern).sub(_text(replacement), _text(text))


class Documents:
    """`json`: text in JSON to values and back, as strict as the wire."""

    __slots__ = ()

    def loads(self, text: str) -> Any:
        """The value of a JSON text. Raises: ValueError."""
        return wire.decode(_text(text).encode(), wire.Limits(size=MAX_TEXT))

    def dumps(self, value: Any) -> str:
        """The compact JSON text of a value. Raises: ValueError."""
        refuse_inexact(value)
        return wire.encode(value).decode()


ATTRIBUTES: Final[Mapping[type, frozenset[str]]] = {
    str: frozenset(_STR),
    list: frozenset(_LIST),
    dict: frozenset(_DICT),
    set: frozenset(_SET),
    frozenset: frozenset(_SET) - {"add", "clear", "discard", "pop", "remove", "update"},
    tuple: frozenset({"count", "index"}),
    int: frozenset({"bit_length"}),
    float: frozenset({"is_integer"}),
    Expressions: frozenset({"matches", "fullmatch", "search", "findall", "sub"}),
    Documents: frozenset({"loads", "dumps"}),
}
"""By exact type: whatever else a guest may hold (functions, generators, exceptions, types) has no attributes."""

KNOWN_ATTRIBUTES: Final = frozenset[str]().union(*ATTRIBUTES.values())


_written: set[str] = set()
_kept: dict[str, Any] = {}


def know(code: CodeType) -> None:
    """The texts that are written in a guardrail: patterns among them are compiled once. Those that a guardrail makes
    (of what a caller sent, perhaps) are not kept: each may hold `MAX_PROGRAM` bytes, which the next call would miss.
    """
    constants: list[Any] = list(code.co_consts)
    for constant in constants:
        kind = constant.__class__
        if kind is tuple:
            constants.extend(constant)
        elif kind is CodeType:
            constants.extend(constant.co_consts)
        elif kind is str and len(_written) < MAX_WRITTEN:
            _written.add(constant)


def _pattern(pattern: object) -> Any:
    if type(pattern) is not str or len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern is a text of at most {MAX_PATTERN} characters")
    found = _kept.get(pattern)
    if found is None:
        try:
            found = _re2.compile(pattern, _OPTIONS)
        except _re2.error:
            raise ValueError("RE2 does not understand this pattern") from None
        finally:
            _re2.purge()  # it keeps more than a hundred of its own, whatever they hold
        if pattern in _written and len(_kept) < MAX_KEPT:
            _kept[pattern] = found
    return found


def _text(text: object) -> str:
    if type(text) is not str or len(text) > MAX_TEXT:
        raise ValueError(f"a text of at most {MAX_TEXT} characters is needed")
    return text


def _options() -> Any:
    options = _re2.Options()
    options.max_mem = MAX_PROGRAM
    options.log_errors = False
    return options


_OPTIONS: Final = _options()


def _range(*bounds: Any) -> range:
    found = range(*bounds)
    if len(found) > MAX_RANGE:
        raise ValueError(f"a range of more than {MAX_RANGE} numbers")
    return found


BUILTINS: Final[dict[str, Any]] = {
    **{one.__name__: one for one in (abs, all, any, chr, divmod, isinstance, len, max, min, ord, repr, round)},
    **{one.__name__: one for one in (bool, dict, float, frozenset, int, list, set, str, tuple)},
    **{one.__name__: one for one in (enumerate, filter, map, reversed, sorted, sum, zip)},
    **{one.__name__: one for one in (Exception, ArithmeticError, AssertionError, AttributeError, IndexError)},
    **{one.__name__: one for one in (KeyError, LookupError, NotImplementedError, OverflowError, RuntimeError)},
    **{one.__name__: one for one in (TypeError, ValueError, ZeroDivisionError)},
    "range": _range,
    "re2": Expressions(),
    "json": Documents(),
}
"""What a guest can name without defining it. No module, nothing that opens, imports, prints, or makes a class."""

KNOWN_NAMES: Final = frozenset(BUILTINS)


def _getattr(value: Any, name: str) -> Any:
    if name in ATTRIBUTES.get(value.__class__, ()):
        return getattr(value, name)
    raise AttributeError(f"{type(value).__name__} has no .{name} here")


def _getitem(value: Any, index: Any) -> Any:
    if value.__class__ in _INDEXED:
        return value[index]
    raise TypeError(f"{type(value).__name__} has no items here")


def _write(value: Any) -> Any:
    if value.__class__ is dict or value.__class__ is list:
        return value
    raise TypeError(f"{type(value).__name__} cannot be changed")


def _iterated(value: Any) -> Any:
    if value.__class__ in _ITERATED:
        return value
    raise TypeError(f"{type(value).__name__} cannot be iterated")


def _inplace(symbol: str, value: Any, other: Any) -> Any:
    return _IN_PLACE[symbol](value, other)


def _apply(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    return function(*args, **keywords)


_INDEXED: Final = frozenset({str, list, dict, tuple, range})
_EMPTY: Final[Any] = {}
_NONE: Final[Any] = []
_ITERATED: Final[frozenset[Any]] = frozenset(
    {
        *(str, list, dict, tuple, set, frozenset, range, GeneratorType, enumerate, filter, map, reversed, zip),
        *(
            type(_EMPTY.keys()),
            type(_EMPTY.values()),
            type(_EMPTY.items()),
            type(reversed(_EMPTY)),
            type(reversed(_NONE)),
        ),
    }
)
_IN_PLACE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+=": _operator.iadd,
    "-=": _operator.isub,
    "*=": _operator.imul,
    "/=": _operator.itruediv,
    "//=": _operator.ifloordiv,
    "%=": _operator.imod,
    ">>=": _operator.irshift,
    "|=": _operator.ior,
    "^=": _operator.ixor,
    "&=": _operator.iand,
}
_GUARDS: Final[dict[str, Any]] = {
    "__builtins__": BUILTINS,
    "__name__": "guardrail",
    "_getattr_": _getattr,
    "_getitem_": _getitem,
    "_write_": _write,
    "_getiter_": _iterated,
    "_inplacevar_": _inplace,
    "_apply_": _apply,
    "_iter_unpack_sequence_": _guards.guarded_iter_unpack_sequence,
    "_unpack_sequence_": _guards.guarded_unpack_sequence,
}


class NoEntry(Exception):
    """The module has run, and what it calls `check` is no function of its own."""


def entered(code: CodeType, space: dict[str, Any]) -> FunctionType:
    """The `check` of a guardrail, its module run afresh in `space`, which the caller empties afterwards."""
    space.update(_GUARDS)
    exec(code, space)
    found = space.get(ENTRY)
    if type(found) is not FunctionType:
        raise NoEntry(f"{ENTRY} is no function")
    return found


def refuse_inexact(value: Any) -> None:
    """Only what JSON has, by exact type: an encoder would take a tuple for a list, a number for a key, NaN for null.

    Raises: ValueError.
    """
    level: list[Any] = [value]
    for _ in range(wire.FROM_CALLER.depth + 4):
        level = [child for one in level for child in _below(one)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _below(value: Any) -> Iterator[Any]:
    kind = value.__class__
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise ValueError("an object with a key that is no text")
        yield from value.values()
    elif kind is list:
        yield from value
    elif kind is float:
        if value - value != 0.0:
            raise ValueError("a number that JSON does not have")
    elif kind not in _SCALARS:
        raise ValueError(f"a {kind.__name__} where JSON has none")


_SCALARS: Final[frozenset[Any]] = frozenset({str, int, bool, type(None)})
