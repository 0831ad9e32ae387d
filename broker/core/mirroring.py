"""Arguments of tools that HTTP headers repeat, so that what stands in between can route by them.

The input schema says which (`x-mcp-header`). `tests/core` holds this to the SDK's own rules, which cost a second to
load.

Spec: 2026-07-28 basic/transports/streamable-http, "Custom Headers from Tool Parameters".
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from broker.core.headers import decoded, encoded
from broker.core.shape import is_array, is_object

Path = tuple[str, ...]
"""The names of properties, one inside the other, that lead to an argument."""

ANNOTATION: Final = "x-mcp-header"
PREFIX: Final = "Mcp-Param-"

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 5.6.2: what the name of a header consists of."""
_TYPES: Final = ("string", "integer", "boolean")
_INTEGRAL: Final = re.compile(r"(-?[0-9]{1,400})(?:\.0+)?")
"""As many digits as any number has that a body can carry; longer ones take quadratic time to convert."""

_IN_ONE: Final = frozenset(
    {
        *("items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "unevaluatedProperties"),
        *("not", "if", "then", "else", "contentSchema"),
    }
)
_IN_LIST: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_IN_MAP: Final = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})
"""Keywords of JSON Schema 2020-12 whose values are schemas: one, a list of them, or by name. What other keywords hold
is data, in which an annotation is none; `$ref` leads to places that are visited anyway."""


def fault_of(schema: object) -> str | None:
    """What is wrong with the annotations of an input schema, or None. A tool with such a schema is not to be used."""
    seen: set[str] = set()
    for path, node in _schemas(schema):
        if ANNOTATION not in node:
            continue
        name, kind = node[ANNOTATION], node.get("type")
        if not path:
            return f"{ANNOTATION} stands where no chain of `properties` leads"
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            return f"{ANNOTATION} of {'.'.join(path)!r} is no token of RFC 9110"
        if kind not in _TYPES:
            return f"{ANNOTATION} of {'.'.join(path)!r}: only a string, an integer or a boolean may have one"
        if name.lower() in seen:
            return f"{ANNOTATION} {name!r} stands twice"
        seen.add(name.lower())
    return None


def mirrored(schema: object) -> dict[Path, str]:
    """The arguments that headers repeat, and the names of those after `PREFIX`; of a schema without a fault."""
    return {path: name for path, name, _ in _annotated(schema)}


def headers_for(names: Mapping[Path, str], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a call with these arguments. What is absent, null, or no simple value has none."""
    found = ((name, _text(_argument(arguments, path))) for path, name in names.items())
    return {f"{PREFIX}{name}": encoded(text) for name, text in found if text is not None}


def disagreement(schema: object, arguments: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """In which way the headers say something else than the arguments, or None. `headers`: by lower-case name.

    They are there both, and equal, or neither is. A schema with a fault asks for nothing: callers drop such a tool.
    """
    if fault_of(schema) is not None:
        return None
    for path, name, node in _annotated(schema):
        header, value, argument = f"{PREFIX}{name}", _argument(arguments, path), ".".join(path)
        said, text = headers.get(header.lower()), _text(value)
        if said is None and text is None:
            continue
        if said is None:
            return f"{header} header is missing but the request body's {argument!r} argument is present"
        if value is None:
            return f"{header} header is present but the request body's {argument!r} argument is absent"
        plain = decoded(said)
        if plain is None:
            return f"{header} header carries a malformed base64 sentinel value"
        if plain != text and not (node.get("type") == "integer" and _is_number(value, plain)):
            return f"{header} header does not match the request body's {argument!r} argument"
    return None


def _schemas(root: object) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Every schema inside a schema, itself too, with the path to it; None where something else than `properties` is on
    the way. Without recursion: no schema is too deep.
    """
    left: list[tuple[Path | None, object]] = [((), root)]
    while left:
        path, node = left.pop()
        if not is_object(node):
            continue
        yield path, node
        for keyword, value in node.items():
            if keyword == "properties" and is_object(value):
                left += (((*path, name) if path is not None else None, below) for name, below in value.items())
            elif keyword in _IN_ONE:
                left.append((None, value))
            elif keyword in _IN_LIST and is_array(value):
                left += ((None, below) for below in value)
            elif keyword in _IN_MAP and is_object(value):
                left += ((None, below) for below in value.values())


def _annotated(schema: object) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    for path, node in _schemas(schema):
        name = node.get(ANNOTATION)
        if path and isinstance(name, str):
            yield path, name, node


def _argument(arguments: Mapping[str, Any], path: Path) -> object:
    """The value at a path; None where the path ends before."""
    node: object = arguments
    for name in path:
        if not is_object(node):
            return None
        node = node.get(name)
    return node


def _text(value: object) -> str | None:
    """How a header says a value; None for what it cannot say."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _is_number(value: object, said: str) -> bool:
    """Whether a header says this integer, in digits of its own: `42.0` is 42. Without a float in between, which would
    not tell large ones apart.
    """
    is_integer = (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )
    found = _INTEGRAL.fullmatch(said) if is_integer else None
    return found is not None and int(found[1]) == value
