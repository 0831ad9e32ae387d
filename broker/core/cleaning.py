"""What an upstream says of itself, before anybody reads it: invisible characters, lengths, pictures (I-39).

Descriptions and titles go into a model's context and onto screens. Characters that a reader does not see, with which a
text can say one thing to a model and another to its reader, are taken out wherever a text is for reading; what is for
machines (names, values, patterns of schemas) is left as it is. What was changed is said.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from broker.core.shape import is_array, is_object

MAX_DESCRIPTION: Final = 4096
"""Characters of a description; it is paid for, and believed, at every turn of every agent that sees it."""
MAX_TITLE: Final = 256
"""Characters of a title or a display name."""

_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor, hidden text
    # OSC and its like: links, the clipboard
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x1b[ -/]*[0-~]?"
)
"""Sequences that a terminal obeys (ECMA-48), with what they carry."""
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, tab and newline aside
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\ud800-\udfff"  # lone surrogates
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"  # tags and variation selectors
)
_VISIBLE_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml)[;,]", re.IGNORECASE)
_READABLE: Final[Mapping[str, int]] = {"description": MAX_DESCRIPTION, "title": MAX_TITLE}
_SCHEMAS: Final = ("inputSchema", "outputSchema")
_VALUES: Final = frozenset({"const", "default", "enum", "examples"})
"""Keys of a schema below which there are values, not schemas."""
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keys of a schema below which each key is a name that somebody chose."""


def clean(text: str) -> str:
    """`text` without terminal sequences, control, bidi, zero-width and tag characters; line ends become newlines."""
    if text.isascii() and text.isprintable():
        return text
    return _INVISIBLE.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def cut(text: str, limit: int, unread: int = 0) -> str:
    """`text` in at most `limit` characters: cut at a paragraph where one ends in the latter half, and said.

    `unread` is how many characters follow that the caller left out.
    """
    if len(text) <= limit and not unread:
        return text
    note = f"[cut: {len(text) + unread} characters, {limit} shown]"
    room = limit - len(note) - 2
    if room <= 0:
        return note[:limit]
    head = text[:room]
    for boundary in ("\n\n", "\n", " "):
        position = head.rfind(boundary)
        if position >= room // 2:
            head = head[:position]
            break
    return f"{head.rstrip()}\n\n{note}".lstrip()


def clean_item(item: dict[str, Any], *, has_own_name: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A definition as it may be shown, and what was changed in it; the same object, if nothing was.

    `has_own_name`: its `name` is for reading, since something else (a URI) identifies it.
    """
    said: list[str] = []
    cleaned = {key: _member(key, value, said, has_own_name=has_own_name) for key, value in item.items()}
    return (cleaned, tuple(dict.fromkeys(said))) if said else (item, ())


def _member(key: str, value: Any, said: list[str], *, has_own_name: bool) -> Any:
    if key in _READABLE:
        return _text(key, value, _READABLE[key], said)
    if key == "name" and has_own_name:
        return _text(key, value, MAX_TITLE, said)
    if key == "annotations" and is_object(value):
        return {
            one: _text("annotations.title", it, MAX_TITLE, said) if one == "title" else it for one, it in value.items()
        }
    if key == "arguments" and is_array(value):
        return [_argument(one, said) for one in value]
    if key == "icons" and is_array(value):
        return _icons(value, said)
    return _schema(key, value, said) if key in _SCHEMAS else value


def _argument(argument: Any, said: list[str]) -> Any:
    """An argument of a prompt: its name is what a caller fills in, the rest is for reading."""
    if not is_object(argument):
        return argument
    return {
        key: _text(f"arguments.{key}", value, _READABLE[key], said) if key in _READABLE else value
        for key, value in argument.items()
    }


def _icons(icons: list[Any], said: list[str]) -> list[Any]:
    """Spec: 2026-07-28 basic, "Icons": consumers "MUST" refuse other schemes than `https:` and `data:` (SP-55)."""
    kept = [icon for icon in icons if is_object(icon) and _is_safe_image(icon.get("src"))]
    if len(kept) < len(icons):
        said.append(f"icons: {len(icons) - len(kept)} left out, which are neither https: nor an image")
    return kept


def _is_safe_image(source: object) -> bool:
    if not isinstance(source, str):
        return False
    return source[:8].lower() == "https://" or _VISIBLE_IMAGE.match(source) is not None


def _schema(where: str, schema: Any, said: list[str], *, is_named: bool = False) -> Any:
    """A schema with its texts for reading cleaned: descriptions in it reach a model as any other does.

    Only its shape is walked, as deep as the wire lets messages be; nothing in it is followed or evaluated.
    """
    if is_array(schema):
        return [_schema(where, one, said) for one in schema]
    if not is_object(schema):
        return schema
    return dict(_members(where, schema, said, is_named=is_named))


def _members(where: str, schema: dict[str, Any], said: list[str], *, is_named: bool) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if is_named:
            yield key, _schema(where, value, said)
        elif key in _READABLE:
            yield key, _text(f"{where}: a {key}", value, _READABLE[key], said)
        elif key in _VALUES:
            yield key, value
        else:
            yield key, _schema(where, value, said, is_named=key in _NAMED)


def _text(what: str, value: Any, limit: int, said: list[str]) -> Any:
    if not isinstance(value, str):
        return value
    text = clean(value)
    if text != value:
        said.append(f"{what}: invisible characters taken out")
    if len(text) > limit:
        said.append(f"{what}: cut to {limit} characters")
        text = cut(text, limit)
    return text
