"""What a schema says of a content, in the process that may be killed for it.

No `$ref` leaves the schema: the metaschemas are there, and nothing else is fetched. Patterns are RE2's, in time that
grows with the text alone; what RE2 does not have (references back, looking around) is not supported. `format` is a
remark, as 2020-12 has it.
"""

import importlib
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

from broker.core.shape import is_object

RECURSION: Final = 4000
"""Frames of the interpreter. A content is at most 64 deep, and each level of it takes some ten; a schema that leads
back to itself without going deeper into the content ends here."""
MAX_PATTERN: Final = 4096
"""Characters of a pattern. RE2 takes time linear in the text, times the size of the pattern."""
MAX_PROGRAM: Final = 4 * 1024 * 1024
"""Bytes that RE2 may take for one pattern: thousands of them would not fit."""
MAX_PATH: Final = 200
"""Characters of the way to what did not fit: it is for one line of a log."""
DEFAULT: Final = "https://json-schema.org/draft/2020-12/schema"
"""Spec: 2026-07-28 basic, "Schema Dialect": "When a schema does not include a `$schema` field, it defaults to JSON
Schema 2020-12"."""

_re2: Any = importlib.import_module("re2")
_jsonschema: Any = importlib.import_module("jsonschema")
_referencing: Any = importlib.import_module("referencing")

_NOTHING: Final = _referencing.Registry()
"""What a `$ref` may lead to beside the schema itself and the metaschemas."""


OUT_OF_MEMORY: Final = (MemoryError, SystemError)
"""What says nothing of a schema: extension modules that get no memory may forget to say which error that is."""


class Unusable(Exception):
    """Nothing can be said by this schema. The text says why, in words of ours."""


class _Expressions:
    """What jsonschema finds under the name `re`."""

    def __init__(self) -> None:
        self._options = _re2.Options()
        self._options.max_mem = MAX_PROGRAM
        self._options.log_errors = False

    def search(self, pattern: str, text: str) -> object:
        """As `re.search`. Raises: Unusable."""
        if len(pattern) > MAX_PATTERN:
            raise Unusable(f"a pattern is longer than {MAX_PATTERN} characters")
        try:
            return _re2.search(pattern, text, self._options)
        except _re2.error:
            raise Unusable("RE2 does not understand a pattern of it") from None


def _multiple_of(validator: Any, divisor: Any, content: Any, _: object) -> Iterator[Any]:
    """As both numbers are written: divided as floats, 19.99 is no multiple of 0.01."""
    if validator.is_type(content, "number") and Fraction(str(content)) % Fraction(str(divisor)):
        yield _jsonschema.ValidationError("not a multiple")


class Checker:
    """One schema, read. Raises: Unusable."""

    def __init__(self, schema: object) -> None:
        try:
            dialect = _dialect(schema)
            # Not `check_schema`: it would have patterns compiled by `re`, as the format that they are said to be.
            error = next(dialect(dialect.META_SCHEMA, registry=_NOTHING).iter_errors(schema), None)
            if error is not None:
                raise Unusable(f"it is no schema: {_way(error)}")
            self._validator = dialect(schema, registry=_NOTHING)
        except (Unusable, *OUT_OF_MEMORY):
            raise
        except Exception as error:
            raise Unusable(_why(error)) from None

    def misfit(self, content: object) -> str | None:
        """Where in the schema is what a content does not fit; None if it fits. Raises: Unusable."""
        try:
            error = next(self._validator.iter_errors(content), None)
        except (Unusable, *OUT_OF_MEMORY):
            raise
        except Exception as error:
            raise Unusable(_why(error)) from None
        return None if error is None else _way(error)


def _dialect(schema: object) -> Any:
    if isinstance(schema, bool):
        return _jsonschema.Draft202012Validator
    if not is_object(schema):
        raise Unusable("it is no schema")
    name = schema.get("$schema", DEFAULT)
    found = _jsonschema.validators.validator_for({"$schema": name}, default=None) if isinstance(name, str) else None
    if found is None:
        raise Unusable("its dialect is not known")
    return found


def _way(error: Any) -> str:
    """Keywords and names of a schema, from its root to what said no. Nothing of a content is in it."""
    return ("/".join(map(str, error.schema_path)) or "false")[:MAX_PATH]


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it leads back to itself without end"
    if isinstance(error, _referencing.exceptions.Unresolvable):
        return "a $ref of it leads nowhere"
    return f"{type(error).__name__} while it was read"


def prepare() -> None:
    """Everything that is loaded late otherwise: in a confined process no file can be opened.

    jsonschema has no other way to bring one's own expressions: these modules have all the searches of its keywords.
    Nor has it one for a keyword of all dialects, in each part of a schema.
    """
    for name in ("_keywords", "_legacy_keywords", "_utils"):
        vars(importlib.import_module(f"jsonschema.{name}"))["re"] = _Expressions()
    for name in ("Draft3", "Draft4", "Draft6", "Draft7", "Draft201909", "Draft202012"):
        words: dict[str, Any] = getattr(_jsonschema, f"{name}Validator").VALIDATORS
        for word in words.keys() & {"multipleOf", "divisibleBy"}:
            words[word] = _multiple_of
    sys.setrecursionlimit(RECURSION)
    Checker({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"pattern": "^a"}}}).misfit(
        {}
    )
